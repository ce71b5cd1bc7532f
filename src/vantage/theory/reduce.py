"""From `[T, B]` to a number, with the denominator said aloud.

    reduce(x) = Σ_{t,b} w_b m_{tb} x_{tb} / total

The same x gives another number for another `total`: steps (a mean over decisions), columns (Σ over time, mean over
columns: the one whose policy gradient is literally ∇J), trajectories, or a constant. Since `total` may be passed
in, a batch can be split in any way and the parts still add up to the whole.
"""

from jaxtyping import Bool, Float

from vantage.theory._array import Array, keep, namespace


def _weights(x: Array, mask: Array | None, weight: Array | None) -> Array:
    xp = namespace(x)
    return keep(xp.ones_like(x) if weight is None else weight + xp.zeros_like(x), mask)


def _sum(x: Array, mask: Array | None, weight: Array | None) -> Array:
    return namespace(x).sum(keep(x, mask) * _weights(x, mask, weight))


def total_steps(x: Float[Array, "*S"], mask: Bool[Array, "*S"] | None = None, weight: Array | None = None) -> Array:
    """The (weighted) number of real steps, Σ_{t,b} w_b m_{tb}. Shapes: any → scalar; x gives shape and dtype only."""
    return namespace(x).sum(_weights(x, mask, weight))


def total_columns(x: Float[Array, "T B"], mask: Bool[Array, "T B"] | None = None, weight: Array | None = None) -> Array:
    """The (weighted) number of columns, Σ_b w_b, of those with a real step. Shapes `[T, B]` → scalar."""
    return namespace(x).sum(namespace(x).max(_weights(x, mask, weight), axis=0))


def total_trajectories(
    x: Float[Array, "T B"],
    last: Bool[Array, "T B"],
    mask: Bool[Array, "T B"] | None = None,
    weight: Array | None = None,
) -> Array:
    """The (weighted) number of segments, Σ_{t,b} w_b m_{tb} last_{tb}. Shapes `[T, B]` → scalar."""
    xp = namespace(x)
    return xp.sum(xp.where(last, _weights(x, mask, weight), 0.0))


def column_share(x: Float[Array, "T B"], mask: Bool[Array, "T B"] | None = None) -> Float[Array, "T B"]:
    """The weight 1/n_b of a real step in a column of n_b real steps, so that every column counts alike.

        w_{tb} = m_{tb} / Σ_t m_{tb}

    Shapes `[T, B]` → `[T, B]`; x gives shape and dtype only. Units: none. Source: Shao et al. (2024) eq. 3.
    """
    xp = namespace(x)
    real = _weights(x, mask, None)
    count = xp.sum(real, axis=0)
    return real / xp.where(count > 0, count, 1.0)


def clip_factor(norm: Float[Array, "*S"], bound: float | Float[Array, ""]) -> Float[Array, "*S"]:
    """What a gradient of this length is multiplied by, so that it is no longer than the bound.

        min(1, bound / ‖g‖)

    Shapes: any → the same; a length of 0 gives 1. Units: none. Source: Pascanu et al. (2013) algorithm 1.
    """
    xp, long = namespace(norm), norm > bound
    return xp.where(long, bound / xp.where(long, norm, 1.0), 1.0)


def reduce(
    x: Float[Array, "*S"],
    mask: Bool[Array, "*S"] | None = None,
    weight: Array | None = None,
    total: float | Float[Array, ""] | None = None,
) -> Float[Array, ""]:
    """The weighted sum over real entries, divided by `total`.

        Σ w m x / total,    total = Σ w m unless given

    Shapes: any → scalar. Units: those of x. What stands under the mask, NaN included, has no influence. Where nothing
    is real the mean is NaN: there is none.
    """
    return _sum(x, mask, weight) / (total_steps(x, mask, weight) if total is None else total)


def mean(x: Float[Array, "*S"], mask: Bool[Array, "*S"] | None = None, weight: Array | None = None) -> Float[Array, ""]:
    """The weighted mean over real entries, Σ w m x / Σ w m. Shapes: any → scalar."""
    return reduce(x, mask, weight)


def variance(
    x: Float[Array, "*S"], mask: Bool[Array, "*S"] | None = None, weight: Array | None = None, ddof: int = 0
) -> Float[Array, ""]:
    """The weighted variance over real entries.

        Σ w m (x − mean)² / (Σ w m − ddof)

    Shapes: any → scalar. Units: x². `ddof=0` is the population variance, `ddof=1` the sample variance (for unit
    weights).
    """
    x = keep(x, mask)
    centred = (x - mean(x, mask, weight)) ** 2
    return _sum(centred, mask, weight) / (total_steps(x, mask, weight) - ddof)


def whiten(
    x: Float[Array, "*S"],
    mask: Bool[Array, "*S"] | None = None,
    weight: Array | None = None,
    *,
    shift: bool = True,
    eps: float = 1e-8,
    ddof: int = 0,
) -> Float[Array, "*S"]:
    """x scaled to unit variance and, unless `shift=False`, centred.

        (x − mean) / (√Var + eps)

    Shapes: any → the same; masked entries become 0. Units: none. As a transformation of Ψ it rescales the gradient
    and, because the mean holds each sample itself, biases it at order 1/n. Source: Huang et al. (2022), detail 7.
    """
    x = keep(x, mask)
    centred = x - mean(x, mask, weight) if shift else x
    return keep(centred / (namespace(x).sqrt(variance(x, mask, weight, ddof)) + eps), mask)
