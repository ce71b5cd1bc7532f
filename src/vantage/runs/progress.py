"""A run's progress for people: a bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from vantage.loop import Callback, Report, Update

FACTS = {
    "steps": (
        ("return", "rollout/ep_rew_mean", "{:>7.1f}"),
        ("KL", "train/kl", "{:>7.2g}"),
        ("clipped", "train/clip_fraction", "{:>4.0%}"),
        ("explained variance", "train/explained_variance", "{:>5.2f}"),
    ),
    "completions": (
        ("score", "objective/scores", "{:>7.3g}"),
        ("KL", "objective/kl", "{:>6.2f}"),
        ("β", "objective/kl_coef", "{:>7.3g}"),
        ("tokens", "completions/mean_length", "{:>5.1f}"),
        ("clipped", "train/clip_fraction", "{:>4.0%}"),
        ("held-out score", "eval/score", "{:>6.3g}"),
    ),
}
"""What is shown while a run goes on, by what its world counts: label, metric, format."""
PLAIN_LINES = 20
"""How many lines of progress a run prints without a terminal."""


class Progress(Callback):
    """Shows how far the run is, how fast, and its metrics; `out` is a rich Console, by default standard output."""

    writes = True

    def __init__(self, out: Any = None) -> None:
        from rich.console import Console

        self._out = out or Console(highlight=False)
        self._shown = Callback()

    def on_start(self, world: Any, recipe: Any, total_steps: int) -> None:
        """Begin to show; of several processes only the first does."""
        if not self._out.quiet and getattr(world, "first", True):
            self._shown = (Bar if self._out.is_terminal else Lines)(self._out, getattr(world, "unit", "steps"))
        self._shown.on_start(world, recipe, total_steps)

    def on_update(self, update: Update) -> None:
        """Show where the run is."""
        self._shown.on_update(update)

    def on_end(self, report: Report) -> None:
        """Leave the last state standing."""
        self._shown.on_end(report)


class Speed:
    """Steps per second since the first update, which also compiles; None until the second."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def __call__(self, steps: int) -> float | None:
        now = time.monotonic()
        if self._first is None:
            self._first = now, steps
        since, began = self._first
        return (steps - began) / (now - since) if now > since and steps > began else None


def pace(speed: float | None, unit: str) -> str:
    """14,885 steps/s, or 0.52 completions/s."""
    return "" if speed is None else f"{speed:,.{0 if speed >= 10 else 2}f} {unit}/s"


def left(steps: int, speed: float | None) -> str:
    """How long so many steps take."""
    return "" if speed is None else f"{timedelta(seconds=round(max(steps, 0) / speed))} left"


class Lines(Callback):
    """One line now and then: for files, pipes and CI."""

    writes = True

    def __init__(self, out: Any, unit: str = "steps") -> None:
        self._out, self._unit, self._total, self._next, self._speed = out, unit, 1, 0.0, Speed()
        self._last: dict[str, float] = {}

    def on_start(self, world: Any, recipe: Any, total_steps: int) -> None:
        """Note how far it is."""
        self._total = total_steps

    def on_update(self, update: Update) -> None:
        """Print a line each twentieth of the way, and for the last update."""
        speed, unit = self._speed(update.steps), self._unit
        self._last |= update.metrics
        if update.steps >= min(self._next, self._total):
            self._next = update.steps + self._total / PLAIN_LINES
            time_left = left(self._total - update.steps, speed)
            self._out.print(
                f"{update.steps:>12,} {unit}  {pace(speed, unit):>{10 + len(unit)}}  {time_left:>12}   "
                f"{facts(self._last, unit)}",
                soft_wrap=True,
            )


class Bar(Callback):
    """A bar with the metrics of the moment below it."""

    writes = True

    def __init__(self, out: Any, unit: str = "steps") -> None:
        from rich.live import Live
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Columns

        self._progress = Columns(
            TextColumn(" "), BarColumn(bar_width=40),
            TextColumn(f"{{task.completed:,.0f}} of {{task.total:,.0f}} {unit}"), TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(compact=True), console=out,
        )  # fmt: skip
        self._facts = "   compiling" if unit == "steps" else f"   the first {unit}"
        self._live = Live(self._view(), console=out, refresh_per_second=8, transient=False)
        self._task: Any = None
        self._unit, self._shown, self._speed, self._total = unit, 0.0, Speed(), 1
        self._last: dict[str, float] = {}

    def _view(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        return Group(self._progress, Text(self._facts, style="dim"))

    def on_start(self, world: Any, recipe: Any, total_steps: int) -> None:
        """Show the bar."""
        self._total = total_steps
        self._task = self._progress.add_task("", total=total_steps, completed=world.steps, speed="")
        self._live.start()

    def on_update(self, update: Update) -> None:
        """Move the bar; the text below it ten times a second at most."""
        speed = pace(self._speed(update.steps), self._unit)
        self._progress.update(self._task, completed=min(update.steps, self._total), speed=speed)
        self._last |= update.metrics
        if time.monotonic() - self._shown > 0.1:
            self._shown = time.monotonic()
            self._tell()

    def _tell(self) -> None:
        self._facts = "   " + facts(self._last, self._unit)
        self._live.update(self._view())

    def on_end(self, report: Report) -> None:
        """Leave the bar as it is."""
        if report.rows:
            self._tell()
        self._live.stop()


def facts(metrics: Mapping[str, float], unit: str = "steps") -> str:
    """What was last measured in one line; + 0.0 makes −0 a 0."""
    return "   ".join(
        f"{label} {layout.format(metrics[name] + 0.0)}" for label, name, layout in FACTS[unit] if name in metrics
    )
