"""FSDP2, and stage 3 of DeepSpeed's ZeRO: each process holds a share of every parameter, gradient and moment; whole
models only while they generate or score, when processes need not keep step with one another.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from vantage.language.roles import AdapterCritic, Roles

Tensor = torch.Tensor


def shard(roles: Roles) -> None:
    """Deal out the parameters of all models, layer by layer, in place.

    Raises ValueError for a critic on the actor's backbone, which is not called as a model of its own.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    if isinstance(roles.critic, AdapterCritic):
        raise ValueError("Settings.shard = True: a critic on the actor's backbone cannot be sharded; use FromActor()")
    for model in (roles.actor, roles.critic, roles.frozen):
        if model is not None:
            for layer in model.modules():
                if isinstance(layer, GradientCheckpointingLayer):
                    fully_shard(layer)
            fully_shard(model)


@contextmanager
def gathered(model: Any) -> Iterator[None]:
    """The whole model in every process; nothing is sent while it runs."""
    parts: list[Any] = [m for m in model.modules() if isinstance(m, FSDPModule)] if hasattr(model, "modules") else []
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        with _by_deepspeed(model):
            yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()


@contextmanager
def _by_deepspeed(model: Any) -> Iterator[None]:
    """The same where DeepSpeed deals out parameters: all are fetched, and its hooks, which fetch and free them layer by
    layer, are away.
    """
    dealt = [p for p in model.parameters() if hasattr(p, "ds_id")] if hasattr(model, "parameters") else []
    if not dealt:
        yield
        return
    from deepspeed.runtime.zero import GatheredParameters  # pyright: ignore[reportMissingImports]

    hooks = next(p._z3_optimizer for p in dealt if hasattr(p, "_z3_optimizer")).parameter_offload
    with GatheredParameters(dealt):
        for p in dealt:
            p.ds_active_sub_modules.clear()
        for hook in (*hooks.forward_hooks, *hooks.backward_hooks):
            hook.remove()
        hooks.forward_hooks, hooks.backward_hooks = [], []
        try:
            yield
        finally:
            hooks._register_deepspeed_module(hooks.module)


def whole(x: Tensor) -> Tensor:
    """A tensor put together from all processes, which must all ask; one that is whole already as it is."""
    if not hasattr(x, "ds_id"):
        return x.full_tensor() if isinstance(x, DTensor) else x
    from deepspeed.runtime.zero import GatheredParameters  # pyright: ignore[reportMissingImports]

    with GatheredParameters([x]):
        return x.detach().clone()


def as_held(x: Tensor, like: Tensor) -> Tensor:
    """A whole tensor in the form in which another one is held: dealt out or not."""
    return distribute_tensor(x, like.device_mesh, like.placements) if isinstance(like, DTensor) else x


def whole_state(model: Any) -> dict[str, Tensor] | None:
    """What `save_pretrained` writes, put together; None where the model is whole anyway. All processes must ask."""
    if not any(isinstance(p, DTensor) or hasattr(p, "ds_id") for p in model.parameters()):
        return None
    return {name: whole(x).detach().cpu() for name, x in model.state_dict(keep_vars=True).items()}
