"""Ψ_t: the ways of weighing a step in the policy gradient ∇J = E_{τ∼π_θ}[Σ_t Ψ_t ∇log π_θ(a_t|s_t)].

Each function maps a sampled `[T, B]` record to a sampled `[T, B]` weight; none estimates an expectation by itself, and
none stops gradients. The two remaining Ψ, R(τ) and G_t, are `total_return` and `reward_to_go` in `returns`.
"""

from jaxtyping import Bool, Float, Int

from vantage.theory._array import Array, add_at, keep, namespace, take_last
from vantage.theory.scan import reverse_scan, shift_back


def td_error(
    reward: Float[Array, "*S"],
    value: Float[Array, "*S"],
    next_value: Float[Array, "*S"],
    discount: Float[Array, "*S"],
) -> Float[Array, "*S"]:
    """The temporal-difference error of the state value.

        δ_t = r_t + γ_t V(s_{t+1}) − V(s_t)

    Shapes: all `*S`. Units: reward. With V = V_π: E_{s_{t+1}∼P(·|s_t,a_t)}[δ_t] = A_π(s_t, a_t); with V = V_π + e it is
    biased for A_π by γ E[e(s_{t+1})] − e(s_t). Source: Sutton & Barto (2018) eq. 6.5; theory 6.6.
    """
    return reward + discount * next_value - value


def gae(
    reward: Float[Array, "T *B"],
    value: Float[Array, "T *B"],
    next_value: Float[Array, "T *B"],
    discount: Float[Array, "T *B"],
    last: Bool[Array, "T *B"],
    lam: float | Float[Array, ""],
    mask: Bool[Array, "T *B"] | None = None,
) -> Float[Array, "T *B"]:
    """Generalised advantage estimation: TD errors summed with weight (γλ)^l up to the end of the segment.

        Â_t = δ_t + γ_t λ (1 − last_t) Â_{t+1}   (= Σ_l (γλ)^l δ_{t+l})

    Shapes `[T, …]`. Units: reward. λ = 0: the TD error. λ = 1: G_t − V(s_t). Unbiased for A_π if V = V_π (any λ); the
    gradient it gives is unbiased for every V if λ = 1 and segments end by termination.
    Source: Schulman et al. (2016) eq. 16; theory 8.3.
    """
    xp = namespace(reward)
    reward, value, next_value, discount = (keep(x, mask) for x in (reward, value, next_value, discount))
    delta = td_error(reward, value, next_value, discount)
    return reverse_scan(delta, xp.where(last, 0.0, discount * lam), mask)


def lambda_return(
    reward: Float[Array, "T *B"],
    value: Float[Array, "T *B"],
    next_value: Float[Array, "T *B"],
    discount: Float[Array, "T *B"],
    last: Bool[Array, "T *B"],
    lam: float | Float[Array, ""],
    mask: Bool[Array, "T *B"] | None = None,
) -> Float[Array, "T *B"]:
    """The λ-return, the critic's target that belongs to GAE(λ).

        R_t = Â_t + V(s_t)

    Shapes `[T, …]`. Units: reward. λ = 0: r_t + γ_t V(s_{t+1}); λ = 1: G_t. Source: Sutton & Barto (2018) eq. 12.2;
    theory 8.7.
    """
    return gae(reward, value, next_value, discount, last, lam, mask) + keep(value, mask)


def k_step(
    reward: Float[Array, "T *B"],
    value: Float[Array, "T *B"],
    next_value: Float[Array, "T *B"],
    discount: Float[Array, "T *B"],
    last: Bool[Array, "T *B"],
    k: int,
    mask: Bool[Array, "T *B"] | None = None,
) -> Float[Array, "T *B"]:
    """The k-step advantage: k rewards are sampled, then the critic is trusted; cut earlier where the segment ends.

        Â_t^{(k)} = r_t + γ r_{t+1} + … + γ^{k−1} r_{t+k−1} + γ^k V(s_{t+k}) − V(s_t) = Σ_{l<k} γ^l δ_{t+l}

    Shapes `[T, …]`; k counts decisions, so masked rows do not use it up. Units: reward. k = 1: the TD error.
    Raises ValueError for k < 1. Source: Schulman et al. (2016) eq. 11-14.
    """
    if k < 1:
        raise ValueError(f"k_step: k = {k} must be at least 1; k = 1 is the TD error")
    if k >= reward.shape[0]:
        return gae(reward, value, next_value, discount, last, 1.0, mask)
    xp = namespace(reward)
    reward, value, next_value, discount = (keep(x, mask) for x in (reward, value, next_value, discount))
    delta, decay = td_error(reward, value, next_value, discount), xp.where(last, 0.0, discount)
    total = delta
    for _ in range(k - 1):
        total = delta + decay * shift_back(_next_real(xp, total, mask))
    return total


