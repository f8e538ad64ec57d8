"""`evals`: suites on a real language model, their report, and runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from approx.command import tell_version
from evals.cli_host import jacobians, splice
from evals.cli_tune import tune
from rsae.support.command import run

if TYPE_CHECKING:  # a command imports what it needs
    from evals.report.tables import Table

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="An evaluation of sparse autoencoders that is honest about sparsity and always shows the control.\n\n"
    "    evals run demo --out runs/demo\n\n"
    "    evals compare runs/demo\n\n"
    "A run can be interrupted: the same command resumes it.",
)
tell_version(app, "evals")

Run = Annotated[Path, typer.Argument(help="Directory of a run.", metavar="RUN")]
Reference = Annotated[
    str | None,
    typer.Option(
        help="FAMILY-D_SAE, such as gated-1536: compare trained SAEs of other families and widths with it."
    ),
]

Mismatch = Annotated[
    bool, typer.Option("--allow-mismatch", help="Accept an SAE of another model or hook point.")
]


@app.command("run")
def _run_suite(
    suite: Annotated[
        str,
        typer.Argument(
            help="TOML file, or a preset: demo, quick, standard, paper, transcoders.", metavar="SUITE"
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Directory of the run.")] = None,
    jobs: Annotated[
        int,
        typer.Option(
            min=1,
            help="Number of processes, which part the threads; where units are few, these run in parts.",
        ),
    ] = 1,
    shard: Annotated[
        str, typer.Option(help="i/n, i from 0: only every n-th unit, for an array of jobs. After --prepare.")
    ] = "",
    backend: Annotated[
        str,
        typer.Option(help="loky: processes of this machine. dask, ray: the workers of a running cluster."),
    ] = "loky",
    address: Annotated[
        str | None,
        typer.Option(help="The cluster's; by default DASK_SCHEDULER_ADDRESS or RAY_ADDRESS."),
    ] = None,
    device: Annotated[str, typer.Option(help="Where hosts and SAEs are: cpu, cuda, cuda:1, ...")] = "cpu",
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Only harvest, and run the host over labelled texts and words.")
    ] = False,
    show_config: Annotated[
        bool, typer.Option("--show-config", help="Print the suite's file and stop.")
    ] = False,
) -> None:
    """Run a grid of teachers, upgrades and controls; write a result file a cell, and report.html.

    `demo` with --jobs 2 takes 5 to 10 minutes on two idle cores; the same command again reuses what is finished.

    Slurm, after one run with --prepare:  evals run my.toml --out RUN --shard $SLURM_ARRAY_TASK_ID/8  with --array=0-7

    A GPU, which several processes share:  evals run my.toml --out RUN --device cuda --jobs 4

    A cluster, whose workers see RUN:  evals run my.toml --out RUN --backend dask --address tcp://HOST:8786
    """
    from evals.config import PRESETS, SuiteConfig, preset
    from rsae import InputError

    config = SuiteConfig.read(suite)
    if show_config:
        typer.echo((preset(suite) if suite in PRESETS else Path(suite)).read_text(encoding="utf-8-sig"))
        return
    if out is None:
        raise InputError("--out is missing: name the directory of the run, such as --out runs/demo")
    from evals.suite import run as run_grid
    from rsae.support.parts import parse_part

    run_grid(
        config, out, jobs, parse_part(shard, "--shard") if shard else None, prepare, backend, address, device
    )
    if not prepare and not shard:
        _show(out, bool(config.sites), bool(config.synthetic.protocols))


def _show(out: Path, cells: bool, protocols: bool) -> None:
    from evals.truth import read_truth

    if protocols:
        typer.echo(f"{out / 'synthetic'}: results and figures of the synthetic protocols")
    if cells:
        from evals.report.tables import show
        from evals.report.text import cells_table

        show(cells_table([out]))
    if truth := read_truth(out):
        from evals.report.tables import show
        from evals.report.text import truth_table

        show(truth_table(truth))
    if cells:
        from evals.report.html import write_report

        typer.echo(f"the report: {write_report(out)}")


@app.command("synthetic")
def _synthetic(
    protocol: Annotated[
        str, typer.Argument(help="A: polarity dial; B: anomalies; C: pairs.", metavar="A|B|C")
    ],
    out: Annotated[Path, typer.Option(help="Directory for the result and its figure.")] = Path(
        "runs/synthetic"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Worlds and starts to average over.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of each SAE.")] = 1000,
) -> None:
    """Run one of SA-GSAE's synthetic protocols: minutes on 2 cores; the same command resumes a stopped one."""
    from evals.synthetic import run_protocol

    typer.echo(run_protocol(protocol, out, seeds, steps))


