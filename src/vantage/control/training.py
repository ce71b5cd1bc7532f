"""The control world: a vector environment, a model, and what changes while one learns in the other."""

from typing import Any

import jax
import numpy as np

from vantage.control import snapshot, trust_region
from vantage.control import update as learning
from vantage.control.coefficients import numbers, structure
from vantage.control.collect import Collector, Columns
from vantage.control.measure import held_out
from vantage.control.model import Actor, Model
from vantage.control.normalise import Moments, running_returns, signal
from vantage.control.recurrent import Memory
from vantage.control.settings import Settings
from vantage.control.streams import Stream, generator
from vantage.recipe import Clip, Penalty, Recipe, Separate, TrustRegion, adaptive, at, optim_at
from vantage.recipe.schedule import settled
from vantage.rollout import Rollout
from vantage.theory.reduce import total_trajectories
from vantage.world import TrainState

Array = Any
MISMATCH = 1e-3
"""The run stops where the actor's log-probability is further than this from the scored one."""


class ControlWorld:
    """A `World` over Gymnasium environments. `make_env(slots)` gives a fresh vector environment."""

    _collector_type = Collector

    def __init__(self, settings: Settings, model: Model, vector: Array, make_env: Any, name: str) -> None:
        self._settings, self._model, self._make_env, self._name = settings, model, make_env, name
        self._moving = learning.start(vector, settings.optim)
        self._env = make_env(settings.n_envs)
        self._collector = self._collector_type(
            self._env, name, model.observations, model.actions, settings.seed, settings.check_actor_every, model.carry
        )
        self._collector.life_ends = settings.atari is not None and settings.atari.life_ends
        normalised = settings.normalise_observation and model.observations.normalisable
        self._observed = Moments.fresh(model.observations.statistics) if normalised else None
        self._returned = Moments.fresh(()) if settings.normalise_reward else None
        self._discounted = np.zeros(settings.n_envs)
        objective = settings.recipe.objective
        self.beta: float | None = at(objective, 0.0).beta if isinstance(objective, Penalty) else None
        self._rule = adaptive(settings.optim)
        self.lr = None if self._rule is None else self._rule.start
        self.steps = self.updates = 0
        self._epochs, self._exact = 0, None
        self._metrics: dict[str, float] = {}
        self._reached: Array = None
        self._actor: Actor | None = None

    def exact(self) -> bool:
        """Whether the environments' state can be exported and put back; found by trying, once."""
        if self._exact is None:
            self._exact = snapshot.is_faithful(self._make_env, self._model.observations, self._model.actions)
        return self._exact

    @property
    def vector(self) -> Array:
        """The parameters, copied to NumPy."""
        return np.array(self._moving.vector)

    @property
    def moments(self) -> Moments | None:
        """Observation statistics, if observations are normalised."""
        return self._observed

    @property
    def actor(self) -> Actor:
        """The policy of this moment, for acting on the host."""
        if self._actor is None:
            self._actor = Actor(self._model, self.vector)
        return self._actor

    def seams(self) -> dict[str, list[tuple[Any, str]]]:
        """The calls that a profile and listeners to steps take hold of, by part; none inside one compiled program."""
        if type(self._collector)._act is not Collector._act:
            return {}
        return {
            "step": [(self._collector, "step")],
            "act": [(Actor, "outputs"), (Actor, "advance"), (Actor, "sample")],
            "score": [(learning, "score")],
        }

    # ---- collect ----

    def collect(self, recipe: Recipe) -> Rollout:
        """Act for one rollout, then score it in one batch.

        Raises FloatingPointError for a world that gives NaN or infinity.
        """
        whole = recipe.critic is None or recipe.psi.counts_from_start
        columns = self._collector.rollout(self.actor, self._observed, self._settings.n_steps, self.updates, whole)
        rollout = self._scored(columns)
        self._metrics = self._rollout_metrics(columns, rollout)
        self._move_statistics(columns)
        self._reached = columns.reached
        self.steps += int(columns.mask.sum())
        return rollout

    def _scored(self, columns: Columns) -> Rollout:
        memory = None
        if self._model.carry:
            memory = Memory(carry=columns.carry, begins=columns.time == 0, mask=columns.mask)
        scored = learning.score(
            self._model, self._moving.vector, columns.observation, columns.reached, columns.action, memory
        )
        if memory is not None:
            self._collector.carry_on(np.asarray(scored["carry"]), self._model.acting_carry)
        return self._rollout(columns, scored)

    def _rollout(self, columns: Columns, scored: dict[str, Any]) -> Rollout:
        last = columns.done.copy()
        last[-1] = True
        gamma = np.float32(self._settings.gamma)
        return Rollout(
            observation=columns.observation,
            action=columns.action,
            reward=columns.reward.astype(np.float32),
            signal=signal(self._returned, self._signed(columns.reward)),
            discount=np.where(columns.terminated, np.float32(0.0), gamma),
            last=last,
            mask=columns.mask,
            log_prob=scored["log_prob"],
            value=scored.get("value"),
            action_value=scored.get("action_value"),
            next_value=scored.get("next_value"),
            policy=scored["policy"],
            actor_log_prob=columns.actor_log_prob,
            carry=columns.carry if self._model.carry else None,
            time=columns.time,
            gamma=float(gamma),
        )

    def _signed(self, reward: Array) -> Array:
        """Rewards as Ψ reads them before they are scaled: of Atari games their signs."""
        atari = self._settings.atari
        return reward if atari is None or not atari.clip_rewards else np.sign(reward)

    def _rollout_metrics(self, columns: Columns, rollout: Rollout) -> dict[str, float]:
        return self._acted(mismatch(rollout))

    def _acted(self, deviation: float) -> dict[str, float]:
        """What acting showed. Raises RuntimeError where the actor's log-probabilities deviate from the scored ones."""
        metrics = {"train/act_mismatch": deviation}
        if deviation > MISMATCH:
            raise RuntimeError(
                f"the policy that acted is not the one that learns: log-probabilities differ by "
                f"{deviation:.3g} (more than {MISMATCH}); its weights or inputs are stale"
            )
        if self._collector.episodes:
            returns, lengths = zip(*self._collector.episodes, strict=True)
            metrics |= {"rollout/ep_rew_mean": float(np.mean(returns)), "rollout/ep_len_mean": float(np.mean(lengths))}
        if self._collector.successes:
            metrics["rollout/success_rate"] = float(np.mean(self._collector.successes))
        if self._collector.finished:
            metrics["rollout/truncated_share"] = self._collector.truncated / self._collector.finished
        return metrics

    def _move_statistics(self, columns: Columns) -> None:
        """Normalisers see this rollout only now; the next one is the first to be normalised with it."""
        if self._observed is not None:
            moved = self._observed.moved(self._model.observations.numbers(columns.raw[columns.mask]))
            self._observed = moved.only(self._model.observations.numeric)
        if self._returned is not None:
            returns, self._discounted = running_returns(
                self._signed(columns.reward), columns.done, columns.mask, self._settings.gamma, self._discounted
            )
            self._returned = self._returned.moved(returns[columns.mask])

    # ---- update ----

    def update(self, recipe: Recipe, rollout: Rollout, progress: float) -> dict[str, float]:
        """The actor's natural step if the recipe has a trust region; all epochs over the rollout in one compiled call;
        then β from the exact KL over the whole batch.
        """
        optim = self._optim(progress)
        rng = generator(self._settings.seed, Stream.MINIBATCHES, self.updates)
        recipe = learning.spared(recipe, self._settings.recipe)
        held = held_out(rng, self._settings.n_envs, self._settings.held_columns)
        used = learning.only(rollout, held, False)
        real = learning.real_items(self._model, np.asarray(used.mask))
        rows = learning.minibatches(rng, real, recipe.n_epochs, recipe.n_minibatches)
        separate, natural = isinstance(optim, Separate), {}
        if isinstance(recipe.objective, TrustRegion):
            moved, natural = trust_region.move_actor(self._model, recipe, self._moving.vector, used)
            self._moving = self._moving._replace(vector=moved)
        self._moving, metrics = learning.learn(
            self._model, structure(recipe), separate, self._moving, numbers(recipe), learning.rates(optim),
            vars(rollout), self._reached, rows, held,
        )  # fmt: skip
        return self._learned(recipe, optim, rollout, metrics.read() | {name: float(x) for name, x in natural.items()})

    def _optim(self, progress: float) -> Any:
        """The optimiser at this moment, and the rule that moves its learning rate after the update, if one does."""
        self._rule = adaptive(at(self._settings.optim, progress))
        return optim_at(self._settings.optim, progress, self.lr)

    def _learned(self, recipe: Recipe, optim: Any, rollout: Rollout, read: dict[str, float]) -> dict[str, float]:
        """What follows the compiled call: count, tell, move β and a learning rate that follows the KL."""
        self._actor = None
        self.updates += 1
        self._epochs += int(np.ceil(read["train/minibatches"] / recipe.n_minibatches))
        if self._rule is not None and self.lr is not None:
            self.lr = self._rule(self.lr, read["train/kl"])
        return self._metrics | read | self._told(recipe, optim) | self._move_beta(recipe, rollout, read["train/kl"])

    def _told(self, recipe: Recipe, optim: Any) -> dict[str, float]:
        """What was chosen rather than measured."""
        told: dict[str, Any] = {"train/n_updates": float(self._epochs)}
        if isinstance(optim, Separate):
            told |= {"train/learning_rate": optim.actor_lr, "train/critic_learning_rate": optim.critic_lr}
        else:
            told["train/learning_rate"] = optim.lr
        if isinstance(recipe.objective, Clip):
            told["train/clip_range"] = recipe.objective.low
        if "log_std" in self._model.names:  # asked here, as an actor costs as much as a small update
            told["train/std"] = float(np.mean(np.asarray(self.actor.std)))
        return told

    def _move_beta(self, recipe: Recipe, rollout: Rollout, kl: float) -> dict[str, float]:
        if not isinstance(recipe.objective, Penalty):
            return {}
        used = float(settled(recipe.objective.beta))
        if recipe.objective.rule is not None:
            n = int(total_trajectories(rollout.reward, rollout.last, rollout.mask))
            self.beta = float(recipe.objective.rule(used, kl, n))
        return {"train/beta": used}

    # ---- state ----

    def cut(self) -> None:
        """Drop the running episodes and reset the environments from (seed, updates, slot)."""
        self._collector.reset(self.updates)
        self._discounted = np.zeros(self._settings.n_envs)

    def state(self) -> TrainState:
        """Everything that changes in training, copied."""
        collector, episodes = self._collector.state()
        arrays: dict[str, Any] = {
            "parameters": self._model.named(self.vector),
            "optimiser": {_name(path): np.array(x) for path, x in _leaves(self._moving.optimiser)},
            "collector": collector,
            "discounted": self._discounted,
        }
        arrays |= {f"{name}_moments": m.arrays() for name, m in self._all_moments().items() if m is not None}
        counters = {"steps": self.steps, "updates": self.updates, "epochs": self._epochs, "beta": self.beta, **episodes}
        counters |= {} if self.lr is None else {"lr": self.lr}
        if self.exact():
            arrays["environments"], counters["environments"] = snapshot.take(self._env)
        return TrainState(arrays=arrays, counters=counters)

    def _all_moments(self) -> dict[str, Moments | None]:
        return {"observation": self._observed, "return": self._returned}

    def restore(self, state: TrainState) -> None:
        """Go on exactly from `state`."""
        arrays, counters = state.arrays, state.counters
        moving, kept = (
            learning.start(self._model.vector(arrays["parameters"]), self._settings.optim),
            arrays["optimiser"],
        )
        leaves = [jax.numpy.array(kept[_name(path)]) for path, _ in _leaves(moving.optimiser)]
        optimiser = jax.tree.unflatten(jax.tree.structure(moving.optimiser), leaves)
        self._moving, self._actor = moving._replace(optimiser=optimiser), None
        self.steps, self.updates = counters["steps"], counters["updates"]
        self._epochs, self.beta = counters["epochs"], counters["beta"]
        self.lr = counters.get("lr", self.lr)
        self.begin_with(arrays)
        if self.exact():
            snapshot.put(self._env, arrays["environments"], counters["environments"])
            self._collector.restore(arrays["collector"])
            self._discounted = arrays["discounted"].copy()
        else:
            self.cut()
        self._collector.episodes.extend((r, int(n)) for r, n in counters["episodes"])
        self._collector.successes.extend(counters.get("successes", ()))

    def begin_with(self, arrays: dict[str, Any]) -> None:
        """Take over the normalisers' statistics of another agent, before anything was learned."""
        if self._observed is not None:
            self._observed = Moments.of(arrays["observation_moments"])
        if self._returned is not None:
            self._returned = Moments.of(arrays["return_moments"])

    def close(self) -> None:
        """Close the environments."""
        self._env.close()


def _leaves(tree: Any) -> list[Any]:
    return jax.tree_util.tree_leaves_with_path(tree)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def mismatch(rollout: Rollout) -> float:
    """max |log π recorded by the actor − log π scored| over the rows where it was recorded, in nats."""
    acted = rollout.actor_log_prob
    if acted is None:
        return 0.0
    known = np.isfinite(acted) & rollout.mask
    return float(np.max(np.abs(acted - np.asarray(rollout.log_prob)), where=known, initial=0.0))
