"""The few places where the three array libraries differ."""

from typing import Any

import array_api_compat as compat
import numpy as np

Array = Any


def namespace(*arrays: Any) -> Any:
    """The array-API namespace that the given arrays share (NumPy, JAX or PyTorch); numbers and None are skipped, and
    NumPy arrays beside JAX ones are JAX's, as they are to JAX itself.
    """
    found = [x for x in arrays if hasattr(x, "shape")]
    if any(compat.is_jax_array(x) for x in found):
        found = [x for x in found if not isinstance(x, np.ndarray | np.generic)]
    return compat.array_namespace(*found)


def stop_gradient(x: Any) -> Any:
    """x as data: its value, with no gradient flowing into whatever computed it."""
    if compat.is_torch_array(x):
        return x.detach()
    if compat.is_jax_array(x):
        from jax.lax import stop_gradient as freeze

        return freeze(x)
    return x


def is_traced(x: Any) -> bool:
    """Whether x is inside a JAX transformation, where its values cannot be looked at."""
    if not compat.is_jax_array(x):
        return False
    from jax.core import Tracer

    return isinstance(x, Tracer)


def keep(x: Any, mask: Any) -> Any:
    """x, and 0 where the mask is False, so that what stands there reaches no value and no gradient; None stays None."""
    return x if x is None or mask is None else namespace(x).where(mask, x, 0.0)


def add_at(x: Any, index: Any) -> Any:
    """Vector y with y[i] = Σ_{j: index_j = i} x_j, as long as x: each sum adds only its own members."""
    zeros = namespace(x).zeros_like(x)
    if compat.is_jax_array(x):
        return zeros.at[index].add(x)
    if compat.is_torch_array(x):
        return zeros.index_add(0, index, x)
    namespace(x).add.at(zeros, index, x)
    return zeros


def take_last(x: Any, index: Any) -> Any:
    """x[…, index[…]]: one entry of the last axis for each leading position."""
    xp = namespace(x)
    index = xp.astype(index, xp.int64) if not compat.is_jax_array(x) else index
    return xp.take_along_axis(x, index[..., None], axis=-1)[..., 0]
