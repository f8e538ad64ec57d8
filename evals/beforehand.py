"""What would stop a suite after hours is found before its first step: a wrong hook point, teacher or labelled text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from evals.config import SuiteConfig
from evals.labelled import load_classes, load_crossed
from evals.site import SiteRun, load_address
from evals.tasks import load_task
from rsae import InputError
from rsae.activations.protocol import check_fits
from rsae.activations.stream import Stream

_TOKENS = 64  # of the host's own activations, to see how wide they are


def check_texts(config: SuiteConfig) -> None:
    """Read the labelled texts that a suite measures with.

    Args:
        config: The suite.

    Raises:
        InputError: A package or file is missing, a row is wrong, or a class has too few texts.
    """
    e = config.evaluate
    for task in e.tasks:
        load_task(task, e.probe_train, e.probe_test)
    for name in e.classes:
        load_classes(name, e.probe_train // 2, e.probe_test // 2)
    for name in e.crossed:
        load_crossed(name, e.probe_train // 2, e.probe_test // 2)


def check_places(places: Sequence[SiteRun], teachers: Sequence[Sequence[str]]) -> None:
    """Look at the hosts of sites that have no activations yet, and at the SAEs that wait for these.

    A site alone is left out, where no SAE waits for it: its harvest looks at all of this before it writes.

    Args:
        places: The sites.
        teachers: Of each, the addresses of its public SAEs.

    Raises:
        InputError: A host has no such hook point; an SAE is not there, or is one of another host, hook point or width.
    """
    for place, addresses in zip(places, teachers, strict=True):
        if len(places) > 1 or addresses:
            few = replace(place.harvest, tokens=_TOKENS, heldout_tokens=_TOKENS)
            activations = Stream(few, place.host)
            activations.name = f"the site {place.site.name}"
            for address in addresses:
                sae = load_address(address)
                try:
                    check_fits(sae, activations)
                except InputError as error:
                    raise InputError(f"{address}: {error}") from error
