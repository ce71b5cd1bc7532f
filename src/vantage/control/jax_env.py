"""Environments as pure functions of JAX: what one is, many of them at once, and one as Gymnasium sees it."""

from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jax import lax

Array = Any


@runtime_checkable
class JaxEnv(Protocol):
    """One environment without a memory: its state is a value, so that it runs inside a compiled program.

    Equal ones (by `__eq__` and `__hash__`) share a compiled program. Neither function begins a new episode by itself.
    """

    @property
    def observation_space(self) -> gym.Space: ...
    @property
    def action_space(self) -> gym.Space: ...

    def reset(self, key: Array) -> tuple[Any, Any]:
        """(state, s_0)."""
        ...

    def step(self, key: Array, state: Any, action: Any) -> tuple[Any, Any, Array, Array, Array]:
        """(state, s_{t+1}, r_t, terminated, truncated): s_{t+1} is the state that was reached, at an end as well."""
        ...


class Stepped(NamedTuple):
    """One step of B slots. `[B, …]`."""

    state: Any
    observation: Any
    """What each slot shows next: where an episode ended the first observation of the next one."""
    reached: Any
    """s_{t+1} as it was reached."""
    reward: Array
    terminated: Array
    truncated: Array


def begin(env: JaxEnv, key: Array, slots: int) -> tuple[Any, Any]:
    """(state, s_0) of B slots, `[B, …]`."""
    return _strong(jax.vmap(env.reset)(jax.random.split(key, slots)))


def advance(env: JaxEnv, keys: Array, state: Any, action: Any) -> Stepped:
    """One step of B slots; those whose episode ends begin the next one in the same step. `keys`: `[2, B]`.

    Nothing is reset, and nothing spent on it, in a step that ends no episode.
    """
    steps, resets = keys
    after, reached, reward, terminated, truncated = jax.vmap(env.step)(steps, state, action)
    terminated, truncated = terminated.astype(bool), truncated.astype(bool)
    over = jnp.logical_or(terminated, truncated)

    def fresh() -> Any:
        first = jax.vmap(env.reset)(resets)
        return jax.tree.map(lambda new, old: _where(over, new.astype(old.dtype), old), first, (after, reached))

    after, observation = lax.cond(over.any(), fresh, lambda: (after, reached))
    return Stepped(after, observation, reached, reward.astype(jnp.float32), terminated, truncated & ~terminated)


def _where(over: Array, new: Array, old: Array) -> Array:
    return jnp.where(over.reshape(-1, *(1,) * (old.ndim - 1)), new, old)


def _strong(tree: Any) -> Any:
    """Arrays whose types do not give way, so that the next call finds the types that this one returned."""
    return jax.tree.map(lambda x: lax.convert_element_type(x, jnp.asarray(x).dtype), tree)


class JaxVectorEnv(VectorEnv):
    """`slots` copies of a `JaxEnv` as Gymnasium sees them, for whatever acts outside of the compiled program; episodes
    begin anew in the step that ends one.
    """

    def __init__(self, env: JaxEnv, slots: int) -> None:
        self.jax_env, self.num_envs = env, slots
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}
        self.single_observation_space, self.single_action_space = env.observation_space, env.action_space
        self.observation_space = batch_space(env.observation_space, slots)
        self.action_space = batch_space(env.action_space, slots)
        self._key, self._steps = jax.random.key(0), 0
        self.state: Any = None

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self._key = jax.random.key(seed if isinstance(seed, int) else (seed[0] or 0))
            self._steps = 0
        self.state, observation = _begin(self.jax_env, self._next_key(), self.num_envs)
        return jax.tree.map(np.asarray, observation), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        done = _advance(self.jax_env, self._next_key(), self.state, jax.tree.map(np.asarray, actions))
        self.state = done.state
        terminated, truncated = np.asarray(done.terminated), np.asarray(done.truncated)
        over = terminated | truncated
        info = {} if not over.any() else {"final_obs": _each(done.reached, over), "_final_obs": over}
        observation = jax.tree.map(np.array, done.observation)
        return observation, np.asarray(done.reward, np.float64), terminated, truncated, info

    def _next_key(self) -> Array:
        self._steps += 1
        return jax.random.fold_in(self._key, self._steps)

    def get_state(self) -> dict[str, Any]:
        """All that the future depends on, as arrays."""
        leaves = {f"state.{i}": np.array(x) for i, x in enumerate(jax.tree.leaves(self.state))}
        return leaves | {"key": np.array(jax.random.key_data(self._key)), "steps": np.array(self._steps)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on exactly as the environment that `get_state` was called on."""
        if self.state is None:
            self.reset()
        leaves, structure = jax.tree.flatten(self.state)
        self.state = jax.tree.unflatten(structure, [jnp.asarray(state[f"state.{i}"]) for i in range(len(leaves))])
        self._key, self._steps = jax.random.wrap_key_data(jnp.asarray(state["key"])), int(state["steps"])


@partial(jax.jit, static_argnames=("env", "slots"))
def _begin(env: JaxEnv, key: Array, slots: int) -> tuple[Any, Any]:
    return begin(env, key, slots)


@partial(jax.jit, static_argnames=("env",))
def _advance(env: JaxEnv, key: Array, state: Any, action: Any) -> Stepped:
    return advance(env, jax.random.split(key, (2, len(jax.tree.leaves(state)[0]))), state, action)


def _each(reached: Any, over: Array) -> Array:
    """The final observations as Gymnasium gives them: one object a slot, None where no episode ended."""
    final, reached = np.full(len(over), None, object), jax.tree.map(np.asarray, reached)
    for slot in np.flatnonzero(over):
        final[slot] = jax.tree.map(lambda x, slot=slot: x[slot], reached)
    return final
