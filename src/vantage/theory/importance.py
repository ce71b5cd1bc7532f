"""Importance weights: data taken under one policy, expectations under another."""

from jaxtyping import Bool, Float

from vantage.theory import reduce
from vantage.theory._array import Array, keep, namespace
from vantage.theory.scan import reverse_scan


def ratio(log_prob: Float[Array, "*S"], log_prob_old: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """The weight of one decision.

        r_t(θ) = π_θ(a_t|s_t) / π_old(a_t|s_t)

    Shapes: alike. Units: log-probabilities in nats, the ratio has none. E_{a∼π_old}[r_t] = 1.
    Source: Schulman et al. (2017) section 3; theory 8.2.
    """
    return namespace(log_prob).exp(log_prob - log_prob_old)


def truncated_ratio(
    log_prob: Float[Array, "*S"], log_prob_actor: Float[Array, "*S"], cap: float | Float[Array, ""]
) -> Float[Array, "*S"]:
    """The weight of a decision that another policy μ took, bounded above.

        min(π(a_t|s_t) / μ(a_t|s_t), c)

    Shapes: alike. Units: none. Unbounded it is unbiased; the bound trades bias for variance. Source: Espeholt et al.
    (2018) eq. 1 with ρ̄ = c; Yao et al. (2025) for generators of language models.
    """
    weight = ratio(log_prob, log_prob_actor)
    return namespace(weight).where(weight > cap, cap + 0.0 * weight, weight)


def banded_ratio(
    log_prob: Float[Array, "*S"],
    log_prob_actor: Float[Array, "*S"],
    low: float | Float[Array, ""],
    high: float | Float[Array, ""],
) -> Float[Array, "*S"]:
    """The weight of a decision that another policy μ took, where the two agree, else 0.

        w_t = π(a_t|s_t) / μ(a_t|s_t)   if low ≤ w_t ≤ high,   0 otherwise

    Shapes: alike. Units: none. Source: Ling Team (2025), "IcePop".
    """
    xp, weight = namespace(log_prob), ratio(log_prob, log_prob_actor)
    return xp.where(xp.logical_and(weight >= low, weight <= high), weight, 0.0)


def step_weight(
    log_prob: Float[Array, "T *B"],
    log_prob_old: Float[Array, "T *B"],
    last: Bool[Array, "T *B"],
    mask: Bool[Array, "T *B"] | None = None,
) -> Float[Array, "T *B"]:
    """The weight of everything an episode did up to and including step t (per-decision importance sampling).

        w_t = Π_{t'≤t} π_θ(a_{t'}|s_{t'}) / π_old(a_{t'}|s_{t'})

    Shapes `[T, …]`; restarts after `last`. Units: none. E_{τ∼π_old}[w_t f(s_t, a_t)] = E_{τ∼π_θ}[f(s_t, a_t)],
    which the one-step ratio alone does not give. Source: Precup et al. (2000); theory 8.2.
    """
    xp = namespace(log_prob)
    difference = keep(log_prob, mask) - keep(log_prob_old, mask)
    return keep(xp.exp(_prefix_sum(xp, difference, _cut(xp, last, mask))), mask)


def trajectory_weight(
    log_prob: Float[Array, "T *B"],
    log_prob_old: Float[Array, "T *B"],
    last: Bool[Array, "T *B"],
    mask: Bool[Array, "T *B"] | None = None,
) -> Float[Array, "T *B"]:
    """The weight of the whole episode, the same number at each of its steps.

        w(τ) = P(τ|π_θ) / P(τ|π_old) = Π_t π_θ(a_t|s_t) / π_old(a_t|s_t)      (ρ₀ and P cancel)

    Shapes `[T, …]`. Units: none. Gives ∇J(π_θ) exactly in expectation; its variance grows exponentially with the
    length. Source: theory 8.2.
    """
    xp = namespace(log_prob)
    difference, last = keep(log_prob, mask) - keep(log_prob_old, mask), _cut(xp, last, mask)
    later = reverse_scan(difference, 1.0 - xp.astype(last, difference.dtype))
    return keep(xp.exp(_prefix_sum(xp, difference, last) + later - difference), mask)


def _cut(xp, last, mask):
    """Where an episode really ends: what stands in masked rows does not count."""
    return last if mask is None else xp.logical_and(last, mask)


def _prefix_sum(xp, x, last):
    """Σ_{t'≤t} x_{t'} within the segment: the backward recursion run on the reversed time axis."""
    begins = xp.concat([xp.ones_like(last[:1]), last[:-1]])
    carried = 1.0 - xp.astype(begins, x.dtype)
    return xp.flip(reverse_scan(xp.flip(x, axis=0), xp.flip(carried, axis=0)), axis=0)


def effective_sample_size(
    ratio: Float[Array, "*S"], mask: Bool[Array, "*S"] | None = None, weight: Array | None = None
) -> Float[Array, ""]:
    """Kish's effective sample size: how many samples of equal importance would be as good.

        ESS = (Σ c w)² / Σ c w²,    w the importance weights, c the multiplicities (1 unless `weight` is given)

    Shapes: any → scalar. Units: samples, at most Σ c, and at least 1 for c = 1. ESS/n → 1/E[w²] for weights of mean 1.
    Source: Kish (1965); theory 8.2.
    """
    ratio = keep(ratio, mask)
    return reduce.reduce(ratio, mask, weight, 1.0) ** 2 / reduce.reduce(ratio**2, mask, weight, 1.0)
