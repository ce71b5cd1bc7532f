"""A recipe split into structure and numbers, so that a schedule moves the numbers without compiling anything anew."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any


def numbers(choice: Any) -> list[float]:
    """The floats of a choice, however deep, in the order of its fields."""
    if isinstance(choice, float):
        return [float(choice)]
    return [x for child in _children(choice).values() for x in numbers(child)]


def structure(choice: Any) -> Any:
    """The choice with every float replaced by 0.0: hashable, equal for all moments of a schedule."""
    return _rebuild(choice, lambda _: 0.0)


def refill(choice: Any, values: list[Any]) -> Any:
    """The inverse: `values`, traced or not, in the places of the floats. The values are not checked again."""
    remaining: Iterator[Any] = iter(values)
    return _rebuild(choice, lambda _: next(remaining))


def _children(choice: Any) -> dict[str, Any]:
    if not is_dataclass(choice) or isinstance(choice, type):
        return {}
    return {f.name: getattr(choice, f.name) for f in fields(choice)}


def _rebuild(choice: Any, replace_float: Any) -> Any:
    if isinstance(choice, float):
        return replace_float(choice)
    children = _children(choice)
    if not children:
        return choice
    copy = object.__new__(type(choice))
    for name, child in children.items():
        object.__setattr__(copy, name, _rebuild(child, replace_float))
    return copy
