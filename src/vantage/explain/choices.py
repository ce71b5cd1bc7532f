"""Choices as text: what a command line calls a type, how it writes a value, and what a field's docstring says."""

import ast
import difflib
import inspect
import re
import textwrap
import types
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from functools import cache
from itertools import pairwise
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from vantage.recipe import Cosine, Exponential, Linear, Piecewise, Schedule

SCHEDULES: dict[str, Any] = {"lin": Linear, "cos": Cosine, "exp": Exponential}
"""Schedules from one number to another, as text: lin_0.2, cos_3e-4:1e-5; points are pts_0=3e-4/0.5=1e-4/1=0."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A remedy for a misspelt word: the nearest known one, or the list of all."""
    known = sorted(known)
    alike = difflib.get_close_matches(word, [other for other in known if other[:1] == word[:1]], n=1)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.7) or alike
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"


def spelling(cls: type) -> str:
    """The name of a type on the command line: `KStep` is k-step, `TDError` is td-error, `GAE` is gae."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", cls.__name__.replace("LoRA", "Lora")).lower()


def members(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a union, flattened; a type that is no union is its own only alternative."""
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(member for part in get_args(annotation) for member in members(part))
    return (annotation,)


def choices(annotation: Any) -> dict[str, type]:
    """The record types among the alternatives, by spelling; a schedule is written as a number, not by its name."""
    records = [kind for kind in members(annotation) if is_dataclass(kind) and kind not in get_args(Schedule)]
    return {spelling(kind): kind for kind in records if isinstance(kind, type)}


def write(value: Any) -> str:
    """A value as `convert` reads it back: lin_0.2, gae:lam=0.9, 64,64, none."""
    if isinstance(value, Piecewise):
        return "pts_" + "/".join(f"{write(x)}={write(c)}" for x, c in value.points)
    if isinstance(value, Schedule):
        head = next(name for name, kind in SCHEDULES.items() if kind is type(value))
        return f"{head}_{write(value.start)}" + (f":{write(value.end)}" if value.end else "")
    if isinstance(value, tuple | list):
        return ",".join(map(write, value))
    if is_dataclass(value) and not isinstance(value, type):
        inner = ",".join(f"{f.name}={write(getattr(value, f.name))}" for f in fields(value))
        return spelling(type(value)) + (f":{inner}" if inner else "")
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value)


def expected(annotation: Any) -> str:
    """What may stand where a value of this type is asked for, such as `number or lin_number`."""
    words = [word for kind in members(annotation) for word in _expected(kind)]
    return " | ".join(dict.fromkeys(words))


def _expected(kind: Any) -> Iterable[str]:
    if kind in get_args(Schedule):
        return ["lin_number"] if kind is Linear else []
    if get_origin(kind) is Literal:
        return [str(option) for option in get_args(kind)]
    if get_origin(kind) is tuple:
        return ["int,int,…"]
    if is_dataclass(kind) and isinstance(kind, type):
        return [spelling(kind)]
    if getattr(kind, "_is_protocol", False):  # what a user writes in Python has no spelling
        return []
    return [{float: "number", int: "int", bool: "true | false", str: "text", type(None): "none"}.get(kind, "value")]


def convert(text: str, annotation: Any) -> Any:
    """The value that a text stands for under a type annotation.

    Numbers, true/false, none and words are themselves; lin_0.2 falls linearly from 0.2 to 0 and lin_0.2:0.05 to 0.05,
    cos_ and exp_ along those curves, and pts_0=3e-4/0.5=1e-4 linearly between values at shares of the run; a choice is
    its spelling, or any beginning of it that fits no other, with its fields after a colon: `td`, `gae:lam=0.9`.
    Raises ValueError, saying what is expected.
    """
    for kind in members(annotation):
        found = _as(text.strip(), kind)
        if found is not _NOT:
            return found
    named = choices(annotation)
    if named:
        return _record(text.strip(), named)
    scheduled = ", or lin_0.2 for one that falls linearly to 0" if Linear in members(annotation) else ""
    wanted = [word for word in expected(annotation).split(" | ") if word != "lin_number"]
    raise ValueError(f"give {' or '.join(wanted)}{scheduled}")


_NOT = object()


def _as(text: str, kind: Any) -> Any:
    """The text as this plain kind, or _NOT."""
    if kind is type(None):
        return None if text.lower() == "none" else _NOT
    if kind is bool:
        return {"true": True, "yes": True, "false": False, "no": False}.get(text.lower(), _NOT)
    if kind is Piecewise:
        return _points(text) if text.startswith("pts_") else _NOT
    if kind in get_args(Schedule):
        found = re.fullmatch(r"(lin|cos|exp)_([^:]+)(?::(.+))?", text)
        fits = found and SCHEDULES[found[1]] is kind
        return kind(_number(found[2]), _number(found[3] or "0")) if found and fits else _NOT
    if get_origin(kind) is Literal:
        return next((option for option in get_args(kind) if str(option) == text), _NOT)
    if get_origin(kind) is tuple:
        parts = [_as(part.strip(), get_args(kind)[0]) for part in text.split(",")]
        return _NOT if _NOT in parts else tuple(parts)
    if kind in (int, float):
        try:
            return kind(text.replace("_", "")) if kind is float else _whole(text)
        except ValueError:
            return _NOT
    return text if kind is str else _NOT


def _points(text: str) -> Piecewise:
    pairs = [part.partition("=") for part in text.removeprefix("pts_").split("/")]
    return Piecewise(tuple((_number(x), _number(c)) for x, _, c in pairs))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} in it is not a number; write lin_0.2, or lin_0.2:0.05 to end at 0.05") from None


def _whole(text: str) -> int:
    """An integer, also when written 1e5."""
    number = float(text)
    if number != int(number):
        raise ValueError(text)
    return int(number)


def _record(text: str, named: dict[str, type]) -> Any:
    head, _, rest = text.partition(":")
    name = head.lower().replace("_", "-")
    fits = [name] if name in named else [known for known in named if known.startswith(name + "-")]
    if len(fits) != 1:
        raise ValueError(f"no choice is called {head!r}: {nearest(name, named)}")
    kind = named[fits[0]]
    hints = get_type_hints(kind)
    knobs = [f.name for f in fields(kind)]
    values = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        key, value = (key.strip(), value) if equals else (knobs[0] if knobs else "", part)
        if key not in knobs:
            raise ValueError(f"{fits[0]} has no field {key!r}" + (f": {nearest(key, knobs)}" if knobs else ""))
        values[key] = convert(value, hints[key])
    return kind(**values)


@cache
def field_docs(cls: type) -> dict[str, str]:
    """The docstring that stands below each field of a class (or below each of its bases' fields)."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        except (OSError, TypeError):
            continue
        if isinstance(body, ast.ClassDef):
            found |= dict(_documented(body.body))
    return found


def _documented(body: list[ast.stmt]) -> Iterable[tuple[str, str]]:
    for field, below in pairwise(body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, inspect.cleandoc(text)


def summary(item: Any) -> str:
    """The first sentence of a docstring, without its source."""
    text = " ".join((inspect.getdoc(item) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.:;])\s+(?:Theory|Source)\b", text)[0]
