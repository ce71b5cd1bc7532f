"""The control world over environments that are written in JAX: acting, scoring and all epochs of an update are one
compiled program.
"""

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vantage.control import update as learning
from vantage.control.coefficients import numbers, structure
from vantage.control.jax_env import JaxEnv
from vantage.control.jax_rollout import Acting, Given, JaxCollector, Taken, act, acted_log_prob
from vantage.control.measure import held_out
from vantage.control.model import Model
from vantage.control.normalise import next_return, rescale
from vantage.control.observations import standardised
from vantage.control.recurrent import Memory
from vantage.control.settings import Settings
from vantage.control.streams import Stream, generator
from vantage.control.training import MISMATCH, ControlWorld
from vantage.recipe import Recipe, Separate, TrustRegion
from vantage.rollout import Rollout

Array = Any
FIELDS = frozenset(f.name for f in fields(Rollout))


class Pending(Rollout):
    """A rollout that the update will take in the same compiled program; taken alone, by the same functions, if somebody
    looks at it before. Either way it then is a plain `Rollout`.
    """

    def __init__(self, take: Callable[[], Rollout]) -> None:
        object.__setattr__(self, "take", take)

    def __getattribute__(self, name: str) -> Any:
        if name in FIELDS:
            self.become(object.__getattribute__(self, "take")())
        return object.__getattribute__(self, name)

    def become(self, rollout: Rollout) -> None:
        """Turn into what was taken."""
        object.__setattr__(self, "__class__", Rollout)
        vars(self).clear()
        vars(self).update(vars(rollout))


class JaxWorld(ControlWorld):
    """A `World` over a `JaxEnv`. Recipes that need whole episodes, and trust regions, act on the device too, but learn
    in a call of their own.
    """

    _collector_type = JaxCollector
    _collector: JaxCollector

    def __init__(self, settings: Settings, model: Model, vector: Array, make_env: Any, name: str) -> None:
        super().__init__(settings, model, vector, make_env, name)
        self._collector.model = model
        self._ahead: Drawn | None = None

    def exact(self) -> bool:
        """Always: the environments' state is a value."""
        return True

    def collect(self, recipe: Recipe) -> Rollout:
        """The next rollout, which is taken by `update` or when its fields are first read."""
        if recipe.critic is None or recipe.psi.counts_from_start or isinstance(recipe.objective, TrustRegion):
            return self._take(recipe)
        self.steps += self._settings.batch_size
        return Pending(partial(self._take, recipe, counted=True))

    def _take(self, recipe: Recipe, counted: bool = False) -> Rollout:
        self._collector.vector = self._moving.vector
        rollout = super().collect(recipe)
        self.steps -= self._settings.batch_size if counted else 0
        return rollout

    def update(self, recipe: Recipe, rollout: Rollout, progress: float) -> dict[str, float]:
        """Act, score and learn in one compiled call; then β. A rollout that was taken already is only learned from.

        Raises FloatingPointError for a world that gives NaN or infinity; no parameter is changed then.
        """
        if type(rollout) is not Pending:
            return super().update(recipe, rollout, progress)
        optim, collector = self._optim(progress), self._collector
        prepared = self._drawn(recipe)
        self._moving, collector.acting, done = _iterate(
            collector.env.jax_env, self._model, structure(recipe), isinstance(optim, Separate), self._moving,
            collector.acting, prepared.given, prepared.rows, prepared.held, self._scales(), numbers(recipe),
            learning.rates(optim),
        )  # fmt: skip
        self._ahead = self._draw(recipe, self.updates + 1)  # while the device computes
        deviation, sound, metrics = done.read()
        if not sound:
            collector.must_be_sound(done.taken, self.updates)
        collector.count(done.taken)
        self._metrics = self._acted(deviation)
        rollout.become(Rollout(**done.columns))
        self._reached = done.reached
        self._merge(done.statistics)
        return self._learned(recipe, optim, rollout, metrics)

    # ---- what the program is given, and what it gives back ----

    def _drawn(self, recipe: Recipe) -> "Drawn":
        """The random numbers of this update: drawn ahead, or now."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and (ahead.update, ahead.plan) == (self.updates, _reuse(recipe)):
            return ahead
        return self._draw(recipe, self.updates)

    def _draw(self, recipe: Recipe, update: int) -> "Drawn":
        chosen = self._settings
        rng = generator(chosen.seed, Stream.NOISE, update)
        given = self._collector.draw(rng, chosen.n_steps, update, None)
        order = generator(chosen.seed, Stream.MINIBATCHES, update)
        held = held_out(order, chosen.n_envs, chosen.held_columns)
        mask = np.ones((chosen.n_steps, chosen.n_envs), bool) & (True if held is None else ~held)
        rows = learning.minibatches(order, mask, recipe.n_epochs, recipe.n_minibatches)
        return Drawn(update, _reuse(recipe), given, rows, held)

    def _scales(self) -> "Scales":
        observed, returned = self._observed, self._returned
        return Scales(
            frame=None if observed is None else observed.frame,
            reward=None if returned is None else np.float32(returned.scale),
            gamma=np.float32(self._settings.gamma),
            discounted=None if returned is None else np.asarray(self._discounted, np.float32),
        )

    def _merge(self, found: dict[str, Any]) -> None:
        """Normalisers see this rollout only now; the next one is the first to be normalised with it."""
        n = self._settings.batch_size
        if self._observed is not None:
            mean, var = (np.asarray(x, np.float64) for x in found["observation"])
            self._observed = self._observed.merged(mean, var, n).only(self._model.observations.numeric)
        if self._returned is not None:
            mean, var = (np.asarray(x, np.float64) for x in found["return"])
            self._returned = self._returned.merged(mean, var, n)
            self._discounted = np.asarray(found["discounted"], np.float64)


class Drawn(NamedTuple):
    """The random numbers of one update."""

    update: int
    plan: tuple[int, int]
    given: Given
    rows: Array
    held: Array | None


class Scales(NamedTuple):
    """How observations and rewards are scaled during one update; None: not at all."""

    frame: Any
    reward: Any
    gamma: Any
    discounted: Any


class Done(NamedTuple):
    """What one update leaves behind besides what it moved."""

    columns: dict[str, Any]
    taken: Taken
    reached: Array
    statistics: dict[str, Any]
    metrics: learning.Metrics
    guards: Array
    """(act mismatch, 1 if everything is finite and the mismatch small)."""

    def read(self) -> tuple[float, bool, dict[str, float]]:
        """(act mismatch, whether the update was made, metrics)."""
        deviation, sound = np.asarray(self.guards).tolist()
        return deviation, bool(sound), self.metrics.read()


def _reuse(recipe: Recipe) -> tuple[int, int]:
    return recipe.n_epochs, recipe.n_minibatches


@partial(jax.jit, static_argnames=("env", "model", "plan", "separate"), donate_argnames=("moving", "acting"))
def _iterate(
    env: JaxEnv, model: Model, plan: Recipe, separate: bool, moving: learning.Moving, acting: Acting,
    given: Given, rows: Array, held: Array | None, scales: Scales, values: list[Any], rates: learning.Rates,
) -> tuple[learning.Moving, Acting, Done]:  # fmt: skip
    """One update from the first step to the last epoch.

    What acting saw is fixed before learning reads it, so the numbers are those of the two parts compiled alone.
    """
    given, before = given._replace(frame=scales.frame), acting.carry
    acting, taken = act(env, model, moving.vector, acting, given)
    log_prob = acted_log_prob(model, taken, given)
    rollout, reached, carry = _score(model, moving.vector, taken, log_prob, scales, before)
    columns, reached = lax.optimization_barrier((vars(rollout), reached))
    deviation = jnp.nanmax(jnp.abs(log_prob - rollout.log_prob), initial=0.0)
    sound = _finite(taken) & (deviation <= MISMATCH)
    moved, metrics = learning.learn(model, plan, separate, moving, values, rates, columns, reached, rows, held)
    moved = jax.tree.map(partial(jnp.where, sound), moved, moving)
    guards = jnp.stack([deviation, sound.astype(deviation.dtype)])
    acting = acting._replace(carry=_carried(model, acting.carry, carry, taken.done[-1]))
    statistics = _statistics(model, taken, scales)
    return moved, acting, Done(columns, taken, reached, statistics, metrics, guards)


def _carried(model: Model, acted: Array, scored: Array | None, over: Array) -> Array:
    """What goes on into the next rollout: the critic's part comes from who scored this one."""
    if scored is None:
        return acted
    n = model.acting_carry
    return acted.at[:, n:].set(jnp.where(over[:, None], 0.0, scored[:, n:]))


