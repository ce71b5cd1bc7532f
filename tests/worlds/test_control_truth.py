"""Environments whose values and best policies are known in closed form, learned by the real trainer."""

import gymnasium as gym
import numpy as np
import pytest

import vantage as vt
from tests.worlds.control_envs import Probe
from vantage.control import MLP


def trained(env, steps: int, gamma: float = 0.9, **options):
    given = {
        "recipe": vt.PPO(n_epochs=8, n_minibatches=1, gae_lambda=0.9),
        "optim": vt.Joint(lr=vt.Linear(3e-2, 1e-3), max_grad_norm=None),
        "network": MLP(hidden=(8,)),
        "n_steps": 32,
        **options,
    }
    agent = vt.Agent(env, gamma=gamma, n_envs=4, **given)
    agent.learn(steps)
    return agent


def value(agent, observation: float) -> float:
    model, vector = agent._model, agent.world.vector
    return float(model.value(vector, np.array([observation], np.float32)))


def right(agent, observation: float) -> int:
    return int(agent.act(np.array([observation], np.float32), deterministic=True))


def test_a_time_limit_does_not_end_the_world():
    """Reward 1 for ever, cut every 5 steps: V = 1/(1 − γ) = 10. Taking the cut for an end would give about 2.6."""
    forever = lambda: gym.wrappers.TimeLimit(Probe(steps=10**9), 5)  # noqa: E731
    assert value(trained(forever, 12_000), 1.0) == pytest.approx(10.0, rel=0.05)


def test_an_end_does_end_the_world():
    """The same reward with true ends after one step: V = 1."""
    assert value(trained(lambda: Probe(steps=1), 4_000), 1.0) == pytest.approx(1.0, abs=0.05)


def test_value_follows_the_observation():
    agent = trained(lambda: Probe(steps=1, observe=lambda t, x: x, reward=lambda t, x, a: x), 6_000)
    assert [value(agent, x) for x in (-1.0, 1.0)] == pytest.approx([-1.0, 1.0], abs=0.1)


def test_value_is_discounted():
    agent = trained(lambda: Probe(steps=2, observe=lambda t, x: float(t), reward=lambda t, x, a: float(t == 1)), 8_000)
    assert [value(agent, t) for t in (0.0, 1.0)] == pytest.approx([0.9, 1.0], abs=0.07)


def test_policy_follows_the_reward():
    agent = trained(lambda: Probe(steps=1, reward=lambda t, x, a: float(a)), 3_000)
    assert right(agent, 1.0) == 1
    assert value(agent, 1.0) > 0.8


def test_policy_follows_observation_and_reward():
    matching = lambda: Probe(steps=1, observe=lambda t, x: x, reward=lambda t, x, a: float((x > 0) == a))  # noqa: E731
    agent = trained(matching, 4_000)
    assert (right(agent, -1.0), right(agent, 1.0)) == (0, 1)
    assert agent.evaluate(episodes=20).mean == 1.0


def test_without_a_critic_whole_episodes_teach_the_same():
    matching = lambda: Probe(steps=3, observe=lambda t, x: x, reward=lambda t, x, a: float((x > 0) == a))  # noqa: E731
    recipe = vt.REINFORCE(psi=vt.RewardToGo(baseline=vt.recipe.BatchMean()))
    agent = trained(matching, 5_000, recipe=recipe, n_steps=16)
    assert agent.evaluate(episodes=10).mean == 3.0
