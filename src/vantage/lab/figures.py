"""The pictures of the theory, drawn from exact numbers: `python -m vantage.lab.figures FOLDER` writes them all."""

import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Ellipse
from scipy import stats

from vantage.lab.table import Lab
from vantage.mdp import classics, solve
from vantage.mdp.moments import column_gradients
from vantage.recipe import GAE, TDError, TotalReturn

BLUE, ORANGE, GREEN, RED, GREY = "#2563a8", "#d97706", "#2f855a", "#c53030", "#6b7280"
STYLE: Any = {
    "figure.dpi": 130,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "legend.frameon": False,
    "mathtext.fontset": "dejavusans",
}


def gae_over_lambda(n: int = 41) -> Figure:
    """bias² and variance of the policy gradient under GAE(λ), for λ from 0 to 1, with a right and a wrong critic."""
    lab = Lab(classics.random_mdp(3, 2, 0.9, seed=3), horizon=5)
    lambdas = np.linspace(0.0, 1.0, n)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    for ax, values, title in zip(
        axes, (lab.values, lab.wrong), ("critic exact: V = Vπ", "critic wrong: V̂ = Vπ ± error"), strict=True
    ):
        rollout = lab.rollout(values)
        found = [lab.moments(GAE(lam=float(lam)), rollout) for lam in lambdas]
        bias2 = np.array([np.sum((m.mean - lab.gradient) ** 2) for m in found])
        variance = np.array([m.variance for m in found]) / BATCH
        ax.plot(lambdas, bias2, color=RED, label="bias²")
        ax.plot(lambdas, variance, color=BLUE, label=f"variance, {BATCH} trajectories")
        ax.plot(lambdas, bias2 + variance, color="black", lw=2, label="mean squared error")
        best = int(np.argmin(bias2 + variance))
        ax.plot(lambdas[best], (bias2 + variance)[best], "o", color="black")
        ax.annotate(
            f"best λ = {lambdas[best]:.2f}",
            (lambdas[best], (bias2 + variance)[best]),
            (0, 10),
            textcoords="offset points",
            ha="left" if best < n // 4 else "center",
        )
        ax.set(xlabel="λ", title=title, xlim=(-0.02, 1.02))
    axes[0].set_ylabel("squared error of ĝ against ∇J")
    axes[0].set_ylim(bottom=0)
    axes[0].legend(loc="upper left")
    figure.suptitle("GAE trades the critic's error against the noise of sampling", x=0.02, ha="left")
    return figure


BATCH = 20
"""Trajectories averaged in the picture of GAE: the variance of one is divided by this."""


def shooting_targets(shots: int = 60) -> Figure:
    """Four estimators as shooters: each dot is one gradient estimate, the bull's eye is ∇J, the ellipse two exact σ."""
    mdp = classics.two_state(0.9)
    theta = np.array([[0.4, -0.4], [-0.3, 0.3]])
    lab = Lab(mdp, theta=theta, horizon=6)
    lab = Lab(mdp, theta=theta, horizon=6, wrong=lab.values + 2.0 * (lab.wrong - lab.values))
    wrong, right = lab.rollout(lab.wrong), lab.rollout(lab.values)
    cases = (
        ("low variance, low bias", "TD error, exact critic, 10 trajectories", TDError(), right, 10),
        ("low variance, high bias", "TD error, wrong critic, 100 trajectories", TDError(), wrong, 100),
        ("high variance, low bias", "total return, 4 trajectories", TotalReturn(), right, 4),
        ("high variance, high bias", "TD error, wrong critic, 2 trajectories", TDError(), wrong, 2),
    )
    figure, axes = plt.subplots(1, 4, figsize=(12, 3.7), sharex=True, sharey=True)
    rng = np.random.default_rng(1)
    goal = lab.gradient[:, 1]
    for ax, (title, how, psi, rollout, n) in zip(axes, cases, strict=True):
        weight = lab.weigh(psi, rollout)
        each = column_gradients(rollout, weight, mdp.n_states)[:, :, 1]
        p = np.asarray(rollout.weight)
        p = p / p.sum()
        mean = p @ each
        covariance = (p[:, None] * (each - mean)).T @ (each - mean) / n
        _target(ax, goal)
        aimed = each[rng.choice(len(p), (shots, n), p=p)].mean(axis=1)
        ax.plot(*aimed.T, ".", color=RED, ms=4, alpha=0.8)
        ax.plot(*mean, "P", color="black", ms=7)
        size, axis = np.linalg.eigh(covariance)
        angle = np.degrees(np.arctan2(axis[1, -1], axis[0, -1]))
        width, height = 4 * np.sqrt(np.maximum(size[::-1], 0))
        ax.add_patch(Ellipse((mean[0], mean[1]), width, height, angle=angle, fill=False, lw=1.4))
        ax.set_title(title)
        ax.set_xlabel(
            f"{how}\nbias {np.linalg.norm(mean - goal):.2f}, std {np.sqrt(np.trace(covariance)):.2f}", fontsize=9
        )
        ax.set_aspect("equal")
        ax.set(xticks=[], yticks=[], xlim=(goal[0] - REACH, goal[0] + REACH), ylim=(goal[1] - REACH, goal[1] + REACH))
        for side in ax.spines.values():
            side.set_visible(False)
    return figure


REACH = 3.4
"""Half the width of a target, in units of the gradient."""


def _target(ax: Any, centre: Any) -> None:
    for radius, colour in zip((2.4, 1.8, 1.2, 0.6), ("#e8eef5", "#d3e0ee", "#b9cfe4", "#93b4d4"), strict=True):
        ax.add_patch(Circle((centre[0], centre[1]), radius, color=colour, zorder=0))


