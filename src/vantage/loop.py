"""The one loop, for every world: rollout → Ψ → update → report."""

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from vantage.recipe import Recipe
from vantage.rollout import Rollout
from vantage.runs.seams import seams, wrapped
from vantage.world import TrainState, World

Metrics = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of all environments, as the host made it; filler rows after an episode's end are among them."""

    action: Any
    """What the environments were given."""
    observation: Any
    reward: Any
    terminated: Any
    truncated: Any
    info: Any


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
    events: list[str] = field(default_factory=list)
    """What a callback's `on_update` has found out of: "evaluation", "new_best"; all listeners hear of it afterwards."""


class Callback:
    """Base of whatever listens to a run; every method may be left as it is.

    The order is that of a run: `on_start`, then for each update `on_step` …, `on_rollout`, `on_update`,
    `on_evaluation`, `on_new_best`, at last `on_end`. Of each event all callbacks hear, in the order in which they were
    given, before the next event. False from any of them ends the run after this update, of which the others hear to
    its end.
    """

    writes = False
    """Whether it writes or speaks: where several processes train one model, only the first then has it."""

    def on_start(self, world: World, recipe: Recipe, total_steps: int) -> None:
        """Before the first rollout."""

    def on_step(self, step: Step) -> bool | None:
        """After each step of the environments: only where a callback defines it, for it costs a call a step."""

    def on_rollout(self, world: World, recipe: Recipe, rollout: Rollout) -> bool | None:
        """After acting and scoring, before the update."""

    def on_update(self, update: Update) -> bool | None:
        """After each update; return False to end the run here."""

    def on_evaluation(self, update: Update) -> bool | None:
        """After an update in which an `Evaluate` has measured the agent: `eval/…` is in the metrics."""

    def on_new_best(self, update: Update) -> bool | None:
        """After an evaluation better than all before."""

    def on_end(self, report: "Report") -> None:
        """After the last update, also when the run was interrupted or an error ends it."""


@dataclass(frozen=True)
class _Plain(Callback):
    """A function in the place of a callback."""

    call: Callable[[Update], Any]

    def on_update(self, update: Update) -> bool | None:
        """What the function returns: False ends the run."""
        return self.call(update)


Listener = Callback | Callable[[Update], Any] | Sequence[Any]
"""What may listen to a run: a callback, a function of each update (False ends the run), or a list of both."""
EVENTS = ("evaluation", "new_best")
"""What `Update.events` may hold, in the order in which the callbacks hear of it."""


PARTS = ("collect", "update", "callbacks", "checkpoint")
"""The parts of a run that the loop times."""


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
    stopped_by: str | None = None
    """The name of the callback that ended it."""
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    """Where the time went: collect, update, callbacks (logs, evaluation), checkpoint."""

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

    `callbacks` are `Callback`s, or functions of an `Update`. Raises ValueError if so many steps were taken already, and
    TypeError for a callback with `on_step` where the world takes no steps on the host.

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
    here = [x for x in _listeners(callbacks) if getattr(world, "first", True) or not x.writes]
    run = _Run(world, recipe, total_steps, here, checkpoint)
    with _graceful() as interrupted, _listening_to_steps(world, run):
        run.start(interrupted())
        try:
            while world.steps < total_steps and run.report.stopped is None:
                run.update()
                if interrupted():
                    run.report.stopped = "interrupt"
                run.checkpoint(world.steps >= total_steps or run.report.stopped is not None)
        finally:
            run.end()
    return run.report


