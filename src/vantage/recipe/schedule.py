"""Coefficients that may change over a run, and how bad values are reported."""

import copy
import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from itertools import pairwise
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


def checked_options(kind: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The options, if all are fields of a dataclass. Raises TypeError that suggests the nearest field."""
    names = [f.name for f in fields(kind)]
    for name in options:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}"
            raise TypeError(f"unknown option {name!r}: {hint}")
    return options


@dataclass(frozen=True)
class Linear:
    """A coefficient that goes linearly from `start` to `end` over the run.

    c(x) = start + (end − start) x,   x = fraction of the run that is done, in [0, 1]
    """

    start: float
    end: float = 0.0

    def __call__(self, progress: float) -> float:
        return self.start + (self.end - self.start) * progress


@dataclass(frozen=True)
class Cosine:
    """A coefficient that leaves `start` slowly and reaches `end` slowly, along half a cosine.

    c(x) = end + (start − end) (1 + cos πx) / 2,   x = fraction of the run that is done, in [0, 1]

    Source: Loshchilov & Hutter (2017) eq. 5.
    """

    start: float
    end: float = 0.0

    def __call__(self, progress: float) -> float:
        return self.end + (self.start - self.end) * (1.0 + math.cos(math.pi * progress)) / 2.0


@dataclass(frozen=True)
class Exponential:
    """A coefficient that goes from `start` to `end` by the same factor in equal times; both are positive.

    c(x) = start (end / start)^x,   x = fraction of the run that is done, in [0, 1]
    """

    start: float
    end: float

    def __post_init__(self) -> None:
        check(self.start > 0, self, "start", "only positive numbers are a factor apart")
        check(self.end > 0, self, "end", "only positive numbers are a factor apart")

    def __call__(self, progress: float) -> float:
        return self.start * (self.end / self.start) ** progress


@dataclass(frozen=True)
class Piecewise:
    """A coefficient that goes linearly between `points`, pairs (x, c) with rising x; constant before and after them.

    x = fraction of the run that is done, in [0, 1]
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        places = [x for x, _ in self.points]
        rising = all(a < b for a, b in pairwise(places))
        within = bool(places) and 0.0 <= places[0] and places[-1] <= 1.0
        check(
            rising and within, self, "points", "pairs (x, value), 0 ≤ x ≤ 1 rising, such as ((0.5, 3e-4), (1.0, 0.0))"
        )

    @property
    def start(self) -> float:
        """The value when the run begins."""
        return self.points[0][1]

    @property
    def end(self) -> float:
        """The value when the run is done."""
        return self.points[-1][1]

    def __call__(self, progress: float) -> float:
        for (x, c), (y, d) in pairwise(self.points):
            if progress < y:
                return c + (d - c) * max(progress - x, 0.0) / (y - x)
        return self.end


Schedule = Linear | Cosine | Exponential | Piecewise
Coefficient = float | Linear | Cosine | Exponential | Piecewise


def value(c: Coefficient, progress: float) -> float:
    """The coefficient at a moment of the run."""
    return c(progress) if isinstance(c, Schedule) else c


def settled(c: Any) -> Any:
    """A coefficient of a recipe `at` a moment, where every schedule has become a number, maybe a traced one."""
    return c


def everywhere(holds: Callable[..., bool], *coefficients: Coefficient) -> bool:
    """Whether coefficients have a property together at every moment of the run: tried at 101, and at the corners."""
    corners = [x for c in coefficients if isinstance(c, Piecewise) for x, _ in c.points]
    return all(holds(*(value(c, x) for c in coefficients)) for x in [*(i / 100 for i in range(101)), *corners])


def positive(c: Coefficient) -> bool:
    """Whether a coefficient starts above 0 and never falls below it."""
    return value(c, 0.0) > 0 and everywhere(lambda x: x >= 0, c)


def at(choice: Any, progress: float) -> Any:
    """The same choice with every schedule in it, however deep, replaced by its value at `progress`.

    A schedule was checked as a whole when it was made; its values are not checked again.
    """
    if isinstance(choice, Schedule):
        return choice(progress)
    if not is_dataclass(choice) or isinstance(choice, type):
        return choice
    old = {f.name: getattr(choice, f.name) for f in fields(choice)}
    new = {name: at(x, progress) for name, x in old.items()}
    if all(new[name] is old[name] for name in old):
        return choice
    return swap(choice, **new)


def swap(choice: Any, **values: Any) -> Any:
    """The same choice with other values in it, which are not checked."""
    now = copy.copy(choice)
    for name, x in values.items():
        object.__setattr__(now, name, x)
    return now
