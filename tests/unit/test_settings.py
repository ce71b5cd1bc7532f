"""Agents, settings and the lab: wrong arguments are named, and what they are is shown."""

import jaxtyping
import pytest

import vantage as vt
from vantage.control import Settings


@pytest.fixture(autouse=True)
def unchecked_types(monkeypatch):
    """As a user runs it: without the type checks of the tests, which would speak first."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: vt.Agent("CartPole-v1", "ppo"), "recipe = 'ppo': give a Recipe such as vt.PPO()"),
        (lambda: Settings(n_envs=2.5), "n_envs = 2.5: give a whole number"),
        (lambda: Settings(seed="1"), "seed = '1': give a whole number"),
        (lambda: vt.Lab("corridor"), "mdp = 'corridor': give an MDP"),
    ],
)
def test_what_is_no_such_thing_is_a_type_error(make, words):
    with pytest.raises(TypeError) as error:
        make()
    assert words in str(error.value)


def test_a_critic_of_another_shape_is_refused():
    world = vt.mdp.corridor()
    with pytest.raises(ValueError, match="wrong has shape"):
        vt.Lab(world, wrong=[1.0] * (world.n_states + 1))
    with pytest.raises(ValueError, match="horizon = 0"):
        vt.Lab(world, horizon=0)


def test_what_is_shown_says_what_it_is():
    assert repr(vt.Agent("CartPole-v1")) == "Agent(CartPole-v1: GAE × Clip × Squared, seed 0, 0 steps taken)"
    assert repr(vt.Lab(vt.mdp.corridor())).endswith("horizon=5)")
    assert {"Agent", "Lab", "load", "mdp", "PPO"} <= set(dir(vt))
