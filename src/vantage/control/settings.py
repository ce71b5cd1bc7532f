"""Everything that defines a training run in the control world, as one frozen value."""

import difflib
from dataclasses import dataclass, field, fields
from typing import Any, get_args

from vantage.control.environments import Backend
from vantage.control.networks import MLP, Network, shares
from vantage.recipe import PPO, Joint, Optim, Recipe, Separate, TrustRegion, check
from vantage.recipe.schedule import check_type, check_whole
from vantage.runs.config import known


@known
@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of an agent; with the same settings and environment a run is the same bit for bit."""

    recipe: Recipe = field(default_factory=PPO)
    """The algorithm."""
    gamma: float = 0.99
    """γ, the discount of the problem."""
    n_envs: int = 8
    """B: environments stepped together."""
    n_steps: int = 128
    """T: steps of each environment in a rollout; without a critic, the least number before an episode may be the
    last.
    """
    optim: Optim = Joint()  # noqa: RUF009 (frozen)
    """Learning rates and gradient clipping."""
    network: Network = MLP()  # noqa: RUF009 (frozen)
    """Shape of the actor's and of the critic's network; what they share is the network's `shared`."""
    std_init: float = 1.0
    """σ of Box actions before anything is learned."""
    normalise_observation: bool = False
    """Whether the networks see (s − mean)/std, clipped to ±10, with running statistics."""
    normalise_reward: bool = False
    """Whether Ψ sees rewards divided by the running std of the discounted return, clipped to ±10."""
    squash_actions: bool = False
    """Whether Box actions go through tanh instead of being clipped."""
    seed: int = 0
    """Seed of everything random."""
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments for the environment."""
    max_episode_steps: int | None = None
    """Time limit of an episode; None: the environment's own."""
    backend: Backend = "auto"
    """How Gymnasium's environments are stepped: "sync" (one after another), "async" (each in a process), "vector"
    (their own vector implementation); "auto" takes the last from 4 slots on where there is one, else the first.
    """
    check_actor_every: int = 100
    """Of every how many rows one keeps the acting policy's own log-probability, to be compared with the scored one."""

    def __post_init__(self) -> None:
        check_type(isinstance(self.recipe, Recipe), self, "recipe", "a Recipe such as vt.PPO()")
        check_whole(self, "n_envs", "n_steps", "seed", "check_actor_every")
        check(0.0 <= self.gamma <= 1.0, self, "gamma", "a discount lies between 0 and 1")
        check(self.n_envs >= 1, self, "n_envs", "at least one environment is needed")
        check(self.n_steps >= 1, self, "n_steps", "at least one step is needed")
        check(self.std_init > 0, self, "std_init", "a standard deviation is positive")
        check(self.seed >= 0, self, "seed", "a seed is not negative")
        check(self.backend in get_args(Backend), self, "backend", f"choose one of {', '.join(get_args(Backend))}")
        check(self.check_actor_every >= 1, self, "check_actor_every", "1 checks every row")
        check(
            self.max_episode_steps is None or self.max_episode_steps >= 1,
            self,
            "max_episode_steps",
            "at least one step, or None",
        )
        self._check_sharing()
        check(
            self.recipe.n_minibatches <= self.batch_size,
            self.recipe,
            "n_minibatches",
            f"the n_envs · n_steps = {self.batch_size} rows of a rollout make {self.batch_size} minibatches at most",
        )

    def _check_sharing(self) -> None:
        if self.recipe.critic is None or not shares(self.network):
            return
        check(
            not isinstance(self.recipe.objective, TrustRegion),
            self.network,
            "shared",
            "TRPO's natural step would move the critic with the actor, and the critic's steps the policy; set it False",
        )
        check(
            not isinstance(self.optim, Separate),
            self.network,
            "shared",
            "two optimisers cannot both move what actor and critic share; set it False, or use Joint()",
        )

    @property
    def batch_size(self) -> int:
        """Rows of a rollout, T · B."""
        return self.n_envs * self.n_steps


def settings(**options: Any) -> Settings:
    """Settings; an unknown option is a TypeError that suggests the nearest one."""
    names = [f.name for f in fields(Settings)]
    for name in options:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            raise TypeError(
                f"unknown option {name!r}: {f'did you mean {near[0]!r}?' if near else 'known are ' + ', '.join(names)}"
            )
    return Settings(**options)
