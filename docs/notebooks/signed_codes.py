# %% [markdown]
# # Signed codes
# A Sign-Aware Gated SAE gives each latent two signs: one decoder direction stands for a feature and its opposite. Here hidden
# directions are used with both signs, so a non-negative SAE needs two latents for each: with 128 it comes near what the signed
# one does with 64, once both are trained for long enough.

# %%
import torch

import evals
import rsae

generator = torch.Generator().manual_seed(0)
W_GD = torch.nn.functional.normalize(torch.randn(64, 32, generator=generator), dim=1)
sign_NG = torch.where(torch.rand(6_000, 64, generator=generator) < 0.5, -1.0, 1.0)
active_NG = torch.rand(6_000, 64, generator=generator) < 4 / 64
x_ND = (sign_NG * active_NG * (0.5 + torch.rand(6_000, 64, generator=generator))) @ W_GD
store = rsae.Store.of(x_ND, heldout=1000)

# %%
train = rsae.TrainConfig(steps=1500, batch=256, lr=3e-3, l0=4.0)
for family, d_sae in (("gated", 128), ("gated", 64), ("sign_aware_gated", 64)):
    sae = rsae.new(family, store, d_sae=d_sae)
    rsae.train(sae, store, train)
    figures = evals.reconstruction(sae, store)
    both = "" if figures.bipolar is None else f"  latents that use both signs {figures.bipolar:.2f}"
    print(f"{family:16} {d_sae:4} latents  FVU {figures.fvu:.4f}  l0 {figures.l0:.2f}{both}")

# %% [markdown]
# The code of a signed SAE has entries of either sign; what it decodes and what l0 counts is that code.

# %%
z = sae.encode(store.sample(500, split="heldout"))
print(
    f"{(z > 0).float().mean():.3f} positive, {(z < 0).float().mean():.3f} negative, {(z == 0).float().mean():.3f} zero"
)
assert (z < 0).any()
assert (z > 0).any()
