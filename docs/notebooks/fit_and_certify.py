# %% [markdown]
# # Fit a rational function and prove its error
# A best approximation of ReLU, its certificate, and code for it. Everything here runs in seconds.

# %%
import tempfile
from pathlib import Path

import numpy as np

import approx

target = approx.relu()  # on [-1, 1]; approx.Target(f, domain=(a, b)) takes any function of yours
fit = approx.minimax(target, (5, 4))
print(f"largest error {fit.error:.12g}, converged {fit.converged}")

# %% [markdown]
# The error equioscillates: that is what makes it the best of its type.

# %%
r, x = fit.rational, fit.reference
print(np.round((r(x) - target(x)) / fit.error, 6))

# %% [markdown]
# A certificate is a proof by ball arithmetic: lower <= sup |f - r| <= upper. It can be replayed from its file alone.

# %%
proof = approx.certify(fit)
print(proof.lower, proof.upper, "pole-free:", proof.pole_free)
print("no function of this type has an error below", proof.best_lower)
assert float(proof.best_lower) <= float(proof.upper)

with tempfile.TemporaryDirectory() as directory:
    file = Path(directory) / "relu-5-4.json"
    proof.save(file)
    approx.verify(file)  # raises on any mismatch

# %% [markdown]
# ReLU's error falls with the degree like exp(-c sqrt(n)).

# %%
for n in (2, 4, 6, 8):
    print((n + 1, n), f"{approx.minimax(target, (n + 1, n)).error:.3e}")

# %% [markdown]
# Source code for it, with the error of its evaluation in float32 stated in its header.

# %%
print(approx.export(r, "c")[:400])
