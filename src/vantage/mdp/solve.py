"""The evaluate ⇄ improve loop of theory 4 and 7.3, with the model known.

Its other half, which only samples, is in `episodes` and `learn`, and can be had from here as well.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from vantage.mdp.episodes import Estimate, MonteCarlo, monte_carlo, restart_returns, restart_values
from vantage.mdp.exact import action_values_to_values, state_values, values_to_action_values
from vantage.mdp.learn import q_learning, sarsa, td0
from vantage.mdp.model import MDP, Policy, as_policy, uniform

__all__ = [
    "Estimate",
    "Iteration",
    "MonteCarlo",
    "Optimum",
    "improve",
    "monte_carlo",
    "policy_iteration",
    "q_learning",
    "restart_returns",
    "restart_values",
    "sarsa",
    "sweeps",
    "td0",
    "value_iteration",
]

Array = Any
TIE = 1e-9


class Iteration(NamedTuple):
    """One turn of policy iteration: the policy π_k `[S, A]`, its values V_k `[S]`, and J_k = Σ_s ρ₀(s) V_k(s)."""

    policy: Float[Array, "S A"]
    values: Float[Array, " S"]
    expected_return: float


class Optimum(NamedTuple):
    """V* `[S]`, Q* `[S, A]`, and the policy `[S, A]` that is greedy in Q* and shares ties equally."""

    values: Float[Array, " S"]
    action_values: Float[Array, "S A"]
    policy: Float[Array, "S A"]


def sweeps(mdp: MDP, policy: Policy, v0: Float[Array, " S"] | None = None) -> Iterator[Float[Array, " S"]]:
    """Iterative policy evaluation, endlessly: yields V_1, V_2, … from V_0 = v0 (None: zeros), with V_k → V_π.

        V_{k+1}(s) = Σ_a π(a|s) Σ_s' P(s'|s,a) [R(s,a,s') + γ V_k(s')]

    Synchronous: every state reads V_k, none the value just written (an in-place sweep gives other numbers on the way).
    Shapes: `[S]`. Source: Sutton & Barto (2018) eq. 4.5; theory 4.
    """
    pi = as_policy(mdp, policy)
    V = np.zeros(mdp.n_states) if v0 is None else np.asarray(v0, dtype=np.float64)
    while True:
        V = action_values_to_values(mdp, pi, values_to_action_values(mdp, V))
        yield V


def improve(mdp: MDP, action_values: Float[Array, "S A"], epsilon: float | int = 0.0) -> Float[Array, "S A"]:
    """The greedy policy, or with epsilon the ε-greedy one; actions as good as the best share its probability.

        π'(a|s) = ε/A + (1−ε) 1[a ∈ B(s)]/|B(s)|,   B(s) = argmax_a Q(s,a), ties up to rounding

    Shapes: `[S, A]` → `[S, A]`. With Q = Q_π nowhere worse than π, if π is ε-soft; and because ties are shared it still
    reaches an end if π did. Raises ValueError for epsilon outside [0, 1]. Source: S&B (2018) eq. 4.9, 5.2; theory 7.3.
    """
    if not 0.0 <= epsilon <= 1.0:
        raise ValueError(f"epsilon = {epsilon!r}: choose a probability in [0, 1].")
    Q = np.asarray(action_values, dtype=np.float64)
    best = Q >= Q.max(-1, keepdims=True) - TIE * max(1.0, float(np.abs(Q).max()))
    return epsilon / mdp.n_actions + (1.0 - epsilon) * best / best.sum(-1, keepdims=True)


def policy_iteration(mdp: MDP, policy: Policy | None = None, epsilon: float | int = 0.0) -> Iterator[Iteration]:
    """Evaluate π_k exactly, improve it, and so on; yields (π_k, V_k, J_k) from k = 0 and ends at the optimum.

        π_k → V_k = V_{π_k} → π_{k+1} = improve(Q_k) → …

    V_k, hence J_k, never falls (beyond rounding). Starts from the uniform policy if none is given. With epsilon > 0 the
    optimum is that among ε-soft policies, π(a|s) ≥ ε/A, and the given policy has to be one (else ValueError).
    With γ = 1 the first policy must end from every state. Source: Sutton & Barto (2018) sections 4.3, 5.4; theory 7.3.
    """
    pi = uniform(mdp) if policy is None else as_policy(mdp, policy)
    if (pi < epsilon / mdp.n_actions - TIE).any():
        raise ValueError(
            f"policy is not {epsilon:g}-soft: give every action a probability of at least ε/A, or no policy."
        )
    V = state_values(mdp, pi)
    while True:
        yield Iteration(pi, V, float(mdp.rho @ V))
        pi = improve(mdp, values_to_action_values(mdp, V), epsilon)
        improved = state_values(mdp, pi)
        if (improved - V).max() <= TIE * max(1.0, float(np.abs(V).max())):
            return
        V = improved


def value_iteration(mdp: MDP, tol: float | int = 1e-10, max_sweeps: int = 100_000) -> Optimum:
    """Iterate V ← max_a Q until ‖V − V*‖∞ ≤ tol is certain (γ < 1), from V = 0.

        V_{k+1}(s) = max_a Σ_s' P(s'|s,a) [R(s,a,s') + γ V_k(s')]
        ‖V_{k+1} − V*‖∞ ≤ γ/(1−γ) ‖V_{k+1} − V_k‖∞

    With γ = 1 no such bound exists: `tol` then limits the last change only. Raises ArithmeticError after `max_sweeps`.
    Source: Sutton & Barto (2018) eq. 4.10; Puterman (1994) theorem 6.3.1; theory 4.
    """
    V, change = np.zeros(mdp.n_states), np.inf
    target = tol if mdp.gamma in (0.0, 1.0) else tol * (1.0 - mdp.gamma) / mdp.gamma
    for _ in range(max_sweeps):
        Q = values_to_action_values(mdp, V)
        change = float(np.abs(Q.max(-1) - V).max())
        V = Q.max(-1)
        if change <= target:
            Q = values_to_action_values(mdp, V)
            return Optimum(V, Q, improve(mdp, Q))
    raise ArithmeticError(
        f"tol = {tol:g} was not reached in {max_sweeps} sweeps, the last of which still changed V by {change:.3g}: "
        "raise tol or max_sweeps, or use policy_iteration, which is exact."
    )
