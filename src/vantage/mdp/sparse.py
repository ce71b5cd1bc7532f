"""Large sparse chains: x = b + γPx solved to an error that is proved, whatever method found the solution."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla
from jaxtyping import Bool, Float

from vantage.mdp.model import MDP, Policy, as_policy, transition_matrix

Array = Any
Matrix = Any
MAX_SWEEPS, MAX_DIRECT = 50_000, 200_000


@dataclass(frozen=True)
class Certified:
    """A solution with a bound on its error."""

    value: Float[Array, " S"]
    error: float
    """At least ‖value − exact‖ in the max norm (for the transpose: in the 1-norm), rounding included."""
    method: str


def solve(
    P: Matrix, b: Float[Array, " S"], gamma: float, transpose: bool = False, tolerance: float = 1e-8
) -> Certified:
    """Solve x = b + γPx (transpose: x = b + γPᵀx) with a certified error.

        ‖x − x*‖ ≤ ‖b + γPx − x‖ · ‖(I − γP)⁻¹‖,   in the max norm (transpose: the 1-norm)

    Sweeps with a shift first (quick where the chain mixes), then Krylov iterations, plain sweeps x ← b + γPx (a
    γ-contraction), and LU; the first that is certified to `tolerance` is returned. Raises ArithmeticError if not even
    tolerance · max(1, ‖x‖) can be certified.
    """
    bound = inverse_norm(P, gamma)
    operator, norm = (P.T.tocsr(), _norm_1) if transpose else (P, _norm_max)
    best = Certified(np.asarray(b, dtype=np.float64), np.inf, "none")
    for method in (_shifted, _krylov, _sweeps, _direct):
        x = method(operator, b, gamma, best.value, 0.3 * tolerance / bound, norm)
        error = bound * (norm(_residual(operator, b, gamma, x)) + _rounding(operator, b, gamma, x, norm))
        if error < best.error:
            best = Certified(x, error, method.__name__.lstrip("_"))
        if best.error <= tolerance:
            return best
    if best.error > tolerance * max(1.0, norm(best.value)):
        raise ArithmeticError(
            f"the error could only be bounded by {best.error:.2g}, not {tolerance:g}: the chain mixes too slowly "
            "for float64 at this gamma; lower gamma or raise the tolerance."
        )
    return best


def certified_state_values(mdp: MDP, policy: Policy) -> Certified:
    """V = r_π + γ P_π V of a sparse MDP together with its certificate, in the max norm (theory 6.3)."""
    pi = as_policy(mdp, policy)
    P = transition_matrix(mdp, pi).copy()  # its indices are those of the MDP
    P.eliminate_zeros()  # of actions that are never taken
    return solve(P, (pi * mdp.expected_reward).sum(1), mdp.gamma)


def inverse_norm(P: Matrix, gamma: float) -> float:
    """A bound on ‖(I − γP)⁻¹‖_∞: 1/(1 − γ‖P‖_∞), or max w / min (I − γP)w for a w > 0 (M-matrix; γ = 1)."""
    contraction = gamma * float((P @ np.ones(P.shape[0])).max())
    if contraction < 1.0 - 1e-12:
        return 1.0 / (1.0 - contraction)
    one = np.ones(P.shape[0])
    for method in (_krylov, _direct):
        w = method(P, one, gamma, one, 1e-3, _norm_max)
        least = float((w - gamma * (P @ w)).min())
        if w.min() > 0.0 and least > 0.0:
            return float(w.max()) / least
    raise ArithmeticError("no bound on the number of steps to the end was found: use gamma < 1 or a horizon.")


def can_reach(P: Matrix, target: Bool[Array, " S"]) -> Bool[Array, " S"]:
    """The states from which the chain reaches a target state with positive probability, `[S]`."""
    n = len(target)
    source, end = sp.csr_array(P).nonzero()
    goals = np.flatnonzero(target)
    rows, columns = np.concatenate([end, np.full(len(goals), n)]), np.concatenate([source, goals])
    backwards = sp.csr_array((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(n + 1, n + 1))
    found = np.zeros(n + 1, dtype=bool)
    found[sp.csgraph.breadth_first_order(backwards, n, return_predecessors=False)] = True
    return found[:n]


def random_sparse(n_states: int, n_actions: int, n_successors: int, gamma: float, seed: int) -> MDP:
    """A sparse MDP whose states lead to `n_successors` distinct random states each, with rewards uniform in [0, 1)."""
    rng = np.random.default_rng(seed)
    rows = n_states * n_actions
    gaps = rng.integers(1, n_states // n_successors + 1, (rows, n_successors), dtype=np.int32)
    gaps[:, 0] = rng.integers(0, n_states, rows, dtype=np.int32)
    successors = np.sort(np.cumsum(gaps, axis=1, dtype=np.int64) % n_states, axis=1).astype(np.int32)
    p = rng.random((rows, n_successors))
    p /= p.sum(1, keepdims=True)
    indptr = np.arange(0, rows * n_successors + 1, n_successors, dtype=np.int32)
    P = sp.csr_array((p.reshape(-1), successors.reshape(-1), indptr), shape=(rows, n_states))
    R = sp.csr_array((rng.random(P.nnz), P.indices, P.indptr), shape=P.shape)
    return MDP(P, R, np.full(n_states, 1.0 / n_states), gamma)


def _residual(P: Matrix, b: Any, gamma: float, x: Any) -> Float[Array, " S"]:
    return b + gamma * (P @ x) - x


def _rounding(P: Matrix, b: Any, gamma: float, x: Any, norm: Any) -> float:
    """What rounding can hide in the residual: each entry is a sum of at most n terms."""
    terms = int(np.diff(P.indptr).max()) + 4
    return terms * np.finfo(np.float64).eps * norm(np.abs(b) + gamma * (P @ np.abs(x)) + np.abs(x))


def _shifted(P: Matrix, b: Any, gamma: float, x: Any, target: float, norm: Any) -> Float[Array, " S"]:
    """x ← x + r + γ/(1 − γ) · mid(r) with the residual r = b + γPx − x, mid halfway between its ends.

    Then r ← γ(Pr − mid(r)) where P is stochastic: what all states share is solved at once, the rest falls by γ|λ₂|
    a sweep. It gives up where that is slow. Source: MacQueen (1966); Puterman (1994), section 6.6.
    """
    if gamma >= 1.0 or norm is not _norm_max:
        return x
    sizes: list[float] = []
    while not sizes or sizes[-1] > 0.01 * target:  # beyond the target, for a sweep costs little here
        r = _residual(P, b, gamma, x)
        sizes.append(norm(r))
        if len(sizes) > 4 and not sizes[-1] < 0.5 * sizes[-5]:
            break
        x = x + r + 0.5 * gamma / (1.0 - gamma) * (r.max() + r.min())
    return x


def _krylov(P: Matrix, b: Any, gamma: float, x: Any, target: float, norm: Any) -> Float[Array, " S"]:
    """BiCGSTAB, restarted on the residual, so that its loss of accuracy does not accumulate."""
    n = len(b)
    system = sla.aslinearoperator(sp.eye_array(n)) - gamma * sla.aslinearoperator(P)
    r = _residual(P, b, gamma, x)
    atol = 0.3 * target / np.sqrt(norm(np.ones(n)))  # BiCGSTAB stops by the 2-norm: ‖·‖_∞ ≤ ‖·‖₂, ‖·‖₁ ≤ √n ‖·‖₂
    for _ in range(8):
        if norm(r) <= target:
            break
        step, _ = sla.bicgstab(system, r, rtol=1e-6, atol=atol, maxiter=200)
        improved = x + step
        r_new = _residual(P, b, gamma, improved)
        if not norm(r_new) < 0.9 * norm(r):
            break
        x, r = improved, r_new
    return x


def _sweeps(P: Matrix, b: Any, gamma: float, x: Any, target: float, norm: Any) -> Float[Array, " S"]:
    if gamma >= 1.0:
        return x
    for k in range(MAX_SWEEPS):
        new = b + gamma * (P @ x)
        if k % 16 == 0 and norm(new - x) <= target:
            break
        x = new
    return x


def _direct(P: Matrix, b: Any, gamma: float, x: Any, target: float, norm: Any) -> Float[Array, " S"]:
    if len(b) > MAX_DIRECT:
        return x
    factors = sla.splu(sp.csc_array(sp.eye_array(len(b)) - gamma * P))
    x = factors.solve(np.asarray(b, dtype=np.float64))
    return x + factors.solve(_residual(P, b, gamma, x))


def _norm_max(x: Float[Array, " S"]) -> float:
    return float(np.abs(x).max())


def _norm_1(x: Float[Array, " S"]) -> float:
    return float(np.abs(x).sum())
