"""How fast training is beside Stable-Baselines3, side by side: `python -m benchmarks.speed ROW [--pairs 5]`.

Both learn with the settings of one `Row`, in turn, each run in a process of its own that prints JSON. Steps/s are over
whole training, rollout and update, from the end of the second update on: start-up and compilation are not in them.
The peer runs with PyTorch's own number of threads and with one (`--threads 1` where other work shares the processor:
PyTorch's threads wait for each other); its better median counts. It comes with `pip install "vantage[bench]"`, or from
another environment by --peer-python; so does rejax, whose gymnax is an older one than ours.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = 2
"""Updates before the clock of steps/s starts."""
T_975 = (inf, 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Student's 0.975 quantile by degrees of freedom, up to 9."""
Result = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison: an environment, and PPO's settings, the same for both sides."""

    env: str = "CartPole-v1"
    steps: int
    n_envs: int
    n_steps: int
    batch_size: int
    n_epochs: int
    lr: float = 3e-4
    linear: bool = False
    """Whether learning rate and clip range fall linearly to 0."""
    gamma: float = 0.99
    lam: float = 0.95
    ent_coef: float = 0.0
    goal: float | None = None
    """Stop when the mean return of the last 100 episodes is this high, and tell the time since the process began."""
    startup: bool = False
    """Whether only the time to the end of the first update counts."""
    rival: str = "peer"
    """The worker that we are compared with: "peer" (Stable-Baselines3), "rejax", or "bare" (the environment alone)."""


ZOO = Row(n_envs=8, n_steps=32, batch_size=256, n_epochs=20, lr=1e-3, linear=True, gamma=0.98, lam=0.8, steps=100_000)
JAX = Row(
    env="gymnax:CartPole-v1", steps=512 * 1000, n_envs=4, n_steps=128, batch_size=128, n_epochs=4, lr=2.5e-4,
    ent_coef=0.01, rival="rejax",
)  # fmt: skip
ROWS = {
    "cartpole-zoo": ZOO,
    "cartpole-cleanrl": Row(steps=100_000, n_envs=4, n_steps=128, batch_size=128, n_epochs=4, lr=2.5e-4, ent_coef=0.01),
    "cartpole-256": Row(steps=655_360, n_envs=256, n_steps=128, batch_size=8192, n_epochs=4, lr=1e-3),
    "halfcheetah-1": Row(env="HalfCheetah-v5", steps=20_480, n_envs=1, n_steps=2048, batch_size=64, n_epochs=10),
    "gymnax-4x128": JAX,
    "gymnax-2048x32": replace(JAX, n_envs=2048, n_steps=32, batch_size=4096, lr=1e-3, steps=65_536 * 40),
    "envpool-halfcheetah-64": Row(
        env="envpool:HalfCheetah-v5", steps=4096 * 30, n_envs=64, n_steps=64, batch_size=512, n_epochs=4, rival="bare"
    ),
    "solve": replace(ZOO, goal=475.0),
    "start-up": replace(ZOO, steps=256, startup=True),
}


# ---- the two sides, each in a process of its own ----


class Clock:
    """Notes when each update ended; `began` is when the process was started."""

    def __init__(self, row: Row, began: float) -> None:
        self.row, self.began = row, began
        self.ended: list[float] = []
        self.steps: list[int] = []
        self.solved: float | None = None
        self.mean: float | None = None

    def update(self, steps: int, episodes: Collection[tuple[float, int]] = ()) -> bool:
        """Note the end of an update and the mean return of the last 100 episodes; whether to go on."""
        self.ended.append(time.time())
        self.steps.append(steps)
        self.mean = fmean(r for r, _ in episodes) if episodes else None
        if self.row.goal is not None and len(episodes) >= 100 and self.mean is not None and self.mean >= self.row.goal:
            self.solved = self.ended[-1] - self.began
        return self.solved is None

    def result(self) -> Result:
        """What the run showed: steps/s, seconds to the first update and to the goal, MB, and the last mean return."""
        first = min(len(self.ended), SKIPPED) - 1
        steps, seconds = self.steps[-1] - self.steps[first], self.ended[-1] - self.ended[first]
        return {
            "steps/s": steps / seconds if seconds else None,
            "first update": self.ended[0] - self.began,
            "solved": self.solved,
            "steps": self.steps[-1],
            "MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "return": self.mean,
        }


