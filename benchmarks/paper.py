"""Which constraint on PPO's step works best: `python -m benchmarks.paper [--steps 300000] [--tasks HalfCheetah-v5 …]`.

Table 1 of Schulman et al. (2017), arXiv 1707.06347, on today's versions of its seven tasks, with its hyperparameters,
its code's treatment of the environment and its score. Each cell (task, variant, seed) is one run, kept as a JSON file
under `benchmarks/results/paper/`; one that exists is not run again, so the command can be stopped and started at will:
one seed of everything comes first, then the next. It ends with the table, which names the cells still missing, and the
curves as a picture; `--report` gives these alone.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import gymnasium
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from gymnasium.spaces import Box
from gymnasium.wrappers import TransformAction
from scipy import stats

import vantage as vt
from benchmarks._cells import IMAGES, RESULTS, band, curve, finish, kept, markdown, read

TASKS = (
    "HalfCheetah-v5", "Hopper-v5", "InvertedDoublePendulum-v5", "InvertedPendulum-v5", "Reacher-v5", "Swimmer-v5",
    "Walker2d-v5",
)  # fmt: skip
"""In the order of the paper."""
REUSE: dict[str, Any] = dict(n_epochs=10, n_minibatches=32, gae_lambda=0.95, whiten="batch")
"""Table 3: minibatches of 64 of T = 2048 steps; Ψ whitened over the rollout, as in the paper's code."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A row of Table 1."""

    recipe: vt.Recipe
    published: float
    """The paper's score, after 1M steps on the seven tasks in their first versions."""


def adaptive(target: float) -> vt.Recipe:
    """rΨ − β KL(π_old‖π), with β from 1 on as equation 8 and the rule below it move it."""
    return vt.PPOPenalty(beta=1.0, rule=vt.PaperTarget(target=target), **REUSE)


def fixed(beta: float) -> vt.Recipe:
    """The same, β as given."""
    return vt.PPOPenalty(beta=beta, rule=None, **REUSE)


def none() -> vt.Recipe:
    """No clipping or penalty, equation 6."""
    given = {**REUSE, "psi": vt.GAE(lam=REUSE["gae_lambda"])}
    del given["gae_lambda"]
    return vt.ImportanceWeighted(**given)


VARIANTS: dict[str, Variant] = {
    "none": Variant(recipe=none(), published=-0.39),
    "clip 0.1": Variant(recipe=vt.PPO(clip_range=0.1, **REUSE), published=0.76),
    "clip 0.2": Variant(recipe=vt.PPO(clip_range=0.2, **REUSE), published=0.82),
    "clip 0.3": Variant(recipe=vt.PPO(clip_range=0.3, **REUSE), published=0.70),
    "adaptive 0.003": Variant(recipe=adaptive(0.003), published=0.68),
    "adaptive 0.01": Variant(recipe=adaptive(0.01), published=0.74),
    "adaptive 0.03": Variant(recipe=adaptive(0.03), published=0.71),
    "fixed 0.3": Variant(recipe=fixed(0.3), published=0.62),
    "fixed 1": Variant(recipe=fixed(1.0), published=0.71),
    "fixed 3": Variant(recipe=fixed(3.0), published=0.72),
    "fixed 10": Variant(recipe=fixed(10.0), published=0.69),
}
Runs = Mapping[tuple[str, str], Sequence[dict[str, Any]]]
"""The finished runs of each (task, variant)."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a table's runs have in common."""

    steps: int = 1_000_000
    raw: bool = False
    """Whether the networks see observations as they are; the paper's code normalises them by running statistics."""
    clipped: bool = False
    """Whether actions are clipped to their bounds before the environment sees them, as is usual today. The paper's code
    hands them over as they were drawn, so that HalfCheetah's price of control, −0.1‖a‖², has no bound.
    """

    @property
    def name(self) -> str:
        """Of the folder and the picture."""
        return f"{self.steps // 1000}k{'-raw' if self.raw else ''}{'-clipped' if self.clipped else ''}"

    def env(self, task: str) -> gymnasium.Env:
        """The task, its actions bounded or not."""
        env = gymnasium.make(task)
        space = env.action_space
        if self.clipped:
            return env
        assert isinstance(space, Box)
        return TransformAction(env, lambda action: action, Box(-np.inf, np.inf, space.shape, np.float32))


# ---- running ----


