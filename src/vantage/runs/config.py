"""Settings as JSON: frozen dataclasses of known types, each tagged with its name; a file can name a type, never
define one.
"""

import difflib
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from vantage import recipe

T = TypeVar("T", bound=type)

KNOWN: dict[str, type] = {
    name: x
    for name, x in vars(recipe).items()
    if isinstance(x, type) and is_dataclass(x) and x.__module__.startswith(recipe.__name__)
}
"""The types that a file may name."""


OWN = "own"
"""Marks what stands for a class that the file cannot name."""


def tag(cls: type) -> str:
    """The name by which a file calls a type; those of the language world carry its name, for they are not control's."""
    return f"language.{cls.__name__}" if cls.__module__.startswith("vantage.language") else cls.__name__


def known(cls: T) -> T:
    """Let files name this dataclass; decorate your own networks and objectives with it before loading an agent that
    uses them.

    Raises ValueError if another class of that name is known already.
    """
    old = KNOWN.get(tag(cls), cls)
    if (old.__module__, old.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(
            f"{cls.__name__} is the name of {old.__module__}.{old.__qualname__} in files: choose another one"
        )
    KNOWN[tag(cls)] = cls
    return cls


def to_json(x: Any) -> Any:
    """Dataclasses become `{"type": name, field: value, …}`, tuples lists; the rest must be JSON already.

    A dataclass that no file may name becomes `{"type": name, "own": true}`, in whose place something must be given when
    the file is read. Raises TypeError for anything else.
    """
    if x is None or isinstance(x, bool | int | float | str):
        return x
    if isinstance(x, list | tuple):
        return [to_json(item) for item in x]
    if isinstance(x, dict):
        return {str(key): to_json(item) for key, item in x.items()}
    if is_dataclass(x) and KNOWN.get(tag(type(x))) is type(x):
        return {"type": tag(type(x)), **{f.name: to_json(getattr(x, f.name)) for f in fields(x) if f.init}}
    if is_dataclass(x) and not isinstance(x, type):
        return {"type": type(x).__name__, OWN: True}
    raise TypeError(
        f"{type(x).__name__} cannot be written to a file: make it a frozen dataclass, decorated with vantage.runs.known"
    )


def from_json(x: Any) -> Any:
    """The value that `to_json` wrote; lists become tuples. Raises ValueError for an unknown type or field."""
    if isinstance(x, list):
        return tuple(from_json(item) for item in x)
    if not isinstance(x, dict):
        return x
    if "type" not in x:
        return {key: from_json(item) for key, item in x.items()}
    if OWN in x:
        raise ValueError(
            f"{x['type']} is a class of the user's own that the file does not hold: decorate it with "
            "vantage.runs.known before saving"
        )
    values = {key: from_json(item) for key, item in x.items() if key != "type"}
    if x["type"] not in KNOWN:
        near = difflib.get_close_matches(str(x["type"]), KNOWN, n=1)
        raise ValueError(
            f"type {x['type']!r} is unknown{f' (did you mean {near[0]!r}?)' if near else ''}: "
            "import the module that defines it, and decorate the class with vantage.runs.known"
        )
    cls = KNOWN[x["type"]]
    strange = sorted(values.keys() - {f.name for f in fields(cls) if f.init})
    if strange:
        raise ValueError(f"{x['type']} has no field {strange[0]!r}: the file is from another version of the library")
    return cls(**values)
