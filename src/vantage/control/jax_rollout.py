"""Acting inside of a compiled program: rows of a `JaxEnv`'s slots, taken by `lax.scan`."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float

from vantage.control.actions import Actions, JointActions
from vantage.control.collect import Collector
from vantage.control.exploration import StateDependentActions
from vantage.control.jax_env import JaxEnv, JaxVectorEnv, advance
from vantage.control.model import Actor, Model
from vantage.control.normalise import Moments
from vantage.control.observations import FlatObservations, standardised

Array = Any


class Acting(NamedTuple):
    """Where the slots stand. `[B, …]`."""

    state: Any
    observation: Array
    """As it is recorded, before normalisation."""
    returns: Float[Array, " B"]
    """Σ r of the episode that runs."""
    lengths: Array
    carry: Float[Array, "B C"]
    """What networks that remember go on with; acting moves the first part only."""


class Given(NamedTuple):
    """What an update's acting gets from outside, besides the parameters."""

    noise: Array
    """Action noise, `[T, B, …]`: a function of (seed, update, t, slot)."""
    seed: Any
    """Of the environments' randomness in these rows."""
    frame: Any
    """(shift, scale) of the observations, or None."""
    first_checked: Any
    """The first row whose acting policy's log-probability is kept."""
    period: Any
    """Of every how many rows one is kept."""


class Taken(NamedTuple):
    """What acting saw. `[T, B, …]`."""

    raw: Array
    """Observations before normalisation."""
    reached: Array
    """s_{t+1} as it was reached, before normalisation."""
    action: Array
    reward: Array
    terminated: Bool[Array, "T B"]
    done: Bool[Array, "T B"]
    returns: Array
    """Σ r of the episode up to and with this row."""
    lengths: Array
    policy: tuple[Array, ...]
    """Parameters of π(·|s) as whoever acted saw it."""


def act(env: JaxEnv, model: Model, vector: Float[Array, " P"], acting: Acting, given: Given) -> tuple[Acting, Taken]:
    """T rows of every slot, with the parameters held."""
    n, log_std = model.acting_carry, model.networks(vector).log_std

    def row(now: Acting, inputs: tuple[Array, Array]) -> tuple[Acting, Taken]:
        noise, keys = inputs
        seen = standardised(model.observations, given.frame, now.observation)
        outputs, memory = model.acting(vector, seen, now.carry[:, :n])
        policy = model.actions.distribution(outputs, log_std)
        if isinstance(model.actions, StateDependentActions):
            action = model.actions.sample(outputs, jnp.exp(log_std), noise)
        else:
            action = sample(model.actions, policy, noise)
        action = action.astype(model.actions.dtype)
        step = advance(env, keys, now.state, model.actions.to_env(action))
        reached, after = model.observations.record(step.reached), model.observations.record(step.observation)
        returns, lengths, done = (
            now.returns + step.reward,
            now.lengths + 1,
            jnp.logical_or(step.terminated, step.truncated),
        )
        taken = Taken(
            now.observation, reached, action, step.reward, step.terminated, done, returns, lengths,
            policy.parameters,
        )  # fmt: skip
        carry = jnp.where(done[:, None], 0.0, jnp.concatenate([memory, now.carry[:, n:]], axis=-1))
        return Acting(step.state, after, jnp.where(done, 0.0, returns), jnp.where(done, 0, lengths), carry), taken

    keys = jax.random.split(jax.random.key(given.seed), (len(given.noise), 2, given.noise.shape[1]))
    return lax.scan(row, acting, (given.noise, keys))


def sample(actions: Actions, policy: Any, noise: Array) -> Array:
    """The actions that `Actor.sample` would draw with this noise."""
    if isinstance(actions, JointActions):
        each = zip(actions.parts, policy.parts, actions._outputs(noise), strict=True)
        return actions.join(tuple(sample(*part) for part in each))
    std = jnp.exp(policy.parameters[1]) if actions.stds else None
    return actions.sample(policy.parameters[0], std, noise)


