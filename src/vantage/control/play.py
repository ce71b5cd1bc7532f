"""A policy at work outside training: single actions for the user, whole episodes for evaluation."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from vantage.control import masks
from vantage.control.environments import successes
from vantage.control.model import Actor, Model
from vantage.control.normalise import Moments
from vantage.control.observations import FlatObservations, standardised
from vantage.control.streams import Stream, generator, reset_seed

Array = Any
MAX_EPISODE = 1_000_000
"""An evaluation that meets a longer episode takes it for one that never ends."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Undiscounted returns and lengths of whole episodes."""

    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    successes: tuple[bool, ...] = ()
    """What the environment told of `is_success`, of the episodes that it told it of."""

    @property
    def success(self) -> float | None:
        """Share of the episodes that reached their goal; None where the environment knows of none."""
        return float(np.mean(self.successes)) if self.successes else None

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Standard deviation of the return over episodes (of the population)."""
        return float(np.std(self.returns))

    def __str__(self) -> str:
        told = "" if self.success is None else f", {self.success:.0%} successful"
        return f"{self.mean:.2f} ± {self.std:.2f} over {len(self.returns)} episodes{told}"


@dataclass(frozen=True, kw_only=True)
class Player:
    """The policy of one moment: parameters and observation statistics that no longer move."""

    model: Model
    actor: Actor
    moments: Moments | None

    def predict(
        self, observation: Any, state: Any, episode_start: Any, rng: np.random.Generator | None, action_masks: Any
    ) -> tuple[Any, Any]:
        """(action, state) for one observation or a batch: sampled with `rng`, the most probable action without.

        A policy that remembers goes on from `state`, None at first; 0 where `episode_start`. Any other hands it back.
        """
        space, observations = self.model.actions, self.model.observations
        seen = self.recorded(observation, action_masks)
        single = seen.ndim == len(observations.shape)
        batch = seen[None] if single else seen
        if batch.shape[1:] != observations.shape:
            raise ValueError(
                f"observation has shape {np.shape(observation)}: give one of shape {observations.shape}, or a batch"
            )
        if self.actor.carry:
            state = self._standing(state, episode_start, len(batch))
        action, state = self.choose(batch, state, rng)
        action = space.to_env(action)
        return (jax.tree.map(lambda x: x[0], action) if single else action), state

    def recorded(self, observation: Any, action_masks: Any) -> Array:
        """An observation or a batch of them as the record keeps it, with its mask."""
        space = self.model.observations
        if not isinstance(space, FlatObservations) or space.mask in (None, "observation"):
            if action_masks is not None:
                where = "in the observation" if space.mask else "nowhere in its environment"
                raise ValueError(f"action_masks: this agent found its masks {where}; leave the argument out")
            return space.record(observation)
        if action_masks is None:
            raise ValueError(f"this agent was made for action masks ({space.mask}): give action_masks=…")
        recorded = space.record(observation, masks.one_mask(action_masks))
        if space.stuck(recorded).any():
            raise ValueError("action_masks leaves no action: at least one option of each choice must be allowed")
        return recorded

    def _standing(self, state: Any, episode_start: Any, columns: int) -> Float[Array, "B S"]:
        wanted = (columns, self.actor.carry)
        if state is None:
            return np.zeros(wanted, np.float32)
        if np.shape(state) != wanted:
            raise ValueError(
                f"state has shape {np.shape(state)}, not {wanted}: give what predict returned for these observations, "
                "or None at the start"
            )
        begins = np.zeros(columns, bool) if episode_start is None else np.asarray(episode_start, bool)
        return np.where(begins.reshape(-1, 1), np.float32(0.0), state)

    def outputs(self, batch: Array) -> Array:
        """What the actor network says of recorded observations `[B, …]`. Raises ValueError for one that remembers."""
        return self.actor.outputs(self.seen(batch))

    def seen(self, batch: Array) -> Array:
        """Recorded observations as the networks get them."""
        return standardised(self.model.observations, None if self.moments is None else self.moments.frame, batch)

    def choose(self, batch: Array, state: Any, rng: np.random.Generator | None) -> tuple[Array, Any]:
        """Actions for recorded observations `[B, …]`, sampled with `rng`, or the most probable ones without; and the
        state after them, of a policy that remembers.
        """
        if self.actor.carry:
            outputs, state = self.actor.advance(self.seen(batch), state)
        else:
            outputs = self.outputs(batch)
        if rng is None:
            return self.model.actions.mode(outputs), state
        return self.actor.sample(outputs, self.model.actions.noise(rng, (len(batch),))), state

    def evaluate(self, env: Any, name: str, deterministic: bool, seed: int) -> Evaluation:
        """One whole episode in each slot of a vector environment. Raises ValueError where one does not end."""
        observation, info = env.reset(seed=reset_seed(seed, 0, Stream.EVALUATE))
        returns, lengths = np.zeros(env.num_envs), np.zeros(env.num_envs, int)
        running, succeeded = np.ones(env.num_envs, bool), np.full(env.num_envs, np.nan)
        rng = None if deterministic else generator(seed, Stream.EVALUATE)
        state = np.zeros((env.num_envs, self.actor.carry), np.float32)
        while running.any():
            chosen, state = self.choose(masks.recorded(self.model.observations, env, observation, info), state, rng)
            observation, reward, terminated, truncated, info = env.step(self.model.actions.to_env(chosen))
            returns += np.where(running, reward, 0.0)
            lengths += running
            over = running & (terminated | truncated)
            if over.any():
                succeeded[over] = successes(info, env.num_envs)[over]
            running &= ~over
            if lengths.max() > MAX_EPISODE:
                raise ValueError(f"{name}: an episode did not end within {MAX_EPISODE} steps; set max_episode_steps")
        told = tuple((succeeded[~np.isnan(succeeded)] > 0).tolist())
        return Evaluation(returns=tuple(returns.tolist()), lengths=tuple(lengths.tolist()), successes=told)
