"""`rsae`: make activations, train a teacher, upgrade it to a rational SAE, look at one."""

from __future__ import annotations

import inspect
import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from approx.command import tell_version
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
    "Each command can be interrupted: the same command again continues where it stopped.",
)
tell_version(app, "rsae")

ActivationsPath = Annotated[
    str,
    typer.Argument(
        help="Activations: a store's directory or URL, as `rsae harvest` makes it, or your own: a .npy, .pt or "
        ".safetensors file of rows, or a directory of such files."
    ),
]
Window = Annotated[
    int,
    typer.Option(
        min=0, help="For activations larger than memory: shuffle this many at a time, e.g. 1000000."
    ),
]


def _device(name: str) -> str:
    from rsae.support.devices import check_device

    check_device(name)
    return name


Device = Annotated[str, typer.Option(help="cpu, cuda, ...", callback=_device)]
AllowMismatch = Annotated[
    bool,
    typer.Option(
        "--allow-mismatch", help="Accept an SAE that says that it is of another host or hook point."
    ),
]
Heldout = Annotated[
    float, typer.Option(min=0, help="Of your own activations: rows to hold out, or a share of them below 1.")
]
Precision = Annotated[
    str, typer.Option(help="Of products: float32, bfloat16, or auto (bfloat16 where the processor has it).")
]


@app.command("harvest")
def _harvest(
    out: Annotated[
        str,
        typer.Argument(
            help="Directory for the store, or a URL (s3://bucket/store); for several hook points, for one each."
        ),
    ],
    host: Annotated[
        str, typer.Option(help="smollm2-135m (embedded), a directory, a .gguf file or a hub name.")
    ] = "smollm2-135m",
    hook: Annotated[
        list[str] | None,
        typer.Option(
            help="blocks.L.hook_resid_pre (L = 12 by default), _mid, _post, hook_attn_out, hook_mlp_in, hook_mlp_out, "
            "attn.hook_q, _k, _v, _z, mlp.hook_post, or a module's own name. May be repeated: one pass for all."
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="A second hook point, which a transcoder is to predict of the first: blocks.12.hook_mlp_out beside "
            "--hook blocks.12.hook_mlp_in."
        ),
    ] = None,
    text: Annotated[
        str,
        typer.Option(
            help="wikipedia (embedded), a .txt, .jsonl(.gz, .zst) or .parquet file, a directory of them."
        ),
    ] = "wikipedia",
    context: Annotated[int, typer.Option(min=8, help="Tokens a sequence.")] = 128,
    tokens: Annotated[int, typer.Option(min=1, help="Training tokens, at least.")] = 125_000,
    heldout_tokens: Annotated[
        int, typer.Option(min=1, help="Held-out tokens (from other documents), at least.")
    ] = 12_000,
    norm_limit: Annotated[
        float, typer.Option(help="Leave out tokens whose norm is above this many times the median.")
    ] = 10.0,
    seed: Annotated[int, typer.Option(help="Of the split by document.")] = 0,
    dtype: Annotated[
        str,
        typer.Option(help="Of the stored activations: float32, bfloat16, float16, int8 (a scale a token)."),
    ] = "float32",
    bos: Annotated[
        str, typer.Option(help="A BOS token in front of every sequence: host (as its own), on, off.")
    ] = "host",
    exclude_token: Annotated[
        list[str] | None,
        typer.Option(help="Leave out this token's activations, by id or by text. May be repeated."),
    ] = None,
    device: Annotated[str, typer.Option(help="Where the host runs: cpu, cuda, ...")] = "cpu",
    host_dtype: Annotated[
        str,
        typer.Option(
            help="Of the host's weights: float32, bfloat16, float16; mixed: float32 with products in bfloat16; "
            "auto: mixed where the processor multiplies in bfloat16."
        ),
    ] = "float32",
    part: Annotated[
        str,
        typer.Option(
            help="i/n, i from 0: one of n processes that see the directory. The same command without it, after them, "
            "finishes the store."
        ),
    ] = "",
) -> None:
    """Run a host over text and store its activations: 125,000 tokens in about 100 s on 2 cores.

    Several nodes, or processes of a few threads each, which do more together than one of many:

        sbatch --array=0-7 --wrap 'rsae harvest store --part $SLURM_ARRAY_TASK_ID/8'
    """
    from rsae import HarvestConfig, harvest_all, load_host
    from rsae.folders import STORE, check_free
    from rsae.support.parts import parse_part

    hooks = hook or ["blocks.12.hook_resid_pre"]
    tokens_out = tuple(int(t) if t.isdigit() else t for t in exclude_token or ())
    config = _checked(
        HarvestConfig,
        host=host,
        hook=hooks[0],
        target=target,
        text=text,
        context=context,
        tokens=tokens,
        heldout_tokens=heldout_tokens,
        norm_limit=norm_limit,
        seed=seed,
        dtype=dtype,
        bos=bos,
        exclude_tokens=tokens_out,
        host_dtype=host_dtype,
    )
    loaded = None if device == "cpu" else load_host(host, device, host_dtype)
    paths = {hooks[0]: out} if len(hooks) == 1 else {h: f"{out}/{h}" for h in hooks}
    mine = parse_part(part, "--part") if part else None
    for path in paths.values():
        check_free(path, STORE)
    for name, store in harvest_all(config, paths, loaded, mine).items():
        typer.echo(
            f"{paths[name]}: {store.tokens()} training and {store.tokens('heldout')} held-out tokens of "
            f"{store.d_in} dimensions"
        )


