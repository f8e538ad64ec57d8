"""`evals`: the main job on a real language model, its report, and runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsae.support.command import run

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="An evaluation of sparse autoencoders that is honest about sparsity and always shows the control.\n\n"
    "    evals demo --out runs/demo\n\n"
    "    evals compare runs/demo\n\n"
    "A run can be interrupted: the same command again goes on where it stopped.",
)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Directory for the run.")] = Path("runs/demo"),
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings; --show-config prints one to start from.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Reduced size: a check that everything runs, not a result.")
    ] = False,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print the default config file and stop.")
    ] = False,
) -> None:
    """Harvest, train three teachers, upgrade them, run the controls, evaluate, and write report.html.

    About 15 minutes on 2 cores; a second run reuses every finished step.
    """
    from evals.config import DemoConfig, preset
    from rsae import InputError

    if quick and config is not None:
        raise InputError("--quick and --config exclude each other: --quick is a config of its own")
    file = config or preset("quick" if quick else "demo")
    if show_config:
        typer.echo(file.read_text())
        return
    settings = DemoConfig.read(file)
    from evals.demo import demo as run_demo

    run_demo(settings, out)


@app.command(name="run")
def run_suite(
    suite: Annotated[
        str, typer.Argument(help="TOML file of a grid, or a preset: quick, standard, paper.", metavar="SUITE")
    ],
    out: Annotated[Path, typer.Option(help="Directory for the run.")],
    jobs: Annotated[int, typer.Option(min=1, help="Processes; each runs units of the grid by itself.")] = 1,
    shard: Annotated[
        str, typer.Option(help="i/n, i from 0: only every n-th unit, for an array of jobs. After --prepare.")
    ] = "",
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Only harvest, and run the host over the probing texts.")
    ] = False,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print the suite's file and stop.")
    ] = False,
) -> None:
    """Run a grid of teachers, upgrades and controls, a result file a cell; the same command again goes on.

    Slurm, after one run with --prepare:  evals run my.toml --out RUN --shard $SLURM_ARRAY_TASK_ID/8  with --array=0-7
    """
    from evals.config import PRESETS, SuiteConfig, preset
    from rsae import InputError

    file = preset(f"suite-{suite}") if suite in PRESETS else Path(suite)
    config = SuiteConfig.read(file)
    if show_config:
        typer.echo(file.read_text())
        return
    part = None
    if shard:
        index, slash, count = shard.partition("/")
        if not (slash and index.isdigit() and count.isdigit()):
            raise InputError(f"--shard {shard!r}: write i/n, such as 0/8")
        part = (int(index), int(count))
    from evals.suite import run as run_grid

    run_grid(config, out, jobs, part, prepare)
    if config.synthetic.protocols:
        typer.echo(f"{out / 'synthetic'}: results and figures of the synthetic protocols")
    if config.sites:
        typer.echo(f"{out}: compare its cells with `evals compare {out}`")


@app.command()
def synthetic(
    protocol: Annotated[
        str, typer.Argument(help="A: polarity dial; B: anomalies; C: pairs.", metavar="A|B|C")
    ],
    out: Annotated[Path, typer.Option(help="Directory for the result and its figure.")] = Path(
        "runs/synthetic"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Worlds and starts to average over.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Of training, for each SAE.")] = 1000,
) -> None:
    """Run one of SA-GSAE's synthetic protocols: minutes on 2 cores; a stopped one goes on where it stopped."""
    from evals.synthetic import run_protocol

    typer.echo(run_protocol(protocol, out, seeds, steps))


