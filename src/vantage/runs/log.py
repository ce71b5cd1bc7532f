"""The metrics of a run on disk: a CSV file, and TensorBoard events under Stable-Baselines3's names."""

import csv
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any

from vantage.loop import Callback, Report, Update
from vantage.runs.folder import RunFolder, reason

STEPS = "time/total_timesteps"
GROUPS = ("rollout", "eval", "train", "time")
"""Metrics by what stands before the slash, in the order of the columns."""
Row = dict[str, float]


def read(path: Path, until: int | float = float("inf")) -> list[Row]:
    """The rows of a metrics file up to a number of steps; a row cut off by a crash is left out."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        lines = csv.reader(file)
        names = next(lines, [])
        whole = [line for line in lines if len(line) == len(names)]
    rows = [{name: float(cell) for name, cell in zip(names, line, strict=True) if cell} for line in whole]
    return [row for row in rows if row.get(STEPS, 0.0) <= until]


def write(path: Path, rows: list[Row]) -> list[str]:
    """Write all rows, whole or not at all; returns the column names."""
    names = sorted({name for row in rows for name in row}, key=_order)
    draft = path.with_suffix(".part")
    with open(draft, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(names)
        table.writerows([_cells(row, names) for row in rows])
    os.replace(draft, path)
    return names


def _cells(row: Row, names: list[str]) -> list[str]:
    return [repr(float(row[name])) if name in row else "" for name in names]


def _order(name: str) -> tuple[int, str]:
    """The step first, then what matters most."""
    group = name.split("/")[0]
    return (0 if name == STEPS else 1 + GROUPS.index(group) if group in GROUPS else 9, name)


def keep_lines(path: Path, name: str, until: int) -> None:
    """Keep of a file of JSON lines those in which the number of that name is at most `until`: begin it anew for 0."""
    lines = path.read_text(encoding="utf-8").splitlines() if until and path.is_file() else []
    kept = [line for line in lines if line.endswith("}") and json.loads(line)[name] <= until]
    path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


class Csv(Callback):
    """Appends each update's metrics to a CSV file; when resuming, after dropping the rows behind the checkpoint."""

    writes = True

    def __init__(self, path: str | Path) -> None:
        self._path, self._names = Path(path), [""]
        self.rows: list[Row] = []
        """All that the file holds."""

    def on_start(self, world: Any, recipe: Any, total_steps: int) -> None:
        """Keep of an older file what the run has already done."""
        self.rows = read(self._path, until=world.steps) if world.steps else []
        self._names = write(self._path, self.rows)

    def on_update(self, update: Update) -> None:
        """Append one row; a metric that is new writes the file anew."""
        row = {name: float(value) for name, value in update.metrics.items()}
        self.rows.append(row)
        if row.keys() <= set(self._names):
            with open(self._path, "a", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerow(_cells(row, self._names))
        else:
            self._names = write(self._path, self.rows)


def event_writer(folder: Path, **options: Any) -> Any:
    """A writer of TensorBoard events.

    Its library imports PyTorch where that is installed, for 3 s and 150 MB; numbers and text do not need it.
    """
    unloaded = "torch" not in sys.modules
    if unloaded:
        sys.modules["torch"] = None  # pyright: ignore[reportArgumentType]  # `import torch` then fails, as if not there
    try:
        from tensorboardX import SummaryWriter  # so late, because it takes a second even so
    finally:
        if unloaded:
            del sys.modules["torch"]
    return SummaryWriter(str(folder), **options)


class TensorBoard(Callback):
    """Writes each update's metrics as TensorBoard events into a folder, under Stable-Baselines3's names."""

    writes = True

    def __init__(self, folder: str | Path) -> None:
        self._folder, self._events = Path(folder), None

    def on_start(self, world: Any, recipe: Any, total_steps: int) -> None:
        """Open the event file; a resumed run drops what lies behind its checkpoint."""
        self._events: Any = event_writer(self._folder, purge_step=world.steps or None)

    def on_update(self, update: Update) -> None:
        """Add the metrics at this number of steps."""
        for name, value in update.metrics.items():
            if isfinite(value):  # a metric of nothing is no point of a curve
                self._events.add_scalar(name, float(value), update.steps)

    def on_end(self, report: Report) -> None:
        """Close the event file."""
        if self._events is not None:
            self._events.close()


class FolderLog(Csv):
    """Both logs of a run folder; a folder that cannot be written is said in one sentence that names the remedy."""

    def __init__(self, folder: RunFolder, start: int = 0) -> None:
        super().__init__(folder.metrics)
        self.rows = read(folder.metrics, until=start) if start else []
        self._folder, self._board = folder, TensorBoard(folder.path)

    def on_start(self, world: Any, recipe: Any, total_steps: int) -> None:
        """Open both files."""
        with self._said():
            super().on_start(world, recipe, total_steps)
            self._board.on_start(world, recipe, total_steps)

    def on_update(self, update: Update) -> None:
        """Append one row."""
        with self._said():
            super().on_update(update)
            self._board.on_update(update)

    def on_end(self, report: Report) -> None:
        """Close the event file."""
        self._board.on_end(report)

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(reason(error, self._folder.path)) from error
