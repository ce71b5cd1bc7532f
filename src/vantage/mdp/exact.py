"""What a policy is worth in a finite MDP, exactly: V, Q, A, J, ∇J, occupancy, KL, Fisher.

With `horizon=H` the world ends after H steps (a termination, not a cut), and values depend on time: V is `[H+1, S]`
with V_H = 0, Q, A and the occupancy are `[H, S, A]` and `[H, S]`. γ is the MDP's own in both cases.
"""

from typing import Any, Literal

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.special
from jaxtyping import Float, Int

from vantage.mdp import sparse
from vantage.mdp.model import MDP, Policy, as_policy, softmax, transition_matrix

Array = Any
TimeWeighting = Literal["discounted", "undiscounted"]


def state_values(mdp: MDP, policy: Policy, horizon: int | None = None) -> Float[Array, "*T1 S"]:
    """V(s) = Σ_a π(a|s) Σ_s' P(s'|s,a) [R(s,a,s') + γ V(s')], 0 in terminal states (theory 6.3).

    Shapes: `[S]`; with a horizon V_t(s), `[H+1, S]`. Units of discounted reward. Sparse MDPs are solved iteratively
    to a certified error (`sparse.solve`). Raises ValueError if γ = 1 and the policy never ends from some state.
    """
    pi = as_policy(mdp, policy)
    P, r = transition_matrix(mdp, pi), _mean(pi, mdp.expected_reward)
    if horizon is None:
        _require_end(mdp, P, mdp.gamma)
        return _solve(P, r, mdp.gamma)
    V = np.zeros((_horizon(horizon) + 1, mdp.n_states))
    for t in reversed(range(horizon)):
        V[t] = r + mdp.gamma * (P @ V[t + 1])
    return V


def action_values(mdp: MDP, policy: Policy, horizon: int | None = None) -> Float[Array, "*T S A"]:
    """Q(s,a) = Σ_s' P(s'|s,a) [R(s,a,s') + γ V(s')] (theory 6.4). Shapes: `[S, A]`, or `[H, S, A]`."""
    return values_to_action_values(mdp, state_values(mdp, policy, horizon))


def advantages(mdp: MDP, policy: Policy, horizon: int | None = None) -> Float[Array, "*T S A"]:
    """A(s,a) = Q(s,a) − V(s) (theory 6.6); 0 in terminal states. Shapes: `[S, A]`, or `[H, S, A]`."""
    return expected_td_error(mdp, state_values(mdp, policy, horizon))


def expected_return(mdp: MDP, policy: Policy, horizon: int | None = None) -> float:
    """J(π) = Σ_s ρ₀(s) V(s), the expectation of the discounted return over trajectories (theory 4)."""
    V = state_values(mdp, policy, horizon)
    return float(mdp.rho @ (V if horizon is None else V[0]))


def occupancy(mdp: MDP, policy: Policy, horizon: int | None = None, discounted: bool = True) -> Float[Array, "*T S"]:
    """d(s) = Σ_t γ^t P(s_t = s), the visits in which a decision is made; terminal states count 0 (theory 5.1).

    Shapes: `[S]`, summing to 1/(1−γ) if the world never ends; with a horizon one row γ^t P(s_t = s) for each t,
    `[H, S]`. `discounted=False` leaves γ^t out, which needs a horizon or a world that ends (else ValueError).
    """
    P = transition_matrix(mdp, as_policy(mdp, policy))
    gamma = mdp.gamma if discounted else 1.0
    if horizon is None:
        _require_end(mdp, P, gamma)
        return np.where(mdp.terminal, 0.0, _solve(P, mdp.rho, gamma, transpose=True))
    d = np.zeros((_horizon(horizon), mdp.n_states))
    visits = mdp.rho
    for t in range(horizon):
        d[t] = np.where(mdp.terminal, 0.0, visits)
        visits = gamma * (P.T @ visits)
    return d


