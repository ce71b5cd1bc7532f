"""What is learnt from samples against the exact values, judged by its own standard error."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from vantage.mdp import classics, exact
from vantage.mdp.model import MDP, uniform
from vantage.mdp.solve import (
    Estimate,
    improve,
    monte_carlo,
    policy_iteration,
    q_learning,
    restart_returns,
    restart_values,
    sarsa,
    td0,
)

ENDING = classics.random_mdp(8, 3, 0.95, seed=5, branching=3, n_terminal=1)
WALK = classics.random_walk()


@pytest.mark.parametrize(
    ("mdp", "state", "horizon"),
    [(ENDING, 2, None), (classics.random_mdp(6, 2, 0.8, seed=1), 0, None), (classics.gridworld_3_5(), 12, 15)],
)
@pytest.mark.parametrize("action", [None, 1])
def test_restart_intervals_cover_at_their_level(mdp, state, action, horizon):
    pi = uniform(mdp)
    V, Q = exact.state_values(mdp, pi, horizon), exact.action_values(mdp, pi, horizon)
    if horizon is not None:
        V, Q = V[0], Q[0]
    G = restart_returns(mdp, pi, state, action, n=1000 * 100, seed=11, horizon=horizon)
    estimates = Estimate.of(G.reshape(1000, 100))
    covered = estimates.covers(V[state] if action is None else Q[state, action]).mean()
    assert 0.93 <= covered <= 0.97


def test_restart_values_is_the_estimate_of_restart_returns():
    arguments = {"mdp": ENDING, "policy": uniform(ENDING), "state": 1, "action": 2, "n": 50, "seed": 3}
    found, samples = restart_values(**arguments), restart_returns(**arguments)
    assert found == Estimate.of(samples)
    assert_allclose(found.mean, samples.mean())
    assert_allclose(found.standard_error, samples.std(ddof=1) / np.sqrt(50))
    assert_allclose((found.high - found.low) / 2, 2.0095752 * found.standard_error, rtol=1e-7)
    assert found.n == 50


def test_restart_of_a_certain_game_is_certain():
    # North from the start is safe, but the first action is fixed here: east falls off the cliff, back to the start.
    mdp, path = classics.cliff(), np.full((4, 12), 2)
    path[3], path[:, -1] = 0, 1
    found = restart_values(mdp, path.reshape(-1), 36, 2, n=5)
    assert (found.low, found.mean, found.high) == (-113.0, -113.0, -113.0)
    assert restart_values(mdp, uniform(mdp), 47, n=5).mean == 0.0


def test_restart_cut_of_an_endless_game_is_negligible():
    mdp = MDP(np.ones((1, 1, 1)), np.ones((1, 1)), np.ones(1), 0.99)
    assert_allclose(restart_returns(mdp, uniform(mdp), 0, n=2), 100.0, rtol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"state": 8, "n": 2}, "state = 8"),
        ({"state": 0, "action": 3, "n": 2}, "action = 3"),
        ({"state": 0, "n": 1}, "n = 1"),
        ({"state": 0, "n": 0}, "n = 0"),
        ({"state": 0, "n": 2, "horizon": 0}, "horizon = 0"),
    ],
)
def test_restart_rejects(arguments, message):
    with pytest.raises(ValueError, match=message):
        restart_values(ENDING, uniform(ENDING), **arguments)


def test_restart_rejects_an_endless_undiscounted_game():
    mdp = classics.corridor()
    with pytest.raises(ValueError, match="need not end"):
        restart_values(mdp, classics.corridor_policy(0.0), 0, n=2)


@pytest.mark.parametrize("every_visit", [False, True])
def test_monte_carlo_is_right_within_its_own_error(every_visit):
    mdp, V = ENDING, exact.state_values(ENDING, uniform(ENDING))
    z = []
    for seed in range(60):
        found = monte_carlo(mdp, uniform(mdp), 400, seed, every_visit)
        z.append(((found.values - V) / found.standard_errors)[:7])
    z = np.array(z)
    assert np.abs(z.mean(0)).max() < 4 / np.sqrt(60)
    assert 0.85 < z.std() < 1.15


def test_monte_carlo_standard_error_of_a_coin():
    # Every episode visits the middle of the walk first, and returns 0 or 1 from there.
    found = monte_carlo(WALK, uniform(WALK), 10, seed=0)
    p = found.values[3]
    assert found.counts[3] == 10 and 0 < p < 1
    assert_allclose(found.standard_errors[3], np.sqrt(p * (1 - p) / 9))


def test_monte_carlo_counts_first_or_every_visit():
    # One state that pays 1 and loops: an episode of T steps returns T, T−1, …, 1 after its visits.
    mdp = MDP(np.array([[[0.8, 0.2]], [[0.0, 1.0]]]), np.ones((2, 1)), np.array([1.0, 0.0]), 1.0, (1,))
    first = monte_carlo(mdp, uniform(mdp), 1, seed=5)
    every = monte_carlo(mdp, uniform(mdp), 1, seed=5, every_visit=True)
    length = int(first.values[0])
    assert length > 1
    assert first.counts.tolist() == [1, 0]
    assert every.counts.tolist() == [length, 0]
    assert every.values[0] == (length + 1) / 2
    assert np.isnan(first.values[1]) and np.isnan(first.standard_errors).all()


def test_monte_carlo_rejects_endless_episodes():
    mdp = classics.two_state()
    with pytest.raises(ValueError, match="whole episodes"):
        monte_carlo(mdp, uniform(mdp), 10)


def test_td0_learns_only_the_last_state_in_its_first_episode():
    V = td0(WALK, uniform(WALK), alpha=0.1, episodes=1, learners=50)
    assert V.shape == (50, 7)
    ends_right = V[:, 5] > 0
    assert 10 < ends_right.sum() < 40
    assert_allclose(V[ends_right, 5], 0.1)
    assert (np.delete(V, 5, axis=1) == 0).all()


def test_td0_learns_the_values():
    V = td0(WALK, uniform(WALK), alpha=lambda n: (1 + n / 10) ** -0.7, steps=1500, seed=1, learners=100)
    estimate = Estimate.of(V.T)
    truth = np.array([0, 1, 2, 3, 4, 5, 0]) / 6
    assert (np.abs(estimate.mean - truth) < 4 * estimate.standard_error + 0.01).all()


def test_td0_on_an_endless_game():
    mdp = classics.two_state(0.5)
    V = td0(mdp, classics.two_state_policy(0.5, 0.5), alpha=lambda n: 1 / n**0.8, steps=2000, learners=50)
    assert_allclose(V.mean(0), exact.state_values(mdp, classics.two_state_policy(0.5, 0.5)), atol=0.02)


def test_sarsa_learns_the_safe_way_and_q_learning_the_short_one():
    mdp = classics.cliff()

    def learn(method):
        return method(mdp, 120, alpha=lambda n: n**-0.5, epsilon=0.1, seed=0, learners=40).mean(0)

    safe, short = learn(sarsa), learn(q_learning)
    assert_allclose(exact.expected_return(mdp, improve(mdp, short), horizon=50), -13.0, atol=1e-9)
    assert_allclose(short[36].max(), -13.0, atol=1.0)
    assert -17.0 <= exact.expected_return(mdp, improve(mdp, safe), horizon=50) < -14.0
    # While they explore, the short way costs more than twice as much.
    assert exact.expected_return(mdp, improve(mdp, safe, epsilon=0.1)) > -23.0
    assert exact.expected_return(mdp, improve(mdp, short, epsilon=0.1)) < -45.0


def test_sarsa_tends_to_the_best_soft_policy():
    mdp = classics.random_mdp(3, 2, 0.6, seed=2)
    Q = sarsa(mdp, steps=2000, alpha=lambda n: n**-0.7, epsilon=0.3, seed=3, learners=40)
    best = list(policy_iteration(mdp, epsilon=0.3))[-1]
    estimate = Estimate.of(np.moveaxis(Q, 0, -1))
    truth = exact.values_to_action_values(mdp, best.values)
    assert (np.abs(estimate.mean - truth) < 4 * estimate.standard_error + 0.02).all()
    assert_allclose(improve(mdp, estimate.mean, epsilon=0.3), best.policy)


def test_q_learning_finds_the_optimal_values_off_policy():
    mdp = classics.random_mdp(4, 2, 0.5, seed=2)
    Q = q_learning(mdp, steps=2000, alpha=lambda n: n**-0.7, epsilon=1.0, seed=3, learners=40)
    optimal = exact.values_to_action_values(mdp, list(policy_iteration(mdp))[-1].values)
    estimate = Estimate.of(np.moveaxis(Q, 0, -1))
    # The maximum of noisy estimates is too high on average: hence an allowance on top of the spread.
    assert (np.abs(estimate.mean - optimal) < 4 * estimate.standard_error + 0.02).all()


def test_sarsa_that_always_explores_finds_the_values_of_the_uniform_policy():
    mdp = classics.random_mdp(4, 2, 0.7, seed=2)
    Q = sarsa(mdp, steps=2000, alpha=lambda n: n**-0.7, epsilon=1.0, seed=3, learners=40)
    estimate = Estimate.of(np.moveaxis(Q, 0, -1))
    truth = exact.action_values(mdp, uniform(mdp))
    assert (np.abs(estimate.mean - truth) < 4 * estimate.standard_error + 0.01).all()


@pytest.mark.parametrize("method", [sarsa, q_learning])
def test_one_learner_is_a_table_and_a_seed_fixes_it(method):
    runs = [method(WALK, 20, alpha=0.5, epsilon=0.1, seed=seed) for seed in (1, 1, 2)]
    assert runs[0].shape == (7, 2)
    assert (runs[0] == runs[1]).all()
    assert not (runs[0] == runs[2]).all()
    many = method(WALK, 20, alpha=0.5, epsilon=0.1, seed=1, learners=3)
    assert many.shape == (3, 7, 2) and not (many[0] == many[1]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one"),
        ({"steps": 3, "episodes": 3}, "exactly one"),
        ({"steps": 0}, "steps = 0"),
        ({"episodes": 0}, "episodes = 0"),
        ({"steps": 3, "learners": 0}, "learners = 0"),
    ],
)
def test_budget_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        td0(WALK, uniform(WALK), alpha=0.1, **arguments)
    with pytest.raises(ValueError, match=message):
        q_learning(WALK, alpha=0.1, epsilon=0.1, **arguments)


def test_episodes_that_never_end_are_refused():
    mdp = classics.two_state()
    with pytest.raises(ValueError, match="give steps instead"):
        sarsa(mdp, 10, alpha=0.1, epsilon=0.1)


def test_learning_rejects_no_probability():
    with pytest.raises(ValueError, match="epsilon = 2"):
        sarsa(WALK, 10, alpha=0.1, epsilon=2)
