"""Measure training speed on this machine, beside the libraries that are installed, in about two minutes."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import median
from typing import Any

from vantage.cli import UsageError
from vantage.cli.options import Parser, of_fields

SKIPPED = 2
"""Updates before the clock starts: start-up and compilation are not part of the speed."""
Result = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison: PPO on an environment with the same settings for everyone; networks 64-64, tanh, separate."""

    env: str
    n_envs: int
    n_steps: int
    batch_size: int
    n_epochs: int
    lr: float = 3e-4
    gamma: float = 0.99
    lam: float = 0.95
    needs: str = "gymnasium"
    """The package without which the environment is left out."""


ROWS = {
    "cartpole-8": Row(
        env="CartPole-v1", n_envs=8, n_steps=32, batch_size=256, n_epochs=20, lr=1e-3, gamma=0.98, lam=0.8
    ),
    "cartpole-256": Row(env="CartPole-v1", n_envs=256, n_steps=128, batch_size=8192, n_epochs=4, lr=1e-3),
    "halfcheetah-1": Row(
        env="HalfCheetah-v5", n_envs=1, n_steps=2048, batch_size=64, n_epochs=10, needs="mujoco"
    ),
}  # fmt: skip
"""Small and wide batches of a cheap environment, and a physics simulation."""


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


# ---- the sides, each run in a process of its own ----


class Clock:
    """Steps per second between the end of update `SKIPPED` and the end of the first update `seconds` later."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._updates = seconds, 0
        self._from: tuple[float, int] = (0.0, 0)
        self.result: Result = {}

    def update(self, steps: int) -> bool:
        """Note the end of an update; whether to go on."""
        now = time.perf_counter()
        self._updates += 1
        if self._updates <= SKIPPED:
            self._from = now, steps
            return True
        began, before = self._from
        self.result = {"steps/s": (steps - before) / (now - began), "updates": float(self._updates - SKIPPED)}
        return now - began < self._seconds


def ours(row: Row, seed: int, seconds: float) -> Result:
    """One run of Vantage."""
    import vantage as vt

    clock = Clock(seconds)
    recipe = vt.PPO(
        gae_lambda=row.lam, n_epochs=row.n_epochs, n_minibatches=row.n_envs * row.n_steps // row.batch_size,
        whiten="minibatch",
    )  # fmt: skip
    agent = vt.Agent(
        row.env, recipe, seed=seed, n_envs=row.n_envs, n_steps=row.n_steps, gamma=row.gamma, optim=vt.Joint(lr=row.lr)
    )
    agent.learn(10**12, lambda update: clock.update(update.steps))
    return clock.result


def sb3(row: Row, seed: int, seconds: float, library: str = "stable_baselines3", **options: Any) -> Result:
    """One run of Stable-Baselines3's PPO on the processor; a rollout begins where an update has ended."""
    from importlib import import_module

    callbacks = import_module("stable_baselines3.common.callbacks")
    made = import_module("stable_baselines3.common.env_util").make_vec_env(row.env, row.n_envs, seed=seed)
    clock = Clock(seconds)

    class Watch(callbacks.BaseCallback):
        going = True

        def _on_step(self) -> bool:
            return self.going

        def _on_rollout_start(self) -> None:
            if self.num_timesteps:
                self.going = clock.update(self.num_timesteps)

    model = import_module(library).PPO(
        "MlpPolicy", made, seed=seed, gamma=row.gamma, n_steps=row.n_steps, batch_size=row.batch_size,
        n_epochs=row.n_epochs, gae_lambda=row.lam, learning_rate=row.lr, **options,
    )  # fmt: skip
    model.learn(10**12, Watch())
    return clock.result


def sb3_on_cpu(row: Row, seed: int, seconds: float) -> Result:
    """As its documentation advises for small networks."""
    return sb3(row, seed, seconds, device="cpu")


def sbx(row: Row, seed: int, seconds: float) -> Result:
    """One run of SBX, Stable-Baselines3 in JAX."""
    return sb3(row, seed, seconds, "sbx")


def bare(row: Row, seed: int, seconds: float) -> Result:
    """The environments alone, stepped as Vantage does, with random actions: what no training can exceed."""
    import numpy as np

    import vantage as vt

    world = vt.Agent(row.env, n_envs=row.n_envs, n_steps=row.n_steps, seed=seed).world
    env: Any = world._env
    env.action_space.seed(seed)
    actions = [np.asarray(env.action_space.sample()) for _ in range(100)]
    env.reset(seed=seed)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        for action in actions:
            env.step(action)
        count += len(actions) * row.n_envs
    return {"steps/s": count / (time.perf_counter() - began), "updates": 0.0}


SIDES: dict[str, Callable[[Row, int, float], Result]] = {
    "Vantage": ours,
    "SB3": sb3_on_cpu,
    "SB3, 1 thread": sb3_on_cpu,
    "SBX": sbx,
    "environments alone": bare,
}
PEERS = {"SB3": "stable_baselines3", "SB3, 1 thread": "stable_baselines3", "SBX": "sbx"}
"""The package that a side needs."""


# ---- in turn ----


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
    results = {name: _measure(name, sides, chosen) for name in wanted}
    told = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "seconds": chosen.seconds, "rows": results}
    if chosen.json:
        print(json.dumps(told))
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
    """One run in a process of its own. Raises RuntimeError with the end of what it said if it fails."""
    python = (chosen.peer_python if side in PEERS else None) or sys.executable
    surroundings = os.environ | {"PYTHONWARNINGS": "ignore"}
    surroundings |= {"OMP_NUM_THREADS": "1"} if side.endswith("1 thread") else {}
    words = [python, __file__, name, side, str(seed), str(chosen.seconds)]
    done = subprocess.run(words, env=surroundings, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"{side} failed: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'no word'}"
        )
    return json.loads(done.stdout.splitlines()[-1])["steps/s"]


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
        times = "" if middle == first else f"{first / middle:.2f} ×"
        lines.append(f"  {side:<20}{middle:>12,.0f}{ends:>22}{times:>14}")
    return "\n".join(lines)


if __name__ == "__main__":  # a worker; by the file's name, for a peer's interpreter need not have this package
    row_name, worker, number, window = sys.argv[1:]
    print("\n" + json.dumps(SIDES[worker](ROWS[row_name], int(number), float(window))))
