"""One run of a speed comparison, in a process of its own: `python bench_runs.py ROW SIDE SEED SECONDS` prints JSON.

It imports nothing but what is measured, for the interpreter of another library need not have this one.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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


ALONE = "environments alone"
SIDES: dict[str, Callable[[Row, int, float], Result]] = {
    "Vantage": ours,
    "SB3": sb3_on_cpu,
    "SB3, 1 thread": sb3_on_cpu,
    "SBX": sbx,
    ALONE: bare,
}
PEERS = {"SB3": "stable_baselines3", "SB3, 1 thread": "stable_baselines3", "SBX": "sbx"}
"""The package that a side needs."""


if __name__ == "__main__":  # a worker; by the file's name, for a peer's interpreter need not have this package
    row_name, worker, number, window = sys.argv[1:]
    print("\n" + json.dumps(SIDES[worker](ROWS[row_name], int(number), float(window))))
