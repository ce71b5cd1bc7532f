"""What moves, as arrays and back: trained parameters and Adam's moments, bit for bit."""

from typing import Any

import numpy as np
import torch

from vantage.language.moving import Moving
from vantage.language.roles import Roles
from vantage.language.sharding import as_held, whole
from vantage.language.zero import Engine, Zero

Array = Any
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def export(roles: Roles, moving: Moving | Zero) -> dict[str, Any]:
    """Nested arrays of everything that is trained, copied."""
    arrays: dict[str, Any] = {"actor": _named(roles.actor_parameters), "critic": _named(roles.critic_parameters)}
    arrays["actor_adam"] = _moments(moving.actor, roles.actor_parameters)
    if moving.critic is not None:
        arrays["critic_adam"] = _moments(moving.critic, roles.critic_parameters)
    return {name: part for name, part in arrays.items() if part}


def put(roles: Roles, moving: Moving | Zero, arrays: dict[str, Any]) -> None:
    """Restore what `export` copied into models of the same make."""
    pairs = [("actor", roles.actor_parameters, moving.actor), ("critic", roles.critic_parameters, moving.critic)]
    with torch.no_grad():
        for name, parameters, optimiser in pairs:
            moments = arrays.get(f"{name}_adam", {})
            if isinstance(optimiser, Engine):
                for key, parameter in parameters:
                    state = {k: _tensor(x, parameter) for k, x in moments.get(key, {}).items()}
                    optimiser.put(parameter, _tensor(arrays[name][key], parameter), state)
                continue
            for key, parameter in parameters:
                parameter.copy_(_tensor(arrays[name][key], parameter))
            if optimiser is not None:
                _put_moments(optimiser, parameters, moments)


def _named(parameters: list[tuple[str, Any]]) -> dict[str, Array]:
    return {name: _array(p) for name, p in parameters}


def _moments(optimiser: Any, parameters: list[tuple[str, Any]]) -> dict[str, Array]:
    if isinstance(optimiser, Engine):
        held = {name: state for name, p in parameters if (state := optimiser.moments(p))}
    else:
        held = {name: optimiser.state[p] for name, p in parameters if p in optimiser.state}
    return {name: {key: _array(state[key]) for key in MOMENTS} for name, state in held.items()}


def _put_moments(optimiser: Any, parameters: list[tuple[str, Any]], arrays: dict[str, Any]) -> None:
    for name, p in parameters:
        optimiser.state.pop(p, None)
        if name in arrays:
            like = {"step": torch.zeros(()), "exp_avg": p, "exp_avg_sq": p}
            optimiser.state[p] = {key: _tensor(arrays[name][key], like[key]) for key in MOMENTS}


def _array(x: torch.Tensor) -> Array:
    """A copy; bfloat16, which NumPy lacks, as its bits."""
    x = whole(x).detach().cpu()
    return np.array(x.view(torch.int16).numpy() if x.dtype == torch.bfloat16 else x.numpy())


def _tensor(x: Array, like: torch.Tensor) -> torch.Tensor:
    found = torch.from_numpy(np.array(x))
    found = found.view(torch.bfloat16) if like.dtype == torch.bfloat16 and found.dtype == torch.int16 else found
    return as_held(found.to(like.device), like)
