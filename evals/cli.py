"""`evals`: the main job on a real language model, its report, and runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsae.command import run

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
    import torch

    from evals.synthetic import run_protocol

    torch.set_num_threads(1)  # the matrices are tiny: more threads only wait for each other
    typer.echo(run_protocol(protocol, out, seeds, steps))


@app.command()
def report(run_directory: Annotated[Path, typer.Argument(help="Directory of a run.", metavar="RUN")]) -> None:
    """Write a run's report.html anew from its result files."""
    from evals.report.html import write_report

    typer.echo(write_report(run_directory))


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Directories of runs.", metavar="RUN...")],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
) -> None:
    """Print the table of one run or several, each rational SAE with its control."""
    from evals.report.table import print_table

    print_table(runs, markdown)


def main() -> None:
    """Entry point."""
    run(app)
