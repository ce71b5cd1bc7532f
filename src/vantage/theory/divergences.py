"""KL(p‖q): exact for the families in use, and the estimators k1, k2, k3 from samples of p.

The first argument is always the distribution in front of the bar, the one the expectation is taken under.
"""

from jaxtyping import Float

from vantage.theory._array import Array, namespace


def log_softmax(logits: Float[Array, "*S A"]) -> Float[Array, "*S A"]:
    """log p_a = z_a − log Σ_b exp z_b, with −inf kept where a logit is −inf. Shapes `[…, A]` → `[…, A]`; nats."""
    xp = namespace(logits)
    peak = xp.max(logits, axis=-1, keepdims=True)
    shifted = logits - peak
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))


def _finite(log_p: Array) -> Array:
    """log p, and 0 where p = 0, so that 0 · (−inf) never occurs in values or gradients."""
    xp = namespace(log_p)
    return xp.where(xp.exp(log_p) > 0, log_p, 0.0)


def categorical_entropy(logits: Float[Array, "*S A"]) -> Float[Array, "*S"]:
    """H = −Σ_a p_a log p_a of a categorical distribution. Shapes `[…, A]` → `[…]`; nats; finite under −inf logits."""
    xp = namespace(logits)
    log_p = log_softmax(logits)
    return -xp.sum(xp.exp(log_p) * _finite(log_p), axis=-1)


def categorical_kl(p: Float[Array, "*S A"], q: Float[Array, "*S A"]) -> Float[Array, "*S"]:
    """KL(p‖q) of two categorical distributions given by logits.

        Σ_a p_a (log p_a − log q_a)

    Shapes `[…, A]` twice → `[…]`. Units: nats. Actions with p_a = 0 count nothing, so common −inf logits leave it
    finite.
    """
    xp = namespace(p)
    log_p, log_q = log_softmax(p), log_softmax(q)
    return xp.sum(xp.exp(log_p) * (_finite(log_p) - xp.where(xp.exp(log_p) > 0, log_q, 0.0)), axis=-1)


def gaussian_kl(
    mean_p: Float[Array, "*S D"],
    log_std_p: Float[Array, "*S D"],
    mean_q: Float[Array, "*S D"],
    log_std_q: Float[Array, "*S D"],
) -> Float[Array, "*S"]:
    """KL(p‖q) of two diagonal Gaussians.

        Σ_i log(σ_q/σ_p) + (σ_p² + (μ_p − μ_q)²) / (2 σ_q²) − ½

    Shapes `[…, D]` four times → `[…]`. Units: nats.
    """
    xp = namespace(mean_p)
    spread = xp.exp(2.0 * (log_std_p - log_std_q))
    distance = ((mean_p - mean_q) * xp.exp(-log_std_q)) ** 2
    return xp.sum(log_std_q - log_std_p + 0.5 * (spread + distance) - 0.5, axis=-1)


def bernoulli_kl(p: Float[Array, "*S D"], q: Float[Array, "*S D"]) -> Float[Array, "*S"]:
    """KL(p‖q) of two products of independent Bernoulli variables given by logits, summed over the last axis.

    Shapes `[…, D]` twice → `[…]`. Units: nats. A Bernoulli logit z is the categorical with logits (0, z).
    """
    xp = namespace(p)
    return xp.sum(categorical_kl(two_logits(p), two_logits(q)), axis=-1)


def two_logits(z: Float[Array, "*S"]) -> Float[Array, "*S 2"]:
    """The logits (0, z) of the two outcomes (0, 1) of a Bernoulli variable with logit z. Shapes `[…]` → `[…, 2]`."""
    xp = namespace(z)
    return xp.stack([xp.zeros_like(z), z], axis=-1)


def k1(log_p: Float[Array, "*S"], log_q: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """The plain estimator of KL(p‖q) from samples x ∼ p.

        k1 = log p(x) − log q(x)

    Shapes: alike. Units: nats. Unbiased, may be negative. With x ∼ p = π_θ fixed, E[∇k1] = 0: as a loss it does
    nothing. With x ∼ p fixed and q = π_θ (the policy constraint), E[∇k1] = ∇KL(p‖π_θ). Source: Schulman (2020),
    "Approximating KL divergence".
    """
    return log_p - log_q


def k2(log_p: Float[Array, "*S"], log_q: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """The squared estimator of KL(p‖q) from samples x ∼ p.

        k2 = ½ (log p(x) − log q(x))²

    Shapes: alike. Units: nats. Biased in value, never negative. With x ∼ p = π_θ, E[∇k2] = ∇KL(π_θ‖q). Source: as k1.
    """
    return 0.5 * (log_p - log_q) ** 2


def k3(log_p: Float[Array, "*S"], log_q: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """The low-variance estimator of KL(p‖q) from samples x ∼ p.

        k3 = q(x)/p(x) − 1 − log(q(x)/p(x))

    Shapes: alike. Units: nats. Unbiased in value, never negative. With x ∼ p = π_θ, E[∇k3] = ∇KL(q‖π_θ), the
    *other* direction; with p fixed and q = π_θ, E[∇k3] = ∇KL(p‖π_θ). Source: as k1.
    """
    xp = namespace(log_p)
    log_ratio = log_q - log_p
    return xp.exp(log_ratio) - 1.0 - log_ratio
