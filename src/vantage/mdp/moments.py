"""What an estimator of the policy gradient is, exactly: its mean and variance over all trajectories at once."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from vantage.rollout import Rollout

Array = Any


@dataclass(frozen=True)
class Moments:
    """E[ĝ] `[S, A]`, the covariance of ĝ `[S·A, S·A]`, and its trace, the variance."""

    mean: Float[Array, "S A"]
    covariance: Float[Array, "SA SA"]

    @property
    def variance(self) -> float:
        """tr Cov[ĝ] = E‖ĝ − E[ĝ]‖²."""
        return float(np.trace(self.covariance))


def column_gradients(rollout: Rollout, psi: Float[Array, "T B"], n_states: int) -> Float[Array, "B S A"]:
    """ĝ = Σ_t Ψ_t ∇_θ log π_θ(a_t|s_t) of each column, for the softmax table θ (theory 5.2).

        ∂ log π(a|s) / ∂θ(s, b) = 1{a = b} − π(b|s)

    Shapes: `[T, B]` → `[B, S, A]`. Units: those of Ψ. The rollout's `policy` holds the logits of π at each step.
    """
    assert rollout.policy is not None, "an enumerated rollout carries its policy's logits"
    pi = np.exp(rollout.policy[0])
    score = np.eye(pi.shape[-1])[rollout.action] - pi
    weighed = np.where(rollout.mask, psi, 0.0)[..., None] * score
    gradient = np.zeros((rollout.shape[1], n_states, pi.shape[-1]))
    columns = np.arange(rollout.shape[1])
    for states, step in zip(rollout.observation, weighed, strict=True):
        gradient[columns, states] += step
    return gradient


def moments(rollout: Rollout, psi: Float[Array, "T B"], n_states: int) -> Moments:
    """Mean and covariance of the gradient estimate that Ψ gives, over an enumeration (`trajectories`).

        E[ĝ] = Σ_τ p(τ) ĝ(τ),    Cov[ĝ] = Σ_τ p(τ) (ĝ − E[ĝ])(ĝ − E[ĝ])ᵀ

    With `group=n` one estimate is the mean over the n columns of a group. Shapes: `[T, B]` → `[S, A]`, `[S·A, S·A]`.
    """
    gradient, weight = column_gradients(rollout, psi, n_states), rollout.weight
    size = 1 if rollout.group is None else int(np.bincount(rollout.group)[0])
    estimate = gradient.reshape(-1, size, gradient[0].size).mean(axis=1)
    p = np.asarray(weight).reshape(-1, size).sum(axis=1)
    mean = p @ estimate
    centred = estimate - mean
    return Moments(mean.reshape(gradient.shape[1:]), (p[:, None] * centred).T @ centred)
