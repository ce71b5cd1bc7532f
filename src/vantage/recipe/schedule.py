"""Coefficients that may change over a run, and how bad values are reported."""

import copy
from dataclasses import dataclass, fields, is_dataclass
from typing import Any


def check(condition: bool, owner: object, field: str, remedy: str) -> None:
    """Raise ValueError naming the field, its value and the remedy unless the condition holds."""
    if not condition:
        raise ValueError(f"{type(owner).__name__}.{field} = {getattr(owner, field)!r}: {remedy}")


def check_type(condition: bool, owner: object, field: str, wanted: str) -> None:
    """Raise TypeError naming the field, its value and what is wanted unless the condition holds."""
    if not condition:
        raise TypeError(f"{type(owner).__name__}.{field} = {getattr(owner, field)!r}: give {wanted}")


def check_whole(owner: object, *names: str) -> None:
    """Raise TypeError unless these fields are whole numbers."""
    for name in names:
        x = getattr(owner, name)
        check_type(hasattr(x, "__index__") and not isinstance(x, bool), owner, name, "a whole number")


@dataclass(frozen=True)
class Linear:
    """A coefficient that goes linearly from `start` to `end` over the run.

    c(x) = start + (end − start) x,   x = fraction of the run that is done, in [0, 1]
    """

    start: float
    end: float = 0.0

    def __call__(self, progress: float) -> float:
        return self.start + (self.end - self.start) * progress


Coefficient = float | Linear


def ends(c: Coefficient) -> tuple[float, float]:
    """The values of a coefficient at the start and at the end of a run."""
    return (c.start, c.end) if isinstance(c, Linear) else (c, c)


def positive(c: Coefficient) -> bool:
    """Whether a coefficient starts above 0 and never falls below it."""
    start, end = ends(c)
    return start > 0 and end >= 0


def at(choice: Any, progress: float) -> Any:
    """The same choice with every schedule in it, however deep, replaced by its value at `progress`.

    A schedule was checked as a whole when it was made; its values are not checked again.
    """
    if isinstance(choice, Linear):
        return choice(progress)
    if not is_dataclass(choice) or isinstance(choice, type):
        return choice
    old = {f.name: getattr(choice, f.name) for f in fields(choice)}
    new = {name: at(x, progress) for name, x in old.items()}
    if all(new[name] is old[name] for name in old):
        return choice
    now = copy.copy(choice)
    for name, x in new.items():
        object.__setattr__(now, name, x)
    return now
