# %% [markdown]
# # Compare SAEs
# Two SAEs at about the same l0, and one of them with its active latents solved together, measured on the same held-out rows, on the
# code that is decoded and counted.

# %%
import torch

import evals
import rsae

generator = torch.Generator().manual_seed(0)
W_GD = torch.nn.functional.normalize(torch.randn(256, 48, generator=generator), dim=1)
active_NG = torch.rand(6_000, 256, generator=generator) < 6 / 256
x_ND = (active_NG * (0.5 + torch.rand(6_000, 256, generator=generator))) @ W_GD
store = rsae.Store.of(x_ND, heldout=1000)

saes = {}
for family, k in (("top_k", 6), ("batch_top_k", 6)):
    saes[family] = rsae.new(family, store, d_sae=256, k=k)
    rsae.train(saes[family], store, rsae.TrainConfig(steps=250, batch=256, lr=3e-3))
saes["top_k, pursued"] = rsae.pursuit(saes["top_k"])

# %% [markdown]
# l0 is the mean number of non-zero entries of the decoded code; FVU is the share of the variance that is lost.

# %%
for name, sae in saes.items():
    figures = evals.reconstruction(sae, store)
    print(f"{name:16} FVU {figures.fvu:.4f}  l0 {figures.l0:5.2f}  alive {figures.alive:.2f}")

# %% [markdown]
# What the truth says: how well the decoder's rows match the hidden directions (each is matched once), and how often the matched
# latent fires where its feature is on. On a language model nobody knows the truth; here we do.

# %%
from scipy.optimize import linear_sum_assignment

for name, sae in saes.items():
    cosine_FG = torch.nn.functional.normalize(sae.W_dec.detach(), dim=1) @ W_GD.T
    rows, columns = linear_sum_assignment(-cosine_FG.abs().numpy())
    fired_NG = sae.encode(x_ND[-1000:])[:, rows] != 0
    on_NG = active_NG[-1000:, columns]
    recall = (fired_NG & on_NG).sum() / on_NG.sum()
    print(
        f"{name:16} mean |cos| of the match {cosine_FG.abs()[rows, columns].mean():.3f}, found on {recall:.3f}"
    )

# %% [markdown]
# Grids of hosts, layers, families, levels and seeds, with controls and standard errors: `evals run standard --out runs/standard`,
# then `evals compare runs/standard` and `evals report runs/standard`.
