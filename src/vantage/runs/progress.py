"""A run's progress for people: a bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Mapping
from typing import Any

from vantage.loop import Callback, Report, Update

FACTS = (
    ("return", "rollout/ep_rew_mean", "{:>7.1f}"),
    ("KL", "train/kl", "{:>7.2g}"),
    ("clipped", "train/clip_fraction", "{:>4.0%}"),
    ("explained variance", "train/explained_variance", "{:>5.2f}"),
)
"""What is shown while a run goes on: label, metric, format."""
PLAIN_LINES = 20
"""How many lines of progress a run prints without a terminal."""


class Progress(Callback):
    """Shows how far the run is, how fast, and its metrics; `out` is a rich Console, by default standard output."""

    def __init__(self, out: Any = None) -> None:
        from rich.console import Console

        self._out = out or Console(highlight=False)
        self._shown: Callback = Callback() if self._out.quiet else Bar(self._out) if self._out.is_terminal else Lines(
            self._out
        )  # fmt: skip

    def on_start(self, world: Any, recipe: Any, total_steps: int) -> None:
        """Begin to show."""
        self._shown.on_start(world, recipe, total_steps)

    def on_update(self, update: Update) -> None:
        """Show where the run is."""
        self._shown.on_update(update)

    def on_end(self, report: Report) -> None:
        """Leave the last state standing."""
        self._shown.on_end(report)


class Speed:
    """Steps per second since the first update, which also compiles."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def __call__(self, steps: int) -> str:
        now = time.monotonic()
        if self._first is None:
            self._first = now, steps
        since, began = self._first
        return f"{(steps - began) / (now - since):,.0f} steps/s" if now > since and steps > began else ""


class Lines(Callback):
    """One line now and then: for files, pipes and CI."""

    def __init__(self, out: Any) -> None:
        self._out, self._total, self._next, self._speed = out, 1, 0.0, Speed()

    def on_start(self, world: Any, recipe: Any, total_steps: int) -> None:
        """Note how far it is."""
        self._total = total_steps

    def on_update(self, update: Update) -> None:
        """Print a line each twentieth of the way, and for the last update."""
        speed = self._speed(update.steps)
        if update.steps >= min(self._next, self._total):
            self._next = update.steps + self._total / PLAIN_LINES
            self._out.print(f"{update.steps:>12,} steps  {speed:>15}   {facts(update.metrics)}", soft_wrap=True)


class Bar(Callback):
    """A bar with the metrics of the moment below it."""

    def __init__(self, out: Any) -> None:
        from rich.live import Live
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Columns

        self._progress = Columns(
            TextColumn(" "), BarColumn(bar_width=40), TextColumn("{task.completed:,.0f} of {task.total:,.0f} steps"),
            TextColumn("{task.fields[speed]}"), TimeRemainingColumn(compact=True), console=out,
        )  # fmt: skip
        self._facts = "   compiling"
        self._live = Live(self._view(), console=out, refresh_per_second=8, transient=False)
        self._task: Any = None
        self._shown, self._speed, self._total = 0.0, Speed(), 1

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
        self._progress.update(self._task, completed=min(update.steps, self._total), speed=self._speed(update.steps))
        if time.monotonic() - self._shown > 0.1:
            self._shown = time.monotonic()
            self._tell(update.metrics)

    def _tell(self, metrics: Mapping[str, float]) -> None:
        self._facts = "   " + facts(metrics)
        self._live.update(self._view())

    def on_end(self, report: Report) -> None:
        """Leave the bar as it is."""
        if report.rows:
            self._tell(report.final)
        self._live.stop()


def facts(metrics: Mapping[str, float]) -> str:
    """The metrics of the moment in one line; + 0.0 makes −0 a 0."""
    return "   ".join(
        f"{label} {layout.format(metrics[name] + 0.0)}" for label, name, layout in FACTS if name in metrics
    )