class Normal(NamedTuple):
    """N(mean, std²)."""

    mean: float
    std: float

    def pdf(self, x: Any) -> Any:
        """The density at x."""
        return stats.norm.pdf(x, self.mean, self.std)

    def cdf(self, x: float) -> float:
        """P(X ≤ x)."""
        return float(stats.norm.cdf(x, self.mean, self.std))


def importance_failure() -> Figure:
    """Samples of q, expectation under p: how often n samples get even the sign of E_p[f] wrong, computed exactly."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6))
    x = np.linspace(-5, 5, 801)
    p, q = Normal(-1.2, 0.9), Normal(1.4, 0.9)
    f = np.where(x < 0, -1.0, 1.0)
    left.fill_between(x, p.pdf(x), color=BLUE, alpha=0.25, lw=0)
    left.plot(x, p.pdf(x), color=BLUE, label="p, whose expectation is wanted")
    left.fill_between(x, q.pdf(x), color=GREEN, alpha=0.25, lw=0)
    left.plot(x, q.pdf(x), color=GREEN, label="q, which is sampled")
    left.plot(x, 0.25 * f, color=RED, lw=1.5, label="f (sign −1 or +1)")
    left.axhline(0, color=GREY, lw=0.8)
    truth = 1 - 2 * p.cdf(0.0)
    left.set(title=f"E_p[f] = {truth:.2f}, E_q[f] = {1 - 2 * q.cdf(0.0):+.2f}", xlabel="x", yticks=[])
    left.legend(fontsize=8, loc="upper right")
    left.set_ylim(top=0.78)
    n = np.unique(np.geomspace(1, 3000, 60).astype(int))
    for shift, colour in ((0.4, GREEN), (1.0, ORANGE), (1.6, RED), (2.6, "#702459")):
        chance = [wrong_sign(p.cdf(0.0), Normal(-1.2 + shift, 0.9).cdf(0.0), int(k)) for k in n]
        left_p, left_q = p.cdf(0.0), Normal(-1.2 + shift, 0.9).cdf(0.0)
        ess = 1 / (left_p**2 / left_q + (1 - left_p) ** 2 / (1 - left_q))
        right.semilogx(n, chance, color=colour, label=f"shift {shift / 0.9:.1f} σ, ESS/n of the weights {ess:.3g}")
    right.set(title="P(n weighted samples give the wrong sign)", xlabel="n samples of q", ylim=(0, 1))
    right.legend(fontsize=8)
    return figure


def wrong_sign(p_left: float, q_left: float, n: int) -> float:
    """P(the importance-weighted mean of n samples of q has not the sign of E_p[f]), f = −1 left, +1 right of a border.

        estimate = (n − K)·(p_R/q_R) − K·(p_L/q_L),   K ∼ Binomial(n, q_L)

    A sample is weighted by the probability ratio of the side it fell on, so the chance is a binomial tail.
    """
    k = np.arange(n + 1)
    estimate = (n - k) * (1 - p_left) / (1 - q_left) - k * p_left / q_left
    truth = 1 - 2 * p_left
    return float(stats.binom.pmf(k, n, q_left)[np.sign(estimate) != np.sign(truth)].sum())


def evaluate_improve() -> Figure:
    """Policy iteration on the grid of Sutton & Barto's example 3.5: V of each policy, and the J that never falls."""
    mdp = classics.gridworld_3_5()
    steps = list(solve.policy_iteration(mdp))
    shown = [0, 1, 2, len(steps) - 1]
    figure, axes = plt.subplots(1, 5, figsize=(13, 3.1), gridspec_kw={"width_ratios": [1, 1, 1, 1, 1.25]})
    top = max(float(step.values.max()) for step in steps)
    for ax, k in zip(axes, shown, strict=False):
        step = steps[k]
        ax.imshow(step.values.reshape(5, 5), cmap="Blues", vmin=-2, vmax=top)
        for s, v in enumerate(step.values):
            ax.text(
                s % 5,
                s // 5,
                f"{v:.1f}",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if v > 0.6 * top else "black",
            )
        ax.set(title=f"k = {k}: J = {step.expected_return:.2f}", xticks=[], yticks=[])
    js = [step.expected_return for step in steps]
    values = [np.zeros(mdp.n_states)]
    for step in steps:
        values += islice(solve.sweeps(mdp, step.policy, values[-1]), SWEEPS)
    trail = [float(mdp.rho @ v) for v in values]
    axes[4].plot(trail, color=ORANGE, lw=1.3, label="evaluate: 40 sweeps a policy")
    axes[4].plot(SWEEPS * np.arange(1, len(steps) + 1), js, "o", color=BLUE, label="J of the policy")
    axes[4].set(title="evaluate ⇄ improve", xlabel="sweeps", ylabel="ρ₀ · V")
    axes[4].legend(fontsize=8, loc="upper left", bbox_to_anchor=(0.3, 0.6))
    return figure


SWEEPS = 40
"""Evaluation sweeps drawn for each policy."""

FIGURES: dict[str, Callable[[], Figure]] = {
    "gae-over-lambda": gae_over_lambda,
    "shooting-targets": shooting_targets,
    "importance-failure": importance_failure,
    "evaluate-improve": evaluate_improve,
}
"""Every figure by the name of its file."""


def draw(folder: Path) -> list[Path]:
    """Draw all figures into a folder as PNG; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with plt.rc_context(STYLE):
        for name, make in FIGURES.items():
            figure = make()
            figure.tight_layout()
            paths.append(folder / f"{name}.png")
            figure.savefig(paths[-1], metadata={"Software": None})
            plt.close(figure)
    return paths


if __name__ == "__main__":
    for path in draw(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images")):
        print(path)  # noqa: T201
