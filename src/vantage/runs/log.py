"""The metrics of a run on disk: a CSV file, and TensorBoard events under Stable-Baselines3's names."""

import csv
import os
from pathlib import Path
from typing import Any

from vantage.loop import Callback, Report, Update
from vantage.runs.folder import RunFolder, reason

STEPS = "time/total_timesteps"
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
    return (0 if name == STEPS else 1 + ("rollout/", "train/", "time/").index(name.split("/")[0] + "/"), name) if (
        name.split("/")[0] in ("rollout", "train", "time")
    ) else (9, name)  # fmt: skip


class FolderLog(Callback):
    """Writes each update's metrics to the run folder; when resuming, after dropping what lies behind the checkpoint."""

    def __init__(self, folder: RunFolder, start: int = 0) -> None:
        self.rows: list[Row] = read(folder.metrics, until=start) if start else []
        self._folder, self._start = folder, start
        self._names: list[str] = []
        self._events: Any = None

    def on_start(self, world: Any, recipe: Any, total_steps: int) -> None:
        """Open both files."""
        from tensorboardX import SummaryWriter  # a second to import, so not before a run begins

        try:
            self._names = write(self._folder.metrics, self.rows)
            self._events = SummaryWriter(str(self._folder.path), purge_step=self._start if self._start else None)
        except OSError as error:
            raise OSError(reason(error, self._folder.path)) from error

    def on_update(self, update: Update) -> None:
        """Append one row."""
        row = {name: float(value) for name, value in update.metrics.items()}
        self.rows.append(row)
        try:
            if row.keys() <= set(self._names):
                with open(self._folder.metrics, "a", newline="", encoding="utf-8") as file:
                    csv.writer(file, lineterminator="\n").writerow(_cells(row, self._names))
            else:
                self._names = write(self._folder.metrics, self.rows)
        except OSError as error:
            raise OSError(reason(error, self._folder.path)) from error
        for name, value in row.items():
            self._events.add_scalar(name, value, update.steps)

    def on_end(self, report: Report) -> None:
        """Close the event file."""
        if self._events is not None:
            self._events.close()
