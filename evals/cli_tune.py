"""`evals tune`: the command line of a sweep over training settings."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated

import typer


def tune(
    activations: Annotated[
        Path,
        typer.Argument(
            help="An activation store, as `rsae harvest` makes it, or your own: a .npy, .pt or .safetensors file of "
            "rows, or a directory of such files."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Directory of the results.")],
    family: Annotated[
        list[str] | None, typer.Option(help="Family to tune. May be repeated; by default seven.")
    ] = None,
    l0: Annotated[
        int, typer.Option(min=1, help="Where settings are compared; the k of families with one.")
    ] = 32,
    d_sae: Annotated[int, typer.Option(min=1, help="Latents.")] = 1536,
    steps: Annotated[int, typer.Option(min=1, help="Training steps; rates suit a number of steps.")] = 800,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUES",
            help="An option and its values, as lr=1e-3,3e-3,1e-2; each combination of all --vary is trained. May be "
            "repeated; by default lr=1e-3,3e-3,1e-2 and bias_lr=1,10.",
        ),
    ] = None,
    then: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUES",
            help="After that: one option, each value beside the best so far. May be repeated, and goes in this order.",
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="An option with one value for all, as batch=2048. May be repeated."
        ),
    ] = None,
    seed: Annotated[str, typer.Option(help="Of the starts: 0, or several as 0,1,2.")] = "0",
    skip: Annotated[
        bool,
        typer.Option("--skip", help="With a target in the activations: transcoders with a skip connection."),
    ] = False,
    jobs: Annotated[
        int, typer.Option(min=1, help="Number of processes; each takes families of its own.")
    ] = 1,
    window: Annotated[
        int, typer.Option(min=0, help="For activations larger than memory: shuffle this many.")
    ] = 0,
    heldout: Annotated[
        float, typer.Option(min=0, help="Of your own activations: rows to hold out, or a share.")
    ] = 0.1,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
) -> None:
    """Find out how to train each family on your activations: a sweep, compared by held-out FVU at the same l0.

    An option is any of the training's (optimizer, lr, bias_lr, threshold_lr, lr_warmup, lr_decay, beta1, beta2,
    revival, dead_after, batch, ...; see docs/training.md) or of a family (threshold, bandwidth, ...). Such as:

        rsae harvest store --hook blocks.6.hook_mlp_out

        evals tune store runs/tune --family top_k --family gated --then revival=0,0.03125,0.25 --then beta1=0,0.9

        evals tune store runs/tune --family top_k --vary lr=1e-3,3e-3,1e-2 --vary optimizer=adam,muon,schedule_free

    The trainings of a family run in one pass over the activations. A stopped sweep goes on where it was; a wider one
    trains only what is new. Where a penalty's l0 misses the wanted one, FVU is brought to it by the slope between the
    best and the same at 1.25 times the l0; both are printed. OUT holds tune.json (all figures), tune.toml (the best),
    tune.png. With one seed, differences of 1 % are noise: give --seed 0,1,2 before you believe them.
    """
    from evals.report.tables import show
    from evals.report.text import tuning_table
    from evals.tuning import FAMILIES, command
    from evals.tuning import tune as run_tuning
    from rsae import InputError, TrainConfig
    from rsae.activations.open import open_activations
    from rsae.support.values import parse_settings, parse_values

    fixed = parse_settings("--setting", setting or [])
    if named := [name for name in fixed if name in inspect.signature(tune).parameters]:
        raise InputError(f"--setting {named[0]}: it has an option of its own, --{named[0].replace('_', '-')}")
    if not all(part.strip().isdigit() for part in seed.split(",")):
        raise InputError(f"--seed {seed!r}: write a number, or several as 0,1,2")
    families = family or FAMILIES
    found = run_tuning(
        open_activations(activations, window, heldout),
        out,
        families,
        l0,
        parse_values("--vary", vary) if vary else None,
        parse_values("--then", then or []),
        TrainConfig(steps=steps),
        [int(part) for part in seed.split(",")],
        jobs,
        device,
        **{"d_sae": d_sae, "skip": skip} | fixed,
    )
    show(tuning_table(found, l0), markdown)
    read = {"--heldout": (heldout, 0.1), "--window": (window, 0), "--device": (device, "cpu")}
    data = " ".join(f"{option} {value}" for option, (value, default) in read.items() if value != default)
    for one in found.values():
        typer.echo(command(one, l0, data))
    typer.echo(f"{out}: tune.json, tune.toml and tune.png")
    if missing := [name for name in families if name not in found]:
        raise InputError(
            f"{', '.join(missing)}: no training came within a quarter of l0 {l0}; the others are there. Give more "
            "--steps, or other values"
        )
