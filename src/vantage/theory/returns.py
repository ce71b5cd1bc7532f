"""Returns: R(τ), discounted R(τ) and G_t, all *samples*: functions of one trajectory that happened."""

import array_api_compat as compat
from jaxtyping import Bool, Float, Int

from vantage.theory._array import Array, is_traced, keep, namespace
from vantage.theory.scan import reverse_scan


def reward_to_go(
    reward: Float[Array, "T *B"],
    discount: Float[Array, "T *B"],
    last: Bool[Array, "T *B"],
    next_value: Float[Array, "T *B"] | None = None,
    mask: Bool[Array, "T *B"] | None = None,
) -> Float[Array, "T *B"]:
    """The return from step t on, G_t.

        G_t = r_t + γ_t G_{t+1}            inside an episode     (= Σ_{l=0}^{T−t−1} γ^l r_{t+l})
        G_t = r_t + γ_t V(s_{t+1})         where `last`, if `next_value` is given
        G_t = r_t                          where `last`, without it

    Shapes `[T, …]`. Units: reward. With discount = 1 it is the plain Σ_{t'≥t} r_{t'}. Unbiased for Q_π(s_t, a_t) when
    every column ends by termination. Source: Sutton & Barto (2018) eq. 3.8, 3.9; theory 6.1(2), 6.2.
    """
    xp = namespace(reward)
    reward, discount, next_value = (keep(x, mask) for x in (reward, discount, next_value))
    if next_value is not None:
        reward = reward + xp.where(last, discount * next_value, 0.0)
    return reverse_scan(reward, xp.where(last, 0.0, discount), mask)


def total_return(
    reward: Float[Array, "T *B"],
    discount: Float[Array, "T *B"],
    last: Bool[Array, "T *B"],
    time: Int[Array, "T *B"],
    mask: Bool[Array, "T *B"] | None = None,
) -> Float[Array, "T *B"]:
    """The return of the whole episode that step t belongs to, the same number at each of its steps.

        R(τ) = Σ_{t=0}^{T−1} r_t           with discount = 1
        R(τ) = Σ_{t=0}^{T−1} γ^t r_t       with discount = γ

    Shapes `[T, …]`; `time` counts from 0 at the first step of an episode. Units: reward.
    Raises ValueError for an episode whose first step is not in the data: R(τ) is not known there. Inside `jax.jit`,
    where values cannot be looked at, such steps become NaN instead. Source: theory 2.2, 2.3, 6.1(1).
    """
    xp = namespace(reward)
    real = mask if mask is not None else xp.ones_like(last)
    start = xp.logical_and(time == 0, real)
    known = _forward_fill(xp, xp.ones_like(reward), start, last, real)
    if not is_traced(known) and not bool(xp.all(xp.logical_or(known > 0.5, xp.logical_not(real)))):
        raise ValueError(
            "total_return: an episode's first step (time == 0) is missing, so R(τ) is unknown; "
            "collect whole episodes, or use reward_to_go, which needs only the future"
        )
    total = _forward_fill(xp, reward_to_go(reward, discount, last, None, mask), start, last, real)
    return xp.where(real, xp.where(known > 0.5, total, float("nan")), 0.0)


def _forward_fill(xp, x, start, last, real):
    """The value of x at the episode's first step, carried to its later steps (0 where no first step was seen)."""
    ended = xp.concat([xp.zeros_like(last[:1]), xp.logical_and(last, real)[:-1]])
    carried = 1.0 - xp.astype(xp.logical_or(start, ended), x.dtype)
    first = xp.where(start, x, 0.0)
    return xp.flip(reverse_scan(xp.flip(first, axis=0), xp.flip(carried, axis=0)), axis=0)


def discount_weight(time: Int[Array, "*S"], gamma: float | Float[Array, ""]) -> Float[Array, "*S"]:
    """γ^t, the weight of step t in the gradient of the *discounted* J.

    Shapes: as `time`; dtype: gamma's, if it is an array. Units: none. With it the policy gradient is exact for J_γ;
    without it (the usual practice) the direction is in general the gradient of no function at all.
    Source: Sutton & Barto (2018), REINFORCE box, section 13.3; Nota & Thomas (2020).
    """
    xp = namespace(time)
    plain = isinstance(gamma, float | int)
    base: Array = xp.asarray(gamma, dtype=None if compat.is_jax_array(time) else xp.float64) if plain else gamma
    return base ** xp.astype(time, base.dtype)
