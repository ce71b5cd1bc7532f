"""Every algorithm, trained as anywhere, on MDPs whose solution is known; J of what was learned is solved for."""

import numpy as np
import pytest
from gymnasium.spaces import Discrete

from benchmarks.exact_worlds import RECIPES, World, build, cliff, corridor, measure, random_world
from vantage.mdp import classics, exact, two_state


def two_states() -> World:
    """r = s, so go to state 1 and stay: J* = γ/(1−γ) = 9."""
    return World(
        name="two states", mdp=two_state(), seen=np.arange(2), max_steps=50, total_steps=20_000, bar=98.0, relative=True
    )


def trained(world: World, recipe: str, seed: int, steps: int | None = None, **options):
    agent = build(world, recipe, seed, **options)
    agent.learn(steps or world.total_steps)
    return agent


def test_the_worlds_have_the_published_optima():
    assert corridor().ends[1] == pytest.approx(-3.0), "of those who see the state"
    best = exact.expected_return(classics.corridor(), classics.corridor_policy(2 - np.sqrt(2)))
    assert best == pytest.approx(-(6 + 4 * np.sqrt(2)))
    assert cliff().ends[1] == pytest.approx(-13.0)
    assert two_states().ends[1] == pytest.approx(9.0)


def test_the_score_runs_from_the_uniform_policy_to_the_best():
    world = random_world(0)
    assert [world.score(J) for J in world.ends] == pytest.approx([0.0, 100.0])
    assert cliff().score(-15.0) == -15.0


def test_all_states_of_the_corridor_look_the_same():
    world = corridor()
    env = world.make_vector(3)
    assert env.single_observation_space == world().observation_space == Discrete(1)
    observation, _ = env.reset(seed=0)
    seen = [observation, *(env.step(np.ones(3, int))[0] for _ in range(5))]
    np.testing.assert_array_equal(seen, 0)


@pytest.mark.usefixtures("compile_fast")
def test_the_two_state_world_is_solved():
    world = two_states()
    agent = trained(world, "ppo", seed=0)
    result = measure(world, agent)
    assert result["score"] >= 98.0
    assert result["greedy_J"] == pytest.approx(9.0, rel=0.01)
    exactly = exact.state_values(world.mdp, world.policy(agent))
    np.testing.assert_allclose(agent.state_values(world.seen), exactly, rtol=0.05)


@pytest.mark.usefixtures("compile_fast")
def test_a_random_world_is_learned():
    world = random_world(1)
    assert measure(world, trained(world, "ppo", seed=0, steps=100_000))["score"] >= 95.0


@pytest.mark.learning
@pytest.mark.parametrize("world", [corridor(), cliff(), *map(random_world, range(5))], ids=lambda world: world.name)
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_seed_reaches_the_bar(world, recipe):
    scores = [measure(world, trained(world, recipe, seed))["score"] for seed in range(5)]
    # Without a critic the last per cents take more steps than this: the worst seed so far stays at 96.3 %.
    assert min(scores) >= (95.0 if world.relative and recipe == "reinforce" else world.bar)
