"""Measure training speed on this machine, beside the libraries that are installed, in about two minutes."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import median

from vantage.cli import UsageError, bench_runs
from vantage.cli.bench_runs import ALONE, PEERS, ROWS, SIDES, Job, Result, Row, told
from vantage.cli.options import Parser, of_fields

STARTING = 4.0
"""Seconds in which a run starts and compiles."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The options of `vantage bench`."""

    rows: str = "cartpole-8,cartpole-256"
    """What to measure, separated by commas: cartpole-8, cartpole-256, halfcheetah-1."""
    seconds: float = 4.0
    """How long each run is measured, once it has compiled."""
    pairs: int = 2
    """Runs of each side, in turn."""
    peer_python: str | None = None
    """The interpreter that has the other libraries; by default this one."""
    json: bool = False
    """Print the result as one JSON object, and nothing else."""


def main(argv: Sequence[str]) -> int:
    """`vantage bench`."""
    given = Parser("bench", of_fields(Bench, "measurement")).read(argv)
    chosen = Bench(**given)
    if chosen.seconds <= 0 or chosen.pairs < 1:
        raise UsageError("--seconds and --pairs: give positive numbers")
    wanted = [name.strip() for name in chosen.rows.split(",")]
    for name in wanted:
        if name not in ROWS:
            raise UsageError(f"--rows {name}: choose among {', '.join(ROWS)}")
        if find_spec(ROWS[name].needs) is None:
            raise UsageError(f"--rows {name}: needs {ROWS[name].needs}: pip install 'vantage[{ROWS[name].needs}]'")
    sides = _sides(chosen.peer_python)
    if not chosen.json:
        print(plan(wanted, sides, chosen), file=sys.stderr, flush=True)
    results = {name: _measure(name, sides, chosen) for name in wanted}
    if chosen.json:
        machine = f"{platform.machine()}, {os.cpu_count()} cores"
        print(json.dumps({"machine": machine, "seconds": chosen.seconds, "rows": results}))
        return 0
    for name, runs in results.items():
        print(f"\n{name}: {describe(ROWS[name])}\n\n{table(runs)}")
    if len(sides) == 2:
        print("\nNo other library is installed to compare with: pip install 'vantage[bench]', or name an interpreter "
              "that has one by --peer-python.")  # fmt: skip
    print(
        "\nSteps of environments per second of whole training, rollout and update, after compilation; median and range."
    )
    return 0


def plan(wanted: Sequence[str], sides: Sequence[str], chosen: Bench) -> str:
    """What is going to be run, how long it takes, and whether the machine is too busy for it."""
    runs = len(wanted) * len(sides) * chosen.pairs
    minutes = runs * (chosen.seconds + STARTING) / 60
    text = f"{runs} runs on {os.cpu_count()} cores ({', '.join(sides)}), in turn: about {minutes:.1f} minutes"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    busy = f"; other programs are running (load {load:.1f}), so the figures will be too low" if load > 0.5 else ""
    return text + busy


def _sides(peer_python: str | None) -> list[str]:
    """Us, the peers that are installed, and the environments alone."""
    packages = sorted(set(PEERS.values()))
    probe = f"from importlib.util import find_spec as f; print([n for n in {packages} if f(n)])"
    done = subprocess.run([peer_python or sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UsageError(f"--peer-python {peer_python}: this is no Python interpreter that runs")
    return [side for side in SIDES if side not in PEERS or f"'{PEERS[side]}'" in done.stdout]


def _measure(name: str, sides: Sequence[str], chosen: Bench) -> dict[str, list[float]]:
    runs: dict[str, list[float]] = {side: [] for side in sides}
    for pair in range(chosen.pairs):
        for side in sides:
            speed = _run(name, side, pair, chosen)
            runs[side].append(speed)
            if not chosen.json:
                print(f"{name}, {side}: {speed:,.0f} steps/s", file=sys.stderr, flush=True)
    return runs


def _run(name: str, side: str, seed: int, chosen: Bench) -> float:
    job = Job(row=ROWS[name], seed=seed, seconds=chosen.seconds, began=time.time())
    found = run(bench_runs.__file__, side, job, (chosen.peer_python if side in PEERS else None) or sys.executable)
    return found["steps/s"]


def run(worker: str, side: str, job: Job, python: str, environment: Mapping[str, str] | None = None) -> Result:
    """One run in a process of its own. Raises RuntimeError with the end of what it said if it fails."""
    surroundings = os.environ | {"PYTHONWARNINGS": "ignore"} | dict(environment or {})
    surroundings |= {"OMP_NUM_THREADS": "1"} if side.endswith("1 thread") else {}
    words = [python, "-P", worker, told(side, job)]
    done = subprocess.run(words, env=surroundings, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise RuntimeError(f"{side} failed: {said[-1] if said else 'no word'}")
    return json.loads(done.stdout.splitlines()[-1])


def describe(row: Row) -> str:
    """The settings in a line."""
    return (
        f"{row.env}, {row.n_envs} environments × {row.n_steps} steps, minibatches of {row.batch_size}, "
        f"{row.n_epochs} epochs"
    )


def table(runs: dict[str, list[float]]) -> str:
    """Median, range, and how many times as fast the first is as each."""
    first = median(next(iter(runs.values())))
    lines = [f"  {'':<20}{'steps/s':>12}{'range':>22}{'Vantage is':>14}"]
    for side, found in runs.items():
        middle, ends = median(found), f"{min(found):,.0f} … {max(found):,.0f}"
        times = "" if middle == first else f"{first / middle:.0%} of it" if side == ALONE else f"{first / middle:.2f} ×"
        lines.append(f"  {side:<20}{middle:>12,.0f}{ends:>22}{times:>14}")
    return "\n".join(lines)