def _next_real(xp, x, mask):
    """x at the nearest real row at or after each row (0 if there is none)."""
    return x if mask is None else reverse_scan(keep(x, mask), 1.0 - xp.astype(mask, x.dtype))


def vtrace(
    reward: Float[Array, "T *B"],
    value: Float[Array, "T *B"],
    next_value: Float[Array, "T *B"],
    discount: Float[Array, "T *B"],
    last: Bool[Array, "T *B"],
    ratio: Float[Array, "T *B"],
    lam: float | Float[Array, ""] = 1.0,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
    mask: Bool[Array, "T *B"] | None = None,
) -> tuple[Float[Array, "T *B"], Float[Array, "T *B"]]:
    """V-trace: the value target v_t and the advantage for a policy π other than the one that acted.

        v_t = V(s_t) + Σ_l γ^l (Π_{i<l} c_{t+i}) ρ_{t+l} δ_{t+l},   ρ = min(ρ̄, π/μ),   c = λ min(c̄, π/μ)
        Â_t = ρ_t (r_t + γ_t v_{t+1} − V(s_t)),   v_{t+1} = V(s_{t+1}) at the end of a segment

    Shapes `[T, …]`; `ratio` is π(a_t|s_t)/μ(a_t|s_t). Units: reward. With ratio 1 and λ = 1: v_t = G_t.
    Source: Espeholt et al. (2018) eq. 1 and section 4.2.
    """
    xp = namespace(reward)
    reward, value, next_value, discount, ratio = (keep(x, mask) for x in (reward, value, next_value, discount, ratio))
    rho = xp.where(ratio > rho_bar, rho_bar, ratio)
    trace = lam * xp.where(ratio > c_bar, c_bar, ratio)
    correction = rho * td_error(reward, value, next_value, discount)
    target = value + reverse_scan(correction, xp.where(last, 0.0, discount * trace), mask)
    reached = xp.where(last, next_value, shift_back(_next_real(xp, target, mask)))
    return target, keep(rho * td_error(reward, value, reached, discount), mask)


def action_value(q: Float[Array, "*S A"], action: Int[Array, "*S"]) -> Float[Array, "*S"]:
    """Q(s_t, a_t) of the action taken, read from the values of all actions.

    Shapes `[…, A]`, `[…]` → `[…]`. Units: reward. Unbiased as Ψ if Q = Q_π. Source: theory 6.1(4), 6.4.
    """
    return take_last(q, action)


def advantage(
    q: Float[Array, "*S A"], action: Int[Array, "*S"], probabilities: Float[Array, "*S A"]
) -> Float[Array, "*S"]:
    """A(s_t, a_t) from the values of all actions under the policy's probabilities.

        A(s, a) = Q(s, a) − V(s),   V(s) = Σ_a π(a|s) Q(s, a)

    Shapes `[…, A]`, `[…]`, `[…, A]` → `[…]`. Units: reward. Unbiased as Ψ if Q = Q_π. Source: theory 6.1(5), 6.5.
    """
    return action_value(q, action) - expected_value(q, probabilities)


def expected_value(q: Float[Array, "*S A"], probabilities: Float[Array, "*S A"]) -> Float[Array, "*S"]:
    """The value of a state from the values of all actions, under the policy's probabilities.

        V(s) = Σ_a π(a|s) Q(s, a)   (= E_{a∼π(·|s)}[Q(s, a)])

    Shapes `[…, A]`, `[…, A]` → `[…]`. Units: reward. An action of probability 0 counts nothing, whatever its Q.
    Source: theory 6.5.
    """
    xp = namespace(q)
    return xp.sum(xp.where(probabilities > 0, probabilities * q, 0.0), axis=-1)


def expected_sarsa(
    reward: Float[Array, "*S"], next_value: Float[Array, "*S"], discount: Float[Array, "*S"]
) -> Float[Array, "*S"]:
    """The target of a critic of actions: all next actions counted by their probability, none sampled.

        r_t + γ_t V(s_{t+1})

    Shapes: all `*S`; `next_value` is `expected_value` of Q at the state reached, V(s) = Σ_a π(a|s) Q(s, a). Units:
    reward. With Q = Q_π its mean given (s_t, a_t) is Q_π(s_t, a_t), and no other Q has this property. Source: van
    Seijen et al. (2009); Sutton & Barto (2018) eq. 6.9; theory 6.4.
    """
    return reward + discount * next_value


