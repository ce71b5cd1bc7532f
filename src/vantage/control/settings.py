"""Everything that defines a training run in the control world, as one frozen value."""

from dataclasses import dataclass, field, replace
from typing import Any, get_args

from vantage.control.atari import Atari
from vantage.control.convolution import fitting
from vantage.control.environments import Backend
from vantage.control.images import Channels
from vantage.control.networks import Inputs, Network, shares
from vantage.control.recurrent import Remembering
from vantage.control.wrappers import problem
from vantage.recipe import PPO, Joint, Optim, Recipe, Separate, TrustRegion, check
from vantage.recipe.schedule import check_type, check_whole, checked_options
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
    network: Network | None = None
    """Shape of the actor's and of the critic's network; what they share is the network's `shared`. None: MLP(), where
    pictures are seen NatureCNN(), or SmallCNN() for small ones.
    """
    std_init: float = 1.0
    """σ of Box actions before anything is learned."""
    normalise_observation: bool = False
    """Whether the networks see (s − mean)/std, clipped to ±10, with running statistics."""
    normalise_reward: bool = False
    """Whether Ψ sees rewards divided by the running std of the discounted return, clipped to ±10."""
    squash_actions: bool = False
    """Whether Box actions go through tanh instead of being clipped."""
    use_sde: bool = False
    """Whether the noise of Box actions is a function of the state (generalised state-dependent exploration)."""
    sde_sample_freq: int = -1
    """For how many steps such a function holds before another is drawn; -1: for the whole rollout."""
    seed: int = 0
    """Seed of everything random."""
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments for the environment."""
    max_episode_steps: int | None = None
    """Time limit of an episode; None: the environment's own."""
    frame_stack: int = 1
    """How many observations are seen together, the latest last; Atari games have `atari.frames`."""
    wrappers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Gymnasium's wrappers around each environment, innermost first: names with their arguments."""
    image_channels: Channels | None = None
    """Which axis of pictures holds their channels, "first" or "last"; None: the smaller one."""
    atari: Atari | None = None
    """How an Atari game is shown; None: Atari() for games, nothing for others."""
    backend: Backend = "auto"
    """How Gymnasium's environments are stepped: "sync" (one after another), "async" (each in a process), "vector"
    (their own vector implementation); "auto" takes the last from 4 or 6 slots on where there is one, else the first.
    """
    held_out: float = 0.0
    """Share of the environments from whose steps nothing is learned, drawn anew for each update: what the update did is
    measured on them too (held_out/…).
    """
    check_actor_every: int = 100
    """Of every how many rows one keeps the acting policy's own log-probability, to be compared with the scored one."""

    def __post_init__(self) -> None:
        check_type(isinstance(self.recipe, Recipe), self, "recipe", "a Recipe such as vt.PPO()")
        check_whole(self, "n_envs", "n_steps", "seed", "check_actor_every", "frame_stack", "sde_sample_freq")
        check(0.0 <= self.gamma <= 1.0, self, "gamma", "a discount lies between 0 and 1")
        check(self.n_envs >= 1, self, "n_envs", "at least one environment is needed")
        check(self.n_steps >= 1, self, "n_steps", "at least one step is needed")
        check(self.std_init > 0, self, "std_init", "a standard deviation is positive")
        held = self.sde_sample_freq == -1 or self.sde_sample_freq >= 1
        check(held, self, "sde_sample_freq", "a number of steps, or -1 for the whole rollout")
        used = self.use_sde or self.sde_sample_freq == -1
        check(used, self, "sde_sample_freq", "no such noise is drawn: set use_sde=True, or leave it out")
        check(self.seed >= 0, self, "seed", "a seed is not negative")
        check(self.backend in get_args(Backend), self, "backend", f"choose one of {', '.join(get_args(Backend))}")
        check(self.frame_stack >= 1, self, "frame_stack", "1 stacks nothing")
        found = problem(self.wrappers)
        check(found is None, self, "wrappers", found or "")
        known = (None, *get_args(Channels))
        check(self.image_channels in known, self, "image_channels", 'give "first", "last" or None')
        check(0.0 <= self.held_out < 1.0, self, "held_out", "a share below 1, such as 0.25, or 0")
        check(
            self.held_out == 0 or self.n_envs >= 2, self, "held_out", "one environment must be left: n_envs ≥ 2, or 0"
        )
        check(self.check_actor_every >= 1, self, "check_actor_every", "1 checks every row")
        check(
            self.max_episode_steps is None or self.max_episode_steps >= 1,
            self,
            "max_episode_steps",
            "at least one step, or None",
        )
        self._check_sharing()
        apart = self.atari is not None and self.atari.life_ends and self.recipe.psi.counts_from_start
        check(
            not apart, self.recipe, "psi", "the return of a whole game does not end where a life is lost; "
            "set atari=Atari(life_ends=False), or choose a Ψ of what follows, such as RewardToGo()",
        )  # fmt: skip
        check(
            self.recipe.n_minibatches <= self.items,
            self.recipe,
            "n_minibatches",
            f"the {self._items_in_words} of a rollout make {self.items} minibatches at most",
        )

    def fitted(self, inputs: Inputs) -> "Settings":
        """With the network that suits the inputs, where none was chosen."""
        if self.network is not None:
            return self
        apart = isinstance(self.recipe.objective, TrustRegion) or isinstance(self.optim, Separate)
        return replace(self, network=fitting(inputs, shared=not apart))

    @property
    def held_columns(self) -> int:
        """How many environments' steps are only measured on: at least one if any share is held out, never all."""
        return min(max(1, round(self.held_out * self.n_envs)), self.n_envs - 1) if self.held_out else 0

    @property
    def items(self) -> int:
        """What a rollout gives to divide into minibatches: rows, or sequences of them for a recurrent network."""
        learned = self.n_envs - self.held_columns
        if not isinstance(self.network, Remembering):
            return learned * self.n_steps
        return learned * -(-self.n_steps // (self.network.sequence_length or self.n_steps))

    @property
    def _items_in_words(self) -> str:
        if isinstance(self.network, Remembering):
            return f"n_envs · ⌈n_steps / sequence_length⌉ = {self.items} sequences"
        slots = f"(n_envs − {self.held_columns} held out)" if self.held_columns else "n_envs"
        return f"{slots} · n_steps = {self.items} rows"

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
    return Settings(**checked_options(Settings, options))