@app.command()
def report(
    run_directory: Annotated[
        Path, typer.Argument(help="Directory of a demo's or a suite's run.", metavar="RUN")
    ],
    features: Annotated[
        int,
        typer.Option(min=0, help="Make feature cards of so many latents, by density, of each cell chosen."),
    ] = 0,
    cell: Annotated[
        list[str] | None,
        typer.Option(
            help="Cell to make cards of, a result file's name without .json. May be repeated. By default, for each "
            "family at each hook point, one rational cell and its control."
        ),
    ] = None,
    latents: Annotated[str, typer.Option(help="Which latents, as i,j,k; instead of --features.")] = "",
    figures: Annotated[
        Path | None, typer.Option(help="Also write the fronts as PNG files into this directory.")
    ] = None,
    reference: Annotated[str | None, typer.Option(help="FAMILY-D_SAE, as in `evals compare`.")] = None,
) -> None:
    """Write a run's report.html from its result files: finished cells, and what is missing.

    With --features or --latents the host runs over held-out articles; the cards are kept in RUN/cards, and shown by
    every later report.
    """
    from rsae import InputError

    wanted = [part.strip() for part in latents.split(",") if part.strip()]
    if not all(part.isdigit() for part in wanted):
        raise InputError(f"--latents {latents!r}: write numbers with commas, such as 3,17,40")
    if cell and not (features or wanted):
        raise InputError("--cell is for feature cards: give --features N or --latents i,j,k, too")
    if features or wanted:
        from evals.report.cards import make_cards

        make_cards(run_directory, features, cell or (), [int(part) for part in wanted])
    from evals.report.html import write_report

    typer.echo(write_report(run_directory, reference))
    if figures is not None:
        from evals.report.images import write_images

        for file in write_images(run_directory, figures):
            typer.echo(file)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Directories of runs.", metavar="RUN...")],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown tables.")] = False,
    brief: Annotated[bool, typer.Option("--brief", help="Leave out the table of all cells.")] = False,
    json: Annotated[
        Path | None, typer.Option(help="Write what is compared, the fronts' cells too, to this file.")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="FAMILY-D_SAE, such as gated-1536: compare trained SAEs of other families and widths to it."
        ),
    ] = None,
) -> None:
    """Print the cells of one run or several, each rational SAE with its control.

    Where the controls have two levels of sparsity or more, also: differences at matched l0, hypervolumes of the Pareto
    fronts, cells that strictly dominate their teacher, and wins, ties and losses.
    """
    from evals.compare import print_comparison
    from evals.report.table import print_table

    if not brief:
        print_table(runs, markdown)
    found = print_comparison(runs, markdown, reference)
    if json is not None:
        from rsae.support.files import write_json

        write_json(json, found)


@app.command()
def saebench(
    sae: Annotated[str, typer.Argument(help="An SAE in any supported format.")],
    activations: Annotated[Path, typer.Option(help="Directory of an activation store of its hook point.")],
    out: Annotated[
        Path, typer.Option(help="Directory; the results go to `core` and `sparse_probing` in it.")
    ],
    release: Annotated[str, typer.Option(help="Name of the release, the first part of the files' names.")],
    task: Annotated[list[str] | None, typer.Option(help="Probing task. May be repeated.")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Held-out tokens to splice.")] = 2500,
    train: Annotated[int, typer.Option(min=20, help="Training texts a task.")] = 4000,
    test: Annotated[int, typer.Option(min=20, help="Test texts a task.")] = 1000,
) -> None:
    """Write SAEBench's result files of an SAE: core, and sparse probing for the tasks given."""
    from evals.saebench import core, sparse_probing, write_result
    from rsae import Store, load, load_host
    from rsae.activations.harvest import plan_sequences
    from rsae.activations.text import load_documents, split_documents

    store, loaded = Store.open(activations), load(sae)
    made = store.manifest
    loaded.metadata |= {"hook_name": made["hook"], "norm_limit": made["excluded_norm"]}
    host = load_host(made["host"])
    documents = split_documents(load_documents(made["text"]), made["seed"])["heldout"]
    sequences = [ids for _, ids in plan_sequences(host, documents, made["context"], tokens)]
    typer.echo(write_result(core(loaded, store, host, sequences), out / "core", release))
    if task:
        result = sparse_probing(loaded, host, task, train=train, test=test, context=made["context"])
        typer.echo(write_result(result, out / "sparse_probing", release))


def main() -> None:
    """Entry point."""
    run(app)
