"""How fast training is beside other libraries, side by side: `python -m benchmarks.speed ROW [--pairs 5]`.

All sides learn with the settings of one row, in turn, each run in a process of its own. Steps/s are over whole
training, rollout and update, from the end of the second update on: start-up and compilation are not in them. A side in
PyTorch runs with its own number of threads and with one, and its better median counts: where other work shares the
processor PyTorch's threads wait for each other. Libraries come from other environments, `--python SB3=PATH SBX=PATH`;
rejax needs an older gymnax than ours. A pair of runs is kept as a JSON file under `benchmarks/results/speed/` and not
run again; `--new 1` runs one more pair and stops, `--report` writes the table of what there is.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks._cells import RESULTS, interval, kept, markdown, read
from vantage.cli.bench import run
from vantage.cli.bench_runs import ROWS, Job, Row

FOLDER, WORKER = RESULTS / "speed", str(Path(__file__).with_name("_sides.py"))
Pair = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """What is to be reached: so many times as good as the best side whose name begins so."""

    over: str
    times: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A row: its settings, its sides (ours first), the figure that is compared, and what is to be reached."""

    row: Row
    sides: tuple[str, ...]
    bars: tuple[Bar, ...] = ()
    figure: str = "steps/s"
    limits: tuple[tuple[str, float], ...] = ()
    """(side, seconds) that it may take at most."""
    memory: Bar | None = None
    """Peak memory may be at most so many times that of the side."""
    note: str = ""


SB3 = ("SB3", "SB3, 1 thread")
ZOO = replace(ROWS["cartpole-8"], linear=True, steps=51_200)
CLEANRL = Row(
    env="CartPole-v1", steps=40_960, n_envs=4, n_steps=128, batch_size=128, n_epochs=4, lr=2.5e-4, ent_coef=0.01
)
GYMNAX = replace(CLEANRL, env="gymnax:CartPole-v1", steps=512 * 1000)
CHAIN = Row(env="random sparse MDP", n_envs=10**6, n_steps=0, batch_size=1, n_epochs=0)
EVERY_WAY = ("certified", "SciPy bicgstab", "SciPy gmres", "SciPy sweeps", "QuantEcon")
EXACT = Comparison(
    row=CHAIN, figure="seconds",
    sides=("certified", "SciPy bicgstab", "QuantEcon"),
    bars=(Bar(over="SciPy", times=1.0), Bar(over="QuantEcon", times=1.0)),
)  # fmt: skip
COMPARISONS = {
    "cartpole-zoo": Comparison(
        row=ZOO, sides=("Vantage", *SB3, "SBX"), bars=(Bar(over="SB3", times=8.0), Bar(over="SBX", times=4.0))
    ),
    "cartpole-cleanrl": Comparison(
        row=CLEANRL, sides=("Vantage", *SB3, "skrl", "skrl, 1 thread"),
        bars=(Bar(over="SB3", times=8.0), Bar(over="skrl", times=6.0)),
    ),
    "cartpole-256": Comparison(
        row=replace(ROWS["cartpole-256"], steps=327_680), sides=("Vantage", *SB3), bars=(Bar(over="SB3", times=3.0),)
    ),
    "halfcheetah-1": Comparison(
        row=replace(ROWS["halfcheetah-1"], steps=20_480), sides=("Vantage", *SB3, "SBX", "Gymnasium alone"),
        bars=(Bar(over="SB3", times=7.0), Bar(over="SBX", times=7.0), Bar(over="Gymnasium alone", times=0.45)),
    ),
    "envpool-halfcheetah-64": Comparison(
        row=Row(env="envpool:HalfCheetah-v5", steps=4096 * 30, n_envs=64, n_steps=64, batch_size=512, n_epochs=4),
        sides=("Vantage", "EnvPool alone"), bars=(Bar(over="EnvPool", times=0.70),),
    ),
    "gymnax-4x128": Comparison(row=GYMNAX, sides=("Vantage", "rejax"), bars=(Bar(over="rejax", times=1.3),)),
    "gymnax-2048x32": Comparison(
        row=replace(GYMNAX, n_envs=2048, n_steps=32, batch_size=4096, lr=1e-3, steps=65_536 * 40),
        sides=("Vantage", "rejax", "sgemm alone"),
        bars=(Bar(over="rejax", times=1.5), Bar(over="sgemm", times=0.35)),
        note="PufferLib 3.0 made 209k steps/s on such a machine, not measured in turn with ours (it does not install), "
        "with one layer of 64 shared by actor and critic: 1/20 of the arithmetic of these two 64-64 towers.",
    ),
    "breakout": Comparison(
        row=Row(
            env="envpool:Breakout-v5", steps=4096, n_envs=8, n_steps=128, batch_size=256, n_epochs=4, lr=2.5e-4,
            ent_coef=0.01,
        ),
        sides=(
            "Vantage", "SB3, its own Atari", "SB3, its own Atari, 1 thread", "PyTorch's networks alone",
            "PyTorch's networks alone, 1 thread",
        ),
        bars=(Bar(over="SB3", times=1.3), Bar(over="PyTorch", times=0.6)),
        note="We step EnvPool, Stable-Baselines3 its own Atari wrappers one after the other. PyTorch's networks alone "
        "are oneDNN's convolutions: what such a kernel would give us is that bound.",
    ),
    "solve": Comparison(
        row=replace(ZOO, goal=475.0, steps=100_000), sides=("Vantage", "Vantage, warm cache", *SB3), figure="solved",
        bars=(Bar(over="SB3", times=4.0),),
        note="From the start of the process, compilation included, to a mean of 475 over the last 100 episodes.",
    ),
    "start-up": Comparison(
        row=replace(ZOO, steps=256), figure="first update",
        sides=("vantage train", "vantage train, warm cache", "import vantage", "SB3"),
        limits=(("vantage train", 5.0), ("vantage train, warm cache", 2.5), ("import vantage", 0.3)),
        memory=Bar(over="SB3", times=1.5),
        note="From the start of the process to the end of the first update. Only the first two write logs.",
    ),
    "exact": EXACT,
    "exact-1e5": replace(EXACT, row=replace(CHAIN, n_envs=10**5), sides=EVERY_WAY),
    "exact-1e4": replace(EXACT, row=replace(CHAIN, n_envs=10**4), sides=EVERY_WAY),
}  # fmt: skip


