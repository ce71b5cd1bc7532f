"""Critic losses, one number per step, `[…]` → `[…]`, and how much a critic explains.

No ½ anywhere (theory 7.2, 8.7).
"""

from jaxtyping import Bool, Float

from vantage.theory._array import Array, keep, namespace, stop_gradient
from vantage.theory.psi import td_error
from vantage.theory.reduce import variance


def squared(value: Float[Array, "*S"], target: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """The squared distance to a target that is data.

        (V_φ(s_t) − R_t)²

    Shapes: alike. Units: reward². No gradient flows into the target. Source: theory 8.7.
    """
    return (value - stop_gradient(target)) ** 2


def squared_td_error(
    reward: Float[Array, "*S"],
    value: Float[Array, "*S"],
    next_value: Float[Array, "*S"],
    discount: Float[Array, "*S"],
    residual: bool = False,
) -> Float[Array, "*S"]:
    """The squared TD error of the critic.

        (r_t + γ_t V_φ(s_{t+1}) − V_φ(s_t))²

    Semi-gradient (default): the target r_t + γ_t V_φ(s_{t+1}) is data, so that in expectation V_φ is pulled towards
    V_π. `residual=True`: the full gradient, whose fixed point differs from V_π when transitions are stochastic,
    because it also lowers the variance of the target. Shapes: alike. Units: reward². At V_φ = V_π its expectation is
    E[Var(r_t + γ V_π(s_{t+1}))], not 0. Source: Sutton & Barto (2018) sections 9.3, 11.5; theory 7.2.
    """
    return td_error(reward, value, next_value if residual else stop_gradient(next_value), discount) ** 2


def clipped_value(
    value: Float[Array, "*S"],
    value_old: Float[Array, "*S"],
    target: Float[Array, "*S"],
    width: float | Float[Array, ""],
) -> Float[Array, "*S"]:
    """The clipped critic loss, in its max form.

        V^CLIP = clip(V_φ, V_old − ε, V_old + ε)
        max((V_φ − R_t)², (V^CLIP − R_t)²)

    Shapes: alike. Units: width ε in those of the value. The gradient is 0 exactly where V_φ has left the band on
    the side towards R_t and is still nearer to R_t than the band's edge. Source: theory 8.7.
    """
    xp = namespace(value)
    target, value_old = stop_gradient(target), stop_gradient(value_old)
    inside = value_old + xp.clip(value - value_old, -width, width)
    return xp.maximum(squared(value, target), squared(inside, target))


def explained_variance(
    value: Float[Array, "*S"],
    target: Float[Array, "*S"],
    mask: Bool[Array, "*S"] | None = None,
    weight: Float[Array, "*S"] | None = None,
) -> Float[Array, ""]:
    """The share of the target's variance that the critic predicts.

        EV = 1 − Var(R − V) / Var(R)

    Shapes: any → scalar. Units: none; 1 is perfect, 0 no better than a constant, below 0 worse; NaN if the target
    is constant. With a λ-return as target it flatters the critic, because V stands inside R. Source:
    Stable-Baselines3 `explained_variance`.
    """
    xp = namespace(value)
    value, target = keep(value, mask), keep(target, mask)
    spread = variance(target, mask, weight)
    known = spread > 0
    share = variance(target - value, mask, weight) / xp.where(known, spread, 1.0 + 0.0 * spread)
    return xp.where(known, 1.0 - share, float("nan"))
