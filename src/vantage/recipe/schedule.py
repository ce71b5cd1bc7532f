"""Coefficients that may change over a run, and how bad values are reported."""

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any


def check(condition: bool, owner: object, field: str, remedy: str) -> None:
    """Raise ValueError naming the field, its value and the remedy unless the condition holds."""
    if not condition:
        raise ValueError(f"{type(owner).__name__}.{field} = {getattr(owner, field)!r}: {remedy}")


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


def first(c: Any) -> Any:
    """The value of a coefficient at the start of a run."""
    return c.start if isinstance(c, Linear) else c


def at(choice: Any, progress: float) -> Any:
    """The same choice with every schedule in it, however deep, replaced by its value at `progress`."""
    if isinstance(choice, Linear):
        return choice(progress)
    if not is_dataclass(choice) or isinstance(choice, type):
        return choice
    old = {f.name: getattr(choice, f.name) for f in fields(choice) if f.init}
    new = {name: at(x, progress) for name, x in old.items()}
    return choice if all(new[n] is old[n] for n in old) else replace(choice, **new)
