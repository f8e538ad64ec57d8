"""`rsae`: harvest activations, train a teacher, upgrade it to a rational SAE, look at one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from rsae.command import run

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Sparse autoencoders with trainable rational activations.\n\n"
    "From nothing to a rational SAE and its control:\n\n"
    "    rsae harvest store\n\n"
    "    rsae train top_k store teacher --k 32\n\n"
    "    rsae upgrade teacher --activations store --out upgraded\n\n"
    "Each command can be interrupted: the same command again goes on where it stopped.",
)

StorePath = Annotated[
    Path, typer.Argument(help="Directory of an activation store, as `rsae harvest` makes it.")
]


@app.command()
def harvest(
    out: Annotated[Path, typer.Argument(help="Directory for the store.")],
    host: Annotated[
        str, typer.Option(help="smollm2-135m (embedded), a directory, a .gguf file or a hub name.")
    ] = "smollm2-135m",
    hook: Annotated[
        str, typer.Option(help="blocks.L.hook_SITE, SITE one of resid_pre, attn_out, mlp_out, resid_post.")
    ] = "blocks.12.hook_resid_pre",
    text: Annotated[str, typer.Option(help="wikipedia (embedded), a .txt or a .jsonl file.")] = "wikipedia",
    context: Annotated[int, typer.Option(min=2, help="Tokens a sequence.")] = 128,
    tokens: Annotated[int, typer.Option(min=1, help="Training tokens, at least.")] = 125_000,
    heldout_tokens: Annotated[
        int, typer.Option(min=1, help="Held-out tokens (from other articles), at least.")
    ] = 12_000,
    norm_limit: Annotated[
        float, typer.Option(help="Leave out tokens above so many times the median norm.")
    ] = 10.0,
    seed: Annotated[int, typer.Option(help="Of the split by article.")] = 0,
    dtype: Annotated[
        str, typer.Option(help="Of the stored activations: float32, bfloat16, float16.")
    ] = "float32",
    device: Annotated[str, typer.Option(help="Where the host runs: cpu, cuda, ...")] = "cpu",
) -> None:
    """Run a host over text and store its activations: 125,000 tokens in about 100 s on 2 cores."""
    from rsae import HarvestConfig, InputError, load_host
    from rsae import harvest as run_harvest
    from rsae.activations.host import DTYPES

    if dtype not in DTYPES:
        raise InputError(f"--dtype {dtype!r}: choose from {', '.join(DTYPES)}")
    settings = (host, hook, text, context, tokens, heldout_tokens, norm_limit, seed, dtype)
    config = HarvestConfig(*settings)  # type: ignore[arg-type]
    store = run_harvest(config, out, None if device == "cpu" else load_host(host, device))
    typer.echo(
        f"{out}: {store.tokens()} training and {store.tokens('heldout')} held-out tokens of {store.d_in} dimensions"
    )


@app.command()
def train(
    family: Annotated[str, typer.Argument(help="relu, jump_relu or top_k.")],
    store: StorePath,
    out: Annotated[Path, typer.Argument(help="Directory for the SAE.")],
    d_sae: Annotated[int, typer.Option(min=1, help="Latents.")] = 1536,
    k: Annotated[int, typer.Option(min=1, help="TopK: active latents a token.")] = 32,
    sparsity: Annotated[
        float, typer.Option(min=0, help="Weight of the L1 (relu) or l0 (jump_relu) penalty.")
    ] = 3.0,
    steps: Annotated[int, typer.Option(min=1)] = 1000,
    batch: Annotated[int, typer.Option(min=1, help="Tokens a step.")] = 1024,
    lr: Annotated[float, typer.Option(help="Adam's peak learning rate.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Of the start and the data order.")] = 0,
) -> None:
    """Train an SAE, the teacher of a later upgrade."""
    from rsae import Store, TrainConfig, save
    from rsae import train as run_train
    from rsae.sae import family as family_class

    cls = family_class(family)
    activations = Store.open(store)
    settings: dict[str, Any] = {"d_in": activations.d_in, "d_sae": d_sae}
    if "top_k" in family:
        settings["k"] = k
    sae = cls.from_settings(settings)
    sae.rescale_(1 / activations.scale)
    sae.initialise(activations.sample(8192, seed), seed)
    config = TrainConfig(steps=steps, batch=batch, lr=lr, sparsity=sparsity, seed=seed)
    history = run_train(sae, activations, config, out / "checkpoint.safetensors")
    save(sae, out)
    typer.echo(f"{out}: {family}, {d_sae} latents, l0 {history[-1]['l0']:.1f}")


@app.command()
def upgrade(
    teacher: Annotated[Path, typer.Argument(help="Directory of a trained SAE.")],
    activations: Annotated[Path, typer.Option(help="Directory of an activation store.")],
    out: Annotated[Path, typer.Option(help="Directory for `initial`, `tuned` and `control`.")],
    variant: Annotated[
        str, typer.Option(help="gated (rational magnitude behind a dead zone) or soft (the paper's).")
    ] = "gated",
    type: Annotated[str, typer.Option(help="Type of the rational function, as m,n.")] = "9,8",
    steps: Annotated[int, typer.Option(min=1, help="Fine-tuning steps, the same for the control.")] = 300,
    batch: Annotated[int, typer.Option(min=1, help="Tokens a step.")] = 1024,
    sparsity: Annotated[
        float, typer.Option(min=0, help="Weight of the penalty in fine-tuning; 0 takes the teacher's own.")
    ] = 0.0,
    lr: Annotated[float, typer.Option(help="Adam's peak learning rate.")] = 3e-4,
) -> None:
    """Upgrade a teacher to a rational SAE, and fine-tune the control by the same budget."""
    from rsae import InputError, Store, TrainConfig, UpgradeConfig, load
    from rsae import upgrade as run_upgrade

    try:
        m, n = map(int, type.split(","))
    except ValueError:
        raise InputError(f"--type {type!r}: write two degrees, such as 9,8") from None
    if variant not in ("gated", "soft"):
        raise InputError(f"--variant {variant!r}: choose gated or soft")
    tune = TrainConfig(steps=steps, batch=batch, lr=lr, sparsity=sparsity, sparsity_warmup=0.0)
    config = UpgradeConfig(variant=variant, type=(m, n), tune=tune)  # type: ignore[arg-type]
    new = run_upgrade(load(teacher), Store.open(activations), config=config, out=out)
    for name in ("control", "tuned"):
        last = new.history[name][-1]
        typer.echo(
            f"{out}/{name}: ||x - x_hat||^2 {last['sse']:.2f} (normalised), l0 {last['l0']:.1f} in training"
        )
    typer.echo("measure both on held-out tokens before you believe either: see `evals --help`")


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="Directory, file, or hub repository OWNER/NAME of an SAE.")],
    out: Annotated[Path, typer.Argument(help="Directory for the SAE.")],
    format: Annotated[
        str, typer.Option(help="saelens (native), dictionary_learning, sparsify or gemma_scope.")
    ] = "saelens",
    input_scale: Annotated[
        float | None, typer.Option(help="sqrt(d_in) / mean norm, where the source asks for it.")
    ] = None,
    normalised: Annotated[
        bool,
        typer.Option("--normalised", help="Take an SAE of layer-normalised activations as one of those."),
    ] = False,
    revision: Annotated[str | None, typer.Option(help="Of a hub repository: branch, tag or commit.")] = None,
    subfolder: Annotated[str | None, typer.Option(help="The SAE's folder in the source.")] = None,
) -> None:
    """Read an SAE in any supported format and write it in another."""
    from rsae import load, save

    sae = load(source, input_scale=input_scale, normalised=normalised, revision=revision, subfolder=subfolder)
    save(sae, out, format)
    typer.echo(f"{out}: {sae.family}, {sae.d_sae} latents of {sae.d_in} dimensions, as {format}")


@app.command()
def info(
    path: Annotated[str, typer.Argument(help="An SAE (as for convert), or the directory of a store.")],
) -> None:
    """Say what an SAE or a store is."""
    from rsae import Store, load
    from rsae.formats import detect

    local = Path(path)
    if (local / "manifest.json").exists():
        manifest = {k: v for k, v in Store.open(local).manifest.items() if k != "shards"}
        typer.echo(json.dumps(manifest, indent=1))
    else:
        sae = load(path)
        said = {"format": detect(local)} if local.exists() else {}
        said |= {"family": sae.family, **sae.settings(), "metadata": sae.metadata}
        typer.echo(json.dumps(said, indent=1))


def main() -> None:
    """Entry point."""
    run(app)