# ---- running ----


def pair(name: str, seed: int, pythons: Mapping[str, str], cache: str, without: Sequence[str] = ()) -> Pair:
    """One run of every side that is there, in turn; `cache`: a folder for compiled programs, filled already."""
    made, sides = COMPARISONS[name], {}
    load = os.getloadavg()[0]
    for side in (side for side in made.sides if side not in without):
        python, began = python_of(side, pythons), time.time()
        environment = {"VANTAGE_CACHE": cache if "warm" in side else ""}
        try:
            sides[side] = run(WORKER, side, Job(row=made.row, seed=seed, began=began), python, environment)
        except RuntimeError as error:
            if "ModuleNotFoundError" not in str(error):
                raise
            print(f"  {error}: name an interpreter that has it by --python")
            continue
        value = sides[side].get(made.figure)
        print(
            f"{name} {seed}, {side}: {'-' if value is None else short(value)} ({time.time() - began:.0f} s)", flush=True
        )
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return {"date": f"{datetime.now(UTC):%Y-%m-%d %H:%M}", "machine": machine, "load": round(load, 2), "sides": sides}


def python_of(side: str, pythons: Mapping[str, str]) -> str:
    """The interpreter of a side: that of the longest name with which it begins, or this one."""
    known = [name for name in pythons if side.startswith(name)]
    return pythons[max(known, key=len)] if known else sys.executable


def path(name: str, seed: int) -> Path:
    """Where a pair is kept."""
    return FOLDER / f"{name}__{seed}.json"


def measure(name: str, pairs: int, new: int, pythons: Mapping[str, str], without: Sequence[str] = ()) -> None:
    """Run the missing pairs, at most `new`."""
    missing = [seed for seed in range(pairs) if not path(name, seed).exists()][:new]
    with tempfile.TemporaryDirectory() as cache:
        for side in COMPARISONS[name].sides if missing else ():
            if "warm" in side:
                job = Job(row=COMPARISONS[name].row, began=time.time())
                run(WORKER, side, job, python_of(side, pythons), {"VANTAGE_CACHE": cache})
        for seed in missing:
            kept(path(name, seed), lambda seed=seed: pair(name, seed, pythons, cache, without))


# ---- telling ----


def middle(pairs: Sequence[Pair], side: str, figure: str) -> float:
    """The median over pairs; a run that did not get there took for ever, or did nothing."""
    never = 0.0 if figure == "steps/s" else inf
    found = [pair["sides"][side].get(figure) for pair in pairs if side in pair["sides"]]
    return median(never if x is None else x for x in found) if found else float("nan")


def times(pairs: Sequence[Pair], made: Comparison, side: str) -> float:
    """How many times as good ours is: the ratio of medians."""
    mine, other = middle(pairs, made.sides[0], made.figure), middle(pairs, side, made.figure)
    return mine / other if made.figure == "steps/s" else other / mine


def verdicts(name: str, pairs: Sequence[Pair]) -> list[list[str]]:
    """Each bar: the row, what it is against, what is to be reached, what was found, and whether it is met."""
    made, out = COMPARISONS[name], []
    there = {side for pair in pairs for side in pair["sides"]}
    for bar in made.bars:
        ran = [side for side in made.sides if side.startswith(bar.over) and side in there]
        ratio = min((times(pairs, made, side) for side in ran), default=None)
        found = ["", "not run"] if ratio is None else [f"{ratio:.2f} ×", said(ratio >= bar.times)]
        out.append([name, bar.over, f"≥ {bar.times:g} ×", *found])
    for side, seconds in made.limits if pairs else ():
        found = middle(pairs, side, made.figure)
        out.append([name, side, f"≤ {seconds:g} s", f"{found:.2f} s", said(found <= seconds)])
    if made.memory is not None and made.memory.over in there:
        ratio = middle(pairs, made.sides[0], "MB") / middle(pairs, made.memory.over, "MB")
        out.append([name, f"{made.memory.over}, peak memory", f"≤ {made.memory.times:g} ×", f"{ratio:.2f} ×",
                    said(ratio <= made.memory.times)])  # fmt: skip
    return out


