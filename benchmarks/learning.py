"""What PPO learns with the tuned settings, over seeds: `python -m benchmarks.learning [ENV …] [--seeds 5]`.

Each cell (environment, seed) is one run, kept as a JSON file under `benchmarks/results/learning/`; one that exists is
not run again, so the command can be stopped and started at will. It ends with a table, and the curves as a picture.
"""

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from benchmarks._cells import RESULTS, interval, kept, markdown
from vantage.control.agent import Agent
from vantage.control.defaults import TUNED

FOLDER = RESULTS / "learning"
BARS = {"CartPole-v1": 475.0, "Pendulum-v1": -250.0, "Acrobot-v1": -95.0}
"""Least mean return, deterministic evaluation over 20 episodes, that counts as learned."""
POINTS = 200


def cell(env: str, seed: int) -> dict[str, Any]:
    """The result of a run, kept or new."""
    return kept(FOLDER / f"{env}__{seed}.json", partial(run, env, seed))


def run(env: str, seed: int) -> dict[str, Any]:
    """One run: the return of a deterministic evaluation, and the training curve."""
    agent, began = Agent.tuned(env, seed=seed), time.perf_counter()
    report = agent.learn(TUNED[env].total_steps)
    if report.stopped is not None:
        raise KeyboardInterrupt  # half a run is no result
    seconds = time.perf_counter() - began
    rows = [row for row in report.rows if np.isfinite(row.get("rollout/ep_rew_mean", np.nan))]
    rows = rows[:: max(1, len(rows) // POINTS)]
    return {
        "env": env,
        "seed": seed,
        "steps": agent.steps,
        "seconds": round(seconds, 2),
        "returns": agent.evaluate(episodes=20, deterministic=True, seed=10_000 + seed).returns,
        "curve": [[int(row["time/total_timesteps"]), round(row["rollout/ep_rew_mean"], 3)] for row in rows],
    }


def table(cells: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: mean evaluation return over seeds with its 95 % interval, against the bar."""
    rows = []
    for env, runs in cells.items():
        means = np.array([np.mean(run["returns"]) for run in runs])
        half, mean = interval(means)
        rows.append(
            [
                env,
                f"{TUNED[env].total_steps // 1000}k",
                str(len(runs)),
                f"{mean:.1f} ± {half:.1f}",
                f"{means.min():.1f}",
                f"≥ {BARS[env]:g}",
                "reached" if mean >= BARS[env] else "missed",
            ]
        )
    return markdown(["environment", "steps", "seeds", "return, mean ± 95 %", "worst seed", "bar", ""], rows)


def picture(cells: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Training curves: the mean over seeds and its 95 % interval, each seed as a thin line."""
    figure, axes = plt.subplots(1, len(cells), figsize=(4.2 * len(cells), 3.4), squeeze=False)
    for ax, (env, runs) in zip(axes[0], cells.items(), strict=True):
        curves = [np.array(run["curve"]) for run in runs]
        grid = np.linspace(max(c[0, 0] for c in curves), min(c[-1, 0] for c in curves), 150)
        rows = np.array([np.interp(grid, c[:, 0], c[:, 1]) for c in curves])
        for c in curves:
            ax.plot(c[:, 0], c[:, 1], color="#2563a8", alpha=0.25, lw=0.8)
        mean = rows.mean(axis=0)
        half = stats.t.ppf(0.975, len(rows) - 1) * stats.sem(rows, axis=0) if len(rows) > 1 else 0 * mean
        ax.plot(grid, mean, color="#2563a8", lw=2)
        ax.fill_between(grid, mean - half, mean + half, color="#2563a8", alpha=0.2, lw=0)
        ax.axhline(BARS[env], color="#d97706", lw=1, ls="--")
        ax.set(title=f"{env}, {len(runs)} seeds", xlabel="environment steps")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("mean return of the last 100 episodes")
    figure.tight_layout()
    figure.savefig(path, dpi=120, metadata={"Software": None})


def main() -> None:
    """Run the missing cells, then print the table and draw the curves of all that exist."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("envs", nargs="*", default=list(BARS), metavar="ENV", help=f"of {', '.join(BARS)}")
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    cells = {}
    for env in given.envs:
        cells[env] = []
        for seed in range(given.seeds):
            cells[env].append(cell(env, seed))
            done = cells[env][-1]
            print(f"{env} seed {seed}: {np.mean(done['returns']):.1f} in {done['seconds']:.0f} s", flush=True)
    text = table(cells)
    print("\n" + text)
    (FOLDER / "table.md").write_text(text + "\n")
    picture(cells, FOLDER / "curves.png")


if __name__ == "__main__":
    main()
