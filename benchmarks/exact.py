"""Policy evaluation of a sparse MDP, certified: `python -m benchmarks.exact [STATES]` (a million unless given).

`python -m benchmarks.speed exact` compares it, in turn, with SciPy's solvers used by hand and with QuantEcon, and
`exact-1e4`, `exact-1e5` show how its time grows. There the policy is deterministic, since QuantEcon evaluates no other.
"""

import resource
import sys
import time
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla

from vantage import mdp
from vantage.mdp.sparse import certified_state_values

GAMMA, ERROR = 0.99, 1e-8
"""‖V − V_π‖ is to be at most so large in the max norm; V is about 50."""
RESIDUAL = ERROR * (1.0 - GAMMA)
"""‖r + γPV − V‖ that suffices."""
Result = dict[str, Any]


def chain(n_states: int) -> mdp.MDP:
    """4 actions, each of 5 successors; with r(s,a) at hand, which not every solver would compute from R."""
    world = mdp.random_sparse(n_states, 4, 5, GAMMA, seed=0)
    _ = world.expected_reward
    return world


def by_scipy(world: mdp.MDP, taken: np.ndarray, method: str) -> np.ndarray:
    """What a few lines with SciPy do: the chain's rows, then its solver to a residual that suffices; no certificate."""
    n, actions = world.expected_reward.shape
    rows = np.arange(n) * actions + taken
    P, r = sp.csr_array(world.P)[rows], world.expected_reward.reshape(-1)[rows]
    if method == "sweeps":
        value, moved = r, np.inf
        while moved > RESIDUAL:
            new = r + world.gamma * (P @ value)
            value, moved = new, np.abs(new - value).max()
        return value
    solver = {"bicgstab": sla.bicgstab, "gmres": sla.gmres}[method]
    return solver(sp.eye_array(n, format="csr") - world.gamma * P, r, rtol=0.0, atol=RESIDUAL)[0]


def by_quantecon(world: mdp.MDP, taken: np.ndarray) -> np.ndarray:
    """QuantEcon's operator T_σ, iterated; its `evaluate_policy` factorises, which such a chain has no memory for."""
    from quantecon.markov import DiscreteDP  # pyright: ignore[reportMissingImports]

    n, actions = world.expected_reward.shape
    states, choices = np.repeat(np.arange(n), actions), np.tile(np.arange(actions), n)
    problem = DiscreteDP(world.expected_reward.reshape(-1), sp.csr_matrix(world.P), world.gamma, states, choices)
    value = np.zeros(n)
    problem.operator_iteration(problem.T_sigma(taken), value, max_iter=10_000, tol=RESIDUAL)
    return value


def solution(method: str, world: mdp.MDP, taken: np.ndarray) -> np.ndarray:
    """V_π of the policy that takes action `taken[s]` in s."""
    if method == "certified":
        return certified_state_values(world, np.eye(4)[taken]).value
    return (
        by_quantecon(world, taken) if method == "QuantEcon" else by_scipy(world, taken, method.removeprefix("SciPy "))
    )


def evaluated(method: str, n_states: int) -> Result:
    """Seconds from the MDP to V_π, with all imported and compiled, and ‖r + γPV − V‖/(1 − γ), a bound on the error."""
    solution(method, chain(50), np.zeros(50, int))
    world, taken = chain(n_states), np.random.default_rng(0).integers(0, 4, n_states)
    began = time.perf_counter()
    value = solution(method, world, taken)
    seconds = time.perf_counter() - began
    q = world.expected_reward + world.gamma * (sp.csr_array(world.P) @ value).reshape(n_states, 4)
    error = np.abs(q[np.arange(n_states), taken] - value).max() / (1.0 - GAMMA)
    return {"seconds": seconds, "error": float(error)}


def main(n_states: int) -> None:
    """Build, solve and report: seconds, peak memory, and the bound on the error in the max norm."""
    began = time.perf_counter()
    world = chain(n_states)
    built = time.perf_counter()
    found = certified_state_values(world, np.full((n_states, 4), 0.25))
    solved = time.perf_counter()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{n_states:,} states × 4 actions × 5 successors, gamma {GAMMA}, by {found.method}")
    print(f"built in {built - began:.1f} s, solved in {solved - built:.1f} s, peak memory {memory:.2f} GiB")
    print(f"certified max-norm error {found.error:.2e} (bar {ERROR:g}), V(0) = {found.value[0]:.10f}")


if __name__ == "__main__":
    main(int(float(sys.argv[1])) if len(sys.argv) > 1 else 1_000_000)
