"""DeepSpeed's ZeRO, where `accelerate launch` asks for it: an engine around each network that learns deals out Adam's
moments (stage 1), gradients too (stage 2) and parameters too (stage 3).

The loss, its sums over the processes and the settings are ours, and so are checkpoints: of DeepSpeed's configuration
only what it deals out, and where to, is read.
"""

import logging
import os
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from vantage.language.moving import rate
from vantage.language.parallel import Processes
from vantage.language.roles import AdapterCritic, Roles
from vantage.recipe import Joint

Tensor = torch.Tensor
OWN = (
    "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping",
    "optimizer", "scheduler",
)  # fmt: skip
"""What DeepSpeed's configuration may say too, and our settings say."""
MOMENTS = "exp_avg", "exp_avg_sq"


def configuration() -> dict[str, Any] | None:
    """What `accelerate launch` asks of DeepSpeed; None where it does not ask, or for stage 0, which deals out nothing.

    Raises ModuleNotFoundError without the package, ValueError for half precision in it.
    """
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() != "true":
        return None
    if find_spec("deepspeed") is None:
        raise ModuleNotFoundError(
            "accelerate was asked for DeepSpeed: pip install 'vantage[deepspeed]', or start the processes by torchrun",
            name="deepspeed",
        )
    from accelerate.utils import DeepSpeedPlugin

    config = _without_auto(DeepSpeedPlugin().deepspeed_config)
    for half in ("fp16", "bf16"):
        if config.get(half, {}).get("enabled"):
            raise ValueError(f"DeepSpeed's {half}.enabled = true: parameters stay in float32; set Settings.bf16 = True")
    sharing = config["zero_optimization"]
    if not sharing.get("stage"):
        return None
    for device in ("offload_optimizer", "offload_param"):
        if sharing.get(device, {}).get("device") in (None, "none"):
            sharing.pop(device, None)
    config = {name: x for name, x in config.items() if name not in OWN}
    return config | {"zero_force_ds_cpu_optimizer": False, "zero_allow_untested_optimizer": True}


def _without_auto(config: dict[str, Any]) -> dict[str, Any]:
    """What is "auto" left out: DeepSpeed's own default, or our setting, takes its place."""
    return {k: _without_auto(x) if isinstance(x, dict) else x for k, x in config.items() if x != "auto"}


