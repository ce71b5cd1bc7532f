"""How parameters move: one optimiser for both networks, or one for each, and how their learning rates are chosen."""

from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from vantage.recipe.schedule import Coefficient, at, check, everywhere, positive, settled, swap
from vantage.theory import kl_control


@dataclass(frozen=True, kw_only=True)
class KLAdaptive:
    """A learning rate that falls by `factor` after an update with KL > 2 · target, and grows where KL < target / 2.

    The KL is E[KL(π_old‖π)] over the whole batch after the last epoch. Source: Heess et al. (2017) appendix; as in
    RSL-RL and rl_games, which move it at every minibatch.
    """

    start: float = 1e-3
    """Learning rate of the first update."""
    target: Coefficient = 0.01
    """The KL wanted per update, in nats per step."""
    factor: float = 1.5
    """By what the learning rate is divided or multiplied."""
    lr_min: float = 1e-5
    """The learning rate falls no lower."""
    lr_max: float = 1e-2
    """The learning rate grows no higher."""

    def __post_init__(self) -> None:
        within = 0.0 < self.lr_min <= self.start <= self.lr_max
        check(within, self, "start", f"it lies between lr_min = {self.lr_min} > 0 and lr_max = {self.lr_max}")
        check(everywhere(lambda x: x > 0, self.target), self, "target", "a KL target in nats per step, such as 0.01")
        check(self.factor > 1.0, self, "factor", "a factor above 1 is needed, such as 1.5")

    def __call__(self, lr: float, kl: float) -> float:
        bounds = (self.lr_min, self.lr_max)
        return kl_control.adaptive_lr(lr, kl, settled(self.target), factor=self.factor, bounds=bounds)


Rate = Coefficient | KLAdaptive


@dataclass(frozen=True, kw_only=True)
class Adam:
    """θ ← θ − α m̂/(√v̂ + ε): moving averages of the gradient and of its square. Source: Kingma & Ba (2015)."""

    b1: float = 0.9
    """How much of the average of gradients is kept."""
    b2: float = 0.999
    """How much of the average of squares is kept."""

    def __post_init__(self) -> None:
        check(0.0 <= self.b1 < 1.0, self, "b1", "a share below 1, such as 0.9")
        check(0.0 <= self.b2 < 1.0, self, "b2", "a share below 1, such as 0.999")


@dataclass(frozen=True, kw_only=True)
class RMSProp:
    """θ ← θ − α g/(√v + ε), v ← ρv + (1 − ρ)g² from v = 0: PyTorch's, the default of Stable-Baselines3's A2C."""

    decay: float = 0.99
    """ρ, how much of the average of squares is kept."""

    def __post_init__(self) -> None:
        check(0.0 <= self.decay < 1.0, self, "decay", "a share below 1, such as 0.99")


@dataclass(frozen=True, kw_only=True)
class RMSPropTF(RMSProp):
    """θ ← θ − α g/√(v + ε), v ← ρv + (1 − ρ)g² from v = 1: TensorFlow's, with which A2C was published."""


@runtime_checkable
class Direction(Protocol):
    """An optimiser of one's own: a frozen dataclass that builds a transformation of Optax.

    What it returns for the clipped gradient is multiplied by −α; decorate it with `runs.known` to save its agents.
    """

    def build(self, eps: Any) -> Any:
        """The `optax.GradientTransformation`, such as `optax.scale_by_lion()`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Joint:
    """One step on actor loss + vf_coef · critic loss, clipped by the joint gradient norm."""

    lr: Rate = 3e-4
    """Learning rate."""
    vf_coef: Coefficient = 0.5
    """Weight of the critic's loss, which carries no ½."""
    max_grad_norm: Coefficient | None = 0.5
    """Bound on the norm of the whole gradient; None: unbounded."""
    eps: float = 1e-5
    """The optimiser's ε."""
    optimiser: Adam | RMSProp | Direction = Adam()
    """What makes a step of a gradient; RMSProp and others in control only."""

    def __post_init__(self) -> None:
        known = isinstance(self.optimiser, Adam | RMSProp | Direction) and not isinstance(self.optimiser, type)
        check(known, self, "optimiser", "Adam(), RMSProp(), or an object with build(eps)")
        check(_rate(self.lr), self, "lr", "a positive learning rate, such as 3e-4")
        bound = self.max_grad_norm is None or everywhere(lambda x: x > 0, self.max_grad_norm)
        check(bound, self, "max_grad_norm", "a positive norm, or None")


@dataclass(frozen=True, kw_only=True)
class Separate:
    """Two Adam steps, each network with its own learning rate and gradient norm, as in theory 8.7."""

    actor_lr: Rate = 3e-4
    """Learning rate of the actor."""
    critic_lr: Coefficient = 1e-3
    """Learning rate of the critic."""
    max_grad_norm: Coefficient | None = 0.5
    """Bound on the norm of each network's gradient; None: unbounded."""
    eps: float = 1e-5
    """Adam's ε."""

    def __post_init__(self) -> None:
        check(_rate(self.actor_lr), self, "actor_lr", "a positive learning rate, such as 3e-4")
        check(positive(self.critic_lr), self, "critic_lr", "a positive learning rate, such as 1e-3")
        bound = self.max_grad_norm is None or everywhere(lambda x: x > 0, self.max_grad_norm)
        check(bound, self, "max_grad_norm", "a positive norm, or None")


Optim = Joint | Separate
Kind = TypeVar("Kind", bound=Joint | Separate)


def _rate(x: Rate) -> bool:
    return isinstance(x, KLAdaptive) or positive(x)


def adaptive(optim: Optim) -> KLAdaptive | None:
    """The rule by which the KL moves a learning rate, if one does."""
    rate = optim.lr if isinstance(optim, Joint) else optim.actor_lr
    return rate if isinstance(rate, KLAdaptive) else None


def optim_at(optim: Kind, progress: float, lr: float | None = None) -> Kind:
    """The optimiser at a moment of the run: schedules become numbers, and a `KLAdaptive` rate becomes `lr`, the one in
    the training state (None: the first).
    """
    now, rule = at(optim, progress), adaptive(optim)
    if rule is None:
        return now
    return swap(now, **{"lr" if isinstance(now, Joint) else "actor_lr": rule.start if lr is None else lr})
