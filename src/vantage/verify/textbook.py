"""A second derivation, in plain Python with the sums as textbooks write them, sharing nothing with the library.

It lists the trajectories by recursion and writes every Ψ_t as the finite sum of its definition, in O(T²) and without
arrays, so that agreement with the vectorised code means that two different programs computed the same thing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import exp
from typing import Any

import numpy as np

from vantage.mdp.model import MDP

Array = Any


@dataclass(frozen=True)
class Path:
    """s_0 … s_T, a_0 … a_{T−1}, r_0 … r_{T−1} of one trajectory, and P(τ|π)."""

    s: tuple[int, ...]
    a: tuple[int, ...]
    r: tuple[float, ...]
    p: float

    @property
    def T(self) -> int:
        """Its length."""
        return len(self.a)


def paths(world: MDP, pi: Array, horizon: int) -> list[Path]:
    """Every trajectory with a positive probability, by recursion over what can happen next."""

    def grow(path: Path) -> Iterator[Path]:
        here = path.s[-1]
        if path.T == horizon or world.terminal[here]:
            yield path
            return
        for a in range(world.n_actions):
            for s in range(world.n_states):
                p = path.p * pi[here, a] * world.P[here, a, s]
                if p > 0:
                    yield from grow(Path((*path.s, s), (*path.a, a), (*path.r, world.R[here, a, s]), p))

    starts = [Path((s,), (), (), rho) for s, rho in enumerate(world.rho) if rho > 0]
    return [path for start in starts for path in grow(start)]


@dataclass(frozen=True)
class Weigher:
    """Every Ψ_t(τ) of the theory, for one γ and one critic V_t(s) `[T+1, S]`, whose last row is 0."""

    gamma: float
    V: Array

    def discounted_total(self, path: Path, t: int) -> float:
        """R(τ) = Σ_t γ^t r_t."""
        return sum(self.gamma**i * r for i, r in enumerate(path.r))

    def plain_total(self, path: Path, t: int) -> float:
        """R(τ) = Σ_t r_t."""
        return sum(path.r)

    def togo(self, path: Path, t: int) -> float:
        """G_t = Σ_l γ^l r_{t+l}."""
        return sum(self.gamma**i * path.r[t + i] for i in range(path.T - t))

    def togo_minus_value(self, path: Path, t: int) -> float:
        """G_t − V(s_t)."""
        return self.togo(path, t) - self.V[t][path.s[t]]

    def delta(self, path: Path, t: int) -> float:
        """δ_t = r_t + γ V(s_{t+1}) − V(s_t)."""
        return path.r[t] + self.gamma * self.V[t + 1][path.s[t + 1]] - self.V[t][path.s[t]]

    def k_step(self, k: int) -> Callable[[Path, int], float]:
        """Σ_{l<k} γ^l r_{t+l} + γ^k V(s_{t+k}) − V(s_t)."""

        def weigh(path: Path, t: int) -> float:
            k_ = min(k, path.T - t)
            rewards = sum(self.gamma**i * path.r[t + i] for i in range(k_))
            return rewards + self.gamma**k_ * self.V[t + k_][path.s[t + k_]] - self.V[t][path.s[t]]

        return weigh

    def gae(self, lam: float) -> Callable[[Path, int], float]:
        """Σ_l (γλ)^l δ_{t+l}."""
        return lambda path, t: sum((self.gamma * lam) ** i * self.delta(path, t + i) for i in range(path.T - t))

    def lambda_return(self, lam: float) -> Callable[[Path, int], float]:
        """V(s_t) + Σ_l (γλ)^l δ_{t+l}."""
        return lambda path, t: self.V[t][path.s[t]] + self.gae(lam)(path, t)

    def table(self, f: Array) -> Callable[[Path, int], float]:
        """f_t(s_t, a_t), for a table `[T, S, A]`."""
        return lambda path, t: f[t][path.s[t]][path.a[t]]


def gradient_moments(
    some: list[Path], psi: Callable[[Path, int], float], theta: Array, gamma: float = 1.0
) -> tuple[Array, float]:
    """Mean `[S, A]` and variance (trace of the covariance) of ĝ(τ) = Σ_t γ^t Ψ_t ∇log π_θ(a_t|s_t)."""
    n_actions = len(theta[0])
    mean, square = np.zeros_like(theta), 0.0
    for path in some:
        g = np.zeros_like(theta)
        for t, (s, a) in enumerate(zip(path.s, path.a)):
            z = sum(exp(theta[s][b]) for b in range(n_actions))
            for b in range(n_actions):
                g[s, b] += gamma**t * psi(path, t) * ((b == a) - exp(theta[s][b]) / z)
        mean += path.p * g
        square += path.p * float((g * g).sum())
    return mean, square - float((mean * mean).sum())


def conditional_mean(some: list[Path], psi: Callable[[Path, int], float], shape: tuple[int, int, int]) -> Array:
    """E[Ψ_t | s_t = s, a_t = a], `[T, S, A]`, by weighing and counting; NaN for pairs that never occur."""
    total, weight = np.zeros(shape), np.zeros(shape)
    for path in some:
        for t in range(path.T):
            total[t, path.s[t], path.a[t]] += path.p * psi(path, t)
            weight[t, path.s[t], path.a[t]] += path.p
    with np.errstate(invalid="ignore"):
        return total / weight
