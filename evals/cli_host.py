"""`evals splice` and `evals jacobians`: SAEs and transcoders in their host, without a suite."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

HostName = Annotated[
    str | None, typer.Option("--host", help="The host; by default the one that the (first) SAE names.")
]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")]
Json = Annotated[Path | None, typer.Option("--json", help="Also write all figures to this file.")]
AllowMismatch = Annotated[
    bool, typer.Option("--allow-mismatch", help="Accept an SAE of another model or hook point.")
]


def splice(
    saes: Annotated[
        list[str],
        typer.Argument(
            help="SAEs or transcoders in any supported format, of different hook points.", metavar="SAE..."
        ),
    ],
    host: HostName = None,
    tokens: Annotated[
        int, typer.Option(min=1, help="Held-out tokens of the text that the SAEs name.")
    ] = 5000,
    each: Annotated[bool, typer.Option("--each", help="Also each by itself.")] = False,
    allow_mismatch: AllowMismatch = False,
    markdown: Markdown = False,
    json: Json = None,
) -> None:
    """Splice SAEs into their host, all at once, and print what it loses.

    Such as a transcoder for each layer, so that no MLP is left. Each reads what the host computes with those before it
    in place. Zeros and means, against which loss recovered is told, are then in all places at once, too.

        evals splice runs/layer-* --each

    A crosscoder or cross-layer transcoder, given alone, is spliced in at all of its points; with --each also at each by
    itself. Its code is that of the clean host.
    """
    from evals.metrics.downstream import downstream
    from evals.metrics.points import TOGETHER, downstream_by_point
    from evals.report.tables import show
    from evals.report.text import spliced_table
    from evals.results import dump
    from evals.site import load_address
    from rsae import load_host
    from rsae.activations.harvest import sequences_like
    from rsae.support.files import write_json

    loaded = {address: load_address(address) for address in saes}
    known = next(iter(loaded.values())).provenance
    model = load_host(host or known.known("model", "splice"))
    sequences = sequences_like(known, model, "heldout", tokens)
    every = list(loaded.values())
    if len(every) == 1 and every[0].layout is not None:
        found = downstream_by_point(every[0], model, sequences, allow_mismatch=allow_mismatch)
        found = found if each else {TOGETHER: found[TOGETHER]}
        show(spliced_table(found), markdown)
        if json is not None:
            write_json(json, dump(found))
        return
    found = {f"{len(every)} at once": downstream(every, model, sequences, allow_mismatch=allow_mismatch)}
    for address, sae in loaded.items() if each else ():
        found[address] = downstream(sae, model, sequences, allow_mismatch=allow_mismatch)
    show(spliced_table(found), markdown)
    if json is not None:
        write_json(json, dump(found))


def jacobians(
    transcoder: Annotated[str, typer.Argument(help="A transcoder of an MLP, in any supported format.")],
    activations: Annotated[
        Path, typer.Option(help="Store of what it reads and predicts (rsae harvest --hook --target).")
    ],
    tokens: Annotated[int, typer.Option(min=2, help="Held-out tokens to sample.")] = 256,
    vectors: Annotated[
        int, typer.Option(min=1, help="Directions to pull back; as many as the target is wide: exact.")
    ] = 32,
    seed: Annotated[int, typer.Option(help="Of the tokens and the directions.")] = 0,
    host: HostName = None,
    allow_mismatch: AllowMismatch = False,
    json: Json = None,
) -> None:
    """Compare a transcoder's Jacobian with that of the MLP that it stands for.

    Cosine: does the transcoder answer to small changes of its input as the MLP does? `varying` is the same without the
    means over tokens: a linear map, such as a skip connection alone, has a varying part of 0.
    """
    from evals.metrics.jacobians import jacobians as compare
    from evals.results import dump
    from evals.site import load_address
    from rsae import Store, load_host
    from rsae.support.files import write_json

    store, sae = Store.open(activations), load_address(transcoder)
    model = load_host(host or store.provenance.known("model", "jacobians"))
    found = compare(sae, model, store, tokens, vectors, seed, allow_mismatch)
    within = found.cosine_interval
    about = f" ({within.low:.3f} to {within.high:.3f})" if within else ""
    typer.echo(
        f"cosine {found.cosine:.3f}{about}, norm {found.norm_ratio:.3f} of the MLP's; "
        f"varying: cosine {found.varying_cosine:.3f} ({found.varying_share:.0%} of the MLP's square); "
        f"{found.tokens} tokens"
    )
    if json is not None:
        write_json(json, dump(found))