@app.command("report")
def _report(
    target: Annotated[
        str, typer.Argument(help="Directory of a run; with --activations an SAE.", metavar="RUN|SAE")
    ],
    activations: Annotated[
        Path | None,
        typer.Option(
            help="For the page of one SAE: an activation store of its hook point, or your own activations."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Of an SAE: the page; by default ADDRESS.html.")] = None,
    features: Annotated[
        int, typer.Option(min=0, help="Of an SAE: number of latents to show, spread by density.")
    ] = 24,
    latents: Annotated[
        str, typer.Option(help="Of an SAE: which latents, as i,j,k; in the place of --features.")
    ] = "",
    host: Annotated[
        str | None,
        typer.Option(
            help="Of an SAE: the host whose words are shown; by default the store's. none: no text."
        ),
    ] = None,
    export: Annotated[
        tuple[str, Path] | None,
        typer.Option(
            metavar="FORM DIR",
            help="Of an SAE: also write latents as saedashboard's, neuronpedia's or delphi's files; all that fire, or "
            "--latents.",
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="Of an export: name of the set.")] = "",
    allow_mismatch: Mismatch = False,
    figures: Annotated[
        Path | None, typer.Option(help="Of a run: also write the fronts as PNG files into this directory.")
    ] = None,
    reference: Reference = None,
) -> None:
    """Write a run's report.html from its result files; or, with --activations, the page of one SAE.

    A run: finished cells, and what is missing. An SAE, from a path in any format or OWNER/NAME:SUBFOLDER on the hub:
    what it is, how well it reconstructs, which latents are dead, and what some of them are about.

        evals report my-sae --activations runs/store --export neuronpedia exported
    """
    if activations is None:
        from evals.report.html import write_report

        typer.echo(write_report(target, reference))
        if figures is not None:
            from evals.report.images import write_images

            for file in write_images(target, figures):
                typer.echo(file)
        return
    from evals.dashboard import Subject, dashboard
    from evals.delphi import write_cache
    from evals.latents import parse_latents
    from evals.neuronpedia import EXPORTED, Source, check_export
    from evals.neuronpedia import export as write_export
    from evals.report.sae import page_of, write_page
    from evals.site import load_address
    from rsae.activations.open import open_activations

    chosen = parse_latents(latents)
    cached = export is not None and export[0] == "delphi"
    if export is not None:
        check_export(*export)
    store = open_activations(activations, like=load_address(target).provenance)
    subject = Subject(target, store, host, allow_mismatch)
    sae, counts = subject.sae, subject.counts
    source = None
    if export is not None and not cached:
        source = Source.of(sae, subject.provenance, name, subject.sequences)
    typer.echo(write_page(dashboard(subject, chosen, features), out or page_of(target)))
    if export is not None and cached:
        files = write_cache(sae, subject.activations, export[1], chosen)
        typer.echo(f"{export[1]}: {len(files)} files")
    if export is not None and source is not None:
        wanted = chosen or counts.fired_F.nonzero()[:, 0].tolist()
        files = write_export(*export, sae, wanted, lambda some: subject.cards(some, EXPORTED), source)
        typer.echo(f"{export[1]}: {len(files)} files")


@app.command("cards")
def _cards(
    run_directory: Run,
    features: Annotated[int, typer.Option(min=1, help="Number of latents a cell, spread by density.")] = 3,
    cell: Annotated[
        list[str] | None,
        typer.Option(
            help="Cell to make cards of: a result file's name without .json. May be repeated. By default, for each "
            "family at each site, one rational cell and its control."
        ),
    ] = None,
    latents: Annotated[str, typer.Option(help="Which latents, as i,j,k; in the place of --features.")] = "",
    changed: Annotated[
        bool,
        typer.Option(
            "--changed", help="Show the latents whose firing an upgrade changed most, beside the teacher's."
        ),
    ] = False,
) -> None:
    """Make feature cards, where latents fire and which tokens they promote, and write report.html with them.

    The texts are the run's held-out articles. The cards are kept in RUN/cards, and every later report shows them.
    """
    from evals.cards import make_cards
    from evals.latents import parse_latents
    from evals.report.html import write_report

    make_cards(run_directory, features, cell or (), parse_latents(latents), changed)
    typer.echo(write_report(run_directory))


@app.command("compare")
def _compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Directories of runs; with --activations two SAEs or more.", metavar="RUN...|SAE..."
        ),
    ],
    activations: Annotated[
        Path | None,
        typer.Option(help="For SAEs: an activation store of their hook point, or your own activations."),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(help="For SAEs: the host to splice them into; by default the store's. none: no host."),
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="For SAEs: held-out tokens to splice.")] = 5000,
    allow_mismatch: Mismatch = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown tables.")] = False,
    brief: Annotated[bool, typer.Option("--brief", help="Leave out the table of all cells.")] = False,
    json: Annotated[
        Path | None, typer.Option(help="Write what is compared, the fronts' cells too, to this file.")
    ] = None,
    reference: Reference = None,
) -> None:
    """Print the cells of one run or several, each rational SAE with its control; or, with --activations, SAEs.

    SAEs, from a path in any format or OWNER/NAME:SUBFOLDER on the hub, are compared with the first one on the same
    tokens and, in the host, on the same predictions, with 95 % intervals:

        evals compare my-sae OWNER/NAME:SUBFOLDER --activations runs/store

    Where the controls have two levels of sparsity or more, also: differences at matched l0, hypervolumes of the Pareto
    fronts, cells that strictly dominate their teacher, and wins, ties and losses. Of several runs, the cells that the
    first one has, too: what changed between the runs.
    """
    if activations is not None:
        _compare_saes(runs, activations, host, tokens, allow_mismatch, markdown, json)
        return
    from evals.claims import claims
    from evals.comparison import compare as compare_runs
    from evals.comparison import run_names
    from evals.report.tables import show
    from evals.report.text import (
        between_table,
        cells_table,
        claims_table,
        comparison_tables,
        pairs_table,
    )
    from evals.results import dump, read_results
    from rsae.support.files import write_json

    if not brief:
        show(cells_table(runs), markdown)
    found = compare_runs(runs, reference)
    tables = [pairs_table(found)] if found.paired and not brief else []
    tables += [between_table(found)] if found.between else []
    claimed = {name: claims(read_results(run)) for name, run in zip(run_names(runs), runs, strict=True)}
    tables += [claims_table(claimed)] if any(claimed.values()) else []
    for table in [*tables, *comparison_tables(found)]:
        if markdown:
            typer.echo(f"\n{table.title}\n")
        show(table, markdown)
    if json is not None:
        write_json(json, {**dump(found), "claims": {run: dump(of) for run, of in claimed.items()}})


