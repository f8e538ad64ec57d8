"""`python -m rsae`, and `torchrun -m rsae`."""

from rsae.cli import main

main()