def policy_gradient(
    mdp: MDP,
    theta: Float[Array, "S A"],
    horizon: int | None = None,
    time_weighting: TimeWeighting = "discounted",
) -> Float[Array, "S A"]:
    """∇_θ J for the softmax table θ: Σ_t γ^t P(s_t = s) π(a|s) A_t(s,a), `[S, A]` (theory 5.1).

    `time_weighting="undiscounted"` drops the γ^t in front, as most implementations do: the expectation of that
    estimator, which is not ∇J unless γ = 1.
    """
    if time_weighting not in ("discounted", "undiscounted"):
        raise ValueError(f"time_weighting = {time_weighting!r}: choose 'discounted' or 'undiscounted'.")
    pi = softmax(theta)
    d = occupancy(mdp, pi, horizon, discounted=time_weighting == "discounted")
    gradient = d[..., None] * pi * advantages(mdp, pi, horizon)
    return gradient if horizon is None else gradient.sum(0)


def values_to_action_values(mdp: MDP, values: Float[Array, "*T1 S"]) -> Float[Array, "*T S A"]:
    """Q(s,a) = Σ_s' P(s'|s,a) [R(s,a,s') + γ V(s')] for any V, right or wrong (theory 6.5).

    Shapes: `[S]` → `[S, A]`; time-dependent `[H+1, S]` → `[H, S, A]`. V counts as 0 where the world has ended:
    in terminal states, and at the horizon.
    """
    V = _values(mdp, values)
    following = V if V.ndim == 1 else V[1:]
    if not mdp.is_sparse:
        return mdp.expected_reward + mdp.gamma * np.einsum("sax,...x->...sa", mdp.P, following)
    expected = (mdp.P @ following.T).T.reshape(*following.shape, mdp.n_actions)
    return mdp.expected_reward + mdp.gamma * expected


def action_values_to_values(mdp: MDP, policy: Policy, action_values: Float[Array, "*T S A"]) -> Float[Array, "*T1 S"]:
    """V(s) = Σ_a π(a|s) Q(s,a), 0 where the world has ended (theory 6.5).

    Shapes: `[S, A]` → `[S]`; time-dependent `[H, S, A]` → `[H+1, S]`.
    """
    V = np.where(mdp.terminal, 0.0, _mean(as_policy(mdp, policy), np.asarray(action_values)))
    return V if V.ndim == 1 else np.concatenate([V, np.zeros_like(V[:1])])


def expected_td_error(mdp: MDP, values: Float[Array, "*T1 S"]) -> Float[Array, "*T S A"]:
    """E[δ|s,a] = Σ_s' P(s'|s,a) [R(s,a,s') + γ V(s')] − V(s) for any V; 0 in terminal states (theory 6.6).

    Equal to A(s,a) when V is the policy's own. Shapes: `[S]` → `[S, A]`; `[H+1, S]` → `[H, S, A]`.
    """
    V, Q = _values(mdp, values), values_to_action_values(mdp, values)
    here = V if V.ndim == 1 else V[:-1]
    return np.where(mdp.terminal[:, None], 0.0, Q - here[..., None])


def trajectory_log_prob(
    mdp: MDP, policy: Policy, states: Int[Array, "T1 *B"], actions: Int[Array, "T *B"]
) -> Float[Array, "*B"]:
    """log P(τ|π) = log ρ₀(s₀) + Σ_t [log π(a_t|s_t) + log P(s_{t+1}|s_t,a_t)], nats (theory 5.1).

    Shapes: states `[T+1, …]`, actions `[T, …]` → `[…]`; −∞ for an impossible trajectory.
    """
    s, a = np.asarray(states), np.asarray(actions)
    if len(s) != len(a) + 1:
        raise ValueError(f"{len(s)} states for {len(a)} actions: give one state more than actions.")
    here, there = s[:-1], s[1:]
    row = here * mdp.n_actions + a
    P = mdp.P if mdp.is_sparse else mdp.P.reshape(-1, mdp.n_states)
    p = np.asarray(P[row.reshape(-1), there.reshape(-1)]).reshape(row.shape)
    with np.errstate(divide="ignore"):
        return np.log(mdp.rho[s[0]]) + (np.log(as_policy(mdp, policy)[here, a]) + np.log(p)).sum(0)


