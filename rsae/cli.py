"""`rsae`: harvest activations, train a teacher, upgrade it to a rational SAE, look at one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from rsae.support.command import run

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
    family: Annotated[
        str,
        typer.Argument(help="relu, jump_relu, top_k, batch_top_k, matryoshka_batch_top_k, gated, ..."),
    ],
    store: StorePath,
    out: Annotated[Path, typer.Argument(help="Directory for the SAE; for a grid, for one directory each.")],
    d_sae: Annotated[int, typer.Option(min=1, help="Latents.")] = 1536,
    k: Annotated[
        str, typer.Option(help="top_k families: active latents a token. 32, or a grid: 16,32,64")
    ] = "",
    sparsity: Annotated[
        str, typer.Option(help="Other families: weight of the penalty. 3, or a grid: 1,3,9")
    ] = "",
    l0: Annotated[
        str, typer.Option(help="Instead of --sparsity: steer the weight to this l0. 32, or a grid: 16,32,64")
    ] = "",
    seed: Annotated[str, typer.Option(help="Of the start and the data order. 0, or a grid: 0,1,2")] = "0",
    penalty: Annotated[str, typer.Option(help="l0, l1 or tanh; the family's own by default.")] = "",
    setting: Annotated[
        list[str] | None,
        typer.Option(help="Another of the family's settings, as NAME=VALUE: bandwidth=0.5. May be repeated."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1)] = 1000,
    batch: Annotated[int, typer.Option(min=1, help="Tokens a step, over all processes.")] = 1024,
    lr: Annotated[float, typer.Option(help="Adam's peak learning rate.")] = 1e-3,
    lr_warmup: Annotated[int, typer.Option(min=0, help="Steps of linear rise.")] = 50,
    lr_decay: Annotated[float, typer.Option(help="Share of the steps that decay to zero.")] = 0.3,
    clip: Annotated[float | None, typer.Option(help="Largest gradient norm.")] = None,
    revival: Annotated[float, typer.Option(help="Weight of the loss that revives dead latents.")] = 1 / 32,
    precision: Annotated[str, typer.Option(help="Of the encoder's product: float32, bfloat16.")] = "float32",
    window: Annotated[
        int,
        typer.Option(
            min=0, help="For a store larger than memory: shuffle within so many tokens, e.g. 1000000."
        ),
    ] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
) -> None:
    """Train an SAE, the teacher of a later upgrade; or a grid of them in one pass over the activations.

    With several values of --k, --sparsity, --l0 or --seed, all combinations are trained side by side on the same
    batches (in the order of the first seed), each into a directory of its own under OUT.

    Data-parallel on several processes or devices: torchrun --nproc-per-node 2 -m rsae train ...
    """
    from itertools import product

    from rsae import InputError, Store, save
    from rsae import train as run_train
    from rsae.sae import family as family_class
    from rsae.support import distributed

    cls = family_class(family)
    distributed.join()
    activations = Store.open(store, window=window)
    grid = {
        name: _numbers(f"--{name}", text, kind)
        for name, text, kind in (
            ("k", k, int),
            ("sparsity", sparsity, float),
            ("l0", l0, float),
            ("seed", seed, int),
        )
    }
    if "top_k" in family:
        grid["k"] = grid["k"] or [32]
        if grid["sparsity"] or grid["l0"]:
            raise InputError(f"{family} has no penalty: its l0 is set by --k")
    elif grid["k"]:
        raise InputError(
            f"{family} takes no --k; set its l0 by --l0, or the weight of its penalty by --sparsity"
        )
    elif grid["sparsity"] and grid["l0"]:
        raise InputError("give either --sparsity or --l0")
    elif not grid["sparsity"] and not grid["l0"]:
        grid["l0"] = [32.0]
    grid = {name: values for name, values in grid.items() if values}
    saes, configs, names = [], [], []
    for values in product(*grid.values()):
        point = dict(zip(grid, values, strict=True))
        settings = {"d_in": activations.d_in, "d_sae": d_sae} | _settings(cls, setting or [])
        if "k" in point:
            settings["k"] = point.pop("k")
        sae = cls.from_settings(settings)
        if penalty:
            sae.set_penalty(penalty)
        sae.rescale_(1 / activations.scale)
        start = int(point.pop("seed"))
        sae.initialise(activations.sample(8192, start), start)
        saes.append(sae.to(device))
        configs.append(
            _config(
                steps=steps,
                batch=batch,
                lr=lr,
                lr_warmup=lr_warmup,
                lr_decay=lr_decay,
                clip=clip,
                revival=revival,
                precision=precision,
                seed=grid["seed"][0],
                **point,
            )
        )
        varied = [f"{n}{v:g}" for n, v in zip(grid, values, strict=True) if len(grid[n]) > 1]
        names.append("-".join([family, *varied]) if varied else "")
    histories = run_train(saes, activations, configs, out / "checkpoint.safetensors")
    if distributed.is_first():
        for sae, name, history in zip(saes, names, histories, strict=True):
            save(sae.cpu(), out / name)
            last = history[-1]
            typer.echo(
                f"{out / name}: {family}, {d_sae} latents, l0 {last['l0']:.1f}, "
                f"||x - x_hat||^2 {last['sse']:.1f} (normalised), {last['dead']:.0f} dead, in training"
            )


def _numbers(option: str, text: str, kind: Any) -> list[Any]:
    """A comma-separated list of numbers."""
    from rsae import InputError

    try:
        return [kind(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise InputError(f"{option} {text!r}: write a number, or several as 16,32,64") from None


def _settings(cls: Any, given: list[str]) -> dict[str, Any]:
    """NAME=VALUE pairs, checked against what the family takes."""
    import inspect

    from rsae import InputError
    from rsae.support.errors import did_you_mean

    known = [n for n in inspect.signature(cls).parameters if n not in ("d_in", "d_sae", "k")]
    if "activation" in inspect.signature(cls).parameters:
        raise InputError(
            f"{cls.family} starts from a trained SAE: train one of another family and upgrade it"
        )
    settings = {}
    for pair in given:
        name, _, value = pair.partition("=")
        if name not in known:
            raise InputError(f"--setting {pair!r}: {cls.family} takes no {name!r}{did_you_mean(name, known)}")
        try:
            settings[name] = json.loads(value.lower() if value in ("True", "False") else value)
        except json.JSONDecodeError:
            raise InputError(f"--setting {pair!r}: write NAME=VALUE, such as {known[0]}=0.5") from None
    return settings


def _config(**fields: Any) -> Any:
    """A `TrainConfig`; what it refuses is told by the option's name."""
    from pydantic import ValidationError

    from rsae import InputError, TrainConfig

    try:
        return TrainConfig(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise InputError(f"--{option} {first['input']!r}: {first['msg'].lower()}") from None


@app.command()
def upgrade(
    teacher: Annotated[
        str, typer.Argument(help="A trained SAE: directory, file or hub repository in any supported format.")
    ],
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
    l0: Annotated[
        float | None,
        typer.Option(help="Instead: steer the weight to this l0. A teacher of unknown weight keeps its own."),
    ] = None,
    lr: Annotated[float, typer.Option(help="Adam's peak learning rate.")] = 3e-4,
    per_latent: Annotated[
        bool, typer.Option("--per-latent", help="One set of rational coefficients a latent, not one for all.")
    ] = False,
    window: Annotated[
        int,
        typer.Option(
            min=0, help="For a store larger than memory: shuffle within so many tokens, e.g. 1000000."
        ),
    ] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
) -> None:
    """Upgrade a teacher to a rational SAE, and fine-tune the control by the same budget."""
    from rsae import InputError, Store, UpgradeConfig, load
    from rsae import upgrade as run_upgrade
    from rsae.support import distributed

    try:
        m, n = map(int, type.split(","))
    except ValueError:
        raise InputError(f"--type {type!r}: write two degrees, such as 9,8") from None
    if variant not in ("gated", "soft"):
        raise InputError(f"--variant {variant!r}: choose gated or soft")
    distributed.join()
    tune = _config(steps=steps, batch=batch, lr=lr, sparsity=sparsity, l0=l0, sparsity_warmup=0.0)
    config = UpgradeConfig(variant=variant, type=(m, n), per_latent=per_latent, tune=tune)  # type: ignore[arg-type]
    new = run_upgrade(
        load(teacher).to(device), Store.open(activations, window=window), config=config, out=out
    )
    if not distributed.is_first():
        return
    (start,) = new.history["initial"]
    typer.echo(
        f"{out}/initial: FVU {start['fvu']:.4f} at l0 {start['l0']:.1f}; "
        f"the teacher's {start['teacher_fvu']:.4f} at {start['teacher_l0']:.1f}"
    )
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