def _score(
    model: Model, vector: Array, taken: Taken, log_prob: Array, scales: Scales, carry: Array
) -> tuple[Rollout, Array, Array | None]:
    """The record of what acting saw, scored in one batch; s_{t+1} as it was reached; what is remembered at the end."""
    seen, reached = (standardised(model.observations, scales.frame, x) for x in (taken.raw, taken.reached))
    mask, time = jnp.ones_like(taken.done), taken.lengths - 1
    memory = Memory(carry=carry, begins=time == 0, mask=mask) if model.carry else None
    scored = learning.score(model, vector, seen, reached, taken.action, memory)
    return Rollout(
        observation=seen,
        action=taken.action,
        reward=taken.reward,
        signal=rescale(scales.reward, taken.reward),
        discount=jnp.where(taken.terminated, 0.0, scales.gamma),
        last=taken.done.at[-1].set(True),
        mask=mask,
        log_prob=scored["log_prob"],
        value=scored.get("value"),
        action_value=scored.get("action_value"),
        next_value=scored.get("next_value"),
        policy=scored["policy"],
        actor_log_prob=log_prob,
        carry=carry if model.carry else None,
        time=time,
        gamma=scales.gamma,
    ), reached, scored.get("carry")  # fmt: skip


def _finite(taken: Taken) -> Array:
    given = (x for x in (taken.raw, taken.reached, taken.reward) if jnp.issubdtype(x.dtype, jnp.floating))
    return jnp.stack([jnp.isfinite(x).all() for x in given]).all()


def _statistics(model: Model, taken: Taken, scales: Scales) -> dict[str, Any]:
    """Mean and variance of what the normalisers are to see, and the discounted returns to go on from."""
    found = {}
    if scales.frame is not None:
        numbers = model.observations.numbers(taken.raw)
        found["observation"] = numbers.mean(axis=(0, 1)), numbers.var(axis=(0, 1))
    if scales.reward is not None:

        def row(carry: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
            return next_return(*now, True, scales.gamma, carry)[::-1]

        found["discounted"], returns = lax.scan(row, scales.discounted, (taken.reward, taken.done))
        found["return"] = returns.mean(), returns.var()
    return found
