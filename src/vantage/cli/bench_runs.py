"""One run of a speed comparison, in a process of its own: `python bench_runs.py JSON` prints JSON.

It imports nothing but what is measured, for the interpreter of another library need not have this one.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from math import inf
from typing import Any

SKIPPED = 2
"""Updates before the clock starts: start-up and compilation are not part of the speed."""
ENDLESS = 10**12
RECENT = 100
"""Episodes whose mean return is told."""
Result = dict[str, Any]


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
    ent_coef: float = 0.0
    linear: bool = False
    """Whether learning rate and clip range fall linearly to 0 over `steps`."""
    steps: int = ENDLESS
    """Environment steps after which to stop."""
    goal: float = inf
    """Stop when the mean return of the last episodes is this high."""
    needs: str = "gymnasium"
    """The package without which the environment is left out."""

    @property
    def n_minibatches(self) -> int:
        return self.n_envs * self.n_steps // self.batch_size


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
class Job:
    """What one process runs."""

    row: Row
    seed: int = 0
    seconds: float = inf
    """How long to measure, from the end of update `SKIPPED` on."""
    began: float = 0.0
    """When the process was started, seconds since the epoch."""


class Clock:
    """Steps per second from the end of update `SKIPPED` to the end of the last; when the first and the goal were."""

    def __init__(self, job: Job) -> None:
        self._job, self._updates = job, 0
        self._from: tuple[float, int] = (0.0, 0)
        self.result: Result = {}

    def update(self, steps: int, mean: float | None = None, episodes: int = 0) -> bool:
        """Note the end of an update and the mean return of the last episodes; whether to go on."""
        now, job = time.time(), self._job
        self._updates += 1
        if self._updates == 1:
            self.result["first update"] = now - job.began
        if self._updates <= SKIPPED:
            self._from = now, steps
        began, before = self._from
        if now > began:
            self.result["steps/s"] = (steps - before) / (now - began)
        self.result |= {"steps": float(steps), "return": mean}
        if mean is not None and episodes >= RECENT and mean >= job.row.goal:
            self.result["solved"] = now - job.began
            return False
        return steps < job.row.steps and now - began < job.seconds


def ours(job: Job, **options: Any) -> Result:
    """One run of Vantage; `options` are those of `Agent`."""
    import vantage as vt

    row, clock = job.row, Clock(job)
    recipe = vt.PPO(
        clip_range=vt.Linear(0.2) if row.linear else 0.2, gae_lambda=row.lam, n_epochs=row.n_epochs,
        n_minibatches=row.n_minibatches, ent_coef=row.ent_coef, whiten="minibatch",
    )  # fmt: skip
    agent = vt.Agent(
        row.env, recipe, seed=job.seed, n_envs=row.n_envs, n_steps=row.n_steps, gamma=row.gamma,
        optim=vt.Joint(lr=vt.Linear(row.lr) if row.linear else row.lr), **options,
    )  # fmt: skip

    def noted(update: Any) -> bool:
        episodes = update.world._collector.episodes
        return clock.update(update.steps, mean_return(episodes), len(episodes))

    agent.learn(row.steps, noted)
    return clock.result


def mean_return(episodes: Any) -> float | None:
    """Of (return, length) pairs; None where no episode has ended."""
    return sum(float(r) for r, _ in episodes) / len(episodes) if len(episodes) else None


def sb3(job: Job, library: str = "stable_baselines3", envs: Any = None, **options: Any) -> Result:
    """One run of Stable-Baselines3's PPO, or of a library with its interface."""
    callbacks = import_module("stable_baselines3.common.callbacks")
    row, clock = job.row, Clock(job)
    if envs is None:
        envs = import_module("stable_baselines3.common.env_util").make_vec_env(row.env, row.n_envs, seed=job.seed)

    class Watch(callbacks.BaseCallback):
        """A rollout begins where an update has ended, but for the first."""

        going = True

        def _on_step(self) -> bool:
            return self.going

        def _on_rollout_start(self) -> None:
            if self.num_timesteps:
                self.note()

        def note(self) -> None:
            episodes = [(episode["r"], episode["l"]) for episode in self.model.ep_info_buffer or ()]
            self.going = clock.update(self.num_timesteps, mean_return(episodes), len(episodes))

    defaults = {"policy": "MlpPolicy", "device": "cpu", "env": envs, "seed": job.seed}
    model = import_module(library).PPO(
        **{**defaults, **options}, gamma=row.gamma, n_steps=row.n_steps, batch_size=row.batch_size,
        n_epochs=row.n_epochs, gae_lambda=row.lam, ent_coef=row.ent_coef,
        learning_rate=(lambda left: row.lr * left) if row.linear else row.lr,
        clip_range=(lambda left: 0.2 * left) if row.linear else 0.2,
    )  # fmt: skip
    watch = Watch()
    model.learn(row.steps, watch)
    if watch.going:
        watch.note()
    return clock.result


def sbx(job: Job) -> Result:
    """One run of SBX, Stable-Baselines3 in JAX."""
    return sb3(job, "sbx")


def bare(job: Job) -> Result:
    """The environments alone, stepped as Vantage does, with random actions: what no training can exceed."""
    import numpy as np

    import vantage as vt

    row, seconds = job.row, min(job.seconds, 3.0)
    world = vt.Agent(row.env, n_envs=row.n_envs, n_steps=row.n_steps, seed=job.seed).world
    env: Any = world._env
    env.action_space.seed(job.seed)
    actions = [np.asarray(env.action_space.sample()) for _ in range(100)]
    env.reset(seed=job.seed)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        for action in actions:
            env.step(action)
        count += len(actions) * row.n_envs
    return {"steps/s": count / (time.perf_counter() - began)}


ALONE = "environments alone"
SIDES: dict[str, Callable[[Job], Result]] = {
    "Vantage": ours,
    "SB3": sb3,
    "SB3, 1 thread": sb3,
    "SBX": sbx,
    ALONE: bare,
}
PEERS = {"SB3": "stable_baselines3", "SB3, 1 thread": "stable_baselines3", "SBX": "sbx"}
"""The package that a side needs."""


def told(side: str, job: Job) -> str:
    """What a worker reads: JSON."""
    return json.dumps({"side": side, **asdict(job)})


def work(words: str, sides: Mapping[str, Callable[[Job], Result]] = SIDES) -> Result:
    """Run what `told` says, and tell the peak memory as well."""
    given = json.loads(words)
    result = sides[given.pop("side")](Job(**{**given, "row": Row(**given["row"])}))
    try:
        import resource
    except ImportError:  # Windows does not tell
        return result
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return {**result, "MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}


if __name__ == "__main__":  # a worker; by the file's name, for a peer's interpreter need not have this package
    print("\n" + json.dumps(work(sys.argv[1])))
