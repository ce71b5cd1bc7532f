"""One run of a side that `vantage bench` does not have: `python -P _sides.py JSON` prints JSON.

Like `vantage.cli.bench_runs`, which it is built on and loads by its file, it imports nothing but what is measured: the
interpreter of another library need not have ours.
"""

import contextlib
import importlib.util
import io
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parent.parent / "src"


def _runs() -> Any:
    """`vantage.cli.bench_runs`, without its package."""
    spec: Any = importlib.util.spec_from_file_location("bench_runs", SOURCE / "vantage/cli/bench_runs.py")
    module = sys.modules["bench_runs"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


runs = _runs()
Clock = runs.Clock
Job = Any
Result = dict[str, Any]


def command(job: Job) -> Result:
    """`vantage train CartPole-v1` with its folder, its log and its table, to the end of the first update."""
    from vantage.cli import main
    from vantage.runs.log import FolderLog

    clock, logged = Clock(job), FolderLog.on_update

    def noted(self: Any, update: Any) -> None:
        logged(self, update)
        clock.update(update.steps)

    FolderLog.on_update = noted
    words = ["--steps", str(job.row.steps), "--seed", str(job.seed)]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        main(["train", job.row.env, *words, "--out", f"{folder}/run"])
    return clock.result


def importing(job: Job) -> Result:
    """`import vantage` in a fresh interpreter."""
    began = time.perf_counter()
    import vantage

    return {"first update": time.perf_counter() - began, "version": vantage.__name__}


def sb3_atari(job: Job) -> Result:
    """Stable-Baselines3 on its own Atari environments: one after the other in one process, with its wrappers."""
    import ale_py
    import gymnasium
    from stable_baselines3.common.env_util import make_atari_env  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.vec_env import VecFrameStack  # pyright: ignore[reportMissingImports]

    gymnasium.register_envs(ale_py)
    game = job.row.env.partition(":")[2].removesuffix("-v5") + "NoFrameskip-v4"
    envs = VecFrameStack(make_atari_env(game, job.row.n_envs, seed=job.seed), n_stack=4)
    return runs.sb3(job, envs=envs, policy="CnnPolicy")


def envpool_alone(job: Job) -> Result:
    """EnvPool with random actions drawn beforehand and no policy; filler steps do not count."""
    import envpool
    import numpy as np

    name = job.row.env.partition(":")[2]
    env: Any = envpool.make(name, env_type="gymnasium", num_envs=job.row.n_envs, seed=job.seed)
    env.reset()
    actions = np.random.default_rng(job.seed).uniform(-1.0, 1.0, (100, job.row.n_envs, *env.action_space.shape))
    count, over, began = 0, np.zeros(job.row.n_envs, bool), time.perf_counter()
    while (seconds := time.perf_counter() - began) < 4.0:
        for action in actions:
            count += int((~over).sum())
            _, _, terminated, truncated, _ = env.step(action)
            over = terminated | truncated
    return {"steps/s": count / seconds}


def gymnasium_alone(job: Job) -> Result:
    """One environment as `gymnasium.make` gives it, with random actions drawn beforehand."""
    import gymnasium

    env = gymnasium.make(job.row.env)
    env.reset(seed=job.seed)
    env.action_space.seed(job.seed)
    actions = [env.action_space.sample() for _ in range(1000)]
    count, began = 0, time.perf_counter()
    while (seconds := time.perf_counter() - began) < 3.0:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        count += len(actions)
    return {"steps/s": count / seconds}


def torch_bound(job: Job) -> Result:
    """The networks of such a run in PyTorch, whose convolutions are oneDNN's, and nothing else.

    Per rollout one forward pass for each step's frames, and forward and backward of every minibatch in every epoch.
    """
    import torch
    from torch import nn

    sizes = ((4, 32, 8, 4), (32, 64, 4, 2), (64, 64, 3, 1))
    layers = [layer for i, o, k, s in sizes for layer in (nn.Conv2d(i, o, k, s), nn.ReLU())]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 5))
    row = job.row
    few, many = (torch.randint(0, 256, (n, 4, 84, 84), dtype=torch.uint8) for n in (row.n_envs, row.batch_size))

    def act() -> None:
        with torch.no_grad():
            network(few.float() / 255)

    def learn() -> None:
        network(many.float() / 255).square().sum().backward()

    seconds = row.n_steps * timed(act, 100) + row.n_epochs * row.n_minibatches * timed(learn, 5)
    return {"steps/s": row.n_envs * row.n_steps / seconds}


