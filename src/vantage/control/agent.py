"""An agent: settings, an environment, and what was learned so far."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from vantage.control import environments, masks, model
from vantage.control._compile import make_room
from vantage.control.defaults import TUNED
from vantage.control.environments import Source
from vantage.control.jax_world import JaxWorld
from vantage.control.model import Actor
from vantage.control.networks import Network
from vantage.control.normalise import Moments
from vantage.control.observations import MaskSource
from vantage.control.play import Evaluation, Player
from vantage.control.settings import Settings, settings
from vantage.control.spaces import Actions, DiscreteActions, Observations, actions, observations
from vantage.control.streams import Stream, generator
from vantage.control.training import ControlWorld
from vantage.loop import Listener, Report, learn
from vantage.recipe import Recipe
from vantage.recipe.refused import gives_action_values
from vantage.runs import checkpoint as files
from vantage.runs.config import from_json, to_json
from vantage.theory.divergences import log_softmax
from vantage.world import TrainState

Array = Any
LOG = logging.getLogger("vantage")
"""Tells which implementation steps the environments, when they are opened."""


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """Where an agent's checkpoints go: one file, replaced every `every` updates."""

    agent: "Agent"
    path: Path
    every: int

    def save(self, state: TrainState) -> None:
        """Write the agent as of `state`."""
        self.agent._write(self.path, state)