class Computed(nn.Module):
    """A model whose forward pass is a computation with it, so that an engine sees our loss and nothing else."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, compute: Callable[[], Any]) -> Any:
        """What the computation gives."""
        return compute()


class Engine:
    """A network whose gradients and moments, and in stage 3 parameters, DeepSpeed deals out to the processes."""

    def __init__(
        self, model: Any, parameters: list[Any], adam: dict[str, Any], config: dict[str, Any], processes: Processes
    ) -> None:
        import deepspeed  # pyright: ignore[reportMissingImports]

        own = {"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1}
        optimiser: Any = torch.optim.AdamW(parameters, **adam)
        self._engine: Any = deepspeed.initialize(model=Computed(model), optimizer=optimiser, config=config | own)[0]
        self._zero, self._rank, self._size = self._engine.optimizer, processes.rank, processes.size
        self._first = self._zero.micro_step_id
        # Moments from the start, as a checkpoint may bring them before the first step.
        flat = "fp32_partitioned_groups_flat" if hasattr(self._zero, "fp32_partitioned_groups_flat") else None
        self._flat = getattr(self._zero, flat or "single_partition_of_fp32_groups")
        for x in self._flat:
            moments = {key: torch.zeros_like(x, requires_grad=False) for key in MOMENTS}
            self._zero.optimizer.state[x] = {"step": torch.zeros(()), **moments}
        if flat is None:
            self._zero._lazy_init_hp_params_optimizer_state()

    def backward(self, compute: Callable[[], tuple[Tensor, Any]], last: bool) -> Any:
        """Differentiate a micro-batch's loss; with the last one of a minibatch gradients are complete."""
        self._engine.set_gradient_accumulation_boundary(last)
        value, outputs = self._engine(compute)
        self._engine.backward(value * self._size, scale_wrt_gas=False)  # DeepSpeed takes the mean over the processes
        return outputs

    def step(self, lr: float, bound: Any) -> float:
        """One step by gradients of at most this norm; the norm they had."""
        self._zero.clip_grad = 0.0 if bound is None else float(bound)
        for group in self._zero.param_groups:
            group["lr"] = lr
        self._engine.step()
        return float(self._engine.get_global_grad_norm())

    def forget(self) -> None:
        """No gradient is held any more."""
        self._zero.zero_grad()
        self._zero.micro_step_id = self._first  # else gradients that no step took would be added to

    def moments(self, parameter: Any) -> dict[str, Tensor]:
        """Adam's state of a parameter, whole; {} before the first step. All processes must ask."""
        from deepspeed.utils import safe_get_full_optimizer_state as get  # pyright: ignore[reportMissingImports]

        step = self._zero.optimizer.state[self._flat[0]]["step"]
        whole = {key: get(parameter, key) for key in MOMENTS}
        return {"step": step, **whole} if float(step) else {}

    def put(self, parameter: Any, value: Tensor, moments: dict[str, Tensor]) -> None:
        """Restore a parameter, and its moments as `moments` gave them. All processes must."""
        import deepspeed  # pyright: ignore[reportMissingImports]
        from deepspeed import utils  # pyright: ignore[reportMissingImports]

        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            parameter.copy_(value)
        # DeepSpeed's own way to set a whole parameter in stage 3 fails where a share is padding alone.
        kind = "local" if hasattr(parameter, "ds_id") else "full"
        part = partial(self._share, parameter) if kind == "local" else lambda x: x
        getattr(utils, f"safe_set_{kind}_fp32_param")(parameter, part(value))
        for key in MOMENTS:
            moment = moments.get(key, torch.zeros_like(value))
            getattr(utils, f"safe_set_{kind}_optimizer_state")(parameter, part(moment), key)
        for x in self._flat:
            self._zero.optimizer.state[x]["step"].fill_(float(moments.get("step", 0.0)))

    def _share(self, parameter: Any, x: Tensor) -> Tensor:
        """This process's part of a whole tensor, padded as stage 3 pads it."""
        n = parameter.partition_numel()
        return nn.functional.pad(x.flatten(), (0, n * self._size - x.numel()))[n * self._rank :][:n]


class Zero:
    """What moves, dealt out: an engine for the actor, and one for a critic."""

    def __init__(self, roles: Roles, optim: Any, config: dict[str, Any], processes: Processes) -> None:
        """Raises ValueError for what cannot be dealt out."""
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        if isinstance(roles.critic, AdapterCritic):
            raise ValueError("critic = OnActor(): DeepSpeed deals out each network by itself; use FromActor()")
        if isinstance(optim, Joint) and optim.max_grad_norm is not None:
            raise ValueError("Settings.optim = Joint(…): DeepSpeed clips each network by its own norm; use Separate(…)")
        self.stage: int = config["zero_optimization"]["stage"]
        adam: dict[str, Any] = dict(lr=1.0, eps=float(optim.eps), weight_decay=0.0)
        both = (roles.actor, roles.actor_parameters), (roles.critic, roles.critic_parameters)
        self.actor, self.critic = (
            Engine(model, [p for _, p in held], adam, config, processes) if held else None for model, held in both
        )

    def backward(self, name: str, compute: Callable[[], tuple[Tensor, Any]], last: bool) -> Any:
        """`Engine.backward` of a network."""
        return getattr(self, name).backward(compute, last)

    def step(self, optim: Any, with_actor: bool, processes: Processes) -> dict[str, float]:
        """One step of each network, clipped by its own norm."""
        del processes
        norms = {"actor": 0.0}
        for name in ("actor", "critic"):
            engine: Engine | None = getattr(self, name)
            if engine is not None and (with_actor or name != "actor"):
                norms[name] = engine.step(rate(optim, name), optim.max_grad_norm)
        return {f"train/{name}_grad_norm": x for name, x in norms.items()}

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for engine in (self.actor, self.critic):
            if engine is not None:
                engine.forget()
