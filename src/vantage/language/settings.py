"""Everything that defines an RLHF run besides models, rewards and prompts, and the language world's own defaults."""

from dataclasses import dataclass, field
from typing import Any

from vantage.language.experience import Shaping
from vantage.language.records import Sampling
from vantage.language.roles import LoRA
from vantage.language.vllm import VLLM, VLLMServer
from vantage.recipe import (
    PPO,
    Adam,
    ClippedValue,
    Correction,
    KLHome,
    KLInReward,
    Optim,
    Recipe,
    Separate,
    StateMean,
    Truncated,
    TrustRegion,
    in_world,
)
from vantage.recipe.schedule import check, check_type, check_whole, checked_options
from vantage.runs.config import known

_REUSED: dict[str, Any] = dict(n_epochs=4, n_minibatches=1, whiten="batch", critic=ClippedValue(width=0.2))
DEFAULTS: dict[str, dict[str, Any]] = {"PPO": _REUSED, "PPOPenalty": _REUSED, "ImportanceWeighted": _REUSED}
"""What a named recipe means for language models, where it was not told otherwise: the practice of RLHF."""

OPTIM = Separate(actor_lr=3e-6, critic_lr=1e-5, max_grad_norm=1.0)


@known
@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a run; with the same settings, models, rewards and prompts it is the same bit for bit."""

    recipe: Recipe = field(default_factory=PPO)
    """The algorithm; what a preset was not told has the defaults of this world."""
    kl: KLHome | None = KLInReward()  # noqa: RUF009 (frozen)
    """Where the KL to the reference stands; None: there is no reference."""
    gamma: float = 1.0
    """γ, the discount of the problem, per decision."""
    optim: Optim = OPTIM
    """Learning rates and gradient clipping."""
    sampling: Sampling = Sampling()  # noqa: RUF009 (frozen)
    """Length and temperature of completions."""
    shaping: Shaping = Shaping()  # noqa: RUF009 (frozen)
    """What happens to scores and to completions that did not end."""
    batch_size: int = 64
    """B: completions of one update."""
    micro_batch: int = 16
    """Completions in one forward pass; changes memory and time, no result."""
    critic_warmup: int = 0
    """Updates in which only the critic learns."""
    exact_kl: bool = False
    """Whether KL(π_old‖π) is summed over the vocabulary, for which π_old's logits are kept; False: its k3 estimate."""
    generator: VLLM | VLLMServer | None = None
    """Who completes prompts in the actor's place; None: the actor itself."""
    correction: Correction | None = None
    """How tokens are weighted that a generator other than the trainer sampled; None: they must agree, or with vLLM as
    generator `Truncated()`."""
    lora: LoRA | None = None
    """Adapters in the place of full training; None: every parameter is trained."""
    bf16: bool = False
    """Whether matrix products are taken in bfloat16; parameters, optimiser and log-probabilities stay in float32."""
    packing: bool = True
    """Whether models of known families read texts without padding, outside checkpointing and sharding: less time, the
    same result; False: padded, by the models' own forward."""
    gradient_checkpointing: bool = False
    """Whether activations are recomputed in the backward pass: less memory, more time, the same result."""
    shard: bool = False
    """Whether each of several processes holds only its share of every parameter, gradient and moment (FSDP2)."""
    seed: int = 0
    """Seed of everything random."""

    def __post_init__(self) -> None:
        check_type(isinstance(self.recipe, Recipe), self, "recipe", "a Recipe such as vt.PPO()")
        check_type(self.kl is None or isinstance(self.kl, KLHome), self, "kl", "KLInReward(…), KLInLoss(…) or None")
        object.__setattr__(self, "recipe", in_world(self.recipe, DEFAULTS))
        check_whole(self, "batch_size", "micro_batch", "critic_warmup", "seed")
        check(0.0 <= self.gamma <= 1.0, self, "gamma", "a discount lies between 0 and 1; 1 is usual")
        check(self.batch_size >= 1, self, "batch_size", "at least one completion an update")
        check(self.micro_batch >= 1, self, "micro_batch", "at least one completion a forward pass")
        check(self.critic_warmup >= 0, self, "critic_warmup", "a number of updates; 0: none")
        check(self.seed >= 0, self, "seed", "a seed is not negative")
        adam = getattr(self.optim, "optimiser", Adam()) == Adam()
        check(adam, self.optim, "optimiser", "language models learn by Adam with its usual averages: leave it out")
        if self.generator is not None and self.correction is None:
            object.__setattr__(self, "correction", Truncated())
        self._check_recipe()

    def _check_recipe(self) -> None:
        recipe, size = self.recipe, self.batch_size
        check(
            not isinstance(recipe.objective, TrustRegion),
            recipe,
            "objective",
            "TRPO is refused for language models: each of its conjugate-gradient steps is a pass over the whole batch "
            "with second derivatives, and PPO's clip reaches the same end; use vt.PPO() or vt.PPOPenalty()",
        )
        states = isinstance(getattr(recipe.psi, "baseline", None), StateMean)
        check(
            not states, recipe, "psi", "texts are no numbered states: use GroupMean(), BatchMean() or LearnedBaseline()"
        )
        sizes = f"the batch_size = {size} completions of an update make {size} minibatches at most"
        check(recipe.n_minibatches <= size, recipe, "n_minibatches", sizes)
        whole = size % self.group_size == 0
        check(whole, self, "batch_size", f"a multiple of the recipe's {self.group_size} completions for each prompt")
        critic = recipe.critic is not None or self.critic_warmup == 0
        check(critic, self, "critic_warmup", "the recipe has no critic to warm up: leave it 0")

    @property
    def group_size(self) -> int:
        """Completions of each prompt in an update."""
        return getattr(self.recipe.psi, "size", 1)

    @property
    def prompts_per_update(self) -> int:
        """Prompts completed in an update."""
        return self.batch_size // self.group_size


def settings(**options: Any) -> Settings:
    """Settings; an unknown option is a TypeError that suggests the nearest one."""
    return Settings(**checked_options(Settings, options))
