"""What PPO learns with the tuned settings, beside Stable-Baselines3: `python -m benchmarks.learning [RUN …]`.

Both sides are given the same entry in the keys of RL Baselines3 Zoo, and are evaluated deterministically over 20
episodes. Each cell (run, side, seed) is kept as a JSON file under `benchmarks/results/learning/`; one that exists is
not run again, so the command can be stopped and started at will: one seed of everything comes first, then the next. It
ends with the table, which names the cells still missing, and the curves as a picture; `--report` gives these alone.

The peer comes with `pip install "vantage[bench]"`, or from another environment by --peer-python.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from benchmarks._cells import IMAGES, RESULTS, band, curve, finish, interval, kept, markdown, read
from benchmarks._sb3 import EVALUATED
from vantage.control.agent import Agent
from vantage.control.defaults import ENTRIES
from vantage.control.zoo import from_zoo

FOLDER = RESULTS / "learning"
MOST = 10
"""Seeds that are looked for."""
Cells = Mapping[tuple[str, str], Sequence[dict[str, Any]]]
"""The finished cells of each (run, side)."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """An environment, settings in the zoo's keys, and what counts as learned."""

    env: str
    entry: Mapping[str, Any]
    bar: float | None = None
    """Least mean return, deterministic evaluation; None: there is no published figure for so few steps."""


