"""The only backward recursion of the library; returns, GAE, λ-returns and V-trace are calls of it."""

import array_api_compat as compat
from jaxtyping import Bool, Float

from vantage.theory._array import Array, keep, namespace


def reverse_scan(
    x: Float[Array, "T *B"], decay: Float[Array, "T *B"], mask: Bool[Array, "T *B"] | None = None
) -> Float[Array, "T *B"]:
    """Accumulate backwards in time, cutting wherever the decay is 0.

        y_t = x_t + c_t · y_{t+1},   y_T = 0
        a masked row hands y_{t+1} on unchanged and outputs 0

    Shapes: x, decay c, mask and y are `[T, …]`. Units: those of x. Differentiable on every backend.
    Cost: O(T) for JAX (`lax.scan`), O(T log T) vectorised by doubling for NumPy and PyTorch.
    """
    xp = namespace(x, decay)
    x = keep(x, mask)
    decay = decay if mask is None else xp.where(mask, decay, 1.0)
    y = _scan_jax(x, decay) if compat.is_jax_array(x) else _scan_doubling(xp, x, decay)
    return keep(y, mask)


def _scan_jax(x, decay):
    from jax import lax
    from jax import numpy as jnp

    return lax.scan(_step, jnp.zeros_like(x[0]), (x, decay), reverse=True)[1]


def _step(y, row):
    """One row; a function of the module, so that JAX outside of `jit` compiles the scan once, not at each call."""
    x, decay = row
    y = x + decay * y
    return y, y


def _scan_doubling(xp, x, decay):
    """After the round with stride s each row holds the sum over the 2s rows that begin there."""
    steps, stride = x.shape[0], 1
    while stride < steps:
        x = xp.concat([x[:-stride] + decay[:-stride] * x[stride:], x[-stride:]])
        stride *= 2
        if stride < steps:
            half = stride // 2
            decay = xp.concat([decay[:-half] * decay[half:], decay[-half:] * 0.0])
    return x


def shift_back(x: Float[Array, "T *B"], end: float = 0.0) -> Float[Array, "T *B"]:
    """x_{t+1} at row t, and `end` in the last row. Shapes `[T, …]` → `[T, …]`."""
    xp = namespace(x)
    return xp.concat([x[1:], xp.full_like(x[:1], end)])
