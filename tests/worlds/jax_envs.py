"""Small environments in JAX with known answers."""

from dataclasses import dataclass

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class JaxCounter:
    """Observes (x, t) with x drawn at each reset; reward 10x + t.

    Episodes end after 2 to 4 steps, terminated if x ≥ ½, else truncated. `spoil` makes the reward or the observation
    NaN at that t, in episodes with x < 0.1.
    """

    spoil: tuple[str, int] | None = None
    discrete: bool = True

    @property
    def observation_space(self):
        return gym.spaces.Box(-1e9, 1e9, (2,), np.float32)

    @property
    def action_space(self):
        return gym.spaces.Discrete(2, start=5) if self.discrete else gym.spaces.Box(-0.1, 0.2, (1,), np.float32)

    def reset(self, key):
        draw, length = jax.random.split(key)
        x = jax.random.uniform(draw)
        return (x, 0, jax.random.randint(length, (), 2, 5)), jnp.stack([x, 0.0])

    def step(self, key, state, action):
        x, t, length = state
        reward, over = 10.0 * x + t, t + 1 == length
        observation = jnp.stack([x, t + 1.0])
        if self.spoil is not None:
            bad = jnp.where((x < 0.1) & (t == self.spoil[1]), jnp.nan, 0.0)
            reward, observation = (
                (reward + bad, observation) if self.spoil[0] == "reward" else (reward, observation + bad)
            )
        return (x, t + 1, length), observation, reward, over & (x >= 0.5), over & (x < 0.5)


@dataclass(frozen=True)
class JaxProbe:
    """The observation is −1 or 1 for a whole episode of `steps` steps, cut by a time limit if `limit` is set.

    The reward is 1 for the action that matches it, or for any action if `free`.
    """

    steps: int = 1
    limit: bool = False
    free: bool = False
    blind: bool = False

    @property
    def observation_space(self):
        return gym.spaces.Box(-9.0, 9.0, (1,), np.float32)

    @property
    def action_space(self):
        return gym.spaces.Discrete(2)

    def reset(self, key):
        x = jnp.where(self.blind, 1.0, jnp.sign(jax.random.uniform(key, minval=-1.0)))
        return (x, jnp.int32(0)), x[None]

    def step(self, key, state, action):
        x, t = state
        reward = jnp.where(self.free, 1.0, ((x > 0) == action).astype(jnp.float32))
        over = t + 1 >= self.steps
        return (x, t + 1), x[None], reward, over & (not self.limit), over & self.limit
