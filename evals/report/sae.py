"""The page of one SAE: it stands alone, without scripts, and reads what `evals.dashboard` has measured."""

from __future__ import annotations

import os
from pathlib import Path

from evals.dashboard import Dashboard
from evals.report.environment import environment, source
from evals.results import Fit, slug
from rsae.support.files import write_text

#: Of the table of figures: field, heading, how it is printed, what it means
_FIGURES = (
    ("l0", "l0", "{:.2f}", "mean non-zero entries of the code that is decoded"),
    ("fvu", "FVU", "{:.4f}", "fraction of variance unexplained"),
    ("r2", "R²", "{:.4f}", "1 - FVU"),
    ("mse", "MSE", "{:.4g}", "mean squared error, summed over dimensions, in the activations' own units"),
    ("alive", "alive", "{:.3f}", "share of latents that fire on these tokens"),
    ("cosine", "cosine", "{:.4f}", "mean cosine of activation and reconstruction"),
    ("l2_ratio", "norms", "{:.4f}", "mean ratio of the reconstruction's norm to the activation's"),
    ("relative_bias", "bias", "{:.4f}", "relative bias: below 1, reconstructions are too short"),
)


def page_of(address: str) -> Path:
    """The page's file where none is named: one for each address, so that no page takes another's place.

    Args:
        address: The SAE's path, or OWNER/NAME:SUBFOLDER.
    """
    return Path(f"{slug(address) or 'sae'}.html")


def write_page(dashboard: Dashboard, path: str | os.PathLike) -> Path:
    """Write the page of an SAE.

    Args:
        dashboard: What there is to see of it.
        path: The file.

    Returns:
        The file.
    """
    fit, made = dashboard.reconstruction, environment()
    own = _texts(fit)
    page = made.get_template("sae.html.j2").render(
        css=source(made, "report.css"),
        d=dashboard,
        fit=fit,
        figures=[(heading, told, text) for (_, heading, _, told), text in zip(_FIGURES, own, strict=True)],
        others=[(name, _texts(other)) for name, other in fit.others.items()],
    )
    write_text(path, page)
    return Path(path)


def _texts(fit: Fit) -> list[str]:
    return [form.format(fit[key]) for key, _, form, _ in _FIGURES]