@app.command("train")
def _train(
    family: Annotated[
        str,
        typer.Argument(help="relu, jump_relu, top_k, batch_top_k, matryoshka_batch_top_k, gated, ..."),
    ],
    activations: ActivationsPath,
    out: Annotated[Path, typer.Argument(help="Directory for the SAE; for a grid, for one directory each.")],
    d_sae: Annotated[
        int | None, typer.Option(min=1, help="Latents; 1536, or with --from what the SAE has.")
    ] = None,
    k: Annotated[
        str,
        typer.Option(
            help="top_k families: active latents a token. 32 (with --from its own), or a grid: 16,32,64"
        ),
    ] = "",
    sparsity: Annotated[
        str, typer.Option(help="Other families: weight of the penalty. 3, or a grid: 1,3,9")
    ] = "",
    l0: Annotated[
        str, typer.Option(help="Instead of --sparsity: find the weight for this l0. 32, or a grid: 16,32,64")
    ] = "",
    seed: Annotated[
        str, typer.Option(help="Of the start and the data order. 0, or (without --from) a grid: 0,1,2")
    ] = "0",
    penalty: Annotated[str, typer.Option(help="l0, l1 or tanh; the family's own by default.")] = "own",
    setting: Annotated[
        list[str] | None,
        typer.Option(
            help="Another of the family's settings or the training's (docs/training.md), as NAME=VALUE, a number, word "
            "or JSON: bandwidth=.5, objective=kl, auxiliary=false. May be repeated."
        ),
    ] = None,
    skip: Annotated[
        bool,
        typer.Option(
            "--skip",
            help="Give a transcoder (activations harvested with --target) a linear way past its code.",
        ),
    ] = False,
    join: Annotated[
        list[Path] | None,
        typer.Option(
            help="Another store of the same harvest: a crosscoder of all these hook points. May be repeated."
        ),
    ] = None,
    predict: Annotated[
        list[Path] | None,
        typer.Option(
            help="A store that is predicted, of the same harvest: a cross-layer transcoder. May be repeated."
        ),
    ] = None,
    causal: Annotated[
        bool,
        typer.Option(
            "--causal", help="Of --predict: a latent reads one layer, and writes it and later ones."
        ),
    ] = False,
    begin: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Start from this SAE (directory, file or hub name) and not from a random one; at its own sparsity, "
            "unless --k, --sparsity or --l0 is given.",
        ),
    ] = None,
    steps: Annotated[
        int, typer.Option(min=1, help="Steps. More than a finished SAE has: it is trained on to that many.")
    ] = 1000,
    batch: Annotated[int, typer.Option(min=1, help="Tokens a step, over all processes.")] = 1024,
    optimizer: Annotated[str, typer.Option(help="adam, muon or schedule_free.")] = "adam",
    lr: Annotated[
        float | None, typer.Option(help="Peak learning rate; by default the family's own, found for Adam.")
    ] = None,
    bias_lr: Annotated[
        float | None, typer.Option(help="Factor on --lr for biases; by default the family's own.")
    ] = None,
    lr_warmup: Annotated[int, typer.Option(min=0, help="Steps of linear rise.")] = 50,
    lr_decay: Annotated[
        float | None,
        typer.Option(help="Share of the steps that decay to zero; by default 0.3, and 0 with schedule_free."),
    ] = None,
    clip: Annotated[
        float | None,
        typer.Option(help="Largest gradient norm, of weights, biases, thresholds each."),
    ] = None,
    revival: Annotated[float, typer.Option(help="Weight of the loss that revives dead latents.")] = 1 / 32,
    precision: Precision = "float32",
    window: Window = 0,
    heldout: Heldout = 0.1,
    force: Annotated[
        bool, typer.Option("--force", help="Train over a finished SAE of other settings.")
    ] = False,
    shard: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Part the dictionary among this many of torchrun's processes: for one that fits into none.",
        ),
    ] = None,
    monitor: Annotated[
        list[str] | None,
        typer.Option(help="Log to tensorboard or wandb (offline), under OUT/monitor. May be repeated."),
    ] = None,
    allow_mismatch: AllowMismatch = False,
    device: Device = "cpu",
) -> None:
    """Train an SAE, the teacher of a later upgrade; or a grid of them in one pass over the activations.

    With several values of --k, --sparsity, --l0 or --seed, all combinations are trained side by side on the same
    batches (in the order of the first seed), each into a directory of its own under OUT.

    Data-parallel on several processes or devices: torchrun --nproc-per-node 2 -m rsae train ...

    With --shard D, each D of these processes hold a dictionary together, a part of its latents each.
    """
    from rsae import InputError, TrainConfig, load
    from rsae.activations.open import open_together
    from rsae.grid import Grid, described, train_grid
    from rsae.monitoring import monitor_named
    from rsae.sae import family as family_named
    from rsae.support import distributed
    from rsae.support.errors import did_you_mean
    from rsae.support.values import parse_settings

    grid = Grid(
        k=_numbers("--k", k, int),
        sparsity=_numbers("--sparsity", sparsity, float),
        l0=_numbers("--l0", l0, float),
        seed=_numbers("--seed", seed, int),
    )
    config = _checked(
        TrainConfig,
        steps=steps,
        batch=batch,
        optimizer=optimizer,
        lr=lr,
        bias_lr=bias_lr,
        lr_warmup=lr_warmup,
        lr_decay=lr_decay,
        clip=clip,
        revival=revival,
        precision=precision,
        penalty=penalty,
    )
    grid.checked(family)
    monitors = [monitor_named(name, out / "monitor" / name) for name in monitor or ()]
    given = parse_settings("--setting", setting or [])
    if named := [name for name in given if name in inspect.signature(_train).parameters]:
        raise InputError(f"--setting {named[0]}: it has an option of its own, --{named[0].replace('_', '-')}")
    of_training = {name: given.pop(name) for name in [*given] if name in TrainConfig.__dataclass_fields__}
    config = config.changed(of_training)
    own = inspect.signature(family_named(family)).parameters.keys() - {"d_in", "args", "kwargs"}
    if unknown := [name for name in given if name not in own]:
        near = did_you_mean(unknown[0], [*own, *TrainConfig.__dataclass_fields__])
        raise InputError(f"--setting {unknown[0]}: neither {family!r} nor the training has it{near}")
    if begin is None:
        d_sae = d_sae or 1536
    settings = ({"d_sae": d_sae} if d_sae else {}) | given | ({"skip": True} if skip else {})
    if causal and not predict:
        raise InputError("--causal is of a cross-layer transcoder: name what it predicts by --predict")
    settings |= {"causal": True} if causal else {}
    distributed.join(shard, device)
    layout = load(begin).layout if begin and (join or predict) else None
    made = train_grid(
        family,
        open_together([activations, *(join or [])], predict or [], window, heldout, layout),
        out,
        config,
        grid,
        settings,
        begin,
        force,
        device,
        allow_mismatch,
        shard is not None,
        monitors,
    )
    if distributed.is_first():
        for finished in made:
            typer.echo(described(finished))


