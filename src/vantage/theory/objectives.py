"""Objectives: what an actor's step maximises, one number per decision; nothing here is reduced or negated.

Each is a *surrogate*: with Ψ and the sampling held fixed its gradient is the one wanted, its value is not J. Read
in this order each adds one thing to the one before: a likelihood, a ratio for reused data, a clip or a penalty that
keeps π near π_old.
"""

from jaxtyping import Bool, Float

from vantage.theory._array import Array, namespace


def likelihood(log_prob: Float[Array, "*S"], psi: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """The score-function surrogate of the policy gradient.

        Ψ_t log π_θ(a_t|s_t),    s_t, a_t ∼ π_θ

    Shapes: alike. Units: Ψ · nats. Source: Sutton & Barto (2018) eq. 13.8; theory 5.2, 7.1.
    """
    return psi * log_prob


def importance_weighted(ratio: Float[Array, "*S"], psi: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """The surrogate for data of π_old: adds the ratio.

        r_t(θ) Ψ_t,    s_t, a_t ∼ π_old

    Shapes: alike. Units: Ψ. Its gradient at π_θ = π_old is the policy gradient; elsewhere it is ∇L_{π_old}(π_θ),
    not ∇J(π_θ), since states still come from π_old. Source: Schulman et al. (2015) eq. 14; theory 8.2.
    """
    return ratio * psi


def clipped(
    ratio: Float[Array, "*S"],
    psi: Float[Array, "*S"],
    low: float | Float[Array, ""],
    high: float | Float[Array, ""] | None = None,
    dual: float | Float[Array, ""] | None = None,
) -> Float[Array, "*S"]:
    """The PPO-Clip surrogate: adds a bound on what moving away from π_old can earn.

        min(r_t Ψ_t, clip(r_t, 1 − ε_low, 1 + ε_high) Ψ_t)
        dual clip c > 1, where Ψ_t < 0:   max(the above, c Ψ_t)

    Shapes: alike. Units: ratios for ε and c, Ψ for the result; `high=None` means ε_high = ε_low. The gradient is 0
    exactly where Ψ_t > 0 and r_t > 1 + ε_high, or Ψ_t < 0 and (r_t < 1 − ε_low or, with dual clip, r_t > c).
    Source: Schulman et al. (2017) eq. 7; Ye et al. (2020) eq. 5 for the dual clip; theory 8.5.
    """
    xp = namespace(ratio)
    inside = xp.clip(ratio, 1.0 - low, 1.0 + (low if high is None else high))
    gain = xp.minimum(ratio * psi, inside * psi)
    return gain if dual is None else xp.where(psi < 0, xp.maximum(gain, dual * psi), gain)


def clip_fraction(
    ratio: Float[Array, "*S"], low: float | Float[Array, ""], high: float | Float[Array, ""] | None = None
) -> Bool[Array, "*S"]:
    """Whether a ratio lies outside the clip range: r_t < 1 − ε_low or r_t > 1 + ε_high.

    Shapes: as ratio. Averaged over steps it is `train/clip_fraction`. Source: theory 8.5.
    """
    xp = namespace(ratio)
    return xp.logical_or(ratio < 1.0 - low, ratio > 1.0 + (low if high is None else high))


def penalised(
    ratio: Float[Array, "*S"],
    psi: Float[Array, "*S"],
    kl: Float[Array, "*S"],
    beta: float | Float[Array, ""],
) -> Float[Array, "*S"]:
    """The PPO-Penalty surrogate: adds the price of moving away from π_old.

        r_t Ψ_t − β KL(π_old(·|s_t) ‖ π_θ(·|s_t))

    Shapes: alike. Units: Ψ, with kl in nats and β in Ψ per nat. Source: Schulman et al. (2017) eq. 8; theory 8.6.
    """
    return importance_weighted(ratio, psi) - beta * kl


def with_entropy(
    gain: Float[Array, "*S"], entropy: Float[Array, "*S"], coefficient: float | int | Float[Array, ""]
) -> Float[Array, "*S"]:
    """An objective with an entropy bonus.

        gain_t + c H(π_θ(·|s_t))

    Shapes: alike. Units: those of gain, entropy in nats. Source: Schulman et al. (2017) eq. 9.
    """
    return gain + coefficient * entropy
