"""The finite MDPs on which the claims stand, each as small as its claims allow, with their enumerations cached.

Only exact quantities are cached here, nothing that `vantage.theory` computes: a planted bug must always be felt.
"""

from dataclasses import fields, replace
from functools import lru_cache
from typing import Any

import numpy as np

from vantage import mdp
from vantage.mdp.model import MDP
from vantage.rollout import Rollout

Array = Any

HORIZON = 3
GAMMA = 0.9
THETA = np.array([[0.3, -0.2], [-0.5, 0.4]])
"""Logits θ(s, a) of the policy π that acts in `TWO`."""
THETA_NEW = np.array([[-0.1, 0.5], [0.2, -0.6]])
"""Logits of another policy, for importance sampling."""
PI, PI_NEW = mdp.softmax(THETA), mdp.softmax(THETA_NEW)

TWO = MDP(
    P=np.array([[[0.7, 0.3], [0.2, 0.8]], [[0.6, 0.4], [0.1, 0.9]]]),
    R=np.array([[[1.0, -1.0], [0.0, 2.0]], [[-2.0, 1.0], [3.0, 0.0]]]),
    rho=np.array([0.6, 0.4]),
    gamma=GAMMA,
)
"""Two states, two actions, stochastic throughout: 128 trajectories of three steps."""

V = mdp.state_values(TWO, PI, HORIZON)
"""V_π of the three-step world, `[4, 2]`: right at every time."""
ERROR = np.array([[0.9, -0.7], [-0.4, 1.1], [0.6, 0.8], [0.0, 0.0]])
"""e_t(s), by which a wrong critic V̂ = V + e misses; 0 once the world has ended."""
CRITICS = {"true-v": V, "wrong-v": V + ERROR}

ENDING = MDP(
    P=np.array([[[0.6, 0.0, 0.4], [0.0, 0.5, 0.5]], [[0.3, 0.7, 0.0], [0.0, 0.0, 1.0]], np.eye(3)[[2, 2]]]),
    R=np.array([[1.0, -0.5], [2.0, 0.3], [0.0, 0.0]]),
    rho=np.array([0.5, 0.5, 0.0]),
    gamma=GAMMA,
    terminal=np.array([False, False, True]),
)
"""Two states and an end: episodes of one, two or three steps, so that rollouts have rows to mask."""
ENDING_THETA = np.vstack([THETA, [0.0, 0.0]])
ENDING_PI = mdp.softmax(ENDING_THETA)

BANDIT = MDP(P=np.ones((1, 3, 1)), R=np.array([[1.0, -0.5, 2.0]]), rho=np.ones(1), gamma=1.0)
"""One decision among three actions: what a group of n samples does can be listed whole."""
BANDIT_THETA = np.array([[0.2, -0.1, 0.4]])

DETERMINISTIC = MDP.from_function(
    lambda s, a: (s + 1 + a) % 3, lambda s, a, t: [1.0, -0.5, 2.0][s], 3, 2, [1.0, 0.0, 0.0], GAMMA
)
"""Transitions s' = f(s, a)."""

CLOCK = MDP.from_function(lambda s, a: (s + 1) % 4, lambda s, a, t: [1.0, 0.0, 2.0, -1.0][s], 4, 1, [1, 0, 0, 0], 0.99)
"""One action, no chance, no end: with the exact V every advantage is 0, whatever a time limit does."""


@lru_cache
def every_trajectory(critic: str = "true-v", policy: str = "old") -> Rollout:
    """All 128 trajectories of `TWO` under π (or the new policy), with weight p(τ)."""
    return mdp.trajectories(TWO, PI if policy == "old" else PI_NEW, HORIZON, value=CRITICS[critic])


@lru_cache
def ending_trajectories() -> Rollout:
    """All trajectories of `ENDING` under π, of random length, with its true V."""
    value = mdp.state_values(ENDING, ENDING_PI, HORIZON)
    return padded(mdp.trajectories(ENDING, ENDING_PI, HORIZON, value=value))


@lru_cache
def bandit_samples(n: int) -> Rollout:
    """All n-tuples of decisions in `BANDIT`, n ≤ 3: one group each."""
    return padded(mdp.trajectories(BANDIT, mdp.softmax(BANDIT_THETA), 1, group=n))


@lru_cache
def pairs() -> Rollout:
    """All pairs of one-step trajectories of `TWO`."""
    return padded(mdp.trajectories(TWO, PI, 1, group=2))


def padded(rollout: Rollout) -> Rollout:
    """The rollout with masked rows and weightless columns up to `[3, 128]`: one shape, so that JAX compiles once."""
    rows, columns = HORIZON - rollout.shape[0], 128 - rollout.shape[1]

    def pad(x: Any) -> Any:
        if isinstance(x, tuple):
            return tuple(map(pad, x))
        if getattr(x, "ndim", 0) == 0:
            return x
        return np.pad(x, [(0, columns)] if x.ndim == 1 else [(0, rows), (0, columns)] + [(0, 0)] * (x.ndim - 2))

    wide = replace(rollout, **{f.name: pad(getattr(rollout, f.name)) for f in fields(rollout)})
    if rollout.group is None or columns == 0:
        return wide
    return replace(wide, group=np.where(np.arange(128) < rollout.shape[1], wide.group, rollout.group.max() + 1))
