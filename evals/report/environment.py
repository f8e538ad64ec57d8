"""Templates, and the style sheet and script that pages hold."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment() -> Environment:
    """The templates of the pages; what is filled in is escaped."""
    return Environment(
        loader=PackageLoader("evals.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def source(templates: Environment, name: str) -> str:
    """A file beside the templates, as it is.

    Args:
        templates: The templates.
        name: The file's name.
    """
    assert templates.loader is not None
    return templates.loader.get_source(templates, name)[0]
