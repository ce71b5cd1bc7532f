"""Policy evaluation of a sparse MDP, certified: `python -m benchmarks.exact [STATES]` (a million unless given)."""

import resource
import sys
import time

import numpy as np

from vantage import mdp
from vantage.mdp.sparse import certified_state_values


def main(n_states: int) -> None:
    """Build, solve and report: seconds, peak memory, and the bound on the error in the max norm."""
    began = time.perf_counter()
    world = mdp.random_sparse(n_states, 4, 5, 0.99, seed=0)
    built = time.perf_counter()
    found = certified_state_values(world, np.full((n_states, 4), 0.25))
    solved = time.perf_counter()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{n_states:,} states × 4 actions × 5 successors, gamma 0.99, by {found.method}")
    print(f"built in {built - began:.1f} s, solved in {solved - built:.1f} s, peak memory {memory:.2f} GiB")
    print(f"certified max-norm error {found.error:.2e} (bar 1e-8), V(0) = {found.value[0]:.10f}")


if __name__ == "__main__":
    main(int(float(sys.argv[1])) if len(sys.argv) > 1 else 1_000_000)
