"""`python -m approx`."""

from approx.cli import main

main()