def mean_baseline(
    x: Float[Array, "*S"],
    key: Int[Array, "*S"],
    mask: Bool[Array, "*S"] | None = None,
    weight: Float[Array, "*S"] | None = None,
    leave_out: Int[Array, "*S"] | None = None,
) -> Float[Array, "*S"]:
    """A baseline b made from the samples: the mean of x over all entries that carry the same key.

        b_i = Σ_{j∈K_i} w_j x_j / Σ_{j∈K_i} w_j,   K_i = {j: key_j = key_i}   (and leave_out_j ≠ leave_out_i, if given)

    Keyed by state it is the theory's per-state baseline, keyed by prompt a group baseline. Shapes: all alike; keys
    and leave_out are integers. Units: those of x. The plain mean contains x_i itself, which shrinks the expected
    gradient by (1 − 1/n) for n independent entries; it stays unbiased if everything that depends on a_i is left
    out: with `leave_out` the number of the column (RLOO) or episode. Without companions b_i = 0. Source: theory
    6.1(3); Kool et al. (2019).
    """
    xp = namespace(x)
    w = keep(xp.ones_like(x) if weight is None else weight, mask)
    flat, w, label = (xp.reshape(y, (-1,)) for y in (keep(x, mask), w, key))
    total, count = _sum_by_key(xp, w * flat, label), _sum_by_key(xp, w, label)
    whole = count
    if leave_out is not None:
        own = xp.reshape(leave_out, (-1,))
        total, count = total - _sum_by_key(xp, w * flat, label, own), count - _sum_by_key(xp, w, label, own)
    some = count > 1e-6 * whole
    mean = xp.where(some, total / xp.where(some, count, 1.0), 0.0)
    return keep(xp.reshape(mean, x.shape), mask)


def group_relative(
    gain: Float[Array, "T B"],
    group: Int[Array, " B"],
    mask: Bool[Array, "T B"] | None = None,
    leave_one_out: bool = False,
    scale: bool = False,
    eps: float = 1e-4,
) -> Float[Array, "T B"]:
    """How much better a column's return is than those of its group, the same number at each of its steps.

        (G_b − mean_{j∈K_b} G_j) / (std_{j∈K_b} G_j + eps)    if `scale` is given
        G_b − mean_{j∈K_b} G_j                                 without it
        K_b = {j ≠ b: group_j = group_b}                       if `leave_one_out` is given
        K_b = {j: group_j = group_b}                           without it

    Shapes `[T, B]`, `[B]` → `[T, B]`; G_b is the return at the first real step of column b, std² has one less than the
    columns of the group below. Units: reward; none with `scale`. Leave one out (RLOO) is unbiased; the plain mean holds
    G_b itself and shrinks the gradient by 1 − 1/n for n columns, and the scale weighs groups by 1/std (GRPO): then it
    is not the gradient of E[G]. Source: Kool et al. (2019); Shao et al. (2024) section 4.1.
    """
    xp = namespace(gain)
    real = xp.ones_like(gain) > 0 if mask is None else mask
    known = xp.any(real, axis=0)
    first = take_last(keep(gain, real).T, xp.argmax(xp.astype(real, xp.int32), axis=0))
    own = xp.cumulative_sum(xp.ones_like(group)) if leave_one_out else None
    better = keep(first - mean_baseline(first, group, known, leave_out=own), known)
    if scale:
        count = _sum_by_key(xp, keep(xp.ones_like(first), known), group)
        spread = _sum_by_key(xp, better**2, group) / xp.where(count > 1, count - 1.0, 1.0)
        std = xp.where(spread > 0, xp.sqrt(xp.where(spread > 0, spread, 1.0)), 0.0)
        better = better / (std + eps)
    return keep(better + xp.zeros_like(gain), real)


def _sum_by_key(xp, x, *keys):
    """For each entry the sum of x over all entries that have all its keys: O(n log n), jittable."""
    order = xp.argsort(keys[0], stable=True)
    for key in keys[1:]:
        order = xp.take(order, xp.argsort(xp.take(key, order, axis=0), stable=True), axis=0)
    ranked = [xp.take(key, order, axis=0) for key in keys]
    new = sum(xp.astype(key[1:] != key[:-1], order.dtype) for key in ranked)
    group = xp.concat([xp.zeros_like(order[:1]), xp.cumulative_sum(xp.astype(new > 0, order.dtype))])
    sums = xp.take(add_at(xp.take(x, order, axis=0), group), group, axis=0)
    return xp.take(sums, xp.argsort(order, stable=True), axis=0)
