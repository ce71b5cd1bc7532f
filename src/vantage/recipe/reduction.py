"""The denominator of a batch, as a choice."""

from dataclasses import dataclass
from typing import Any

from vantage.recipe.schedule import check
from vantage.theory import reduce

Array = Any


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Mean over decisions."""

    def total(self, r: Any) -> Array:
        return reduce.total_steps(r.reward, r.mask, r.weight)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Sum over time, mean over columns: the one whose gradient is literally ∇J for one episode a column."""

    def total(self, r: Any) -> Array:
        return reduce.total_columns(r.reward, r.mask, r.weight)


@dataclass(frozen=True, kw_only=True)
class Trajectories:
    """Sum over time, mean over segments."""

    def total(self, r: Any) -> Array:
        return reduce.total_trajectories(r.reward, r.last, r.mask, r.weight)


@dataclass(frozen=True, kw_only=True)
class Constant:
    """Sum divided by a fixed number."""

    n: float

    def __post_init__(self) -> None:
        check(self.n > 0, self, "n", "a positive denominator")

    def total(self, r: Any) -> Array:
        return self.n + 0.0 * reduce.total_steps(r.reward, r.mask, r.weight)


@dataclass(frozen=True, kw_only=True)
class ConstantLength:
    """Sum over time divided by a fixed length, mean over columns: a step counts alike in long and short columns."""

    length: float
    """L, usually the longest a column can be."""

    def __post_init__(self) -> None:
        check(self.length > 0, self, "length", "a positive number of steps")

    def total(self, r: Any) -> Array:
        return self.length * reduce.total_columns(r.reward, r.mask, r.weight)


@dataclass(frozen=True, kw_only=True)
class SequenceMean:
    """Mean over the steps of a column, then mean over columns: a step of a long column counts less."""

    def weight(self, r: Any) -> Array:
        """What a step counts, `[T, B]`: 1/length of its column; every mean over the batch is taken with it."""
        return r.row_weight * reduce.column_share(r.reward, r.mask)

    def total(self, r: Any) -> Array:
        return reduce.total_columns(r.reward, r.mask, r.weight)


Reduction = Steps | Columns | Trajectories | Constant | ConstantLength | SequenceMean
