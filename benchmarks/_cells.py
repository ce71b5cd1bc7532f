"""What the resumable benchmarks share: cells kept as files, intervals, tables, curves."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

RESULTS = Path(__file__).parent / "results"
IMAGES = RESULTS.parent.parent / "docs" / "images"
Curve = list[list[float]]
"""Pairs (environment steps, value)."""


def kept(path: Path, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result in the file; if there is none, that of `run`, which is then written there."""
    if not path.exists():
        result = run()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(result) + "\n")
        part.replace(path)
    return json.loads(path.read_text())


def read(path: Path) -> dict[str, Any] | None:
    """The result in the file; None where the cell is unfinished."""
    return json.loads(path.read_text()) if path.exists() else None


def interval(x: np.ndarray) -> tuple[float, float]:
    """Half-width of Student's 95 % interval of the mean, and the mean."""
    half = stats.t.ppf(0.975, len(x) - 1) * stats.sem(x) if len(x) > 1 else np.nan
    return float(half), float(x.mean())


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows))


def curve(rows: Sequence[Mapping[str, float]], name: str, points: int = 200) -> Curve:
    """One metric over the steps of a run, thinned to about so many points; the last is kept."""
    known = [row for row in rows if np.isfinite(row.get(name, np.nan))]
    thin = known[:: max(1, len(known) // points)]
    if known and thin[-1] is not known[-1]:
        thin.append(known[-1])
    return [[int(row["time/total_timesteps"]), round(row[name], 4)] for row in thin]


def band(ax: Any, curves: Sequence[Curve], *, color: str, label: str | None = None, fill: bool = True) -> None:
    """The mean over seeds, each seed as a thin line, and the 95 % interval if asked."""
    lines = [np.array(each) for each in curves if each]
    for line in lines:
        ax.plot(line[:, 0], line[:, 1], color=color, alpha=0.25, lw=0.8)
    grid = np.linspace(max(line[0, 0] for line in lines), min(line[-1, 0] for line in lines), 150)
    rows = np.array([np.interp(grid, line[:, 0], line[:, 1]) for line in lines])
    mean = rows.mean(axis=0)
    ax.plot(grid, mean, color=color, lw=2, label=label)
    if fill and len(rows) > 1:
        half = stats.t.ppf(0.975, len(rows) - 1) * stats.sem(rows, axis=0)
        ax.fill_between(grid, mean - half, mean + half, color=color, alpha=0.2, lw=0)
    ax.spines[["top", "right"]].set_visible(False)


def finish(figure: Any, axes: Any, used: int, path: Path) -> None:
    """Hide the panels that are not used, label the first, and write the picture of training curves."""
    for ax in axes.flat[used:]:
        ax.set_visible(False)
    axes[0, 0].set_ylabel("mean return of the last 100 episodes")
    axes[0, 0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120, metadata={"Software": None})