class Agent:
    """A policy that learns in a Gymnasium environment.

    `env` is an id, or a callable that returns one `gymnasium.Env`; `recipe` is `PPO()` unless given; the keywords are
    the other fields of `Settings`. Raises ValueError or TypeError, before any work, for what cannot be trained.
    """

    def __init__(self, env: Source, recipe: Recipe | None = None, **options: Any) -> None:
        chosen = settings(**options) if recipe is None else settings(recipe=recipe, **options)
        environments.check_backend(env, chosen.backend)
        chosen = replace(
            chosen, atari=environments.shown(env, chosen.atari, chosen.env_kwargs, chosen.frame_stack, chosen.wrappers)
        )
        one = _made(env, 1, chosen, "sync")
        try:
            done = actions(
                one.single_action_space, chosen.squash_actions, chosen.sde_sample_freq if chosen.use_sde else None
            )
            space, mask = one.single_observation_space, masks.find(one, done)
            seen = observations(space, mask, done.choices, chosen.image_channels)
        finally:
            one.close()
        self._set_up(env, chosen, seen, done)

    def _set_up(self, env: Source | None, chosen: Settings, seen: Observations, done: Actions) -> None:
        self.env, self.settings = env, (chosen := chosen.fitted(seen.inputs))
        assert chosen.network is not None
        make_room()
        rng = generator(chosen.seed, Stream.INIT)
        model.must_suit(chosen.recipe, seen, done)
        critic, of_actions = chosen.recipe.critic is not None, gives_action_values(chosen.recipe.critic)
        self._model, self._initial = model.build(seen, done, chosen.network, critic, rng, chosen.std_init, of_actions)
        self._restored: TrainState | None = None
        self._statistics: dict[str, Any] = {}
        self._acts = 0

    @classmethod
    def tuned(cls, env: str, **overrides: Any) -> "Agent":
        """An agent with the settings known to work for this environment. Raises ValueError where none are known."""
        if env not in TUNED:
            raise ValueError(f"no tuned settings for {env!r}: known are {', '.join(TUNED)}; use Agent({env!r}, …)")
        return cls(env, **{**TUNED[env].settings, **overrides})

    def __repr__(self) -> str:
        chosen = self.settings.recipe
        kinds = " × ".join(type(part).__name__ for part in (chosen.psi, chosen.objective, chosen.critic) if part)
        return f"Agent({self.name}: {kinds}, seed {self.settings.seed}, {self.steps:,} steps taken)"

    @property
    def name(self) -> str:
        """The environment's id, or the callable's name."""
        return environments.name(self.env)

    @property
    def backend(self) -> str:
        """Which implementation steps the environments, for people."""
        world = self.world
        shown = "" if self.settings.atari is None else f"; {self.settings.atari}"
        return environments.describe(self.env, world._env, self.settings.n_envs) + shown

    @property
    def backend_reason(self) -> str:
        """Why it does, for people."""
        chosen = self.settings
        return environments.reason(self.env, self.world._env, chosen.backend, chosen.frame_stack, chosen.wrappers)

    @cached_property
    def world(self) -> ControlWorld:
        """The training world, made when first needed; it holds everything that changes."""
        if self.env is None:
            raise ValueError("this agent was saved with an environment made by a callable: load it with env=…")
        kind = JaxWorld if environments.in_jit(self.env) else ControlWorld
        world = kind(self.settings, self._model, self._initial, self._make_env, self.name)
        if self._restored is not None:
            world.restore(self._restored)
        elif self._statistics:
            world.begin_with(self._statistics)
        LOG.info(environments.describe(self.env, world._env, self.settings.n_envs))
        return world

    def _make_env(self, slots: int) -> Any:
        assert self.env is not None
        return _made(self.env, slots, self.settings, self.settings.backend)

    @property
    def steps(self) -> int:
        """Environment steps taken so far."""
        if "world" in vars(self):
            return self.world.steps
        return 0 if self._restored is None else self._restored.counters["steps"]

    # ---- learning ----

    def learn(
        self,
        total_steps: int,
        callbacks: Listener | Iterable[Listener] = (),
        checkpoint: str | Path | None = None,
        checkpoint_every: int = 100,
    ) -> Report:
        """Train until `total_steps` steps have been taken in all, earlier ones included, and report each update.

        With `checkpoint` the agent is written there every `checkpoint_every` updates; see `Agent.resume`.
        """
        if checkpoint_every < 1:
            raise ValueError(f"checkpoint_every = {checkpoint_every}: a number of updates, at least 1")
        saver = None if checkpoint is None else Checkpoints(agent=self, path=Path(checkpoint), every=checkpoint_every)
        return learn(self.world, self.settings.recipe, total_steps, callbacks, saver)

    def warm_start(self, path: str | Path) -> "Agent":
        """Begin with the parameters and the normalisers' statistics that a saved agent has; all else is as given here.

        Raises ValueError, naming each, where shapes differ or only one of the two normalises, and once the agent has
        its environments open: statistics and parameters belong to the start.
        """
        if self._restored is not None or "world" in vars(self):
            raise ValueError("warm_start comes first: make a new Agent(…) and call it before learn, evaluate or save")
        arrays, _ = files.load(Path(path))
        kept = {name: x for name, x in arrays.items() if name.endswith("_moments")}
        for name, ours in self._normalises.items():
            theirs = f"{name}_moments" in kept
            if ours != theirs:
                field = "normalise_observation" if name == "observation" else "normalise_reward"
                raise ValueError(
                    f"{field} = {ours} here, {theirs} in {path}: set it as there, for the networks rely on it"
                )
        self._initial, self._statistics = self._model.vector(arrays["parameters"]), kept
        vars(self).pop("_loaded", None)
        return self

    @property
    def _normalises(self) -> dict[str, bool]:
        seen = self.settings.normalise_observation and self._model.observations.normalisable
        return {"observation": seen, "return": self.settings.normalise_reward}

    # ---- acting ----

    @property
    def mask_source(self) -> MaskSource | None:
        """Where action masks come from: "observation", "method" or "info"; None without masks."""
        return self._model.observations.mask

    def act(self, observation: Any, deterministic: bool = False, action_masks: Any = None) -> Any:
        """The action for one observation or a batch of them, as the environment accepts it; sampled unless
        `deterministic`.

        Raises ValueError where the agent was made for masks that are not part of the observation and gets none, and for
        a recurrent policy, which needs its state from step to step: use `predict`.
        """
        if self._model.carry:
            raise ValueError(
                "this policy remembers, and act does not: action, state = predict(observation, state, episode_start)"
            )
        return self.predict(observation, deterministic=deterministic, action_masks=action_masks)[0]

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[Any, Any]:
        """(action, state) in Stable-Baselines3's form: a recurrent policy goes on from `state`, one array `[B, S]`, or
        None at first, and from 0 where `episode_start`; with any other `state` comes back as it is.
        """
        rng = None if deterministic else generator(self.settings.seed, Stream.ACT, self._acts)
        chosen = self._player.predict(observation, state, episode_start, rng, action_masks)
        self._acts += rng is not None
        return chosen

    def action_probabilities(self, observations: Any) -> Float[Array, "*B A"]:
        """π(a|s) for observations `[…]` as the environment gives them. Raises TypeError for actions with a density,
        ValueError for a recurrent policy.
        """
        if not isinstance(self._model.actions, DiscreteActions):
            raise TypeError(f"{self.name} has actions with a density, not probabilities: use act or predict")
        return np.exp(log_softmax(self._player.outputs(self._model.observations.record(observations))))

    def state_values(self, observations: Any) -> Float[Array, "*B"]:
        """V_φ(s) for observations `[…]` as the environment gives them, in units of the rewards that Ψ sees.

        Raises ValueError if the recipe has no critic, or if it remembers.
        """
        if not self._model.has_critic:
            raise ValueError("this agent has no critic: choose a recipe with one, such as A2C()")
        seen = self._player.seen(self._model.observations.record(observations))
        return np.asarray(self._model.value(self._vector, seen))

    def action_values(self, observations: Any) -> Float[Array, "*B A"]:
        """Q_φ(s, a) of every action, for observations `[…]` as the environment gives them; units as of `state_values`.

        Raises ValueError if the recipe's critic is not one of actions, or if it remembers.
        """
        if not self._model.of_actions:
            raise ValueError("this agent's critic says no values of actions: choose a recipe with critic=QCritic()")
        seen = self._player.seen(self._model.observations.record(observations))
        return np.asarray(self._model.run(self._vector, seen).action_values)

    @property
    def _vector(self) -> Array:
        """The parameters of this moment, without opening an environment."""
        if "world" in vars(self):
            return self.world.vector
        return self._initial if self._restored is None else self._model.vector(self._restored.arrays["parameters"])

    @property
    def _player(self) -> Player:
        """The policy of this moment, without opening an environment."""
        if "world" in vars(self):
            return Player(model=self._model, actor=self.world.actor, moments=self.world.moments)
        return self._loaded

    @cached_property
    def _loaded(self) -> Player:
        arrays = self._statistics if self._restored is None else self._restored.arrays
        moments = Moments.of(arrays["observation_moments"]) if "observation_moments" in arrays else None
        return Player(model=self._model, actor=Actor(self._model, self._vector), moments=moments)

    def evaluate(self, episodes: int = 20, deterministic: bool = True, seed: int = 0) -> Evaluation:
        """Play whole episodes on environments of their own, one episode a slot, so that short episodes are not over-
        represented.
        """
        if episodes < 1:
            raise ValueError(f"episodes = {episodes}: play at least one")
        if self.env is None:
            raise ValueError("this agent was saved with an environment made by a callable: load it with env=…")
        env = _made(self.env, episodes, self.settings, "sync")
        try:
            return self._player.evaluate(env, self.name, deterministic, seed)
        finally:
            env.close()

    def one(self, render_mode: str | None = None) -> Any:
        """One environment as the agent sees it: wrapped, its frames stacked. Raises ValueError where there is none."""
        if self.env is None:
            raise ValueError("this agent was saved with an environment made by a callable: load it with env=…")
        drawn = {"render_mode": render_mode} if isinstance(self.env, str) and render_mode is not None else {}
        chosen = replace(self.settings, env_kwargs=self.settings.env_kwargs | drawn)
        if environments.in_jit(self.env) or environments.name(self.env).startswith("envpool:"):
            raise ValueError(f"{self.name} is not drawn: only Gymnasium's environments are")
        return _made(self.env, 1, chosen, "sync").envs[0]

    # ---- files ----

    def save(self, path: str | Path) -> None:
        """Write settings and everything learned to one file (safetensors with JSON inside; it cannot carry code)."""
        self._write(Path(path), self._restored if self._restored and "world" not in vars(self) else self.world.state())

    def _write(self, path: Path, state: TrainState) -> None:
        files.save(
            path,
            state.arrays,
            {
                "env": self.env if isinstance(self.env, str) else None,
                "settings": to_json(self.settings),
                "observations": to_json(self._model.observations),
                "actions": to_json(self._model.actions),
                "counters": state.counters,
            },
        )

    @classmethod
    def resume(
        cls, path: str | Path, env: Source | None = None, network: Network | None = None, recipe: Recipe | None = None
    ) -> "Agent":
        """The agent that a checkpoint holds, ready to `learn` on as if it had never stopped; arguments as in `load`."""
        agent = load(path, env, network, recipe)
        agent.world  # noqa: B018 (opens the environments now, so that what is wrong with them is said here)
        return agent