class _Run:
    """One call of `learn`: who listens, what was measured, where the time went."""

    def __init__(
        self, world: World, recipe: Recipe, total_steps: int, listeners: list[Callback], saver: Saver | None
    ) -> None:
        self.world, self.recipe, self.total_steps = world, recipe, total_steps
        self.listeners, self._saver = listeners, saver
        self.report, self._began, self._first = Report(), time.perf_counter(), world.steps

    def start(self, interrupted: bool) -> None:
        for listener in self.listeners:
            listener.on_start(self.world, self.recipe, self.total_steps)
        self.report.stopped = "interrupt" if interrupted else None

    def update(self) -> None:
        """One rollout, one update, and all who hear of it."""
        world, report = self.world, self.report
        progress = min(world.steps / self.total_steps, 1.0)
        now = self.recipe.at(progress, world.beta)
        with self._timed("collect"):
            rollout = world.collect(now)
        with self._timed("callbacks"):
            self.tell("on_rollout", world, now, rollout)
        with self._timed("update"):
            metrics = world.update(now, rollout, progress)
        update = Update(
            world=world, recipe=now, rollout=rollout, metrics=metrics, steps=world.steps, updates=world.updates,
            progress=progress,
        )  # fmt: skip
        update.metrics.update(_time(world, self._began, self._first))
        report.rows.append(update.metrics)
        with self._timed("callbacks"):
            self.tell("on_update", update)
            for event in EVENTS:
                if event in update.events:
                    self.tell(f"on_{event}", update)

    def tell(self, event: str, *facts: Any) -> None:
        """Call a method of every listener; the first that returns False ends the run."""
        for listener in self.listeners:
            if getattr(listener, event)(*facts) is False and self.report.stopped is None:
                self.report.stopped, self.report.stopped_by = "callback", _name(listener)

    def checkpoint(self, ending: bool) -> None:
        with self._timed("checkpoint"):
            _checkpoint(self.world, self._saver, ending)

    def end(self) -> None:
        for listener in self.listeners:
            listener.on_end(self.report)

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.report.seconds[part] += time.perf_counter() - began


def _name(listener: Callback) -> str:
    called = listener.call if isinstance(listener, _Plain) else listener
    return getattr(called, "__name__", type(called).__name__)


@contextmanager
def _listening_to_steps(world: World, run: _Run) -> Iterator[None]:
    """Put the listeners that define `on_step` behind the world's `step` for the length of the run.

    Raises TypeError for a world that takes no steps on the host.
    """
    hearing = [each for each in run.listeners if type(each).on_step is not Callback.on_step]
    if not hearing:
        yield
        return
    places = seams(world).get("step", [])
    if not places:
        raise TypeError(
            f"{_name(hearing[0])} defines on_step, but this world takes its steps inside a compiled program: "
            "use on_rollout, or an environment that runs on the host"
        )
    with wrapped(places, lambda step: _Heard(step, hearing, run)):
        yield


class _Heard:
    """The environments' `step`, and those who hear of it."""

    def __init__(self, step: Callable[..., Any], hearing: list[Callback], run: _Run) -> None:
        self._step, self._hearing, self._run = step, hearing, run

    def __call__(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = found = self._step(action)
        step = Step(
            action=action, observation=observation, reward=reward, terminated=terminated, truncated=truncated, info=info
        )
        for listener in self._hearing:
            if listener.on_step(step) is False and self._run.report.stopped is None:
                self._run.report.stopped, self._run.report.stopped_by = "callback", _name(listener)
        return found


def _listeners(callbacks: Any) -> list[Callback]:
    """The callbacks, one alone as well, lists inside lists in order; functions become callbacks. Raises TypeError for
    anything else.
    """
    several = [callbacks] if callable(callbacks) or isinstance(callbacks, Callback) else callbacks
    if not isinstance(several, Iterable) or isinstance(several, str):
        raise TypeError(f"callbacks = {callbacks!r}: give a list of Callbacks, or of functions of an Update")
    found: list[Callback] = []
    for each in several:
        if isinstance(each, list | tuple):
            found += _listeners(each)
        elif isinstance(each, type) or not (callable(each) or isinstance(each, Callback)):
            raise TypeError(f"callbacks has {each!r}: give Callback objects, or functions of an Update")
        else:
            found.append(each if isinstance(each, Callback) else _Plain(each))
    return found


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