def ours(row: Row, seed: int, began: float) -> Result:
    """One run of Vantage."""
    from vantage import PPO, Agent
    from vantage.loop import Callback
    from vantage.recipe import Joint, Linear

    clock = Clock(row, began)

    class Watch(Callback):
        def on_update(self, update: Any) -> bool:
            return clock.update(update.steps, update.world._collector.episodes)

    minibatches = row.n_envs * row.n_steps // row.batch_size
    recipe = PPO(
        clip_range=Linear(0.2) if row.linear else 0.2, gae_lambda=row.lam, n_epochs=row.n_epochs,
        n_minibatches=minibatches, ent_coef=row.ent_coef, whiten="minibatch",
    )  # fmt: skip
    agent = Agent(
        row.env, recipe, seed=seed, n_envs=row.n_envs, n_steps=row.n_steps, gamma=row.gamma,
        optim=Joint(lr=Linear(row.lr) if row.linear else row.lr),
    )  # fmt: skip
    agent.learn(row.steps, [Watch()])
    return clock.result()


def command(row: Row, seed: int, began: float) -> Result:
    """`vantage train CartPole-v1` with its folder, its log and its table, to the end of the first update."""
    import contextlib
    import io

    from vantage.cli import main
    from vantage.runs.log import FolderLog

    clock, logged = Clock(row, began), FolderLog.on_update

    def noted(self: Any, update: Any) -> None:
        logged(self, update)
        clock.update(update.steps)

    FolderLog.on_update = noted
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        main(["train", row.env, "--steps", str(row.steps), "--seed", str(seed), "--out", f"{folder}/run"])
    return clock.result()


def peer(row: Row, seed: int, began: float) -> Result:
    """One run of Stable-Baselines3's PPO, on the processor, with its default policy (64-64, tanh, separate towers)."""
    from stable_baselines3 import PPO  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.callbacks import BaseCallback  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.env_util import make_vec_env  # pyright: ignore[reportMissingImports]

    clock = Clock(row, began)

    class Watch(BaseCallback):
        """A rollout begins where an update has ended, but for the first."""

        going = True

        def _on_step(self) -> bool:
            return self.going

        def _on_rollout_start(self) -> None:
            if self.num_timesteps:
                self.note()

        def note(self) -> None:
            self.going = clock.update(
                self.num_timesteps, [(episode["r"], episode["l"]) for episode in self.model.ep_info_buffer or ()]
            )

    model = PPO(
        "MlpPolicy", make_vec_env(row.env, row.n_envs, seed=seed), device="cpu", seed=seed, gamma=row.gamma,
        n_steps=row.n_steps, batch_size=row.batch_size, n_epochs=row.n_epochs, gae_lambda=row.lam,
        ent_coef=row.ent_coef, learning_rate=(lambda left: row.lr * left) if row.linear else row.lr,
        clip_range=(lambda left: 0.2 * left) if row.linear else 0.2,
    )  # fmt: skip
    watch = Watch()
    model.learn(row.steps, watch)
    if watch.going:
        watch.note()
    return clock.result()


