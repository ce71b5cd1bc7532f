"""FSDP2: each process holds a share of every parameter, gradient and moment; whole models only while they generate or
score, when processes need not keep step with one another.
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
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()


def whole(x: Tensor) -> Tensor:
    """A tensor put together from all processes, which must all ask; one that is whole already as it is."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def as_held(x: Tensor, like: Tensor) -> Tensor:
    """A whole tensor in the form in which another one is held: dealt out or not."""
    return distribute_tensor(x, like.device_mesh, like.placements) if isinstance(like, DTensor) else x


def whole_state(model: Any) -> dict[str, Tensor] | None:
    """What `save_pretrained` writes, put together; None where the model is whole anyway. All processes must ask."""
    if not isinstance(model, FSDPModule):
        return None
    return {name: whole(x).cpu() for name, x in model.state_dict().items()}  # pyright: ignore[reportAttributeAccessIssue]
