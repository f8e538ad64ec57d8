# %% [markdown]
# # Make a trained SAE better
# You have an SAE and some activations. Here both are made on the spot, so that the notebook runs from a fresh clone in seconds:
# vectors that are sparse combinations of 256 hidden directions in 48 dimensions, and a TopK SAE trained on them for a short time.
# With your own: `store = rsae.Store.of("activations.npy")`, `teacher = rsae.load("my-sae")`.

# %%
import torch

import rsae

generator = torch.Generator().manual_seed(0)
W_GD = torch.nn.functional.normalize(torch.randn(256, 48, generator=generator), dim=1)
active_NG = torch.rand(6_000, 256, generator=generator) < 6 / 256
x_ND = (active_NG * (0.5 + torch.rand(6_000, 256, generator=generator))) @ W_GD
store = rsae.Store.of(x_ND, heldout=1000)

teacher = rsae.new("top_k", store, d_sae=256, k=6)
rsae.train(teacher, store, rsae.TrainConfig(steps=250, batch=256, lr=3e-3))


def fvu(sae: rsae.SAE) -> float:
    x = torch.cat(list(store.blocks("heldout")))
    with torch.no_grad():
        return ((sae(x) - x).square().sum() / (x - x.mean(0)).square().sum()).item()


print(f"teacher: FVU {fvu(teacher):.4f}")

# %% [markdown]
# **Without training**: the same weights and the same number of active latents, solved together.

# %%
pursued = rsae.pursuit(teacher)
x = store.sample(500, split="heldout")
assert ((pursued.encode(x) != 0).sum(1) <= (teacher.encode(x) != 0).sum(1)).all()
print(f"pursuit, no training: FVU {fvu(pursued):.4f}")

# %% [markdown]
# **With fine-tuning**, and the control: the teacher fine-tuned by the same budget. No comparison is worth much without it.

# %%
budget = rsae.TrainConfig(steps=100, batch=256, lr=1e-3)
for variant in ("gated", "pursuit"):
    config = rsae.UpgradeConfig(variant=variant, type=(3, 2), tune=budget)
    new = rsae.upgrade(teacher, store, config=config)
    assert new.control is not None
    print(f"{variant:8} FVU {fvu(new.tuned):.4f}; control {fvu(new.control):.4f}", end="; ")
    print(f"control with pursuit {fvu(rsae.pursuit(new.control)):.4f}")

# %% [markdown]
# Save it. SAELens reads the directory after `import rsae.formats.saelens`; `rsae.save(rsae.plain(sae), ...)` writes the plain SAE
# for tools that know no pursuit.

# %%
import tempfile

with tempfile.TemporaryDirectory() as directory:
    rsae.save(new.tuned, directory)
    assert torch.equal(rsae.load(directory)(x), new.tuned(x))