def without(entry: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """An entry but for some keys."""
    return {name: x for name, x in entry.items() if name not in names}


CONTINUOUS = dict(
    n_timesteps=2e4, n_steps=8, batch_size=256, gamma=0.9999, gae_lambda=0.9, learning_rate=7.77e-5, clip_range=0.1,
    ent_coef=0.00429, vf_coef=0.19, max_grad_norm=5.0, normalize=True, use_sde=True,
    policy_kwargs=dict(log_std_init=-3.29, ortho_init=False),
)  # fmt: skip
"""The zoo's for MountainCarContinuous. Not among the tuned settings: some seeds never find the flag."""
RUNS = {
    "CartPole-v1": Run(env="CartPole-v1", entry=ENTRIES["CartPole-v1"], bar=475.0),
    "CartPole-v1-zoo": Run(env="CartPole-v1", entry=without(ENTRIES["CartPole-v1"], "target_kl"), bar=475.0),
    "Pendulum-v1": Run(env="Pendulum-v1", entry=ENTRIES["Pendulum-v1"], bar=-250.0),
    "Pendulum-v1-zoo": Run(
        env="Pendulum-v1",
        entry={**ENTRIES["Pendulum-v1"], "n_timesteps": 1e5, "use_sde": True, "sde_sample_freq": 4},
        bar=-250.0,
    ),
    "MountainCarContinuous-v0": Run(env="MountainCarContinuous-v0", entry=CONTINUOUS, bar=85.0),
    "Acrobot-v1": Run(env="Acrobot-v1", entry=ENTRIES["Acrobot-v1"], bar=-95.0),
    "LunarLander-v3": Run(env="LunarLander-v3", entry=ENTRIES["LunarLander-v3"], bar=200.0),
    "Hopper-v5": Run(env="Hopper-v5", entry={**ENTRIES["Hopper-v5"], "n_timesteps": 3e5}),
}
"""Bars: what this entry's published runs reach, with some room."""


# ---- the two sides ----


def ours(run: Run, seed: int) -> dict[str, Any]:
    """One run of Vantage."""
    known = from_zoo(run.entry)
    agent, began = Agent(run.env, seed=seed, **known.settings), time.perf_counter()
    report = agent.learn(known.total_steps)
    if report.stopped is not None:
        raise KeyboardInterrupt  # half a run is no result
    return {
        "steps": agent.steps,
        "seconds": round(time.perf_counter() - began, 2),
        "returns": agent.evaluate(episodes=EVALUATED, deterministic=True, seed=10_000 + seed).returns,
        "curve": curve(report.rows, "rollout/ep_rew_mean"),
    }


def peer(python: str, run: Run, seed: int) -> dict[str, Any]:
    """One run of Stable-Baselines3, in a process of its own. Raises RuntimeError with the end of what it said."""
    asked = json.dumps({"env": run.env, "seed": seed, "entry": run.entry})
    script = Path(__file__).with_name("_sb3.py")
    done = subprocess.run([python, "-W", "ignore", script, asked], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"Stable-Baselines3 on {run.env} failed: {done.stderr[-600:]}")
    result = json.loads(done.stdout.splitlines()[-1])
    rows = [{"time/total_timesteps": steps, "return": r} for steps, r in result.pop("rows")]
    return {**result, "curve": curve(rows, "return")}


NAMES = {"vantage": "Vantage", "sb3": "Stable-Baselines3"}
COLOURS = {"vantage": "#2563a8", "sb3": "#d97706"}


# ---- table and picture ----


def means(cells: Cells, name: str, side: str) -> np.ndarray:
    """The mean return of each seed's evaluation."""
    return np.array([np.mean(cell["returns"]) for cell in cells.get((name, side), ())])


def difference(x: np.ndarray, y: np.ndarray) -> str:
    """Mean of x minus mean of y, with Welch's 95 % interval."""
    if min(len(x), len(y)) < 2:
        return ""
    if x.std() == y.std() == 0:
        return f"{x.mean() - y.mean():.1f}"
    bounds = stats.ttest_ind(x, y, equal_var=False).confidence_interval(0.95)
    return f"{x.mean() - y.mean():.1f} ({bounds.low:.1f} to {bounds.high:.1f})"


def table(cells: Cells, names: Sequence[str], seeds: int) -> str:
    """Markdown: mean evaluation return over seeds with its 95 % interval, ours and the peer's, against the bar; with
    fewer than `seeds` seeds it is unfinished.
    """
    rows = []
    for name in names:
        run, x, y = RUNS[name], means(cells, name, "vantage"), means(cells, name, "sb3")
        bar = "" if run.bar is None else f"≥ {run.bar:g}"
        reached = "" if run.bar is None or not len(x) else "reached" if x.mean() >= run.bar else "missed"
        steps = f"{int(run.entry['n_timesteps']) // 1000}k"
        rows.append([name, steps, _said(x, seeds), bar, reached, _said(y, seeds), difference(x, y)])
    head = ["run", "steps", NAMES["vantage"], "bar", "", NAMES["sb3"], "difference, 95 %"]
    return markdown(head, rows)


def _said(x: np.ndarray, seeds: int) -> str:
    """Mean ± 95 %, the worst seed, and how many there are."""
    if not len(x):
        return "unfinished"
    half, mean = interval(x)
    count = f"{len(x)} seeds" if len(x) >= seeds else f"{len(x)} of {seeds} seeds, unfinished"
    return f"{mean:.1f} ({count})" if len(x) == 1 else f"{mean:.1f} ± {half:.1f}, worst {x.min():.1f} ({count})"


def picture(cells: Cells, names: Sequence[str], path: Path) -> None:
    """Training curves: the mean over seeds and its 95 % interval, each seed as a thin line."""
    columns = min(3, len(names))
    shape = -(-len(names) // columns), columns
    figure, axes = plt.subplots(*shape, figsize=(4.2 * shape[1], 3.4 * shape[0]), squeeze=False)
    for ax, name in zip(axes.flat, names, strict=False):
        for side in NAMES:
            if found := cells.get((name, side)):
                band(ax, [cell["curve"] for cell in found], color=COLOURS[side], label=NAMES[side])
        if (bar := RUNS[name].bar) is not None:
            ax.axhline(bar, color="#666666", lw=1, ls="--")
        ax.set(title=name, xlabel="environment steps")
    finish(figure, axes, len(names), path)


def arguments() -> argparse.Namespace:
    """What to run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", default=list(RUNS), metavar="RUN", help=f"of {', '.join(RUNS)}")
    parser.add_argument(
        "--seeds", type=int, default=3, help="seeds of each run and side, at least; further ones that exist are shown"
    )
    parser.add_argument("--sides", nargs="+", default=list(NAMES), choices=NAMES)
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter that has Stable-Baselines3")
    parser.add_argument("--report", action="store_true", help="run nothing: table and picture of what there is")
    return parser.parse_args()


def main() -> None:
    """Run the missing cells, then print the table and draw the curves of all that exist."""
    given = arguments()
    work: dict[str, Callable[[Run, int], dict[str, Any]]] = {"vantage": ours, "sb3": partial(peer, given.peer_python)}
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for seed in range(max(given.seeds, MOST)):
        for name, side in product(given.runs, NAMES):
            run, path = RUNS[name], FOLDER / f"{name}__{side}__{seed}.json"
            asked = not given.report and side in given.sides and seed < given.seeds
            found = kept(path, partial(work[side], run, seed)) if asked else read(path)
            if found is not None:
                cells.setdefault((name, side), []).append(found)
                print(f"{name} {side} {seed}: {np.mean(found['returns']):.1f} in {found['seconds']:.0f} s", flush=True)
    text = table(cells, given.runs, given.seeds)
    print("\n" + text)
    (FOLDER / "table.md").write_text(text + "\n")
    picture(cells, given.runs, IMAGES / "learning.png")


if __name__ == "__main__":
    main()
