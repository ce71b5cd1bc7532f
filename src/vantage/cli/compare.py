"""Compare recipes over seeds: one figure and one table with intervals; go on by the same command."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vantage.cli import UsageError, live, plan
from vantage.cli.cells import Cell, Job, Stopped, run_all
from vantage.cli.options import Option, Parser, fail_unless_known, of_fields
from vantage.explain.choices import convert, nearest
from vantage.recipe import RECIPES
from vantage.runs.folder import RunFolder

FEW = 5
"""Seeds below which an interval says little."""


@dataclass(frozen=True, kw_only=True)
class Compare:
    """The options of `vantage compare` that are about the comparison."""

    seeds: int = 5
    """How many seeds each recipe is trained with: 0, 1, …"""
    steps: int | None = None
    """Environment steps of each run; by default what is tuned for the environment, or 100,000."""
    jobs: int = 1
    """How many runs to train at the same time, each in a process of its own."""
    episodes: int = 20
    """Whole episodes, with deterministic actions, that a trained agent is judged by."""
    out: str | None = None
    """Folder of the runs, the table and the figure; by default runs/compare-ENV."""
    json: bool = False
    """Print the result as one JSON object, and nothing else."""


def main(argv: Sequence[str]) -> int:
    """`vantage compare ENV [RECIPE…]`."""
    shared = [option for option in plan.agent_options() if option.name != "seed"]
    parser = Parser(
        "compare", [*of_fields(Compare, "comparison"), *shared],
        {
            "ENV": "a Gymnasium environment, such as CartPole-v1",
            "RECIPE*": "recipes, with options if need be: a2c ppo ppo:clip-range=0.1,n-epochs=4; without any, all",
        },
    )  # fmt: skip
    given = parser.read(argv)
    own = Compare.__dataclass_fields__.keys()
    chosen = Compare(**{name: value for name, value in given.items() if name in own})
    check_counts(chosen)
    if chosen.steps is not None and chosen.steps < 1:
        raise UsageError(f"--steps {chosen.steps}: train for at least one step")
    rest = {name: value for name, value in given.items() if name not in {*own, "ENV", "RECIPE"}}
    rest |= {} if chosen.steps is None else {"steps": chosen.steps}
    variants = {text: rest | variant(text) for text in given.get("RECIPE") or RECIPES}
    return compare(given["ENV"], variants, chosen)


def check_counts(chosen: Compare) -> None:
    """Raise UsageError for a number of seeds, jobs or episodes below 1."""
    for name in ("seeds", "jobs", "episodes"):
        if getattr(chosen, name) < 1:
            raise UsageError(f"--{name} {getattr(chosen, name)}: give a whole number, at least 1")


def variant(text: str) -> dict[str, Any]:
    """What `ppo:clip-range=0.1,n-epochs=4` sets. Raises UsageError with the nearest word for one that is unknown."""
    name, _, rest = text.partition(":")
    fail_unless_known("recipe", name, RECIPES)
    known: dict[str, Option] = {option.name: option for option in plan.recipe_options()}
    found: dict[str, Any] = {"recipe": name}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        field = key.strip().replace("-", "_")
        if field not in known or not equals:
            raise UsageError(f"{text}: {key!r} is no option of a recipe: {nearest(field, known)}")
        try:
            found[field] = convert(value, known[field].annotation)
        except ValueError as error:
            raise UsageError(f"{text}: {key} {value}: {error}") from error
    return found


def compare(env: str, variants: dict[str, dict[str, Any]], chosen: Compare) -> int:
    """Train what is missing, seed by seed, then show everything; 130 if interrupted."""
    root = Path(chosen.out or f"runs/compare-{env.replace('/', '-').replace(':', '-')}")
    folders = {name: root / name.replace(":", "-").replace("/", "-") for name in variants}
    return over_seeds(env, variants, folders, root, chosen)


def over_seeds(
    env: str, variants: dict[str, dict[str, Any]], folders: dict[str, Path], root: Path, chosen: Compare
) -> int:
    """Run each variant with each seed, in `folders[name]/seed-N`, and show what came out."""
    out = live.console(quiet=chosen.json)
    for given in variants.values():
        plan.make(env, given)  # so that no setting is found wrong after an hour
    jobs = []
    for seed in range(chosen.seeds):
        for name, given in variants.items():
            path = folders[name] / f"seed-{seed}"
            jobs.append((name, Job(env=env, given=given | {"seed": seed}, path=path, episodes=chosen.episodes)))
    names = {job.path: name for name, job in jobs}

    def heard(job: Job, cell: Cell) -> None:
        live.say(out, f"{names[job.path]}, seed {job.given['seed']}: {_told(cell)}")

    try:
        found = run_all([job for _, job in jobs], chosen.jobs, heard)
    except Stopped:
        live.say(out, f"Stopped; what is done is in {root}, and the same command goes on from there.")
        return 130
    cells: dict[str, list[Cell]] = {name: [] for name in variants}
    for (name, _), cell in zip(jobs, found, strict=True):
        cells[name].append(cell)
    return show(env, cells, root, chosen, out)


def _told(cell: Cell) -> str:
    if "error" in cell:
        return f"failed: {cell['error']}"
    return f"{cell['mean']:.1f} after {cell['steps']:,} steps"


def show(env: str, cells: dict[str, list[Cell]], root: Path, chosen: Compare, out: Any) -> int:
    """Write and print the table, draw the curves."""
    from vantage.lab.curves import Group, draw
    from vantage.runs.log import read

    rows = summarise(cells)
    told = {"env": env, "episodes": chosen.episodes, "out": str(root), "recipes": rows, "cells": cells}
    (root / "comparison.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    table = markdown(rows)
    (root / "table.md").write_text(table + "\n", encoding="utf-8")
    groups = [
        Group(label=name, rows=tuple(read(RunFolder(Path(cell["run"])).metrics) for cell in runs))
        for name, runs in cells.items()
    ]
    draw(groups, ["rollout/ep_rew_mean"], root / "curves.png", title=f"{env}: mean over seeds, 95 % interval")
    if chosen.json:
        print(json.dumps(told))
    out.print(f"\n{table}\n", soft_wrap=True, markup=False)
    live.say(out, f"Return of {chosen.episodes} deterministic episodes, over the seeds. In brackets 95 % intervals.")
    if chosen.seeds < FEW:
        live.say(out, too_few(chosen.seeds))
    live.say(out, f"{root / 'table.md'}, {root / 'curves.png'}\n", style="dim")
    return 0


def too_few(seeds: int) -> str:
    """What an interval over so few seeds is worth."""
    if seeds == 1:
        return "One seed says nothing about the others: give --seeds 5 or more for an interval."
    if seeds == 2:
        return "Two seeds make no interval: what stands in brackets is their range. Give --seeds 5 or more."
    return f"{seeds} seeds make an interval that is far too narrow: give --seeds 5 or more before you trust it."


def summarise(cells: dict[str, list[Cell]]) -> list[dict[str, Any]]:
    """A row a recipe: mean and IQM with bootstrap intervals, worst seed, P(better than the first recipe)."""
    from vantage.lab.statistics import iqm, mean, probability_of_improvement, stratified_bootstrap

    scores = {name: [cell["mean"] for cell in runs if "error" not in cell] for name, runs in cells.items()}
    first = next(iter(scores.values()))
    rows = []
    for name, known in scores.items():
        row: dict[str, Any] = {"recipe": name, "seeds": len(known), "failed": len(cells[name]) - len(known)}
        if known:
            for label, statistic in (("mean", mean), ("iqm", iqm)):
                found = stratified_bootstrap([known], statistic)
                row[label] = {name: None if math.isnan(x) else x for name, x in vars(found).items()}
            row["worst"] = min(known)
            better = probability_of_improvement([known], [first]) if first and known is not first else None
            row["p_better_than_first"] = better
        rows.append(row)
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a table."""
    first = rows[0]["recipe"]
    head = ("recipe", "seeds", "mean", "IQM", "worst seed", f"P(better than {first})")
    lines = [line if len(rows) > 1 else line[:-1] for line in (head, *map(_cells, rows))]
    head = lines[0]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    text = ["| " + " | ".join(f"{x:<{width}}" for x, width in zip(line, widths, strict=True)) + " |" for line in lines]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([text[0], rule, *text[1:]])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    seeds = f"{row['seeds']}" + (f" ({row['failed']} failed)" if row["failed"] else "")
    if "mean" not in row:
        return row["recipe"], seeds, "—", "—", "—", "—"
    better = row["p_better_than_first"]
    shown = (_estimate(row["mean"]), _estimate(row["iqm"]), f"{row['worst']:.1f}")
    return row["recipe"], seeds, *shown, "—" if better is None else f"{better:.2f}"


def _estimate(found: dict[str, Any]) -> str:
    from vantage.lab.statistics import Estimate

    return str(Estimate(**{name: math.nan if x is None else x for name, x in found.items()}))
