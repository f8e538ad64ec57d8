"""SA-GSAE's synthetic protocols (arXiv 2605.28149, appendix C): data with a known truth.

Constants are our own, since the paper's are not public; docs/synthetic.md lists them with what was measured.
"""

from evals.synthetic.run import run_protocol

__all__ = ["run_protocol"]
