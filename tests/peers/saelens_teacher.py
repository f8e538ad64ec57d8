"""The teacher of the README: a TopK SAE that SAELens trains on a store of ours, and saves.

    .venv-peers/bin/python -m tests.peers.saelens_teacher STORE OUT

500 steps of 1024 tokens by SAELens's own training class and loss, in the scale that its trainer gives activations.
"""

# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

import sys

import torch

import rsae

STEPS = 500


def main(activations: str, out: str) -> None:
    import sae_lens
    from sae_lens.registry import get_sae_training_class
    from sae_lens.saes.sae import SAEMetadata, TrainStepInput

    torch.manual_seed(0)
    store = rsae.Store.open(activations)
    here = store.provenance
    metadata = SAEMetadata(
        model_name=here.model, hook_name=here.hook, context_size=here.context, prepend_bos=here.bos
    )
    cls, cfg_cls = get_sae_training_class("topk")
    sae = cls(
        cfg_cls(
            d_in=store.d_in,
            d_sae=1536,
            k=32,
            normalize_activations="expected_average_only_in",
            use_sparse_activations=False,
            metadata=metadata,
        )
    )
    optimiser = torch.optim.Adam(sae.parameters(), lr=1e-3)
    coefficients = {name: getattr(c, "value", c) for name, c in sae.get_coefficients().items()}
    for step in range(STEPS):
        x_BD = store.batch(step, 1024, 0) * store.scale
        given = TrainStepInput(x_BD, coefficients, None, step, False)
        loss = sae.training_forward_pass(given).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 50 == 0:
            print(f"step {step}: {loss.item():.1f}", file=sys.stderr)
    sae.fold_activation_norm_scaling_factor(store.scale)
    sae.save_inference_model(out)
    x_BD = torch.cat([*store.blocks("heldout")])
    with torch.no_grad():
        error_BD = sae_lens.SAE.load_from_disk(out)(x_BD) - x_BD
    print(f"FVU by SAELens: {(error_BD.square().sum() / (x_BD - x_BD.mean(0)).square().sum()).item():.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
