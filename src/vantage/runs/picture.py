"""The learning curve of a run as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, float]

INK, ACCENT, FAINT = "#1f2933", "#2f6fde", "#9aa5b1"
HEALTH = (
    ("train/explained_variance", "explained variance", (-0.25, 1.05)),
    ("train/kl", "KL per update (nats)", None),
    ("train/entropy_loss", "entropy (nats)", None),
)
"""The small panels: metric, title, limits."""


def learning_curve(rows: Sequence[Row], path: Path, *, title: str, goal: float | None = None) -> None:
    """Draw return over environment steps, with three small panels of health below, and save it as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 5.6), dpi=140, layout="constrained", facecolor="white")
    grid = figure.add_gridspec(2, 3, height_ratios=[2.4, 1.0])
    main = figure.add_subplot(grid[0, :])
    _line(main, rows, "rollout/ep_rew_mean", width=2.0)
    if goal is not None:
        main.axhline(goal, color=FAINT, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
        main.annotate(
            f"goal {goal:g}", (0.0, goal), xycoords=("axes fraction", "data"), xytext=(4, 3),
            textcoords="offset points", color=FAINT, fontsize=8,
        )  # fmt: skip
    main.set_title(title, loc="left", fontsize=11, color=INK)
    main.set_ylabel("mean return, last 100 episodes")
    main.set_xlabel("environment steps")
    for column, (name, label, limits) in enumerate(HEALTH):
        axes = figure.add_subplot(grid[1, column])
        _line(axes, rows, name, width=1.2, sign=-1.0 if name.endswith("entropy_loss") else 1.0)
        axes.set_title(label, loc="left", fontsize=8.5, color=INK)
        if limits:
            axes.set_ylim(*limits)
    for axes in figure.axes:
        calm(axes)
    figure.savefig(path)


def panels(rows: Sequence[Row], names: Sequence[str], file: Any, *, columns: int = 3) -> None:
    """Draw each metric over environment steps in a small panel of its own, and save them all as one PNG."""
    from matplotlib.figure import Figure

    height = -(-len(names) // columns)
    figure = Figure(figsize=(11.0, 2.1 * height), dpi=100, facecolor="white")
    grid = figure.subplots(height, columns, squeeze=False).ravel()
    inch = 1.0 / (2.1 * height)  # a layout that matplotlib finds by itself takes seconds for so many panels
    figure.subplots_adjust(left=0.06, right=0.985, top=1 - 0.3 * inch, bottom=0.35 * inch, wspace=0.25, hspace=0.45)
    for axes, name in zip(grid, names, strict=False):
        _line(axes, rows, name, width=1.2)
        axes.set_title(name, loc="left", fontsize=8.5, color=INK)
        calm(axes)
    for axes in grid[len(names) :]:
        axes.set_axis_off()
    figure.savefig(file, format="png")


def _line(axes: Any, rows: Sequence[Row], name: str, *, width: float, sign: float = 1.0) -> None:
    points = [(row["time/total_timesteps"], sign * row[name]) for row in rows if name in row]
    if points:
        x, y = zip(*points, strict=True)
        axes.plot(x, y, color=ACCENT, linewidth=width, solid_capstyle="round")
    else:
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", color=FAINT, fontsize=8)


def calm(axes: Any) -> None:
    """Thin grey axes, a light horizontal grid, steps as 20k."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=FAINT, labelcolor=INK, labelsize=8, length=3)
    axes.xaxis.set_major_formatter(lambda x, _: _steps(x))
    axes.locator_params(axis="x", nbins=6 if axes.get_xlabel() else 3)
    axes.margins(x=0.01)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=INK, fontsize=9)


def _steps(x: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(x) >= size:
            return f"{x / size:g}{unit}"
    return f"{x:g}"