def _numbers(option: str, text: str, kind: Any) -> list[Any]:
    """A comma-separated list of numbers."""
    from rsae import InputError

    try:
        return [kind(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise InputError(f"{option} {text!r}: write a number, or several as 16,32,64") from None


def _checked(cls: Any, **fields: Any) -> Any:
    """A config; what it refuses is told by the option's name."""
    from rsae import InputError
    from rsae.support.errors import SettingError

    try:
        return cls(**fields)
    except SettingError as error:
        option = error.field.split(".")[0].replace("_", "-")
        raise InputError(f"--{option} {error.value!r}: {error.reason}") from None


@app.command("upgrade")
def _upgrade(
    teacher: Annotated[
        str, typer.Argument(help="A trained SAE: directory, file or hub repository in any supported format.")
    ],
    activations: Annotated[
        str,
        typer.Option(help="A store's directory or URL, or your own activations (.npy, .pt, .safetensors)."),
    ],
    out: Annotated[Path, typer.Option(help="Directory for `initial`, `tuned` and `control`.")],
    variant: Annotated[
        str,
        typer.Option(
            help="gated (rational magnitude behind the gate), soft (the paper's), pursuit (latents solved together)."
        ),
    ] = "gated",
    type: Annotated[str, typer.Option(help="Type of the rational function, as m,n.")] = "9,8",
    steps: Annotated[
        int, typer.Option(min=0, help="Fine-tuning steps, the same for the control; 0: the start alone.")
    ] = 300,
    batch: Annotated[int, typer.Option(min=1, help="Tokens a step.")] = 1024,
    sparsity: Annotated[
        float, typer.Option(min=0, help="Weight of the penalty in fine-tuning; 0 takes the teacher's own.")
    ] = 0.0,
    l0: Annotated[
        float | None,
        typer.Option(
            help="Instead: find the weight for this l0. A teacher of unknown weight keeps its own l0."
        ),
    ] = None,
    hold_l0: Annotated[
        bool, typer.Option("--hold-l0", help="Steer both sides to the teacher's l0; a pursuit always is.")
    ] = False,
    optimizer: Annotated[str, typer.Option(help="adam, muon or schedule_free.")] = "adam",
    lr: Annotated[float | None, typer.Option(help="Peak learning rate; 1e-3 by default.")] = None,
    bias_lr: Annotated[float | None, typer.Option(help="Factor on --lr for biases; 1 by default.")] = None,
    solve_error: Annotated[
        float | None,
        typer.Option(
            help="Of a pursuit: as many steps a solve as leave this share of its error, by a proven bound (else 2)."
        ),
    ] = None,
    objective: Annotated[
        str,
        typer.Option(
            help="Of the fine-tuning: mse, kl (of the host's predictions), both in equal parts (mse+kl)."
        ),
    ] = "mse",
    precision: Precision = "float32",
    per_latent: Annotated[
        bool, typer.Option("--per-latent", help="One set of rational coefficients a latent, not one for all.")
    ] = False,
    input_scale: Annotated[
        float | None, typer.Option(help="sqrt(d_in) / mean norm, where the teacher's file asks for it.")
    ] = None,
    window: Window = 0,
    heldout: Heldout = 0.1,
    allow_mismatch: AllowMismatch = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Lose another upgrade that OUT holds, of another teacher or settings."),
    ] = False,
    device: Device = "cpu",
) -> None:
    """Upgrade a teacher to a rational SAE, and fine-tune the control by the same budget."""
    from dataclasses import replace

    from rsae import InputError, TrainConfig, UpgradeConfig, load, pursuit_steps
    from rsae import upgrade as run_upgrade
    from rsae.activations.open import open_activations
    from rsae.support import distributed
    from rsae.upgrading.decide import fit_of

    degrees = tuple(_numbers("--type", type, int))
    tune = _checked(
        TrainConfig,
        steps=max(steps, 1),
        batch=batch,
        optimizer=optimizer,
        lr=lr,
        bias_lr=bias_lr,
        sparsity=sparsity,
        l0=l0,
        sparsity_warmup=0.0,
        objective=objective,
        precision=precision,
    )
    config = _checked(
        UpgradeConfig,
        variant=variant,
        type=degrees,
        per_latent=per_latent,
        hold_l0=hold_l0,
        tune=tune,
        fine_tune=steps > 0,
    )
    distributed.join(device=device)
    for place in (teacher, activations):
        if Path(place).exists() and Path(place).resolve() == out.resolve():
            raise InputError(f"--out {out}: is {place} itself; choose another directory")
    sae = load(teacher, input_scale=input_scale).to(device)
    if sparsity and variant != "soft" and sae.penalty_named("own") is None:
        raise InputError(f"--sparsity {sparsity:g}: {teacher} has no penalty, its l0 is its k; leave it out")
    given = open_activations(activations, window, heldout)
    if solve_error is not None:
        if variant != "pursuit":
            raise InputError("--solve-error is of --variant pursuit, which solves")
        if not 0 < solve_error < 1:
            raise InputError(
                f"--solve-error {solve_error:g}: give a share of the error of the start, between 0 and 1"
            )
        needed = pursuit_steps(sae, given, solve_error)
        typer.echo(str(needed))
        config = replace(config, pursuit=replace(config.pursuit, steps=needed.steps))
    new = run_upgrade(
        sae,
        given,
        config=config,
        out=out,
        allow_mismatch=allow_mismatch,
        force=force,
    )
    if not distributed.is_first():
        return
    split = "heldout" if given.tokens("heldout") else "train"
    counted = min(given.tokens(split), 20_000)
    typer.echo(f"on {counted} {'held-out' if split == 'heldout' else 'TRAINING'} tokens:")
    made = {teacher: sae, f"{out}/initial": new.initial}
    if new.control is not None:
        made |= {f"{out}/control": new.control, f"{out}/tuned": new.tuned}
    for name, one in made.items():
        fit = fit_of(one, given, counted, split)
        typer.echo(f"  {name}: FVU {fit['fvu']:.4f} at l0 {fit['l0']:.1f}")
    pair = (f"{out}/control", f"{out}/tuned") if steps else (teacher, f"{out}/initial")
    command = shlex.join(["evals", "compare", *pair, "--activations", activations])
    typer.echo(f"with intervals, and what the host loses: {command}")


@app.command("convert")
def _convert(
    source: Annotated[str, typer.Argument(help="Directory, file, or hub repository OWNER/NAME of an SAE.")],
    out: Annotated[Path, typer.Argument(help="Directory for the SAE.")],
    format: Annotated[
        str,
        typer.Option(
            help="saelens (native), dictionary_learning, sparsify, gemma_scope or circuit_tracer (transcoders)."
        ),
    ] = "saelens",
    input_scale: Annotated[
        float | None, typer.Option(help="sqrt(d_in) / mean norm, where the source asks for it.")
    ] = None,
    hook: Annotated[
        str | None, typer.Option(help="Its hook point, where the source says none, or another.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="sae: for a file that looks like a transcoder.")] = None,
    revision: Annotated[str | None, typer.Option(help="Of a hub repository: branch, tag or commit.")] = None,
    subfolder: Annotated[str | None, typer.Option(help="The SAE's folder in the source.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over what OUT holds.")] = False,
) -> None:
    """Read an SAE in any supported format and write it in another."""
    from rsae import InputError, load, save
    from rsae.grid import RECORD

    if kind not in (None, "sae"):
        raise InputError(f"--kind {kind!r}: only 'sae' can be said")
    if not force and (out.is_file() or (out.is_dir() and any(out.iterdir()))):
        raise InputError(f"{out} is there, and not empty; choose another directory, or give --force")
    sae = load(source, input_scale=input_scale, hook=hook, kind=kind, revision=revision, subfolder=subfolder)  # type: ignore[arg-type]
    (out / RECORD).unlink(missing_ok=True)  # of another SAE's training
    save(sae, out, format)
    typer.echo(f"{out}: {sae.family}, {sae.d_sae} latents of {sae.d_in} dimensions, as {format}")


@app.command("info")
def _info(
    path: Annotated[str, typer.Argument(help="An SAE (as for convert), or the directory or URL of a store.")],
) -> None:
    """Say what an SAE or a store is."""
    from dataclasses import asdict

    from rsae import load
    from rsae.activations.remote import fetched_manifest
    from rsae.activations.remote import local as local_copy
    from rsae.activations.store import MANIFEST, Manifest
    from rsae.formats import detect

    fetched_manifest(path)
    local = local_copy(path)
    if (local / MANIFEST).exists():
        manifest = asdict(Manifest.read(local))
        shards = manifest.pop("shards")
        manifest["tokens"] = {
            split: sum(s["tokens"] for s in shards if s["split"] == split) for split in ("train", "heldout")
        }
        typer.echo(json.dumps(manifest, indent=1))
        return
    sae = load(path)
    said: dict[str, Any] = {"format": detect(local)} if local.exists() else {}
    said |= {"family": sae.family, **sae.settings()}
    said |= {"input_norm": sae.input_norm.kind} if sae.input_norm else {}
    said |= {"trained": asdict(sae.trained)} if sae.trained else {}
    typer.echo(json.dumps(said | {"provenance": sae.provenance.metadata()}, indent=1))


def main() -> None:
    """Entry point."""
    run(app)
