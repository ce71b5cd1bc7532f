"""What moves: an optimiser for each network, and its steps."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vantage.language.parallel import Processes
from vantage.language.roles import Roles
from vantage.recipe import Joint
from vantage.theory import reduce


@dataclass(kw_only=True)
class Moving:
    """The optimisers, which hold what moves: one for both networks, or one for each."""

    actor: torch.optim.Optimizer
    critic: torch.optim.Optimizer | None = None

    @staticmethod
    def of(roles: Roles, optim: Any) -> "Moving":
        """Adam over the trainable parameters. Raises ValueError where the actor has none."""
        actor = [p for _, p in roles.actor_parameters]
        if not actor:
            raise ValueError("the actor has no parameter that requires a gradient: unfreeze it, or set lora=LoRA()")
        adam: dict[str, Any] = dict(lr=1.0, eps=float(optim.eps), weight_decay=0.0)
        critic = [p for _, p in roles.critic_parameters]
        return Moving(
            actor=torch.optim.AdamW(actor, **adam), critic=torch.optim.AdamW(critic, **adam) if critic else None
        )  # fmt: skip

    def step(self, optim: Any, with_actor: bool, processes: Processes) -> dict[str, float]:
        """One step of each, by gradients clipped by their *global* norm: of everything, or of each network."""
        groups = {"actor": self.actor} if self.critic is None else {"actor": self.actor, "critic": self.critic}
        held = {name: [p for g in one.param_groups for p in g["params"]] for name, one in groups.items()}
        norms = {name: processes.norm([p.grad for p in ps if p.grad is not None]) for name, ps in held.items()}
        joint = float(np.sqrt(sum(x**2 for x in norms.values())))
        for name, one in groups.items():
            norm = joint if isinstance(optim, Joint) else norms[name]
            _clip(held[name], norm, optim.max_grad_norm)
            for group in one.param_groups:
                group["lr"] = rate(optim, name)
            if with_actor or name != "actor":
                one.step()
        return {f"train/{name}_grad_norm": x for name, x in norms.items()}

    def zero_grad(self) -> None:
        """Forget all gradients."""
        self.actor.zero_grad(set_to_none=True)
        if self.critic is not None:
            self.critic.zero_grad(set_to_none=True)


def rate(optim: Any, name: str) -> float:
    """The learning rate of a network."""
    return float(getattr(optim, "lr" if isinstance(optim, Joint) else f"{name}_lr"))


def _clip(parameters: list[Any], norm: float, bound: Any) -> None:
    """g · min(1, bound/‖g‖); where that is 1 nothing is touched."""
    factor = 1.0 if bound is None else float(reduce.clip_factor(np.asarray(norm), bound))
    if factor != 1.0:
        for p in parameters:
            if p.grad is not None:
                p.grad.mul_(factor)
