"""Metrics of several runs over environment steps, in one picture: runs that differ in nothing but their seed are one
line, with Student's 95 % interval around it.
"""

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vantage.lab.statistics import Band, band
from vantage.runs.folder import RunFolder
from vantage.runs.log import STEPS, Row, read
from vantage.runs.picture import INK, calm

Array = Any
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5f6b76", "#8b6d00")
"""Told apart by colour-blind readers too (Okabe and Ito)."""
RETURN = "rollout/ep_rew_mean"
LABELS = {RETURN: "mean return, last 100 episodes"}
SHOWN = 3
"""How many differences a label names."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs with the same settings but for the seed: their label, and the metrics of each."""

    label: str
    rows: tuple[Sequence[Row], ...]

    def curves(self, metric: str) -> list[Array]:
        """The curve of a metric in each run that recorded it: rows of step and value."""
        curves = [np.array([(row[STEPS], row[metric]) for row in run if metric in row]) for run in self.rows]
        found = [curve[np.isfinite(curve[:, 1])] for curve in curves if len(curve)]
        return [curve for curve in found if len(curve)]

    def band(self, metric: str, within: tuple[float, float] = (-np.inf, np.inf)) -> Band | None:
        """The mean curve of a metric with its interval, cut off at `within`; None where no run recorded it."""
        found = self.curves(metric)
        return band(found, within=within) if found else None


def find(paths: Iterable[Path]) -> list[RunFolder]:
    """The runs at or below the paths, in order of name.

    Raises FileNotFoundError for a path without any.
    """
    runs = []
    for path in paths:
        below = sorted(config.parent for config in path.rglob("config.json")) if path.is_dir() else []
        if not below:
            RunFolder(path).read_config()
        runs += [RunFolder(found) for found in below]
    return runs


def group(runs: Sequence[RunFolder]) -> list[Group]:
    """The runs by settings, labelled by what tells them apart, in the order in which they were given."""
    facts = [_facts(run.read_config()) for run in runs]
    members: dict[str, list[int]] = {}
    for number, known in enumerate(facts):
        members.setdefault(json.dumps(known, sort_keys=True), []).append(number)
    names = _labels([facts[numbers[0]] for numbers in members.values()])
    rows = [read(run.metrics) for run in runs]
    return [
        Group(label=name, rows=tuple(rows[number] for number in numbers))
        for name, numbers in zip(names, members.values(), strict=True)
    ]


def _facts(config: dict[str, Any]) -> dict[str, str]:
    """What defines a run but its seed, as text by name; recipe, optimiser and network field by field."""
    settings = dict(config["settings"])
    parts = [settings.pop(name) or {} for name in ("recipe", "optim", "network")]
    flat = {name: value for part in (*parts, settings) for name, value in part.items() if name not in ("type", "seed")}
    return {"env": str(config["env"]), **{name: _text(value) for name, value in flat.items()}}


def _text(value: Any) -> str:
    """A value of a configuration: GAE(0.95), Linear(0.2, 0)."""
    if isinstance(value, dict):
        inner = ", ".join(_text(x) for name, x in value.items() if name != "type" and x is not None)
        return str(value.get("type", "")) + (f"({inner})" if inner else "")
    if isinstance(value, list):
        return "×".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)


def _labels(facts: Sequence[dict[str, str]]) -> list[str]:
    """For each run what sets it apart: the values of the first fields in which some of them differ."""
    names = dict.fromkeys(name for known in facts for name in known)
    differing = [name for name in names if len({known.get(name) for known in facts}) > 1]
    if not differing:
        return [facts[0]["env"]] if facts else []
    short = differing[:SHOWN]
    if len({tuple(known.get(name) for name in short) for known in facts}) < len(facts):
        short = differing
    bare = ("env", "psi", "objective", "critic")  # their values speak for themselves
    return [
        ", ".join(known[name] if name in bare else f"{name} {known[name]}" for name in short if name in known)
        for known in facts
    ]


def draw(groups: Sequence[Group], metrics: Sequence[str], path: Path, *, title: str = "") -> None:
    """One panel a metric, one line a group, saved as PNG.

    Raises ValueError, with the nearest name, for a metric that no run has recorded.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 1.2 + 3.2 * len(metrics)), dpi=140, layout="constrained", facecolor="white")
    panels = figure.subplots(len(metrics), 1, squeeze=False, sharex=True)[:, 0]
    for axes, metric in zip(panels, metrics, strict=True):
        _panel(axes, groups, metric)
        axes.set_ylabel(LABELS.get(metric, metric))
    panels[-1].set_xlabel("environment steps")
    panels[0].set_title(title, loc="left", fontsize=11, color=INK)
    if len(groups) > 1 or len(groups[0].rows) > 1:
        columns = max(1, min(len(groups), 90 // max(len(known.label) + 12 for known in groups)))
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=columns, frameon=False, fontsize=8)
    for axes in panels:
        calm(axes)
    figure.savefig(path)


def _panel(axes: Any, groups: Sequence[Group], metric: str) -> None:
    values = [curve[:, 1] for known in groups for curve in known.curves(metric)]
    # Nothing is drawn where no run has ever been: a return above the highest possible one, a share above 1.
    seen = (min(map(np.min, values)), max(map(np.max, values))) if values else (-np.inf, np.inf)
    bands = [found.band(metric, seen) for found in groups]
    if not any(bands):
        recorded = sorted({name for found in groups for run in found.rows for row in run for name in row})
        near = difflib.get_close_matches(metric, recorded, n=1)
        hint = f"did you mean {near[0]}?" if near else f"recorded are {', '.join(recorded) or 'none'}"
        raise ValueError(f"no run has recorded {metric!r}: {hint}")
    for number, (found, known) in enumerate(zip(bands, groups, strict=True)):
        if found is not None:
            colour = COLOURS[number % len(COLOURS)]
            style = ("-", "--", ":")[number // len(COLOURS) % 3]
            count = f" ({len(known.rows)} seeds)" if len(known.rows) > 1 else ""
            axes.plot(found.x, found.mean, style, color=colour, linewidth=1.8, label=known.label + count)
            axes.fill_between(found.x, found.low, found.high, color=colour, alpha=0.18, linewidth=0)