def sgemm_bound(job: Job) -> Result:
    """The arithmetic of 64-64 towers for CartPole at the speed of minibatch × 64 × 64 products: 231 kFLOP a step."""
    import numpy as np

    rng, n = np.random.default_rng(job.seed), job.row.batch_size
    x, w = rng.standard_normal((n, 64), np.float32), rng.standard_normal((64, 64), np.float32)
    out = np.empty_like(x)
    per_second = 2 * n * 64 * 64 / timed(lambda: np.matmul(x, w, out=out), 500)
    forward = 2 * (2 * (4 * 64 + 64 * 64) + 64 * (2 + 1))
    return {"steps/s": per_second / (forward * (1 + 3 * job.row.n_epochs))}


def timed(call: Any, times: int) -> float:
    """Seconds a call, the median of three rounds after one to warm up."""
    rounds = []
    for _ in range(4):
        began = time.perf_counter()
        for _ in range(times):
            call()
        rounds.append((time.perf_counter() - began) / times)
    return sorted(rounds[1:])[1]


def rejax(job: Job) -> Result:
    """One run of rejax's PPO, compiled as a whole beforehand; its return is that of 128 episodes after training."""
    import jax
    from jax import numpy as jnp
    from rejax import PPO  # pyright: ignore[reportMissingImports]

    row = job.row
    algorithm = PPO.create(
        env=row.env.partition(":")[2], agent_kwargs={"activation": "tanh", "hidden_layer_sizes": (64, 64)},
        num_envs=row.n_envs, num_steps=row.n_steps, num_minibatches=row.n_minibatches,
        num_epochs=row.n_epochs, learning_rate=row.lr, gamma=row.gamma, gae_lambda=row.lam, ent_coef=row.ent_coef,
        max_grad_norm=0.5, total_timesteps=row.steps, eval_freq=row.steps, skip_initial_evaluation=True,
    )  # fmt: skip
    evaluate, key = algorithm.eval_callback, jax.random.key(job.seed)
    silent = algorithm.replace(eval_callback=lambda algorithm, state, rng: jnp.zeros(()))
    train = jax.jit(silent.train).lower(key).compile()
    ready = time.time()
    state, _ = jax.block_until_ready(train(key))
    seconds = time.time() - ready
    told = {"steps/s": row.steps / seconds, "first update": ready - job.began, "steps": row.steps}
    return {**told, "return": float(jax.jit(evaluate)(algorithm, state, key)[1].mean())}


