"""Settings that are known to work, one entry an environment; `Agent.tuned` and the command line read them here and
nowhere else.
"""

from dataclasses import dataclass
from typing import Any

from vantage.recipe import PPO, Joint, Linear


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """`total_steps` to train for, and the fields of `Settings` that differ from their defaults."""

    total_steps: int
    settings: dict[str, Any]


TUNED: dict[str, Tuned] = {
    # Source of all three: rl-baselines3-zoo, hyperparams/ppo.yml.
    "CartPole-v1": Tuned(
        total_steps=100_000,
        settings=dict(
            recipe=PPO(clip_range=Linear(0.2), gae_lambda=0.8, n_epochs=20, n_minibatches=1),
            gamma=0.98,
            n_envs=8,
            n_steps=32,
            optim=Joint(lr=Linear(1e-3)),
        ),
    ),
    "Acrobot-v1": Tuned(
        total_steps=500_000,
        settings=dict(
            recipe=PPO(gae_lambda=0.94, n_epochs=4, n_minibatches=64),
            gamma=0.99,
            n_envs=16,
            n_steps=256,
            normalise_observation=True,
            normalise_reward=True,
        ),
    ),
    "Pendulum-v1": Tuned(
        total_steps=200_000,
        settings=dict(
            recipe=PPO(gae_lambda=0.95, n_epochs=10, n_minibatches=64),
            gamma=0.9,
            n_envs=4,
            n_steps=1024,
            optim=Joint(lr=1e-3),
        ),
    ),
}