def run(task: str, variant: str, seed: int, setup: Setup) -> dict[str, Any]:
    """One run with the hyperparameters of Table 3.

    One that cannot go on, since its numbers have left the range of floats, counts with the episodes it finished.
    """
    agent = vt.Agent(
        partial(setup.env, task), VARIANTS[variant].recipe, seed=seed, n_envs=1, n_steps=2048, gamma=0.99,
        optim=vt.Joint(lr=3e-4, vf_coef=1.0, max_grad_norm=None), normalise_observation=not setup.raw,
    )  # fmt: skip
    rows: list[dict[str, float]] = []
    began, broke = time.perf_counter(), None
    try:
        if agent.learn(setup.steps, lambda update: rows.append(dict(update.metrics))).stopped is not None:
            raise KeyboardInterrupt  # half a run is no result
    except (FloatingPointError, RuntimeError) as error:
        broke = str(error)
    known = [row for row in rows if "rollout/ep_rew_mean" in row]
    return {
        "task": task, "variant": variant, "seed": seed, "steps": agent.steps, "broke": broke,
        "seconds": round(time.perf_counter() - began, 1),
        "score": known[-1]["rollout/ep_rew_mean"],
        "curve": curve(rows, "rollout/ep_rew_mean"),
        **{name: curve(rows, f"train/{name}", 40) for name in ("kl", "entropy", "std", "beta", "clip_fraction")},
    }  # fmt: skip


def random_policy(task: str) -> dict[str, Any]:
    """The mean return of 100 episodes of uniformly random actions."""
    env = gymnasium.make(task)
    env.action_space.seed(0)
    returns = []
    for episode in range(100):
        env.reset(seed=episode)
        total, over = 0.0, False
        while not over:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    return {"task": task, "score": float(np.mean(returns))}


# ---- the score ----


def normalised(runs: Runs, tasks: Sequence[str], zero: Mapping[str, float]) -> dict[tuple[str, str], np.ndarray]:
    """Each run's score, for each task on the scale where the random policy is 0 and the best run 1."""
    out = {}
    for task in tasks:
        best = max(run["score"] for (where, _), found in runs.items() if where == task for run in found)
        for (where, variant), found in runs.items():
            if where == task:
                scores = np.array([run["score"] for run in found])
                out[where, variant] = (scores - zero[task]) / (best - zero[task])
    return out


