"""The API reference: a page a package, made at each build from the stubs that name what is public."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ABOUT = {
    "approx": "Rational approximation with proven bounds. It never imports torch.",
    "rsae": "Sparse autoencoders in torch. Shapes: B batch, P position, D d_in, F d_sae, N entries of a sparse code.",
    "evals": "What an SAE is worth. Shapes: B batch, D d_in, F d_sae.",
}


def public_names(package: str) -> list[tuple[str, str]]:
    """Module and name of each public name, in the stub's order.

    Args:
        package: `approx`, `rsae` or `evals`.
    """
    stub = Path(package, "__init__.pyi").read_text()
    return re.findall(r"^from \.(\S+) import (\w+) as \w+", stub, flags=re.M)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """mkdocs calls this: the pages are added to those on the disk.

    Args:
        files: The site's files.
        config: The site's configuration.
    """
    for package, about in ABOUT.items():
        lines = [f"# {package}", "", about, ""]
        lines += [f"::: {package}.{module}.{name}\n" for module, name in public_names(package)]
        files.append(File.generated(config, f"api/{package}.md", content="\n".join(lines)))
    return files