def skrl(job: Job) -> Result:
    """One run of skrl's PPO in PyTorch with its own trainer, nothing written to disk."""
    from collections import deque

    import gymnasium
    import numpy as np
    from skrl.agents.torch.ppo import PPO, PPO_CFG  # pyright: ignore[reportMissingImports]
    from skrl.envs.wrappers.torch import wrap_env  # pyright: ignore[reportMissingImports]
    from skrl.memories.torch import RandomMemory  # pyright: ignore[reportMissingImports]
    from skrl.models.torch import CategoricalMixin, DeterministicMixin, Model  # pyright: ignore[reportMissingImports]
    from skrl.trainers.torch import SequentialTrainer  # pyright: ignore[reportMissingImports]
    from skrl.utils import set_seed  # pyright: ignore[reportMissingImports]
    from torch import nn

    row, clock = job.row, Clock(job)
    set_seed(job.seed)
    env: Any = wrap_env(gymnasium.make_vec(row.env, row.n_envs, vectorization_mode="sync"))
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space, "device": env.device}

    def tower(outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(env.observation_space.shape[0], 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(),
            nn.Linear(64, outputs),
        )  # fmt: skip

    class Actor(CategoricalMixin, Model):
        def __init__(self) -> None:
            Model.__init__(self, **spaces)
            CategoricalMixin.__init__(self)
            self.net = tower(env.action_space.n)

        def compute(self, inputs: Any, role: str = "") -> Any:
            return self.net(inputs["observations"]), {}

    class Critic(DeterministicMixin, Model):
        def __init__(self) -> None:
            Model.__init__(self, **spaces)
            DeterministicMixin.__init__(self)
            self.net = tower(1)

        def compute(self, inputs: Any, role: str = "") -> Any:
            return self.net(inputs["observations"]), {}

    class Timed(PPO):
        """Its own statistics come only with files, so returns are added up here."""

        running, ended = np.zeros(row.n_envs), deque[float](maxlen=runs.RECENT)

        def record_transition(self, *, rewards: Any, terminated: Any, truncated: Any, **others: Any) -> None:
            super().record_transition(rewards=rewards, terminated=terminated, truncated=truncated, **others)
            self.running += rewards.numpy()[:, 0]
            for slot in np.flatnonzero((terminated | truncated).numpy()[:, 0]):
                self.ended.append(float(self.running[slot]))
                self.running[slot] = 0.0

        def update(self, *, timestep: int, timesteps: int) -> None:
            super().update(timestep=timestep, timesteps=timesteps)
            clock.update((timestep + 1) * row.n_envs, sum(self.ended) / len(self.ended) if self.ended else None)

    settings = PPO_CFG(
        rollouts=row.n_steps, learning_epochs=row.n_epochs, mini_batches=row.n_minibatches, discount_factor=row.gamma,
        gae_lambda=row.lam, learning_rate=row.lr, grad_norm_clip=0.5, ratio_clip=0.2, value_clip=0.0,
        entropy_loss_scale=row.ent_coef, value_loss_scale=0.5,
    )  # fmt: skip
    settings.experiment.write_interval = settings.experiment.checkpoint_interval = 0
    memory = RandomMemory(memory_size=row.n_steps, num_envs=row.n_envs, device=env.device)
    agent = Timed(models={"policy": Actor(), "value": Critic()}, memory=memory, cfg=settings, **spaces)
    trainer = {"timesteps": row.steps // row.n_envs, "headless": True, "disable_progressbar": True}
    SequentialTrainer(cfg=trainer, env=env, agents=agent).train()
    return clock.result


def exact(method: str) -> Any:
    """A side that evaluates a policy of a sparse MDP of `row.n_envs` states."""

    def solve(job: Job) -> Result:
        sys.path.insert(0, str(SOURCE))  # QuantEcon's interpreter has no Vantage, and the MDP is one of ours
        sys.path.insert(0, str(SOURCE.parent))
        from benchmarks.exact import evaluated

        return evaluated(method, job.row.n_envs)

    return solve


SIDES = {
    **runs.SIDES,
    "vantage train": command,
    "vantage train, warm cache": command,
    "import vantage": importing,
    "Vantage, warm cache": runs.ours,
    "EnvPool alone": envpool_alone,
    "Gymnasium alone": gymnasium_alone,
    "SB3, its own Atari": sb3_atari,
    "SB3, its own Atari, 1 thread": sb3_atari,
    "PyTorch's networks alone": torch_bound,
    "PyTorch's networks alone, 1 thread": torch_bound,
    "sgemm alone": sgemm_bound,
    "rejax": rejax,
    "skrl": skrl,
    "skrl, 1 thread": skrl,
    **{name: exact(name) for name in ("certified", "SciPy bicgstab", "SciPy gmres", "SciPy sweeps", "QuantEcon")},
}

if __name__ == "__main__":  # a worker, started by `benchmarks.speed`
    print("\n" + json.dumps(runs.work(sys.argv[1], SIDES)))
