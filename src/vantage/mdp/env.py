"""Any MDP as a Gymnasium environment, single or vectorised, whose state can be read and put back exactly.

Importing this module registers the classics: `gymnasium.make("vantage.mdp.env:mdp/corridor-v0")`.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Discrete, Space
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float, Int, UInt64

from vantage import mdp as worlds
from vantage.mdp.model import MDP
from vantage.mdp.trajectories import Sampler

Array = Any
REGISTERED = (
    "car_rental",
    "cliff",
    "corridor",
    "gambler",
    "gridworld_3_5",
    "gridworld_4_1",
    "random_walk",
    "two_state",
    "windy",
)


class MDPEnv(gymnasium.Env):
    """An MDP as a `gymnasium.Env`: the observation is the state, as an index or `one_hot` float32 `[S]`.

    Terminal states terminate; `max_steps` truncates. `reset(options={"state": s})` starts in s.
    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, mdp: MDP, max_steps: int | None = None, one_hot: bool = False) -> None:
        self.mdp, self.max_steps = mdp, _max_steps(max_steps)
        self.observation_space = _observation_space(mdp, one_hot)
        self.action_space = Discrete(mdp.n_actions)
        self._one_hot, self._sampler = one_hot, Sampler(mdp)
        self._state, self._steps, self._over = 0, 0, True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        state = (options or {}).get("state")
        if state is None:
            state = self._sampler.start(self.np_random.random(1))[0]
        elif not 0 <= state < self.mdp.n_states or self.mdp.terminal[state]:
            raise ValueError(f"options['state'] = {state} is no state to start in: it is terminal or does not exist.")
        self._state, self._steps, self._over = int(state), 0, False
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._over:
            raise ResetNeeded("the episode has ended or not begun: call reset() first.")
        chosen = _actions(action, (), self.mdp.n_actions).reshape(1)
        state, reward = self._sampler.step(np.array([self._state]), chosen, self.np_random.random(1))
        self._state, self._steps = int(state[0]), self._steps + 1
        terminated = bool(self.mdp.terminal[self._state])
        truncated = not terminated and self._steps == self.max_steps
        self._over = terminated or truncated
        return self._observation(), float(reward[0]), terminated, truncated, {}

    def get_state(self) -> dict[str, Any]:
        """All that the future depends on, as plain numbers that JSON can hold."""
        rng = self.np_random.bit_generator.state
        return {"state": self._state, "steps": self._steps, "over": self._over, "rng": rng}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue exactly as the environment that `get_state` was called on."""
        self._state, self._steps, self._over = int(state["state"]), int(state["steps"]), bool(state["over"])
        self.np_random.bit_generator.state = state["rng"]

    def _observation(self) -> Any:
        return _observe(np.int64(self._state), self.mdp.n_states, self._one_hot)


class MDPVectorEnv(VectorEnv):
    """`num_envs` copies of an MDP stepped together in NumPy, in any of Gymnasium's three autoreset modes.

    Each slot has its own stream of random numbers, a function of its seed and of how many it has drawn.
    SAME_STEP reports the state that was reached as `infos["final_obs"]`; in NEXT_STEP the observation of the ending
    step is that state, and the step after is filler (reward 0) that returns the new start.
    """

    def __init__(
        self,
        mdp: MDP,
        num_envs: int,
        max_steps: int | None = None,
        autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
        one_hot: bool = False,
    ) -> None:
        self.mdp, self.num_envs, self.max_steps = mdp, num_envs, _max_steps(max_steps)
        self.metadata = {"autoreset_mode": AutoresetMode(autoreset_mode), "render_modes": []}
        self.single_observation_space, self.single_action_space = (
            _observation_space(mdp, one_hot),
            Discrete(mdp.n_actions),
        )
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._mode, self._one_hot, self._sampler = AutoresetMode(autoreset_mode), one_hot, Sampler(mdp)
        self._state, self._steps = np.zeros((2, num_envs), dtype=np.int64)
        self._over = np.ones(num_envs, dtype=bool)
        self._begun = False
        self._key, self._drawn = _keys([None] * num_envs), np.zeros(num_envs, dtype=np.uint64)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        seeds = (
            [None if seed is None else seed + i for i in range(self.num_envs)] if not isinstance(seed, list) else seed
        )
        if len(seeds) != self.num_envs:
            raise ValueError(f"seed lists {len(seeds)} seeds for num_envs = {self.num_envs}: give one a slot.")
        chosen = np.asarray((options or {}).get("reset_mask", np.ones(self.num_envs, dtype=bool)))
        if chosen.dtype != bool or chosen.shape != (self.num_envs,):
            raise ValueError(f"options['reset_mask'] has shape {chosen.shape}: give a bool mask of {self.num_envs}.")
        seeded = chosen & np.array([s is not None for s in seeds])
        self._key, self._drawn = np.where(seeded, _keys(seeds), self._key), np.where(seeded, np.uint64(0), self._drawn)
        self._begun = True
        self._restart(chosen)
        return self._observation(), {}

    def step(
        self, actions: Any
    ) -> tuple[Any, Float[Array, " B"], Bool[Array, " B"], Bool[Array, " B"], dict[str, Any]]:
        filler = self._over.copy()
        if not self._begun or (self._mode is AutoresetMode.DISABLED and filler.any()):
            raise ResetNeeded("an episode has ended or not begun: call reset() first, with a `reset_mask` if for some.")
        live, reward = ~filler, np.zeros(self.num_envs)
        action = _actions(actions, (self.num_envs,), self.mdp.n_actions)
        self._state[live], reward[live] = self._sampler.step(self._state[live], action[live], self._uniform(live))
        self._steps[live] += 1
        terminated = live & self.mdp.terminal[self._state]
        truncated = live & ~terminated & (self._steps == (self.max_steps or -1))
        self._over = terminated | truncated
        same_step = self._mode is AutoresetMode.SAME_STEP
        infos = self._final() if same_step and self._over.any() else {}
        self._restart(filler | (self._over & same_step))
        return self._observation(), reward, terminated, truncated, infos

    def get_state(self) -> dict[str, Array]:
        """All that the future depends on, as arrays `[B]`."""
        return {
            "state": self._state.copy(),
            "steps": self._steps.copy(),
            "over": self._over.copy(),
            "key": self._key.copy(),
            "drawn": self._drawn.copy(),
        }

    def set_state(self, state: dict[str, Array]) -> None:
        """Continue exactly as the environment that `get_state` was called on."""
        for name, now in self.get_state().items():
            given = np.array(state[name], dtype=now.dtype)
            if given.shape != now.shape:
                raise ValueError(
                    f"state[{name!r}] has shape {given.shape}, not {now.shape}: num_envs must be the same."
                )
            setattr(self, f"_{name}", given)
        self._begun = True

    def _restart(self, chosen: Bool[Array, " B"]) -> None:
        self._state[chosen] = self._sampler.start(self._uniform(chosen))
        self._steps[chosen], self._over[chosen] = 0, False

    def _final(self) -> dict[str, Any]:
        ended, reached = self._over.copy(), self._observation()
        final = np.full(self.num_envs, None, dtype=object)
        for i in np.flatnonzero(ended):
            final[i] = reached[i]
        return {"final_obs": final, "_final_obs": ended, "final_info": {}, "_final_info": ended}

    def _uniform(self, chosen: Bool[Array, " B"]) -> Float[Array, " N"]:
        self._drawn[chosen] += np.uint64(1)
        return _splitmix(self._key[chosen], self._drawn[chosen])

    def _observation(self) -> Any:
        return _observe(self._state, self.mdp.n_states, self._one_hot)


def make(name: str, **options: Any) -> MDPEnv:
    """A classic by name (`vantage.mdp.corridor`, …) as an environment; `options` are those of `MDPEnv`."""
    return MDPEnv(_classic(name), **options)


def make_vector(name: str, num_envs: int, **options: Any) -> MDPVectorEnv:
    """A classic by name as a vector environment; `options` are those of `MDPVectorEnv`."""
    return MDPVectorEnv(_classic(name), num_envs, **options)


def _classic(name: str) -> MDP:
    if name not in REGISTERED:
        raise ValueError(f"name = {name!r} is not a classic MDP: choose from {', '.join(REGISTERED)}.")
    return getattr(worlds, name)()


def _max_steps(max_steps: int | None) -> int | None:
    if max_steps is not None and max_steps < 1:
        raise ValueError(f"max_steps = {max_steps}: give at least 1, or None for no time limit.")
    return max_steps


def _observation_space(mdp: MDP, one_hot: bool) -> Space:
    return Box(0.0, 1.0, (mdp.n_states,), np.float32) if one_hot else Discrete(mdp.n_states)


def _observe(state: Int[Array, "*B"], n_states: int, one_hot: bool) -> Any:
    return (state[..., None] == np.arange(n_states)).astype(np.float32) if one_hot else state.copy()


def _actions(actions: Any, shape: tuple[int, ...], n_actions: int) -> Int[Array, "*B"]:
    chosen = np.asarray(actions)
    if chosen.shape != shape or not np.issubdtype(chosen.dtype, np.integer):
        raise ValueError(f"action has shape {chosen.shape} and dtype {chosen.dtype}: give integers of shape {shape}.")
    if (chosen < 0).any() or (chosen >= n_actions).any():
        raise ValueError(f"action = {actions} is outside 0 … {n_actions - 1}.")
    return chosen.astype(np.int64)


def _keys(seeds: list[int | None]) -> UInt64[Array, " B"]:
    return np.array([np.random.SeedSequence(s).generate_state(1, np.uint64)[0] for s in seeds])


def _splitmix(key: UInt64[Array, " B"], counter: UInt64[Array, " B"]) -> Float[Array, " B"]:
    """Number `counter` of stream `key`, uniform in [0, 1): SplitMix64 (Steele et al. 2014), 53 bits of it."""
    z = key + counter * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


for _name in REGISTERED:
    gymnasium.register(
        f"mdp/{_name}-v0",
        entry_point="vantage.mdp.env:make",
        vector_entry_point="vantage.mdp.env:make_vector",
        kwargs={"name": _name},
    )
