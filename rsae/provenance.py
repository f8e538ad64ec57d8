"""Where activations come from, as a type: recorded with stores and SAEs, and compared wherever two of them meet."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from rsae.support.errors import InputError

#: Ours -> SAELens's names of the same facts, in the `metadata` of a cfg.json
_NAMES = {
    "model": "model_name",
    "hook": "hook_name",
    "head": "hook_head_index",
    "target": "hook_name_out",
    "context": "context_size",
    "bos": "prepend_bos",
    "text": "dataset_path",
    "exclude_tokens": "exclude_tokens",
    "norm_limit": "norm_limit",
    "target_norm_limit": "target_norm_limit",
    "note": "host_note",
    "storage": "activations_storage",
    "split_seed": "split_seed",
    "rows": "activation_rows",
    "heldout_rows": "heldout_rows",
}

#: Other names of one model: the embedded host is the instruct variant; TransformerLens says gpt2-small
MODEL_ALIASES = {"smollm2-135m": "smollm2-135m-instruct", "gpt2-small": "gpt2", "distillgpt2": "distilgpt2"}


@dataclass(frozen=True)
class Provenance:
    """Where activations come from. None means that it is not known, which agrees with everything."""

    model: str | None = None
    """The host: its name, directory or hub name."""
    hook: str | None = None
    """The hook point, such as `blocks.12.hook_resid_pre`."""
    head: int | None = None
    """The attention head, where the hook point is one head's part of it."""
    target: str | None = None
    """The hook point that a transcoder predicts."""
    context: int | None = None
    """Tokens a sequence, BOS included."""
    bos: bool | None = None
    """Whether a BOS token stands in front of every sequence."""
    text: str | None = None
    """The text that the host read."""
    exclude_tokens: tuple[int, ...] | None = None
    """Ids of the tokens whose activations are left out."""
    norm_limit: float | None = None
    """Activations of a larger norm are left out, in the host's units."""
    target_norm_limit: float | None = None
    """Nor are those whose target has a larger norm than this."""
    note: str | None = None
    """What else is to be said of the host, such as how its weights are quantised."""
    storage: str | None = None
    """How the activations lie in their store, and what that costs, where it is not float32."""
    split_seed: int | None = None
    """Seed of the split of the text into training, held-out and probing documents."""
    rows: int | None = None
    """How many rows one's own activations had."""
    heldout_rows: int | None = None
    """How many of these, the last ones, were held out of training."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Fields of a foreign file that mean nothing here; they survive load and save."""

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Provenance:
        """Read the `metadata` of a SAELens cfg.

        Args:
            metadata: Fields by SAELens's names; unknown ones are kept in `extra`.
        """
        theirs = {name: ours for ours, name in _NAMES.items()}
        known: dict[str, Any] = {theirs[k]: v for k, v in metadata.items() if k in theirs and v is not None}
        if isinstance(known.get("exclude_tokens"), list):
            known["exclude_tokens"] = tuple(known["exclude_tokens"])
        extra = {k: v for k, v in metadata.items() if k not in theirs}
        return cls(**known, extra=extra)

    def metadata(self) -> dict[str, Any]:
        """The same as SAELens's `metadata`: what `from_metadata` reads."""
        ours = {name: getattr(self, field_) for field_, name in _NAMES.items()}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in ours.items() if v is not None} | dict(
            self.extra
        )

    def filled(self, other: Provenance) -> Provenance:
        """This provenance, with what it does not know taken from another one.

        Args:
            other: Where unknown fields are looked up; its `extra` is not taken.
        """
        missing = {
            f.name: getattr(other, f.name)
            for f in fields(self)
            if f.name != "extra" and getattr(self, f.name) is None
        }
        return replace(self, **missing)

    def known(self, name: str, what: str) -> Any:
        """A field that is needed.

        Args:
            name: The field's name.
            what: What asks for it, for the message.

        Raises:
            InputError: The field is not known.
        """
        value = getattr(self, name)
        if value is None:
            raise InputError(
                f"{what} needs a {_WORDS.get(name, name)}, and the activations or the SAE name none; "
                f"give it yourself, or harvest the activations from a host (`rsae harvest`)"
            )
        return value


_WORDS = {
    "model": "host model",
    "hook": "hook point",
    "target": "target",
    "text": "text",
    "context": "context length",
}


def canonical_model(name: str) -> str:
    """A model's name without its organisation or directory, lower case, aliases resolved.

    Args:
        name: A hub name, a directory, or TransformerLens's short name.
    """
    last = name.rstrip("/").rsplit("/", 1)[-1].lower()
    return MODEL_ALIASES.get(last, last) if last == name.lower() else last


def check_match(
    mine: Provenance, theirs: Provenance, what: str, with_what: str, allow_mismatch: bool = False
) -> None:
    """Compare two provenances; unknown fields agree with everything.

    Args:
        mine: Of the SAE.
        theirs: Of the store, host or hook point that it meets.
        what: Names the first in messages, such as "the SAE".
        with_what: Names the second, such as "the store runs/x/activations".
        allow_mismatch: Accept another model or hook point.

    Raises:
        InputError: The models, hook points or heads are known and differ, and that is not allowed.
    """
    if allow_mismatch:
        return
    pairs = [
        ("model", mine.model, theirs.model, canonical_model),
        ("hook point", mine.hook, theirs.hook, canonical_hook),
        ("head", mine.head, theirs.head, str),
        ("target", mine.target, theirs.target, canonical_hook),
    ]
    for name, ours, others, same in pairs:
        if ours is not None and others is not None and same(ours) != same(others):
            raise InputError(
                f"{what} belongs to {name} {ours!r}, {with_what} to {others!r}; take the matching one, or give "
                "allow_mismatch=True (--allow-mismatch) if you mean it"
            )
    seeds = mine.split_seed, theirs.split_seed
    if mine.text is not None and mine.text == theirs.text and None not in seeds and seeds[0] != seeds[1]:
        raise InputError(
            f"{what} was trained on another split of the text (split_seed {seeds[0]}), {with_what} (split_seed "
            f"{seeds[1]}) may hold out what it was trained on; take split_seed {seeds[0]}, or give "
            "allow_mismatch=True (--allow-mismatch) if you mean it"
        )
    held = mine.heldout_rows, theirs.heldout_rows
    if mine.rows is not None and mine.rows == theirs.rows and None not in held and held[0] != held[1]:
        raise InputError(
            f"{what} was trained with {held[0]} of {mine.rows} rows held out, {with_what} hold out {held[1]}; give "
            f"heldout={held[0]} (--heldout), or, for other rows, allow_mismatch=True (--allow-mismatch)"
        )
    if mine.bos is not None and theirs.bos is not None and mine.bos != theirs.bos:
        has, lacks = (what, with_what) if mine.bos else (with_what, what)
        warnings.warn(
            f"{has} has a BOS token in front of every sequence, {lacks} has none: activations differ a little",
            stacklevel=3,
        )


def canonical_hook(name: str) -> str:
    """A hook point's name with the residual stream before a block named as that after the block before it.

    Args:
        name: Such as `blocks.3.hook_resid_pre`, which is the same place as `blocks.2.hook_resid_post`.
    """
    parts = name.split(".")
    if len(parts) == 3 and parts[0] == "blocks" and parts[2] == "hook_resid_pre" and parts[1].isdigit():
        layer = int(parts[1])
        if layer > 0:
            return f"blocks.{layer - 1}.hook_resid_post"
    return name
