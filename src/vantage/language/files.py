"""A run as a folder: the actor as any Transformers program reads it, and the training state beside it."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vantage.language.settings import Settings
from vantage.runs import checkpoint
from vantage.runs.config import from_json, to_json
from vantage.world import TrainState

ACTOR, STATE = "actor", "state.safetensors"
MODULE = "<module>"
"""Stands for a model that was given as an object, which a file cannot name."""


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What a folder holds."""

    settings: Settings
    sources: dict[str, Any]
    """Where each model came from at the beginning: a path, `MODULE`, a choice such as `FromActor()`, or None."""
    state: TrainState


def write(
    folder: Path,
    settings: Settings,
    sources: dict[str, Any],
    state: TrainState,
    actor: Any,
    tokenizer: Any,
    weights: dict[str, Any] | None = None,
) -> None:
    """Write a run so that at every moment the old one or the new one is there; `weights` are the actor's where it does
    not hold them itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{ACTOR}.part"
    shutil.rmtree(draft, ignore_errors=True)
    if hasattr(actor, "save_pretrained"):
        actor.save_pretrained(draft, **({} if weights is None else {"state_dict": weights}))
        if hasattr(tokenizer, "save_pretrained"):
            tokenizer.save_pretrained(draft)
        old = folder / f".{ACTOR}.old"
        shutil.rmtree(old, ignore_errors=True)
        if (folder / ACTOR).exists():
            os.replace(folder / ACTOR, old)
        os.replace(draft, folder / ACTOR)
        shutil.rmtree(old, ignore_errors=True)
    info = {
        "settings": to_json(settings),
        "sources": {name: _named(source) for name, source in sources.items()},
        "counters": state.counters,
    }
    checkpoint.save(folder / STATE, state.arrays, info)


def read(folder: Path) -> Saved:
    """What `write` wrote. Raises FileNotFoundError, or ValueError for a damaged file."""
    arrays, info = checkpoint.load(folder / STATE)
    return Saved(
        settings=from_json(info["settings"]),
        sources={name: from_json(source) for name, source in info["sources"].items()},
        state=TrainState(arrays=arrays, counters=info["counters"]),
    )


def tokenizer(folder: Path) -> Any:
    """The tokenizer saved with the actor."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder / ACTOR)


def _named(source: Any) -> Any:
    if source is None or isinstance(source, str | Path):
        return None if source is None else str(source)
    try:
        return to_json(source)
    except TypeError:
        return MODULE