def policy_kl(p: Float[Array, "S A"], q: Float[Array, "S A"]) -> Float[Array, " S"]:
    """KL(p‖q)(s) = Σ_a p(a|s) log(p(a|s)/q(a|s)), nats, `[S]` (theory 8.4); ∞ where q lacks an action of p."""
    return scipy.special.rel_entr(np.asarray(p), np.asarray(q)).sum(-1)


def fisher(mdp: MDP, theta: Float[Array, "S A"], horizon: int | None = None) -> Float[Array, "SA SA"]:
    """F = Σ_s d̄(s) Σ_a π(a|s) ∇log π(a|s) ∇log π(a|s)ᵀ with d̄ = d/Σd, for the softmax table θ (theory 8.4).

    Shape `[S·A, S·A]`, dense: row s·A + a. With a horizon d is summed over t.
    """
    pi = softmax(theta)
    d = occupancy(mdp, pi, horizon).reshape(-1, mdp.n_states).sum(0)
    covariance = np.einsum("sa,ab->sab", pi, np.eye(mdp.n_actions)) - np.einsum("sa,sb->sab", pi, pi)
    return scipy.linalg.block_diag(*((d / d.sum())[:, None, None] * covariance))


def surrogate(mdp: MDP, policy_old: Policy, policy_new: Policy, horizon: int | None = None) -> float:
    """L(π') = J(π) + Σ_s d_π(s) Σ_a π'(a|s) A_π(s,a): the first-order model of J(π') around π (theory 8.4)."""
    d, A = occupancy(mdp, policy_old, horizon), advantages(mdp, policy_old, horizon)
    gain = d * _mean(as_policy(mdp, policy_new), A)
    return expected_return(mdp, policy_old, horizon) + float(gain.sum())


def _solve(P: Any, b: Float[Array, " S"], gamma: float, transpose: bool = False) -> Float[Array, " S"]:
    if scipy.sparse.issparse(P):
        return sparse.solve(P, b, gamma, transpose=transpose).value
    return np.linalg.solve(np.eye(len(b)) - gamma * (P.T if transpose else P), b)


def _require_end(mdp: MDP, P: Any, gamma: float) -> None:
    """With γ = 1 everything is finite exactly when from every state the policy can reach an end."""
    if gamma < 1.0:
        return
    endless = ~sparse.can_reach(P, mdp.terminal)
    if endless.any():
        s = int(np.flatnonzero(endless)[0])
        raise ValueError(
            f"without discounting the policy must end, but from state {s} it never does: "
            "use gamma < 1, give a horizon, or list where the world ends in `terminal`."
        )


def _values(mdp: MDP, values: Float[Array, "*T1 S"]) -> Float[Array, "*T1 S"]:
    V = np.asarray(values, dtype=np.float64)
    if V.ndim not in (1, 2) or V.shape[-1] != mdp.n_states or (V.ndim == 2 and len(V) < 2):
        raise ValueError(f"values have shape {V.shape}: give [S] or [H+1, S] with S = {mdp.n_states}.")
    V = np.where(mdp.terminal, 0.0, V)
    return V if V.ndim == 1 else np.concatenate([V[:-1], np.zeros_like(V[:1])])


def _mean(pi: Float[Array, "S A"], x: Float[Array, "*T S A"]) -> Float[Array, "*T S"]:
    return np.einsum("sa,...sa->...s", pi, x)


def _horizon(horizon: int) -> int:
    if isinstance(horizon, bool) or not isinstance(horizon, int | np.integer) or horizon < 1:
        raise ValueError(f"horizon = {horizon!r}: give a whole number of steps, at least 1, or None.")
    return int(horizon)
