"""SAEs on the Hugging Face hub, by `huggingface_hub`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from rsae.formats import Kind, circuit_tracer, llama_scope, load, native
from rsae.sae import SAE
from rsae.support.errors import InputError

#: Nothing else of a repository is fetched: first what says what there is, then weights
_CONFIGS = ("*.json", "*.yaml")
_WEIGHTS = ("*.safetensors", "*.npz", "*.pt", "*.pth")


def from_pretrained(
    repo_id: str,
    revision: str | None = None,
    subfolder: str | None = None,
    *,
    input_scale: float | None = None,
    hook: str | None = None,
    kind: Kind | None = None,
) -> SAE:
    """Load an SAE from a hub repository, in any supported format.

    Only the SAE's own directory is fetched, not the folders in it: a repository may hold hundreds of SAEs.

    Args:
        repo_id: OWNER/NAME.
        revision: A branch, tag or commit; name a commit where the result must not change.
        subfolder: The SAE's directory in the repository, or its file of weights, where a directory holds several; by
            default the repository's top.
        input_scale: See `rsae.load`.
        hook: See `rsae.load`.
        kind: See `rsae.load`.

    Raises:
        InputError: The hub does not give it, or it cannot be read.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    place = PurePosixPath((subfolder or "").strip("/"))
    file = place.suffix in (pattern[1:] for pattern in _WEIGHTS)
    within = "".join(f"{part}/" for part in (place.parent if file else place).parts)

    def fetched(patterns: Iterable[str]) -> Path:
        below = f"{within}*/*"  # a * matches slashes too
        ignored = [] if any(fnmatch(pattern, below) for pattern in patterns) else [below]
        path = snapshot_download(
            repo_id, revision=revision, allow_patterns=list(patterns), ignore_patterns=ignored
        )
        return Path(path) / within

    def weights(directory: Path) -> list[str]:
        if file:
            return [str(place)]
        if (directory / llama_scope.CFG).exists():
            return [within + llama_scope.WEIGHTS]
        # of a set of layers none: one has to be named
        return [] if (directory / circuit_tracer.CONFIG).exists() else [within + f for f in _WEIGHTS]

    try:
        directory = fetched(configs := [within + f for f in _CONFIGS])
        if wanted := weights(directory):
            directory = fetched([*configs, *wanted])
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{repo_id}: no such directory, and the hub does not give it ({reason}); check the name, the revision, "
            "your network and, for a private repository, your login"
        ) from error
    if not wanted:
        raise InputError(
            f"{repo_id}: {circuit_tracer.CONFIG} of its {_folder(within)} tells of a transcoder for each layer; name "
            f"one's file, such as subfolder={within + 'layer_0.safetensors'!r}"
        )
    if not any(directory.glob("*")):
        raise InputError(
            f"{repo_id}: no SAE in its {_folder(within)}, revision {revision or 'main'}; name the one that holds it as "
            "subfolder"
        )
    found = directory / place.name if file else directory
    sae = load(found, input_scale=input_scale, hook=hook, kind=kind)
    extra = {"repository": repo_id} | dict(sae.provenance.extra)
    sae.provenance = replace(sae.provenance, extra=extra)
    return sae


def _folder(within: str) -> str:
    return f"folder {within.rstrip('/')!r}" if within else "top folder"


def push_to_hub(
    sae: SAE,
    repo_id: str,
    *,
    subfolder: str | None = None,
    private: bool = False,
    revision: str | None = None,
    message: str = "Upload SAE",
) -> str:
    """Upload an SAE in the native format, with a model card.

    Args:
        sae: The SAE.
        repo_id: OWNER/NAME; the repository is made where it is missing.
        subfolder: Directory in the repository; by default its top.
        private: Whether a new repository is private.
        revision: The branch to upload to.
        message: The commit's message.

    Returns:
        The commit's address.

    Raises:
        InputError: The hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi()
    with tempfile.TemporaryDirectory() as directory:
        native.save(sae, directory)
        (Path(directory) / "README.md").write_text(model_card(sae, repo_id), encoding="utf-8")
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo_id,
                folder_path=directory,
                path_in_repo=subfolder,
                revision=revision,
                commit_message=message,
            )
        except (OSError, HfHubHTTPError, HFValidationError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(
                f"{repo_id}: the hub refuses ({reason}); is your login one that may write?"
            ) from error
    return str(commit.commit_url)


def model_card(sae: SAE, repo_id: str) -> str:
    """A README.md for the repository: what the SAE is, of which host, and how to load it.

    Args:
        sae: The SAE.
        repo_id: OWNER/NAME.
    """
    rows = {
        "family": sae.family,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "host": sae.provenance.model or "not recorded",
        "hook point": sae.provenance.hook or "not recorded",
        "norm limit": sae.provenance.norm_limit or "none",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    bridge = "" if not native.architecture(type(sae)).startswith("rsae_") else "import rsae.formats.saelens\n"
    return f"""---
library_name: rsae
tags:
- sparse-autoencoder
- interpretability
---
# {repo_id.split("/")[-1]}

A sparse autoencoder. It takes activations as the host gives them.

| | |
|---|---|
{table}

```python
import rsae
sae = rsae.load("{repo_id}")
```

The files are SAELens's layout, so SAELens reads them too, from a local copy:

```python
from sae_lens import SAE
{bridge}sae = SAE.load_from_disk(path)
```
"""
