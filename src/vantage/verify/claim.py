"""What a claim is: a formula of the theory, and a function that puts an independent value beside the library's."""

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vantage.verify.backend import Backend

Array = Any
Relation = Literal["=", "≠", "≥", "≤"]
TOLERANCE = 1e-9


@dataclass(frozen=True, kw_only=True)
class Check:
    """One comparison: `got`, from the library, stands in `relation` to `expected`, derived without it."""

    expected: Array
    got: Array
    relation: Relation
    tolerance: float
    what: str = ""

    @property
    def pairs(self) -> tuple[Array, Array]:
        """(expected, got), flat, entry beside entry."""
        both = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (self.expected, self.got)))
        return both[0].reshape(-1), both[1].reshape(-1)

    @property
    def deviations(self) -> Array:
        """|got − expected| of each entry for = and ≠; for ≥ and ≤ by how much it violates the bound."""
        expected, got = self.pairs
        difference = np.where(got == expected, 0.0, got - np.where(got == expected, 0.0, expected))  # ∞ = ∞
        violation = {"≥": np.clip(-difference, 0.0, None), "≤": np.clip(difference, 0.0, None)}
        return violation.get(self.relation, np.abs(difference))

    @property
    def deviation(self) -> float:
        """The largest deviation; NaN if an entry is, or if there is none."""
        found = self.deviations
        return float(np.max(found)) if found.size else float("nan")

    @property
    def passed(self) -> bool:
        """Whether it holds; NaN never does, nor does a comparison of nothing."""
        off = self.deviation
        if self.relation == "≠":
            return off > self.tolerance
        if not np.isfinite(off):
            return False
        size = float(np.max(np.abs(self.expected)))
        return off <= self.tolerance * (max(1.0, size) if np.isfinite(size) else 1.0)


def equal(expected: Array, got: Array, what: str = "", tol: float = TOLERANCE) -> Check:
    """got = expected, entry by entry, up to `tol` (relative where the numbers exceed 1)."""
    return _check(expected, got, "=", what, tol)


def zero(got: Array, what: str = "", tol: float = TOLERANCE) -> Check:
    """Every entry of got is 0."""
    return _check(np.zeros_like(np.asarray(got, dtype=np.float64)), got, "=", what, tol)


def differs(a: Array, b: Array, what: str = "", by: float = 1e-3) -> Check:
    """The largest difference between a and b exceeds `by`: they are not the same thing."""
    return _check(a, b, "≠", what, by)


def at_least(bound: Array, got: Array, what: str = "", tol: float = 1e-12) -> Check:
    """got ≥ bound in every entry, up to rounding."""
    return _check(bound, got, "≥", what, tol)


def at_most(bound: Array, got: Array, what: str = "", tol: float = 1e-12) -> Check:
    """got ≤ bound in every entry, up to rounding."""
    return _check(bound, got, "≤", what, tol)


def _check(expected: Array, got: Array, relation: Relation, what: str, tol: float) -> Check:
    return Check(expected=np.asarray(expected), got=np.asarray(got), relation=relation, tolerance=tol, what=what)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement of the theory that can be checked.

    `id` begins with its section ("6.6.td-bias") and names its anchor in docs/theory.md. `check` takes a backend, or
    nothing where the claim is about exact quantities alone, and yields comparisons; the first is the one shown.
    """

    id: str
    formula: str
    statement: str
    check: Callable[..., Iterator[Check]]
    autodiff: bool = False
    """Whether it is about what a gradient does *not* flow through, so that finite differences cannot tell."""

    @property
    def section(self) -> str:
        """The section of the theory, such as "6.6"."""
        found = re.match(r"\d+(\.\d+)?", self.id)
        assert found is not None, f"claim id {self.id!r} must begin with its section"
        return found[0]

    @property
    def exact(self) -> bool:
        """Whether it is about finite MDPs only, which are solved in NumPy whatever the backend."""
        return not inspect.signature(self.check).parameters

    def runs_on(self, name: str) -> bool:
        """Whether the backend of this name can check it."""
        return name == "numpy" if self.exact else name != "numpy" or not self.autodiff

    def checks(self, on: Backend) -> list[Check]:
        """The comparisons made on a backend."""
        with on.context():
            return list(self.check() if self.exact else self.check(on))


CLAIMS: dict[str, Claim] = {}
"""Every claim by id, in the order of definition."""


def claim(id: str, formula: str, *, autodiff: bool = False, statement: str = "") -> Callable[[Callable], Callable]:
    """Register the decorated function as a claim; its docstring is the statement unless one is given."""

    def register(check: Callable) -> Callable:
        assert id not in CLAIMS, f"two claims have the id {id}"
        text = inspect.cleandoc(statement or check.__doc__ or "")
        CLAIMS[id] = Claim(id=id, formula=formula, statement=text, check=check, autodiff=autodiff)
        return check

    return register