def _made(env: Source, slots: int, chosen: Settings, backend: environments.Backend) -> Any:
    """The environments as the settings want them."""
    return environments.make(
        env, slots, chosen.env_kwargs, chosen.max_episode_steps, backend, chosen.atari, chosen.frame_stack,
        chosen.wrappers,
    )  # fmt: skip


def load(
    path: str | Path, env: Source | None = None, network: Network | None = None, recipe: Recipe | None = None
) -> Agent:
    """The agent that `Agent.save` or a checkpoint wrote.

    A file names types and never defines them, so that one from a stranger cannot run code. What it cannot name is
    given here: `env` to train or evaluate an agent made with a callable, an MDP or an id of the form module:id;
    `network` or `recipe` where their classes are not known to Vantage. Raises FileNotFoundError, or ValueError for a
    damaged file, one that names an unknown type, or one whose parameters do not fit the network given.
    """
    arrays, info = files.load(path)
    own = {name: x for name, x in (("network", network), ("recipe", recipe)) if x is not None}
    agent = Agent.__new__(Agent)
    seen, done = from_json(info["observations"]), from_json(info["actions"])
    agent._set_up(env if env is not None else _safe(info["env"]), _stored(info["settings"], own), seen, done)
    agent._restored = TrainState(arrays=arrays, counters=info["counters"])
    agent._model.vector(arrays["parameters"])
    return agent


def _safe(env_id: str | None) -> str | None:
    """The id, unless making it would import a module of the file's choice: module:id imports that module."""
    ours = env_id is not None and (env_id.startswith("vantage.") or environments.prefix(env_id) is not None)
    return env_id if env_id is not None and (ours or ":" not in env_id) else None


def _stored(written: dict[str, Any], own: dict[str, Any]) -> Settings:
    """The settings in a file, with some given in place of what it says."""
    strange = sorted(written.keys() - {f.name for f in fields(Settings)} - {"type"})
    if strange:
        raise ValueError(f"Settings has no field {strange[0]!r}: the file is from another version of the library")
    values = dict(own)
    for name in written.keys() - own.keys() - {"type"}:
        try:
            values[name] = from_json(written[name])
        except ValueError as error:
            remedy = f"; or give it: vt.load(path, {name}=…)" if name in ("network", "recipe") else ""
            raise ValueError(f"{name}: {error}{remedy}") from error
    return Settings(**values)