def _compare_saes(
    addresses: list[str],
    activations: Path,
    host: str | None,
    tokens: int,
    allow_mismatch: bool,
    markdown: bool,
    json: Path | None,
) -> None:
    from evals.paired import compare_saes, shared_host
    from evals.report.tables import show
    from evals.report.text import side_by_side_tables
    from evals.results import dump
    from evals.site import load_address
    from rsae import InputError
    from rsae.activations.open import open_activations
    from rsae.support.files import write_json

    if len(set(addresses)) < len(addresses):
        raise InputError("compare: an SAE is named twice")
    saes = {address: load_address(address) for address in addresses}
    store = open_activations(activations, like=saes[addresses[0]].provenance)
    found = compare_saes(saes, store, shared_host(host, store), tokens, allow_mismatch)
    for table in side_by_side_tables(found):
        if markdown:
            typer.echo(f"\n{table.title}\n")
        show(table, markdown)
    if json is not None:
        write_json(json, dump(found))


app.command("tune")(tune)
app.command("splice")(splice)
app.command("jacobians")(jacobians)


def _told(table: Table, found: Any, markdown: bool, json: Path | None) -> None:
    """Print a table, and write all figures where that is asked for."""
    from evals.report.tables import show
    from evals.results import dump
    from rsae.support.files import write_json

    show(table, markdown)
    if json is not None:
        write_json(json, dump(found))


