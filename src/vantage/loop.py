"""The one loop, for every world: rollout → Ψ → update → report."""

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from vantage.recipe import Recipe
from vantage.rollout import Rollout
from vantage.world import TrainState, World

Metrics = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Update:
    """What a callback sees after each update: `world` has moved on, `rollout` and `recipe` are those it moved by."""

    world: World
    recipe: Recipe
    """The recipe with its schedules and β at this moment."""
    rollout: Rollout
    metrics: Metrics
    steps: int
    updates: int
    progress: float
    """Share of the run that was done when the rollout began, in [0, 1]."""


class Callback:
    """Base of whatever listens to a run; every method may be left as it is."""

    def on_start(self, world: World, recipe: Recipe, total_steps: int) -> None:
        """Before the first rollout."""

    def on_update(self, update: Update) -> bool | None:
        """After each update; return False to end the run here."""

    def on_end(self, report: "Report") -> None:
        """After the last update, also when the run was interrupted or an error ends it."""


@dataclass(frozen=True)
class _Plain(Callback):
    """A function in the place of a callback."""

    call: Callable[[Update], Any]

    def on_update(self, update: Update) -> bool | None:
        """What the function returns: False ends the run."""
        return self.call(update)


Listener = Callback | Callable[[Update], Any]
"""What may listen to a run: a callback, or a function of each update that returns False to end the run."""


@runtime_checkable
class Saver(Protocol):
    """Where checkpoints go, and after how many updates each."""

    @property
    def every(self) -> int: ...

    def save(self, state: TrainState) -> None: ...


@dataclass(kw_only=True)
class Report:
    """The metrics of a run, one row an update."""

    rows: list[Metrics] = field(default_factory=list)
    stopped: str | None = None
    """Why the run ended before its last step: "interrupt" or "callback"; None if it did not."""

    @property
    def final(self) -> Metrics:
        """The last row; empty if there was no update."""
        return self.rows[-1] if self.rows else {}

    def column(self, name: str) -> list[float]:
        """One metric over the updates that have it."""
        return [row[name] for row in self.rows if name in row]

    def __str__(self) -> str:
        width = max(map(len, self.final), default=0)
        lines = [f"{name:<{width}}  {value:>12.6g}" for name, value in sorted(self.final.items())]
        return "\n".join(lines) or "no update was made"


def learn(
    world: World,
    recipe: Recipe,
    total_steps: int,
    callbacks: Listener | Iterable[Listener] = (),
    checkpoint: Saver | None = None,
) -> Report:
    """Train until the world has taken `total_steps` steps in all, and report each update.

    `callbacks` are `Callback`s, or functions of an `Update`. Raises ValueError if so many steps were taken already.

    Ctrl-C (and SIGTERM) ends the run after the update in progress; a second one at once. Where the world's state is
    exact a checkpoint of that moment is written then; elsewhere the last regular one stands, so that resuming is bit
    for bit in both cases.
    """
    if total_steps < 1:
        raise ValueError(f"total_steps = {total_steps}: train for at least one step")
    if total_steps <= world.steps:
        raise ValueError(
            f"{total_steps:,} steps are {'fewer' if total_steps < world.steps else 'no more'} than the {world.steps:,} "
            "already taken: total_steps counts from the beginning; give a larger total"
        )
    report, listeners, began, first = Report(), _listeners(callbacks), time.perf_counter(), world.steps
    with _graceful() as interrupted:
        for listener in listeners:
            listener.on_start(world, recipe, total_steps)
        report.stopped = "interrupt" if interrupted() else None
        try:
            while world.steps < total_steps and report.stopped is None:
                update = _one_update(world, recipe, total_steps)
                update.metrics.update(_time(world, began, first))
                report.rows.append(update.metrics)
                if [listener for listener in listeners if listener.on_update(update) is False]:
                    report.stopped = "callback"
                if interrupted():
                    report.stopped = "interrupt"
                _checkpoint(world, checkpoint, world.steps >= total_steps or report.stopped is not None)
        finally:
            for listener in listeners:
                listener.on_end(report)
    return report


def _listeners(callbacks: Any) -> list[Callback]:
    """The callbacks, one alone as well; functions become callbacks. Raises TypeError for anything else."""
    several = [callbacks] if callable(callbacks) or hasattr(callbacks, "on_update") else callbacks
    if not isinstance(several, Iterable):
        raise TypeError(f"callbacks = {callbacks!r}: give a list of Callbacks, or of functions of an Update")
    found: list[Any] = list(several)
    for each in found:
        if isinstance(each, type) or not (callable(each) or hasattr(each, "on_update")):
            raise TypeError(f"callbacks has {each!r}: give Callback objects, or functions of an Update")
    return [each if hasattr(each, "on_update") else _Plain(each) for each in found]


def _one_update(world: World, recipe: Recipe, total_steps: int) -> Update:
    progress = min(world.steps / total_steps, 1.0)
    now = recipe.at(progress, world.beta)
    rollout = world.collect(now)
    metrics = world.update(now, rollout, progress)
    return Update(
        world=world, recipe=now, rollout=rollout, metrics=metrics, steps=world.steps, updates=world.updates,
        progress=progress,
    )  # fmt: skip


def _time(world: World, began: float, first: int) -> Metrics:
    elapsed = time.perf_counter() - began
    return {
        "time/total_timesteps": float(world.steps),
        "time/iterations": float(world.updates),
        "time/time_elapsed": elapsed,
        "time/fps": (world.steps - first) / max(elapsed, 1e-9),
    }


def _checkpoint(world: World, saver: Saver | None, ending: bool) -> None:
    """Save on schedule, and at the end if that needs no cut which the uninterrupted run would not have made."""
    if saver is None:
        return
    scheduled = world.updates % saver.every == 0
    if scheduled and not world.exact():
        world.cut()
    if scheduled or (ending and world.exact()):
        saver.save(world.state())


@contextmanager
def _graceful() -> Iterator[Any]:
    """Turn the first SIGINT or SIGTERM into a flag; outside the main thread, where that is impossible, do nothing."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def note(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
