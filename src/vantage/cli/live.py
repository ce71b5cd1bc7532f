"""What a person sees of a run: settings, progress and result; plain lines where nobody watches a terminal."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

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


def console(quiet: bool = False) -> Console:
    """Where everything for people goes; nowhere if quiet."""
    return Console(quiet=quiet, highlight=False, soft_wrap=False)


def say(out: Console, text: str, style: str = "") -> None:
    """A sentence, indented; wrapped by words on a terminal, left whole for files and pipes."""
    if out.is_terminal:
        out.print(Padding(text, (0, 0, 0, 2)), style=style)
    else:
        out.print(f"  {text}", style=style, soft_wrap=True)


def settings_table(rows: Sequence[tuple[str, str, str]], out: Console) -> None:
    """Every setting with its value and where it comes from, in two columns where there is room."""
    columns = 2 if out.width >= 110 else 1
    height = -(-len(rows) // columns)
    table = Table.grid(padding=(0, 2))
    for left in range(height):
        cells: list[Any] = []
        for name, value, source in rows[left::height]:
            cells += [
                "",
                Text(name, style="dim"),
                Text(value),
                Text(source, style="cyan" if source == "you" else "dim"),
            ]
        table.add_row(*cells)
    out.print(table)
    out.print()


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

    def __init__(self, out: Console) -> None:
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

    def __init__(self, out: Console) -> None:
        self._progress = Progress(
            TextColumn(" "), BarColumn(bar_width=40), TextColumn("{task.completed:,.0f} of {task.total:,.0f} steps"),
            TextColumn("{task.fields[speed]}"), TimeRemainingColumn(compact=True), console=out,
        )  # fmt: skip
        self._facts = Text("   compiling", style="dim")
        self._live = Live(self._view(), console=out, refresh_per_second=8, transient=False)
        self._task: Any = None
        self._shown, self._speed, self._total = 0.0, Speed(), 1

    def _view(self) -> Group:
        return Group(self._progress, self._facts)

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
        self._facts = Text("   " + facts(metrics), style="dim")
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


def display(out: Console) -> Callback:
    """The callback that fits what the console is."""
    return Callback() if out.quiet else Bar(out) if out.is_terminal else Lines(out)
