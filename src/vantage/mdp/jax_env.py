"""Any MDP as pure functions of JAX, so that acting in it, scoring and learning are one compiled program."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from vantage.mdp.env import _classic, _max_steps, _observation_space
from vantage.mdp.model import MDP
from vantage.mdp.trajectories import rewards

Array = Any


@dataclass(frozen=True)
class MDPJaxEnv:
    """An MDP as an environment of JAX: the observation is the state, as an index or `one_hot` float32 `[S]`.

    Terminal states terminate; `max_steps` truncates. Probabilities and rewards are float32 there.
    """

    mdp: MDP
    max_steps: int | None = None
    one_hot: bool = False

    @property
    def observation_space(self) -> gym.Space:
        """Discrete(S), or a Box `[S]`."""
        return _observation_space(self.mdp, self.one_hot)

    @property
    def action_space(self) -> gym.Space:
        """Discrete(A)."""
        return gym.spaces.Discrete(self.mdp.n_actions)

    @cached_property
    def _successors(self) -> tuple[Float[Array, "N K"], Int[Array, "N K"], Float[Array, "N K"]]:
        """P(s' ≤ k | s, a), s' and R(s, a, s') of the k-th successor of each row s·A + a, padded to the longest row."""
        mdp, S, A = self.mdp, self.mdp.n_states, self.mdp.n_actions
        P = sp.csr_array(mdp.P if mdp.is_sparse else mdp.P.reshape(S * A, S))
        counts = np.diff(P.indptr)
        row = np.repeat(np.arange(S * A), counts)
        column = np.arange(P.nnz) - np.repeat(P.indptr[:-1], counts)
        shape = (S * A, max(int(counts.max(initial=1)), 1))
        p, reached, reward = np.zeros(shape), np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        p[row, column], reached[row, column] = P.data, P.indices
        reward[row, column] = rewards(mdp, row // A, row % A, P.indices.astype(np.int64))
        return _cumulative(p), reached, reward

    @cached_property
    def _first(self) -> Float[Array, " S"]:
        return _cumulative(self.mdp.rho)

    def reset(self, key: Array) -> tuple[Any, Any]:
        """(state, s₀) with s₀ ~ ρ₀."""
        state = _draw(jnp.asarray(self._first), jax.random.uniform(key))
        return (state, jnp.int32(0)), self._observe(state)

    def step(self, key: Array, state: Any, action: Array) -> tuple[Any, Any, Array, Array, Array]:
        """(state, s', R(s,a,s'), terminated, truncated) with s' ~ P(·|s,a)."""
        here, t = state
        row = here * self.mdp.n_actions + action
        cumulative, successor, reward = (jnp.asarray(table)[row] for table in self._successors)
        k = _draw(cumulative, jax.random.uniform(key))
        reached: Int[Array, ""] = successor[k]
        terminated: Bool[Array, ""] = jnp.asarray(self.mdp.terminal)[reached]
        over = jnp.bool_(False) if self.max_steps is None else t + 1 >= self.max_steps
        return (reached, t + 1), self._observe(reached), reward[k], terminated, over & ~terminated

    def _observe(self, state: Array) -> Array:
        return jax.nn.one_hot(state, self.mdp.n_states) if self.one_hot else state


def make(name: str, max_episode_steps: int | None = None, **options: Any) -> MDPJaxEnv:
    """A classic by name (`mdp:corridor`); `options` are those of `MDPJaxEnv`. Raises ValueError for an unknown one."""
    return of(_classic(name), max_episode_steps, **options)


def of(mdp: MDP, max_episode_steps: int | None = None, **options: Any) -> MDPJaxEnv:
    """An MDP of one's own. Raises ValueError for an option that is unknown."""
    unknown = sorted(options.keys() - {"one_hot", "max_steps"})
    if unknown:
        raise ValueError(f"env_kwargs has {unknown[0]!r}: an MDP takes one_hot and max_steps")
    limit = max_episode_steps if max_episode_steps is not None else options.get("max_steps")
    return MDPJaxEnv(mdp, _max_steps(limit), options.get("one_hot", False))


def _cumulative(p: Float[Array, "*N K"]) -> Float[Array, "*N K"]:
    """Prefix sums that end at exactly 1 and stay there behind the last successor: padding is never drawn."""
    total = np.cumsum(p, axis=-1)
    out = (total / np.maximum(total[..., -1:], 1e-300)).astype(np.float32)
    out[np.cumsum(p[..., ::-1], axis=-1)[..., ::-1] - p <= 0] = 1.0
    return out


def _draw(cumulative: Float[Array, " K"], u: Float[Array, ""]) -> Int[Array, ""]:
    """The first k whose cumulative probability exceeds u in [0, 1)."""
    return jnp.searchsorted(cumulative, u, side="right").astype(jnp.int32)
