"""What a file cannot name safely is given when it is loaded; the error says which argument is missing."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

import vantage as vt
from tests.worlds.jax_envs import JaxProbe
from vantage.control import MLP
from vantage.recipe import GAE


@dataclass(frozen=True, kw_only=True)
class Halved(GAE):
    """A Ψ of a stranger's own."""

    def __call__(self, rollout):
        weights, target = GAE.__call__(self, rollout)
        return 0.5 * weights, target


def saved(path, **options):
    agent = vt.Agent("CartPole-v1", n_envs=2, n_steps=8, network=MLP(hidden=(3,)), **options)
    agent.save(path)
    return agent


def test_a_recipe_of_a_strangers_own_is_given(tmp_path):
    agent = saved(tmp_path / "a", recipe=replace(vt.PPO(), psi=Halved()))
    with pytest.raises(ValueError, match=r"Halved.*vt\.load\(path, recipe=…\)"):
        vt.load(tmp_path / "a")
    loaded = vt.load(tmp_path / "a", recipe=agent.settings.recipe)
    assert loaded.settings == agent.settings
    observation = np.random.default_rng(0).standard_normal((20, 4))
    np.testing.assert_array_equal(loaded.act(observation, True), agent.act(observation, True))


def test_a_network_that_does_not_fit_is_refused_at_once(tmp_path):
    saved(tmp_path / "a")
    with pytest.raises(ValueError, match=r"actor\.weights\.0 has shape \(4, 5\) in this agent, \(4, 3\) in the file"):
        vt.load(tmp_path / "a", network=MLP(hidden=(5,)))


def test_ids_of_our_own_adapters_are_kept_and_modules_are_not(tmp_path):
    agent = vt.Agent("mdp:cliff", n_envs=2, n_steps=8, max_episode_steps=50)
    agent.save(tmp_path / "a")
    assert vt.load(tmp_path / "a").env == "mdp:cliff"
    state = agent.world.state()
    agent.env = "a_strangers_module:Env-v0"
    agent._write(tmp_path / "b", state)
    stranger = vt.load(tmp_path / "b")
    assert stranger.env is None
    with pytest.raises(ValueError, match="env=…"):
        stranger.learn(10_000)
    assert vt.load(tmp_path / "b", env="mdp:cliff").evaluate(episodes=2).lengths <= (50, 50)


@pytest.mark.parametrize("env", [vt.mdp.two_state(), JaxProbe(steps=3)], ids=["MDP", "JaxEnv"])
def test_an_environment_that_is_a_value_is_given(env, tmp_path):
    agent = vt.Agent(env, n_envs=2, n_steps=8, max_episode_steps=5 if isinstance(env, vt.mdp.MDP) else None)
    agent.save(tmp_path / "a")
    loaded = vt.load(tmp_path / "a")
    assert loaded.env is None
    with pytest.raises(ValueError, match="env=…"):
        loaded.evaluate()
    assert max(vt.load(tmp_path / "a", env=env).evaluate(episodes=2).lengths) <= 5
