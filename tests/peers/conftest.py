"""Without the peers installed (`make test-peers` installs them) there is nothing to collect here."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("sae_lens") else ["test_*.py"]
