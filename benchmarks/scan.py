"""How long the backward recursion takes on each array library, against a NumPy loop over time.

    python -m benchmarks.scan [--steps 4096] [--columns 64] [--rounds 60]

The contestants run in turn, round after round, so that a busy machine slows them alike; the medians are compared.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

from vantage.theory.scan import reverse_scan


def loop(x: np.ndarray, decay: np.ndarray) -> np.ndarray:
    """The recursion as everyone writes it first."""
    y, carry = np.empty_like(x), np.zeros_like(x[0])
    for t in range(len(x) - 1, -1, -1):
        carry = x[t] + decay[t] * carry
        y[t] = carry
    return y


def contestants(x: np.ndarray, decay: np.ndarray) -> dict[str, Callable[[], object]]:
    """A call for each installed library, its arrays made beforehand."""
    runs: dict[str, Callable[[], object]] = {
        "numpy loop": lambda: loop(x, decay),
        "numpy": lambda: reverse_scan(x, decay),
    }
    try:
        import jax

        compiled, a, b = jax.jit(reverse_scan), jax.numpy.asarray(x), jax.numpy.asarray(decay)
        runs["jax, compiled"] = lambda: compiled(a, b).block_until_ready()
    except ImportError:
        print("jax is not installed", file=sys.stderr)
    try:
        import torch

        torch.set_num_threads(1)
        c, d = torch.from_numpy(x), torch.from_numpy(decay)
        runs["torch, one thread"] = lambda: reverse_scan(c, d)
    except ImportError:
        print("torch is not installed", file=sys.stderr)
    return runs


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=4096)
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    shape = (options.steps, options.columns)
    x, decay = rng.normal(size=shape).astype(np.float32), rng.random(size=shape).astype(np.float32)
    runs = contestants(x, decay)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(options.rounds + 3):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if round_ >= 3:
                times[name].append(time.perf_counter() - began)
    reference = statistics.median(times["numpy loop"])
    print(f"reverse_scan, [{options.steps}, {options.columns}] float32, median of {options.rounds} rounds in turn")
    slower = []
    for name, taken in times.items():
        median = statistics.median(taken)
        print(f"  {name:20} {1e3 * median:8.3f} ms   {reference / median:6.2f} × the speed of the NumPy loop")
        slower += [name] * (median > reference)
    if slower:
        print(f"slower than the loop: {', '.join(slower)}")
    return int(bool(slower))


if __name__ == "__main__":
    raise SystemExit(main())