def rejax(row: Row, seed: int, began: float) -> Result:
    """One run of rejax's PPO, compiled as a whole beforehand; its return is that of 128 episodes after training."""
    import jax
    from jax import numpy as jnp
    from rejax import PPO  # pyright: ignore[reportMissingImports]

    algorithm = PPO.create(
        env=row.env.partition(":")[2], agent_kwargs={"activation": "tanh", "hidden_layer_sizes": (64, 64)},
        num_envs=row.n_envs, num_steps=row.n_steps, num_minibatches=row.n_envs * row.n_steps // row.batch_size,
        num_epochs=row.n_epochs, learning_rate=row.lr, gamma=row.gamma, gae_lambda=row.lam, ent_coef=row.ent_coef,
        max_grad_norm=0.5, total_timesteps=row.steps, eval_freq=row.steps, skip_initial_evaluation=True,
    )  # fmt: skip
    evaluate, key = algorithm.eval_callback, jax.random.key(seed)
    silent = algorithm.replace(eval_callback=lambda algorithm, state, rng: jnp.zeros(()))
    train = jax.jit(silent.train).lower(key).compile()
    ready = time.time()
    state, _ = jax.block_until_ready(train(key))
    seconds = time.time() - ready
    return {
        "steps/s": row.steps / seconds,
        "first update": ready - began,
        "steps": row.steps,
        "MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "return": float(jax.jit(evaluate)(algorithm, state, key)[1].mean()),
    }


def bare_pool(row: Row, seed: int) -> Result:
    """EnvPool alone: as many copies, random actions drawn beforehand, no policy; filler steps do not count."""
    import envpool
    import numpy as np

    env = envpool.make(row.env.partition(":")[2], env_type="gymnasium", num_envs=row.n_envs, seed=seed)
    env.reset()
    actions = np.random.default_rng(seed).uniform(-1.0, 1.0, (100, row.n_envs, *env.action_space.shape))
    count, over, start = 0, np.zeros(row.n_envs, bool), time.time()
    while time.time() - start < 4.0:
        for action in actions:
            count += int((~over).sum())
            _, _, terminated, truncated, _ = env.step(action)
            over = terminated | truncated
    return {"steps/s": count / (time.time() - start)}


def bare(row: Row, seed: int, began: float) -> Result:
    """The environment alone: one copy, random actions, no policy."""
    if row.env.startswith("envpool:"):
        return bare_pool(row, seed)
    import gymnasium

    env = gymnasium.make(row.env)
    env.reset(seed=seed)
    env.action_space.seed(seed)
    actions = [env.action_space.sample() for _ in range(1000)]
    count, start = 0, time.time()
    while time.time() - start < 2.0:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        count += len(actions)
    return {"steps/s": count / (time.time() - start)}


SIDES = {"ours": ours, "command": command, "peer": peer, "rejax": rejax, "bare": bare}


# ---- in turn ----