def pooled(scores: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """Over tasks of some seeds each: the mean, its standard error, and the half-width of its 95 % interval.

        SE² = Σ_k s_k²/n_k / K²

    Seeds are sampled, tasks are not; degrees of freedom by Welch and Satterthwaite.
    """
    mean = float(np.mean([x.mean() for x in scores]))
    if min(map(len, scores)) < 2:
        return mean, np.nan, np.nan
    parts = np.array([x.var(ddof=1) / len(x) for x in scores])
    if parts.sum() == 0:
        return mean, 0.0, 0.0
    freedom = parts.sum() ** 2 / np.sum(parts**2 / np.array([len(x) - 1 for x in scores]))
    error = float(np.sqrt(parts.sum()) / len(parts))
    return mean, error, float(stats.t.ppf(0.975, freedom)) * error


def table(runs: Runs, tasks: Sequence[str], variants: Sequence[str], zero: Mapping[str, float], seeds: int) -> str:
    """Markdown: the score of each variant, and its runs' mean return on each task."""
    scores, rows = normalised(runs, tasks, zero), []
    for variant in variants:
        found = [scores[task, variant] for task in tasks if (task, variant) in scores]
        done, asked = sum(map(len, found)), seeds * len(tasks)
        mean, error, half = pooled(found) if len(found) == len(tasks) else (np.nan, np.nan, np.nan)
        rows.append(
            [
                variant,
                _said(mean, half) + ("" if done == asked else " unfinished"),
                "" if np.isnan(error) else f"{error:.2f}",
                f"{VARIANTS[variant].published:.2f}",
                f"{done} of {asked}",
                *(_returns(runs.get((task, variant), ())) for task in tasks),
            ]
        )
    rows.append(["random policy", "0", "", "0", "", *(f"{zero[task]:.0f}" for task in tasks)])
    head = ["variant", "score ± 95 %", "standard error", "in the paper", "runs", *tasks]
    return markdown(head, rows)


def _said(mean: float, half: float) -> str:
    if np.isnan(mean):
        return ""
    return f"**{mean:.2f}**" if np.isnan(half) else f"**{mean:.2f}** ± {half:.2f}"


def _returns(found: Sequence[dict[str, Any]]) -> str:
    if not found:
        return ""
    x = np.array([run["score"] for run in found])
    broken = sum(run["broke"] is not None for run in found)
    return f"{x.mean():.0f} ({', '.join(f'{y:.0f}' for y in x)})" + (f", {broken} broke off" if broken else "")


def verdict(runs: Runs, tasks: Sequence[str], variants: Sequence[str], zero: Mapping[str, float]) -> str:
    """The two demands, held against the scores: clip 0.2 first or within one standard error of it, and every
    constraint at least 0.5 above none.
    """
    scores = normalised(runs, tasks, zero)
    means = {v: pooled([scores[task, v] for task in tasks])[:2] for v in variants}
    first = max(means, key=lambda v: means[v][0])
    least = min((v for v in variants if v != "none"), key=lambda v: means[v][0])
    lead = f"First: {first}"
    if first != "clip 0.2":
        gap, error = means[first][0] - means["clip 0.2"][0], np.hypot(means[first][1], means["clip 0.2"][1])
        lead += f", {gap:.2f} before clip 0.2" + ("" if np.isnan(error) else f" (standard error {error:.2f})")
    return f"{lead}. Least of the constrained: {least}, {means[least][0] - means['none'][0]:.2f} above none."


def picture(runs: Runs, tasks: Sequence[str], variants: Sequence[str], path: Path) -> None:
    """Training curves: mean over seeds, each seed as a thin line."""
    columns = min(4, len(tasks))
    shape = -(-len(tasks) // columns), columns
    figure, axes = plt.subplots(*shape, figsize=(3.6 * shape[1], 3.2 * shape[0]), squeeze=False)
    for ax, task in zip(axes.flat, tasks, strict=False):
        for i, variant in enumerate(variants):
            found = runs.get((task, variant), ())
            if found:
                band(ax, [run["curve"] for run in found], color=f"C{i}", label=variant, fill=False)
        ax.set(title=task, xlabel="environment steps")
    finish(figure, axes, len(tasks), path)


# ---- the command ----


def arguments() -> argparse.Namespace:
    """What to run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS, metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS, help=", ".join(VARIANTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--raw", action="store_true", help="observations as they are, not normalised")
    parser.add_argument("--clipped", action="store_true", help="actions clipped to their bounds for the environment")
    parser.add_argument("--report", action="store_true", help="run nothing: table and picture of what there is")
    return parser.parse_args()


def main() -> None:
    """Run the missing cells, then print the table and draw the curves of all that exist."""
    given = arguments()
    setup = Setup(steps=given.steps, raw=given.raw, clipped=given.clipped)
    folder = RESULTS / "paper" / setup.name
    zero = {task: kept(folder / f"{task}__random.json", partial(random_policy, task))["score"] for task in given.tasks}
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for seed in range(given.seeds):
        for task, variant in product(given.tasks, given.variants):
            path = folder / f"{task}__{variant.replace(' ', '-')}__{seed}.json"
            found = read(path) if given.report else kept(path, partial(run, task, variant, seed, setup))
            if found is not None:
                runs.setdefault((task, variant), []).append(found)
                print(f"{task} {variant} seed {seed}: {found['score']:.1f} in {found['seconds']:.0f} s", flush=True)
    report(folder, runs, given.tasks, given.variants, zero, given.seeds)


def report(
    folder: Path, runs: Runs, tasks: Sequence[str], variants: Sequence[str], zero: Mapping[str, float], seeds: int
) -> None:
    """Write and print the table, what it says, the missing cells, and the picture."""
    text = table(runs, tasks, variants, zero, seeds) + "\n"
    done, asked = sum(map(len, runs.values())), seeds * len(tasks) * len(variants)
    if done < asked:
        text += f"\nUnfinished: {asked - done} of {asked} runs; what is said here is so far.\n"
    if {"none", "clip 0.2"} <= set(variants) and len(runs) == len(tasks) * len(variants):
        text += f"\n{verdict(runs, tasks, variants, zero)}\n"
    print("\n" + text)
    (folder / "table.md").write_text(text)
    picture(runs, tasks, variants, IMAGES / f"paper-{folder.name}.png")


if __name__ == "__main__":
    main()
