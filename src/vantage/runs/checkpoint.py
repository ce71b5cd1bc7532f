"""Checkpoints: arrays and JSON in one safetensors file, replaced atomically. Reading one runs no code."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialise

FORMAT = 1


def save(path: str | Path, arrays: dict[str, Any], info: dict[str, Any]) -> None:
    """Write nested `arrays` and JSON-able `info` to one file, so that at every moment the old one or the new one is
    there.

    Raises OSError naming the path and the remedy; whatever stood there before is then untouched.
    """
    path = Path(path)
    # safetensors writes wrong data for an array that is not C-contiguous; ascontiguousarray would turn () into (1,).
    flat = {name: np.asarray(x, order="C") for name, x in _flatten(arrays, "")}
    data = serialise(flat, metadata={"vantage": json.dumps({"format": FORMAT, **info})})
    draft = path.with_name(f".{path.name}.part")
    try:
        with open(draft, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
        _sync_folder(path.parent)
    except OSError as error:
        draft.unlink(missing_ok=True) if os.access(path.parent, os.W_OK) else None
        raise OSError(
            error.errno,
            f"no checkpoint could be written ({error.strerror}): free the disk or choose a folder you may write to",
            str(path),
        ) from error


def load(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(nested arrays, info) of a file that `save` wrote.

    Raises FileNotFoundError, or ValueError for a file that is truncated or not one of ours.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint; name the file that `save` or a run wrote")
    try:
        with safe_open(path, framework="numpy") as file:
            header = (file.metadata() or {}).get("vantage")
            flat = {name: file.get_tensor(name) for name in file.keys()} if header else {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is truncated or no checkpoint of Vantage ({error}): use an earlier one") from error
    if header is None:
        raise ValueError(
            f"{path} is a safetensors file, but not one that Vantage wrote: load an agent's own checkpoint"
        )
    info = json.loads(header)
    if info.pop("format") != FORMAT:
        raise ValueError(f"{path} was written by a later version of Vantage: install that version to read it")
    return _nest(flat), info


def _flatten(tree: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}/")
        else:
            yield prefix + key, value


def _nest(flat: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *folders, key = name.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[key] = value
    return tree


def _sync_folder(folder: Path) -> None:
    """Make the renaming itself survive a power cut, where the system can do that."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