@app.command("baselines")
def _baselines(
    sae: Annotated[str, typer.Argument(help="An SAE in any supported format.")],
    activations: Annotated[Path, typer.Option(help="Directory of an activation store of its hook point.")],
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="random_decoder, random_encoder, shuffled, pca, neurons (these by default); untrained, control, omp. "
            "May be repeated."
        ),
    ] = None,
    steps: Annotated[
        int, typer.Option(min=1, help="Training steps of the random ones, of untrained and of control.")
    ] = 500,
    seed: Annotated[int, typer.Option(help="Of random weights, shuffles and the training's order.")] = 0,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    json: Annotated[Path | None, typer.Option(help="Also write all figures to this file.")] = None,
    allow_mismatch: Mismatch = False,
) -> None:
    """Print an SAE's figures beside those of random, shuffled, PCA and neuron codes at the same l0.

    `untrained`: a TopK SAE on the host's twin with random weights (the host runs over the text again). `control`: the
    SAE fine-tuned. `omp`: orthogonal matching pursuit on its decoder, what the dictionary could give.
    """
    from evals.baselines import baselines as measure
    from evals.metrics.reconstruction import reconstruction
    from evals.report.text import baselines_table
    from evals.site import load_address
    from rsae.activations.open import open_activations

    loaded = load_address(sae)
    store = open_activations(activations, like=loaded.provenance)
    own = reconstruction(loaded, store, allow_mismatch=allow_mismatch)
    found = measure(loaded, store, only or (), steps, seed, allow_mismatch)
    _told(baselines_table(own, found), {"sae": own, **found}, markdown, json)


@app.command("perturb")
def _perturb(
    sae: Annotated[str, typer.Argument(help="An SAE in any supported format.")],
    classes: Annotated[
        list[str] | None,
        typer.Option(help="TPP: wiki_topics, languages, agnews, code, or a file. May be repeated."),
    ] = None,
    crossed: Annotated[
        list[str] | None,
        typer.Option(
            help="SCR and interchange: people_french, people_spanish, history_french, or a file. May be repeated."
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="The host; by default the one that the SAE names.")] = None,
    context: Annotated[int, typer.Option(min=2, help="Tokens a text.")] = 64,
    train: Annotated[int, typer.Option(min=10, help="Training texts of each class or combination.")] = 200,
    test: Annotated[int, typer.Option(min=10, help="Test texts of each class or combination.")] = 100,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown tables.")] = False,
    json: Annotated[Path | None, typer.Option(help="Also write all figures to this file.")] = None,
) -> None:
    """Take concepts out of an SAE by ablating latents (SAEBench's TPP and SCR), and put them in by moving some (RAVEL).

    TPP: does ablating the latents of one class hurt the probe of that class alone? SCR: of a probe that has learnt two
    concepts that go together, can one be taken out? Interchange: do the latents of one attribute carry it from a text
    to another, and nothing else?
    """
    from evals.labelled import load_classes, load_crossed
    from evals.metrics.interchange import interchanged
    from evals.metrics.perturbation import check_crossed, pooled_texts, remove, targeted_perturbation
    from evals.report.tables import show
    from evals.report.text import interchange_table, perturbation_table, removal_table
    from evals.results import dump
    from evals.site import load_address
    from rsae import InputError, load_host
    from rsae.support.files import write_json

    if not classes and not crossed:
        raise InputError("perturb: name texts, such as --classes wiki_topics or --crossed people_french")
    several = {name: load_classes(name, train, test) for name in classes or ()}
    pairs = {name: load_crossed(name, train, test) for name in crossed or ()}
    for texts in pairs.values():
        check_crossed(texts, "perturb --crossed")
    loaded = load_address(sae)
    model = load_host(host or loaded.provenance.known("model", "perturb"))
    targeted = {n: targeted_perturbation(loaded, model, t, context=context) for n, t in several.items()}
    pooled = {n: pooled_texts(loaded, model, t, context=context) for n, t in pairs.items()}
    removed = {n: remove(data, pairs[n].classes) for n, data in pooled.items()}
    moved = {n: interchanged(data, pairs[n].classes) for n, data in pooled.items()}
    tables = [perturbation_table(name, found) for name, found in targeted.items()]
    tables += [removal_table(name, found) for name, found in removed.items()]
    tables += [interchange_table(name, found) for name, found in moved.items()]
    for table in tables:
        show(table, markdown)
    if json is not None:
        write_json(json, {"targeted": dump(targeted), "removed": dump(removed), "moved": dump(moved)})