def said(met: bool) -> str:
    return "met" if met else "**missed**"


def finished(name: str, wanted: int) -> list[Pair]:
    """The pairs that there are."""
    return [found for seed in range(wanted) if (found := read(path(name, seed))) is not None]


def summary(wanted: int) -> str:
    """All bars in a table, with the number of pairs behind each."""
    rows = []
    for name in COMPARISONS:
        pairs = finished(name, wanted)
        count = f"{len(pairs)}" if len(pairs) >= wanted else f"{len(pairs)} of {wanted}, unfinished"
        rows += [[*verdict, count] for verdict in verdicts(name, pairs)]
    return markdown(["row", "against", "bar", "found", "", "pairs"], rows)


def table(name: str, pairs: Sequence[Pair]) -> str:
    """Markdown: each side's median and range, how many times as good ours is, its memory, and what it learned."""
    made, rows = COMPARISONS[name], []
    unit = "steps/s" if made.figure == "steps/s" else "s"
    for side in made.sides:
        runs = [pair["sides"][side] for pair in pairs if side in pair["sides"]]
        if not runs:
            rows.append([side, "not run", "", "", "", ""])
            continue
        found = [run[made.figure] for run in runs if run.get(made.figure) is not None]
        count = f"{len(runs)}" if len(found) == len(runs) else f"{len(found)} of {len(runs)}"
        ends = f"{short(min(found))} … {short(max(found))} ({count})" if found else "never"
        returns = np.array([run["return"] for run in runs if run.get("return") is not None])
        half, mean = interval(returns) if len(returns) else (np.nan, np.nan)
        learned = "" if np.isnan(mean) else f"{mean:.0f}" + ("" if np.isnan(half) else f" ± {half:.0f}")
        memory = f"{middle(pairs, side, 'MB'):.0f}"
        ratio = "" if side == made.sides[0] else f"{times(pairs, made, side):.2f}"
        rows.append([side, short(middle(pairs, side, made.figure)), ends, ratio, memory, learned])
    return markdown([name, unit, "range (runs)", "ours is × as good", "peak MB", "mean return ± 95 %"], rows)


def settings(row: Row) -> str:
    """The settings in a line."""
    if not row.n_steps:
        return f"{row.env}, {row.n_envs:,} states × 4 actions × 5 successors, γ = 0.99, error at most 1e-8"
    schedules = ", learning rate and clip range falling to 0" if row.linear else ""
    return (
        f"{row.env}, {row.n_envs} × {row.n_steps}, minibatches of {row.batch_size}, {row.n_epochs} epochs, "
        f"γ = {row.gamma:g}, λ = {row.lam:g}, learning rate {row.lr:g}{schedules}; {row.steps:,} steps"
    )


def section(name: str, wanted: int) -> str:
    """A row of the report: its settings, table, and under what conditions it was measured."""
    made, pairs = COMPARISONS[name], finished(name, wanted)
    head = f"**{name}**: {settings(made.row)}."
    if not pairs:
        return f"{head} Unfinished: no pair has been run."
    loads = [pair["load"] for pair in pairs]
    count = f"Pairs: {len(pairs)}" + ("" if len(pairs) >= wanted else f" of {wanted}, unfinished")
    when = f"{count}; {pairs[0]['machine']}, {pairs[-1]['date']} UTC, load {min(loads):.1f} to {max(loads):.1f}."
    return "\n\n".join([f"{head} {made.note}".strip(), table(name, pairs), when])


def report(wanted: int) -> str:
    """All bars, then all rows, as Markdown."""
    return "\n\n".join([summary(wanted), *(section(name, wanted) for name in COMPARISONS)]) + "\n"


def short(x: float) -> str:
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}" if x < 1 else f"{x:.2f}"


def main() -> None:
    """Run the missing pairs of a row, or of all, then tell what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", choices=[*COMPARISONS, []], metavar="ROW", help=", ".join(COMPARISONS))
    parser.add_argument("--pairs", type=int, default=5, help="runs of each side, in turn")
    parser.add_argument("--new", type=int, default=10**6, help="pairs to run at most, now")
    parser.add_argument("--python", nargs="+", default=[], metavar="SIDE=PATH", help="interpreters of the others")
    parser.add_argument("--without", nargs="+", default=[], metavar="SIDE", help="sides to leave out, now")
    parser.add_argument("--report", action="store_true", help="run nothing; write the table of all rows")
    given = parser.parse_args()
    pythons = dict(each.split("=", 1) for each in given.python)
    for name in given.rows:
        measure(name, given.pairs, given.new, pythons, given.without)
        print("\n" + section(name, given.pairs) + "\n")
        print(*(" | ".join(verdict) for verdict in verdicts(name, finished(name, given.pairs))), sep="\n")
    if given.report:
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / "table.md").write_text(report(given.pairs))
        print(report(given.pairs))


if __name__ == "__main__":
    main()
