"""Importance weights: data taken under one policy, expectations under another."""

from jaxtyping import Bool, Float

from vantage.theory._array import Array, namespace
from vantage.theory.scan import reverse_scan


def ratio(log_prob: Float[Array, "*S"], log_prob_old: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """The weight of one decision.

        r_t(θ) = π_θ(a_t|s_t) / π_old(a_t|s_t)

    Shapes: alike. Units: log-probabilities in nats, the ratio has none. E_{a∼π_old}[r_t] = 1.
    Source: Schulman et al. (2017) section 3; theory 8.2.
    """
    return namespace(log_prob).exp(log_prob - log_prob_old)


def step_weight(
    log_prob: Float[Array, "T *B"],
    log_prob_old: Float[Array, "T *B"],
    last: Bool[Array, "T *B"],
    mask: Bool[Array, "T *B"] | None = None,
) -> Float[Array, "T *B"]:
    """The weight of everything an episode did up to and including step t (per-decision importance sampling).

        w_t = Π_{t'≤t} π_θ(a_{t'}|s_{t'}) / π_old(a_{t'}|s_{t'})

    Shapes `[T, …]`; restarts after `last`. Units: none. E_{τ∼π_old}[w_t f(s_t, a_t)] = E_{τ∼π_θ}[f(s_t, a_t)], which the
    one-step ratio alone does not give. Source: Precup et al. (2000); theory 8.2.
    """
    xp = namespace(log_prob)
    difference = log_prob - log_prob_old
    difference = difference if mask is None else xp.where(mask, difference, 0.0)
    return xp.exp(_prefix_sum(xp, difference, last))


def trajectory_weight(
    log_prob: Float[Array, "T *B"],
    log_prob_old: Float[Array, "T *B"],
    last: Bool[Array, "T *B"],
    mask: Bool[Array, "T *B"] | None = None,
) -> Float[Array, "T *B"]:
    """The weight of the whole episode, the same number at each of its steps.

        w(τ) = P(τ|π_θ) / P(τ|π_old) = Π_t π_θ(a_t|s_t) / π_old(a_t|s_t)      (ρ₀ and P cancel)

    Shapes `[T, …]`. Units: none. Gives ∇J(π_θ) exactly in expectation; its variance grows exponentially with the length.
    Source: theory 8.2.
    """
    xp = namespace(log_prob)
    difference = log_prob - log_prob_old
    difference = difference if mask is None else xp.where(mask, difference, 0.0)
    later = reverse_scan(difference, xp.where(last, 0.0 * difference, 1.0 + 0.0 * difference))
    return xp.exp(_prefix_sum(xp, difference, last) + later - difference)


def _prefix_sum(xp, x, last):
    """Σ_{t'≤t} x_{t'} within the segment: the backward recursion run on the reversed time axis."""
    begins = xp.concat([xp.ones_like(last[:1]), last[:-1]])
    keep = xp.where(begins, 0.0 * x, 1.0 + 0.0 * x)
    return xp.flip(reverse_scan(xp.flip(x, axis=0), xp.flip(keep, axis=0)), axis=0)


def effective_sample_size(weight: Float[Array, "*S"], mask: Bool[Array, "*S"] | None = None) -> Float[Array, ""]:
    """Kish's effective sample size: how many equally weighted samples would be as good.

        ESS = (Σ w)² / Σ w²

    Shapes: any → scalar. Units: samples, between 1 and n. ESS/n → 1/E[w²] for weights of mean 1.
    Source: Kish (1965); theory 8.2.
    """
    xp = namespace(weight)
    weight = weight if mask is None else xp.where(mask, weight, 0.0)
    return xp.sum(weight) ** 2 / xp.sum(weight**2)
