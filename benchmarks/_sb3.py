"""One run of Stable-Baselines3's PPO with settings in the zoo's keys, as JSON: `python _sb3.py '{"env": …}'`.

It reads {"env", "seed", "entry"} and needs neither Vantage nor JAX, so any interpreter that has Stable-Baselines3 will
do. What the zoo's own script does with a key is done here: "lin_x" falls linearly to 0, `normalize` wraps the
environments in VecNormalize with the same γ.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

EVALUATED = 20
"""Episodes of the evaluation."""


def train(env: str, seed: int, entry: dict[str, Any]) -> dict[str, Any]:
    """Train on one thread, then evaluate deterministically; returns, and the training curve."""
    import torch  # pyright: ignore[reportMissingImports]
    from stable_baselines3 import PPO  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.callbacks import BaseCallback  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.env_util import make_vec_env  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.evaluation import evaluate_policy  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.vec_env import VecNormalize  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(1)
    options = dict(entry)
    steps, slots = int(options.pop("n_timesteps")), options.pop("n_envs", 1)
    normalised = options.pop("normalize", False)
    envs: Any = make_vec_env(env, slots, seed=seed)
    if normalised:
        envs = VecNormalize(envs, gamma=options.get("gamma", 0.99))

    class Watch(BaseCallback):
        """A rollout begins where an update has ended, but for the first."""

        rows: list[list[float]] = []  # noqa: RUF012 (one watch a process)

        def _on_step(self) -> bool:
            return True

        def _on_rollout_start(self) -> None:
            episodes = self.model.ep_info_buffer
            if self.num_timesteps and episodes:
                self.rows.append([self.num_timesteps, sum(e["r"] for e in episodes) / len(episodes)])

    watch, began = Watch(), time.perf_counter()
    model = PPO(options.pop("policy", "MlpPolicy"), envs, seed=seed, device="cpu", **understood(options))
    model.learn(steps, watch)
    watch._on_rollout_start()
    seconds = time.perf_counter() - began
    fresh: Any = make_vec_env(env, 1, seed=10_000 + seed)
    if normalised:
        moments, fresh = envs.obs_rms, VecNormalize(fresh, training=False, norm_reward=False)
        fresh.obs_rms = moments
    returns, _ = evaluate_policy(model, fresh, EVALUATED, deterministic=True, return_episode_rewards=True)
    return {
        "steps": model.num_timesteps,
        "seconds": round(seconds, 2),
        "returns": [float(r) for r in returns],
        "rows": watch.rows,
    }


def understood(options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of PPO: schedules become functions of the remaining share, names of activations become classes."""
    out: dict[str, Any] = {name: schedule(x) if isinstance(x, str) else x for name, x in options.items()}
    if "policy_kwargs" in out:
        from torch import nn  # pyright: ignore[reportMissingImports]

        given: dict[str, Any] = dict(options["policy_kwargs"])
        if "activation_fn" in given:
            given["activation_fn"] = getattr(nn, given["activation_fn"])
        out["policy_kwargs"] = given
    return out


def schedule(text: str) -> Callable[[float], float]:
    """Of lin_x: x · the remaining share of the run."""
    start = float(text.removeprefix("lin_"))
    return lambda left: start * left


if __name__ == "__main__":
    print("\n" + json.dumps(train(**json.loads(sys.argv[1]))))