@dataclass(frozen=True, kw_only=True)
class Side:
    """A column of the table: which worker, by which interpreter, in which surroundings."""

    name: str
    worker: str
    python: str = sys.executable
    environment: tuple[tuple[str, str], ...] = ()

    def run(self, row: str, seed: int) -> Result:
        """One run. Raises RuntimeError with the end of what it said if it fails."""
        surroundings = os.environ | {"PYTHONWARNINGS": "ignore"} | dict(self.environment)
        call = [self.python, __file__, row, "--worker", self.worker, "--seed", str(seed), "--began", str(time.time())]
        done = subprocess.run(call, cwd=ROOT, env=surroundings, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{self.name} failed: {done.stderr[-600:]}")
        return json.loads(done.stdout.splitlines()[-1])


def sides(row: Row, peer_python: str, threads: list[str], cache: str) -> list[Side]:
    """Us, then the peer with each number of threads; with `cache` an empty folder for compiled programs."""
    peers = [
        Side(
            name=f"SB3, {number} thread{'' if number == '1' else 's'}", worker="peer", python=peer_python,
            environment=() if number == "default" else (("OMP_NUM_THREADS", number),),
        )
        for number in threads
    ]  # fmt: skip
    cold = Side(name="Vantage", worker="ours", environment=(("VANTAGE_CACHE", ""),))
    if row.startup:
        warm = Side(name="Vantage, warm cache", worker="command", environment=(("VANTAGE_CACHE", cache),))
        return [Side(name="Vantage", worker="command", environment=(("VANTAGE_CACHE", ""),)), warm, *peers]
    if row.goal is not None:
        warm = Side(name="Vantage, warm cache", worker="ours", environment=(("VANTAGE_CACHE", cache),))
        return [cold, warm, *peers]
    if row.rival != "peer":
        own = {"rejax": "rejax", "bare": "environment alone"}[row.rival]
        return [cold, Side(name=own, worker=row.rival, python=peer_python if row.rival == "rejax" else sys.executable)]
    return [cold, *peers, *([Side(name="environment alone", worker="bare")] if row.n_envs == 1 else [])]


def measured(row: Row) -> str:
    """The figure that the ratio is of."""
    return "first update" if row.startup else "solved" if row.goal is not None else "steps/s"


def middle(results: list[Result], name: str) -> float:
    """The median; a run that did not get there took for ever."""
    return median(inf if result.get(name) is None else result[name] for result in results)


def interval(x: list[float]) -> str:
    """The mean with Student's 95 % interval, wider than need be from 11 runs on; nothing where no episode ended."""
    if not x:
        return ""
    if len(x) == 1:
        return f"{x[0]:.0f}"
    return f"{fmean(x):.0f} ± {T_975[min(len(x) - 1, 9)] * stdev(x) / len(x) ** 0.5:.0f}"


def table(row: Row, results: dict[str, list[Result]]) -> str:
    """Markdown: medians, and how many times better the first column is than each."""
    figure = measured(row)
    unit = "steps/s" if figure == "steps/s" else f"s to {'goal' if figure == 'solved' else figure}"
    lines = [
        f"| | {unit} | runs | times | peak MB | mean return of the last 100 episodes |",
        "|---|---|---|---|---|---|",
    ]
    first = middle(next(iter(results.values())), figure)
    for name, runs in results.items():
        value = middle(runs, figure)
        times = first / value if figure == "steps/s" else value / first
        each = ", ".join("-" if run.get(figure) is None else _short(run[figure]) for run in runs)
        memory = middle(runs, "MB")
        said = interval([run["return"] for run in runs if run.get("return") is not None])
        lines.append(
            f"| {name} | {_short(value)} | {each} | {times:.2f} | {'' if memory == inf else f'{memory:.0f}'} | {said} |"
        )
    return "\n".join(lines)


def _short(x: float) -> str:
    return f"{x:,.0f}" if x >= 100 else f"{x:.2f}"


def main() -> int:
    """Run the pairs and print the table; or, as a worker, one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("--pairs", type=int, default=5, help="runs of each side, in turn")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter that has the peer")
    parser.add_argument("--threads", nargs="+", default=["default", "1"], help="the peer's numbers of threads")
    for hidden, kind in (("--worker", str), ("--seed", int), ("--began", float)):
        parser.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    given = parser.parse_args()
    row = ROWS[given.row]
    if given.worker:
        print("\n" + json.dumps(SIDES[given.worker](row, given.seed, given.began)))
        return 0
    with tempfile.TemporaryDirectory() as cache:
        columns = sides(row, given.peer_python, given.threads, cache)
        for side in columns:
            if "warm" in side.name:
                side.run(given.row, 0)
        results: dict[str, list[Result]] = {side.name: [] for side in columns}
        for pair in range(given.pairs):
            for side in columns:
                results[side.name].append(side.run(given.row, pair))
                shown = results[side.name][-1].get(measured(row))
                load = f"load {os.getloadavg()[0]:.1f}"
                print(f"{pair + 1}/{given.pairs} {side.name}: {shown and _short(shown)} ({load})", flush=True)
    print(f"\n{given.row}, {os.cpu_count()} cores\n\n{table(row, results)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
