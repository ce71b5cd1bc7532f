"""π(a|s) and V(s) of an agent as tables over given observations."""

import numpy as np
import pytest
import scipy.special

import vantage as vt
from vantage.control import MLP
from vantage.mdp import two_state
from vantage.mdp.env import MDPEnv

STATES = np.eye(2, dtype=np.float32)


def world() -> MDPEnv:
    return MDPEnv(two_state(), max_steps=5, one_hot=True)


def linear(recipe=None, **options) -> vt.Agent:
    return vt.Agent(world, recipe, network=MLP(hidden=()), n_envs=1, n_steps=20, seed=3, **options)


def assert_tables_are_the_parameters(agent) -> None:
    """Of a linear network on one-hot states the tables are weights and biases."""
    networks = agent._model.networks(agent.world.vector)
    ((actor, actor_bias),), ((critic, critic_bias),) = networks.actor.layers, networks.critic.layers
    probabilities = scipy.special.softmax(actor + actor_bias, axis=-1)
    np.testing.assert_allclose(agent.action_probabilities(STATES), probabilities, rtol=1e-5)
    np.testing.assert_allclose(agent.state_values(STATES), (critic + critic_bias)[:, 0], rtol=1e-5)


def test_tables_are_the_parameters_before_and_after_learning():
    agent = linear(optim=vt.Joint(lr=0.1))
    fresh = agent.action_probabilities(STATES)
    assert_tables_are_the_parameters(agent)
    agent.learn(20)
    assert_tables_are_the_parameters(agent)
    assert abs(agent.action_probabilities(STATES) - fresh).max() > 0.01


def test_a_loaded_agent_has_the_same_tables(tmp_path):
    agent = linear(normalise_observation=True)
    agent.learn(20)
    agent.save(tmp_path / "agent")
    loaded = vt.load(tmp_path / "agent")
    for table in ("action_probabilities", "state_values"):
        np.testing.assert_array_equal(getattr(loaded, table)(STATES), getattr(agent, table)(STATES))
    assert loaded.state_values(STATES[0]).shape == ()
    assert loaded.action_probabilities(STATES[None]).shape == (1, 2, 2)


def test_what_has_no_table_says_so():
    with pytest.raises(ValueError, match="no critic"):
        linear(vt.REINFORCE()).state_values(STATES)
    with pytest.raises(TypeError, match="density"):
        vt.Agent("Pendulum-v1").action_probabilities(np.zeros((1, 3)))
