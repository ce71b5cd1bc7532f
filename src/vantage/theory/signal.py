"""What Ψ reads in the place of the reward where a policy must not leave a reference model far behind."""

from jaxtyping import Bool, Float

from vantage.theory._array import Array, keep
from vantage.theory.divergences import k1


def kl_signal(
    reward: Float[Array, "*S"],
    log_prob: Float[Array, "*S"],
    reference_log_prob: Float[Array, "*S"],
    beta: float | Float[Array, ""],
    mask: Bool[Array, "*S"] | None = None,
) -> Float[Array, "*S"]:
    """The reward less the price of a sampled nat of KL(π‖π_ref).

        r_t − β (log π(a_t|s_t) − log π_ref(a_t|s_t)),    a_t ∼ π

    Shapes: alike; masked entries become 0. Units: reward, β in reward per nat. With γ = 1 the sum over an answer has
    the mean E[R] − β KL(π‖π_ref), and its policy gradient is that of the KL too, though E[∇k1] = 0. Source: Ziegler et
    al. (2019) section 2; theory 8.7.
    """
    return keep(reward, mask) - beta * k1(keep(log_prob, mask), keep(reference_log_prob, mask))