def acted_log_prob(
    model: Model, taken: Taken, given: Given
) -> Float[Array, "T B"]:  # fmt: skip
    """log π(a|s) as the one who acted saw it, NaN in the rows that are not checked."""
    policy = model.actions.rebuild(taken.policy)
    checked = (jnp.arange(len(taken.reward)) - given.first_checked) % given.period == 0
    return jnp.where(checked[:, None], policy.log_prob(taken.action), jnp.nan)


@partial(jax.jit, static_argnames=("env", "model"), donate_argnames=("acting",))
def _rows(
    env: JaxEnv, model: Model, vector: Float[Array, " P"], acting: Acting, given: Given
) -> tuple[Acting, Taken, Array]:
    acting, taken = act(env, model, vector, acting, given)
    return acting, taken, acted_log_prob(model, taken, given)


class JaxCollector(Collector):
    """A collector whose rows are taken on the device; what it writes down is the same."""

    env: JaxVectorEnv
    model: Model
    vector: Any
    """The parameters to act with; set by the world before each rollout."""

    def draw(self, rng: np.random.Generator, rows: int, update: int, moments: Moments | None) -> Given:
        """What the next `rows` rows need from outside."""
        noise, checked = self._actions.noise(rng, (rows, self._slots)), self._checked(rows, update)
        frame = None if moments is None else moments.frame
        return Given(noise, np.uint32(rng.integers(2**32)), frame, np.int32(checked.start), np.int32(checked.step))

    @property
    def acting(self) -> Acting:
        """Where the slots stand."""
        counts = (self.observation, self.returns, self.lengths, self.carry)
        if isinstance(self.returns, jax.Array):  # as the last update left them
            return Acting(self.env.state, *counts)
        types = (self._observations.dtype, np.float32, np.int32, np.float32)
        return Acting(self.env.state, *(jnp.array(x, kind) for x, kind in zip(counts, types, strict=True)))

    @acting.setter
    def acting(self, now: Acting) -> None:
        self.env.state, self.observation, self.returns, self.lengths, self.carry = now

    def _act(self, actor: Actor, moments: Moments | None, rows: int, rng: Any, update: int) -> dict[str, Array]:
        given = self.draw(rng, rows, update, moments)
        before = np.array(self.returns, np.float64), np.array(self.lengths, np.int64)
        now, taken, log_prob = _rows(self.env.jax_env, self.model, self.vector, self.acting, given)
        self.acting = now
        self.returns, self.lengths = before  # the host counts the rows that it was given
        taken = jax.tree.map(np.asarray, taken)
        self.carry, self._over = np.array(now.carry), taken.done[-1]
        self.must_be_sound(taken, update)
        return {
            "raw": taken.raw, "observation": standardised(self._observations, given.frame, taken.raw),
            "reached": standardised(self._observations, given.frame, taken.reached), "action": taken.action,
            "reward": taken.reward.astype(np.float64), "terminated": taken.terminated, "done": taken.done,
            "mask": np.ones(taken.done.shape, bool), "actor_log_prob": np.asarray(log_prob),
        }  # fmt: skip

    def must_be_sound(self, taken: Taken, update: int) -> None:
        """Raise FloatingPointError for a number that is not finite, ValueError for a mask that leaves no action."""
        for observation in (taken.raw, taken.reached):
            self._must_be_finite(np.asarray(observation), np.asarray(taken.reward), update)
        if isinstance(self._observations, FlatObservations):
            self._must_leave_a_choice(np.asarray(taken.raw), np.ones(taken.done.shape, bool), update)

    def count(self, taken: Taken) -> None:
        """Enter the episodes that ended into the statistics."""
        done = np.asarray(taken.done)
        self.finished = int(done.sum())
        if not self.finished:
            self.truncated = 0
            return
        where = np.nonzero(done)
        returns, lengths = np.asarray(taken.returns)[where], np.asarray(taken.lengths)[where]
        self.episodes.extend(zip(returns.tolist(), lengths.tolist(), strict=True))
        self.truncated = int((~np.asarray(taken.terminated)[where]).sum())
