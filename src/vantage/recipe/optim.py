"""How parameters move: one optimiser for both networks, or one for each."""

from dataclasses import dataclass

from vantage.recipe.schedule import Coefficient, check, positive


@dataclass(frozen=True, kw_only=True)
class Joint:
    """One Adam step on actor loss + vf_coef · critic loss, clipped by the joint gradient norm."""

    lr: Coefficient = 3e-4
    """Learning rate."""
    vf_coef: float = 0.5
    """Weight of the critic's loss, which carries no ½."""
    max_grad_norm: float | None = 0.5
    """Bound on the norm of the whole gradient; None: unbounded."""
    eps: float = 1e-5
    """Adam's ε."""

    def __post_init__(self) -> None:
        check(positive(self.lr), self, "lr", "a positive learning rate, such as 3e-4")
        check(self.max_grad_norm is None or self.max_grad_norm > 0, self, "max_grad_norm", "a positive norm, or None")


@dataclass(frozen=True, kw_only=True)
class Separate:
    """Two Adam steps, each network with its own learning rate and gradient norm, as in theory 8.7."""

    actor_lr: Coefficient = 3e-4
    """Learning rate of the actor."""
    critic_lr: Coefficient = 1e-3
    """Learning rate of the critic."""
    max_grad_norm: float | None = 0.5
    """Bound on the norm of each network's gradient; None: unbounded."""
    eps: float = 1e-5
    """Adam's ε."""

    def __post_init__(self) -> None:
        check(positive(self.actor_lr), self, "actor_lr", "a positive learning rate, such as 3e-4")
        check(positive(self.critic_lr), self, "critic_lr", "a positive learning rate, such as 1e-3")
        check(self.max_grad_norm is None or self.max_grad_norm > 0, self, "max_grad_norm", "a positive norm, or None")


Optim = Joint | Separate