@app.command("interpret")
def _interpret(
    sae: Annotated[str, typer.Argument(help="An SAE in any supported format.")],
    activations: Annotated[Path, typer.Option(help="Directory of an activation store of its hook point.")],
    features: Annotated[int, typer.Option(min=1, help="Number of latents, spread by density.")] = 20,
    latents: Annotated[str, typer.Option(help="Which latents, as i,j,k; in the place of --features.")] = "",
    explanations: Annotated[
        Path | None,
        typer.Option(
            help="JSON file of explanations by latent. By default the tokens on which each is largest."
        ),
    ] = None,
    judge: Annotated[
        str,
        typer.Option(
            help="tokens, host (the local model), or the address of an endpoint of the OpenAI form."
        ),
    ] = "tokens",
    model: Annotated[str, typer.Option(help="Of an endpoint: the model's name there.")] = "",
    host: Annotated[str | None, typer.Option(help="The host; by default the store's.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    json: Annotated[Path | None, typer.Option(help="Also write all scores to this file.")] = None,
) -> None:
    """Score explanations of latents: detection (which texts) and fuzzing (which tokens), by a judge.

    The tokens explanation with the tokens judge needs no model: what single tokens explain, a baseline for all others.
    An endpoint's key is read from OPENAI_API_KEY, if it wants one.
    """
    from evals.interpretation import (
        by_tokens,
        endpoint_judge,
        host_judge,
        interpret_all,
        material,
        token_judge,
    )
    from evals.latents import Vocabulary, by_density, check_latents, count, parse_latents
    from evals.report.text import interpretation_table
    from evals.site import load_address
    from rsae import InputError, Store, load_host
    from rsae.support.files import read_json

    told = None if explanations is None else {int(k): str(v) for k, v in read_json(explanations).items()}
    if judge == "tokens" and told is not None:
        raise InputError(
            "interpret: the judge `tokens` only reads its own explanations; give --judge host or an address"
        )
    loaded, store = load_address(sae), Store.open(activations)
    known = store.provenance.filled(loaded.provenance)
    local = load_host(host or known.known("model", "interpret"))
    chosen = parse_latents(latents) or list(told or ()) or by_density(count(loaded, store).fired_F, features)
    check_latents(chosen, loaded.d_sae, sae)
    contexts = material(loaded, store, Vocabulary(local, known), chosen)
    judges = {"tokens": lambda: token_judge, "host": lambda: host_judge(local)}
    asked = judges[judge]() if judge in judges else endpoint_judge(judge, model)
    found = interpret_all(contexts, told if told is not None else by_tokens, asked)
    _told(interpretation_table(found), {"material": contexts, "scores": found}, markdown, json)


@app.command("absorption")
def _absorption(
    sae: Annotated[str, typer.Argument(help="An SAE in any supported format.")],
    words: Annotated[int, typer.Option(min=100, help="Words of the host's vocabulary to read.")] = 3000,
    host: Annotated[str | None, typer.Option(help="The host; by default the one that the SAE names.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    json: Annotated[Path | None, typer.Option(help="Also write all figures to this file.")] = None,
) -> None:
    """Measure feature absorption on first letters: where other latents have taken a letter's part over."""
    from evals.metrics.absorption import absorption
    from evals.report.text import absorption_table
    from evals.site import load_address
    from rsae import load_host

    loaded = load_address(sae)
    found = absorption(loaded, load_host(host or loaded.provenance.known("model", "absorption")), words)
    _told(absorption_table(found), found, markdown, json)


@app.command("sae-probes")
def _sae_probes(
    sae: Annotated[str, typer.Argument(help="An SAE in any supported format.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Set, such as 96_spam_is. May be repeated; all by default."),
    ] = None,
    k: Annotated[
        list[int] | None, typer.Option(help="Number of latents. May be repeated; 1, 16, 128.")
    ] = None,
    context: Annotated[int, typer.Option(min=2, help="Tokens a text, truncated on the left.")] = 1024,
    host: Annotated[str | None, typer.Option(help="The host; by default the one that the SAE names.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    json: Annotated[Path | None, typer.Option(help="Also write all figures to this file.")] = None,
) -> None:
    """Probe an SAE on the sets of sae-probes: by its protocol, and without leakage."""
    from evals.metrics.sae_probes import NUMBERS, sae_probes
    from evals.report.text import sae_probes_table
    from evals.site import load_address
    from rsae import load_host

    loaded = load_address(sae)
    model = load_host(host or loaded.provenance.known("model", "sae-probes"))
    found = sae_probes(loaded, model, set_ or (), k or NUMBERS, context)
    _told(sae_probes_table(found), found, markdown, json)


@app.command("saebench")
def _saebench(
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
    from evals.saebench import write_results
    from rsae import Store, load

    files = write_results(load(sae), Store.open(activations), out, release, task or [], tokens, train, test)
    for file in files:
        typer.echo(file)


def main() -> None:
    """Entry point."""
    run(app)
