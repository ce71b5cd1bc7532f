"""What a world must offer so that the one loop can train in it, and what the loop may assume in return."""

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from vantage.recipe import Recipe
from vantage.rollout import Rollout


@dataclass(frozen=True, kw_only=True)
class TrainState:
    """Everything that changes while training, as data: what is not in here must be a function of what is."""

    arrays: dict[str, Any] = field(default_factory=dict)
    """Nested dict of NumPy arrays: parameters, optimiser moments, normalisers, environments' state."""
    counters: dict[str, Any] = field(default_factory=dict)
    """JSON-able: steps, updates, β, states of random generators."""


@runtime_checkable
class World(Protocol):
    """A place to act in and the learner that acts there.

    The loop assumes:

    - `collect` acts with the present parameters and scores what it did in one batched pass of the very function that
      `update` differentiates: log π_old, V(s_t), V(s_{t+1} *reached*). It raises, and changes no parameter, if the
      world gives a number that is not finite.
    - `update` is the only method that moves parameters, optimiser and β; it takes a rollout of this world, once.
    - `steps` grows only in `collect`, by the real decisions (masked rows do not count), in the language world by whole
      completions; `updates` only in `update`.
    - All randomness is a function of (seed, updates, t, slot) and of the environments' own state.
    - Between two updates `state()` is everything: a world made with the same settings and given it by `restore` goes on
      bit for bit. Where the environments cannot be exported (`exact()` is False), `cut()` first defines a cut: running
      episodes are dropped and the environments reset from (seed, updates, slot), in this run as in the resumed one.
    """

    @property
    def steps(self) -> int: ...
    @property
    def updates(self) -> int: ...
    @property
    def beta(self) -> float | None: ...

    def exact(self) -> bool:
        """Whether the environments' state is part of `state()`."""
        ...

    def collect(self, recipe: Recipe) -> Rollout:
        """Act for one rollout, then score it."""
        ...

    def update(self, recipe: Recipe, rollout: Rollout, progress: float) -> dict[str, float]:
        """Move the parameters, β last; `progress` in [0, 1] places the optimiser's schedules. Returns metrics."""
        ...

    def cut(self) -> None:
        """Begin all columns anew, from seeds of (seed, updates, slot)."""
        ...

    def state(self) -> TrainState:
        """Everything that changes in training, copied."""
        ...

    def restore(self, state: TrainState) -> None:
        """Go on exactly from `state`."""
        ...
