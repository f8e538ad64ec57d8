"""Without the peers installed (`make test-peers` installs them) there is nothing to collect here."""

# pyright: basic, reportMissingImports=false

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("sae_lens") else ["test_*.py"]

if find_spec("jaxtyping"):
    import jaxtyping

    # SAEBench's probing breaks its own shape annotations
    jaxtyping.config.update("jaxtyping_disable", True)
