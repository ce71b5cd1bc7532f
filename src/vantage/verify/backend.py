"""The array libraries a claim is checked on, each in float64: how to make arrays, read them back and differentiate."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, replace
from importlib.util import find_spec
from typing import Any

import numpy as np

from vantage.rollout import Rollout

Array = Any
STEP = 2e-3
STENCIL = ((1, 45 / 60), (2, -9 / 60), (3, 1 / 60))


class Backend:
    """NumPy, whose gradients are central differences of sixth order (error about 1e-12)."""

    name = "numpy"

    def context(self) -> AbstractContextManager[Any]:
        """Where everything below must happen: float64, switched on for this claim and off again."""
        return nullcontext()

    def array(self, x: Any) -> Array:
        """x as an array of this library; floats become float64."""
        return np.asarray(x)

    def numpy(self, x: Array) -> Array:
        """An array of this library as NumPy's."""
        return np.asarray(x)

    def gradient(self, f: Callable[[Array], Array], x: Array) -> Array:
        """∇f at x, for scalar f, as a NumPy array."""
        x = np.asarray(x, dtype=np.float64)
        slope = np.zeros_like(x)
        for i in np.ndindex(*x.shape):
            e = np.zeros_like(x)
            e[i] = STEP
            slope[i] = sum(c * (f(x + k * e) - f(x - k * e)) for k, c in STENCIL) / STEP
        return slope

    def rollout(self, rollout: Rollout) -> Rollout:
        """The same record with arrays of this library."""
        return self._convert(rollout, self.array)

    def read(self, record: Any) -> Any:
        """The same record (a Rollout or a Batch) with NumPy arrays."""
        return self._convert(record, self.numpy)

    @staticmethod
    def _convert(record: Any, convert: Callable[[Any], Any]) -> Any:
        def each(x: Any) -> Any:
            return tuple(map(each, x)) if isinstance(x, tuple) else convert(x) if hasattr(x, "shape") else x

        return replace(record, **{f.name: each(getattr(record, f.name)) for f in fields(record)})


class JaxBackend(Backend):
    """JAX, with 64-bit mode on inside the context only."""

    name = "jax"

    def __init__(self) -> None:
        """Use the cache of compiled functions that training uses: compiling is most of the time."""
        from vantage.control._compile import use_cache

        use_cache()

    def context(self) -> AbstractContextManager[Any]:
        import jax

        return jax.enable_x64(True)

    def array(self, x: Any) -> Array:
        import jax.numpy as jnp

        return jnp.asarray(np.asarray(x))

    def gradient(self, f: Callable[[Array], Array], x: Array) -> Array:
        import jax

        return np.asarray(jax.grad(f)(self.array(x)))


class TorchBackend(Backend):
    """PyTorch, in float64 on the CPU."""

    name = "torch"

    def array(self, x: Any) -> Array:
        import torch

        return torch.as_tensor(np.array(x))

    def numpy(self, x: Array) -> Array:
        return x.detach().numpy() if hasattr(x, "detach") else np.asarray(x)

    def gradient(self, f: Callable[[Array], Array], x: Array) -> Array:
        import torch

        leaf = self.array(x).requires_grad_(True)
        value = f(leaf)
        slope = torch.autograd.grad(value, leaf, allow_unused=True)[0] if value.requires_grad else None
        return np.zeros(leaf.shape) if slope is None else slope.numpy()


BACKENDS: dict[str, type[Backend]] = {"numpy": Backend, "jax": JaxBackend, "torch": TorchBackend}


def installed(name: str) -> bool:
    """Whether the library of this backend can be imported."""
    return find_spec(name) is not None
