"""Every trajectory, weighted: sums over them are the exact quantities, with no sampling noise."""

import numpy as np
import pytest
import scipy.sparse as sp

from vantage import mdp
from vantage.mdp.trajectories import Choice, enumerate_paths, rewards

H = 4


@pytest.fixture
def world(rng):
    """Four states, the last of them the end; some transitions and one action are impossible."""
    P = rng.dirichlet(np.full(4, 0.7), (4, 2))
    P[0, 0] = [0.0, 0.5, 0.5, 0.0]
    return mdp.MDP(P, rng.normal(size=(4, 2, 4)), np.array([0.6, 0.4, 0.0, 0.0]), 0.9, terminal=[3])


@pytest.fixture
def theta(rng):
    return rng.normal(size=(4, 2))


def returns(rollout):
    return np.where(rollout.mask, rollout.gamma**rollout.time * rollout.reward, 0.0).sum(0)


def score(rollout, theta):
    """∇_θ Σ_t log π(a_t|s_t) of each column, `[B, S, A]`."""
    S, A = theta.shape
    at = np.eye(S)[rollout.observation][..., None]
    gradient = at * (np.eye(A)[rollout.action] - mdp.softmax(theta)[rollout.observation])[..., None, :]
    return np.where(rollout.mask[..., None, None], gradient, 0.0)


def test_probabilities_sum_to_one_and_returns_to_j(world, theta):
    pi = mdp.softmax(theta)
    rollout = mdp.trajectories(world, pi, H)
    assert rollout.weight.sum() == pytest.approx(1.0, abs=1e-14) and (rollout.weight > 0).all()
    J = mdp.expected_return(world, pi, H)
    assert rollout.weight @ returns(rollout) == pytest.approx(J, abs=1e-13)


def test_likelihood_gradient_is_the_exact_one_and_its_mean_is_zero(world, theta):
    rollout = mdp.trajectories(world, mdp.softmax(theta), H)
    total = score(rollout, theta).sum(0)
    np.testing.assert_allclose(np.einsum("b,bsa->sa", rollout.weight, total), 0.0, atol=1e-14)
    gradient = np.einsum("b,b,bsa->sa", rollout.weight, returns(rollout), total)
    np.testing.assert_allclose(gradient, mdp.policy_gradient(world, theta, H), atol=1e-13)


def test_fisher_is_the_discounted_mean_of_squared_scores(world, theta):
    rollout = mdp.trajectories(world, mdp.softmax(theta), H)
    g = score(rollout, theta).reshape(*rollout.shape, -1)
    w = rollout.weight * np.where(rollout.mask, world.gamma**rollout.time, 0.0)
    np.testing.assert_allclose(mdp.fisher(world, theta, H), np.einsum("tb,tbi,tbj->ij", w, g, g) / w.sum(), atol=1e-13)


def test_occupancy_and_values_are_conditional_means(world, theta):
    pi = mdp.softmax(theta)
    V, Q = mdp.state_values(world, pi, H), mdp.action_values(world, pi, H)
    rollout = mdp.trajectories(world, pi, H, value=V)
    to_go = np.cumsum((np.where(rollout.mask, world.gamma**rollout.time * rollout.reward, 0.0))[::-1], axis=0)[::-1]
    d = mdp.occupancy(world, pi, H, discounted=False)
    for t in range(H):
        for s in range(3):
            here = rollout.mask[t] & (rollout.observation[t] == s)
            w = rollout.weight * here
            assert w.sum() == pytest.approx(d[t, s], abs=1e-14)
            if not here.any():
                continue
            assert w @ to_go[t] / w.sum() / world.gamma**t == pytest.approx(V[t, s], abs=1e-12)
            chosen = w * (rollout.action[t] == 1)
            assert chosen @ to_go[t] / chosen.sum() / world.gamma**t == pytest.approx(Q[t, s, 1], abs=1e-12)
            assert (rollout.value[t][here] == V[t, s]).all()


def test_td_error_given_state_and_action_is_the_expected_one(world, theta, rng):
    pi, wrong = mdp.softmax(theta), rng.normal(size=(H + 1, 4))
    rollout = mdp.trajectories(world, pi, H, value=wrong)
    delta = rollout.reward + rollout.discount * rollout.next_value - rollout.value
    exact = mdp.expected_td_error(world, wrong)
    for t, s, a in np.ndindex(H, 3, 2):
        w = rollout.weight * (rollout.mask[t] & (rollout.observation[t] == s) & (rollout.action[t] == a))
        if w.any():
            assert w @ delta[t] / w.sum() == pytest.approx(exact[t, s, a], abs=1e-12)


def test_each_column_is_one_possible_trajectory_listed_once(world, theta):
    pi = mdp.softmax(theta)
    paths, probability = enumerate_paths(world, pi, H)
    key = np.concatenate([paths.state, paths.action, paths.reached, paths.real])
    assert np.unique(key, axis=1).shape == key.shape
    full = paths.real.all(0)
    states = np.concatenate([paths.state[:, full], paths.reached[-1:, full]])
    log_prob = mdp.trajectory_log_prob(world, pi, states, paths.action[:, full])
    np.testing.assert_allclose(np.log(probability[full]), log_prob, atol=1e-12)
    assert not full.all()


def test_rows_after_the_end_are_masked_zeros(world, theta):
    rollout = mdp.trajectories(world, mdp.softmax(theta), H, value=np.arange(1.0, 5.0))
    over = ~rollout.mask
    assert over.any() and not over[0].any()
    names = ("observation", "action", "reward", "signal", "discount", "last", "log_prob", "value", "next_value", "time")
    for name in names:
        assert (getattr(rollout, name)[over] == 0).all(), name
    assert (rollout.policy[0][over] == 0).all()
    assert (rollout.last.sum(0) == 1).all()


@pytest.mark.parametrize("truncate", [False, True])
def test_the_horizon_ends_the_world_or_cuts_it(world, theta, truncate):
    V = np.arange(1.0, 5.0)
    rollout = mdp.trajectories(world, mdp.softmax(theta), H, value=V, truncate=truncate)
    paths, _ = enumerate_paths(world, mdp.softmax(theta), H, truncate)
    ended = paths.real & (paths.reached == 3)
    at_horizon = rollout.mask & (rollout.time == H - 1) & ~ended
    assert ended.any() and at_horizon.any()
    assert (rollout.discount[ended] == 0).all() and rollout.last[ended].all() and rollout.last[at_horizon].all()
    assert (rollout.discount[at_horizon] == (0.9 if truncate else 0.0)).all()
    assert (rollout.discount[rollout.mask & ~rollout.last] == 0.9).all()
    np.testing.assert_array_equal(rollout.next_value[rollout.mask], V[paths.reached[rollout.mask]])
    if truncate:
        bootstrapped = returns(rollout) + (world.gamma**H * np.where(at_horizon, rollout.next_value, 0)).sum(0)
        pi = mdp.softmax(theta)
        P, r = mdp.transition_matrix(world, pi), (pi * world.expected_reward).sum(1)
        backed_up = np.where(world.terminal, 0.0, V)
        for _ in range(H):
            backed_up = r + world.gamma * P @ backed_up
        assert rollout.weight @ bootstrapped == pytest.approx(world.rho @ backed_up, abs=1e-13)


def test_log_prob_and_logits_are_of_the_policy(world, theta):
    pi = mdp.softmax(theta)
    rollout = mdp.trajectories(world, pi, 2)
    np.testing.assert_array_equal(rollout.policy[0][0], np.log(pi)[rollout.observation[0]])
    np.testing.assert_array_equal(rollout.log_prob[0], np.log(pi[rollout.observation[0], rollout.action[0]]))
    sure = mdp.trajectories(world, np.array([1, 1, 1, 1]), 2)
    assert (sure.action[sure.mask] == 1).all() and (sure.log_prob == 0).all()
    assert not np.isnan(sure.policy[0]).any()


@pytest.mark.parametrize("n", [2, 3])
def test_tuples_of_trajectories_are_independent(world, theta, n):
    pi = mdp.softmax(theta)
    single, groups = mdp.trajectories(world, pi, 1), mdp.trajectories(world, pi, 1, group=n)
    count = single.shape[1]
    assert groups.shape == (1, n * count**n)
    assert (groups.group == np.repeat(np.arange(count**n), n)).all() and groups.weight.sum() == pytest.approx(
        1.0, abs=1e-14
    )
    assert groups.weight @ returns(groups) == pytest.approx(single.weight @ returns(single), abs=1e-14)
    G = returns(groups).reshape(-1, n)
    probability = groups.weight.reshape(-1, n).sum(1)
    variance = single.weight @ returns(single) ** 2 - (single.weight @ returns(single)) ** 2
    assert probability @ G.mean(1) ** 2 - (probability @ G.mean(1)) ** 2 == pytest.approx(variance / n, abs=1e-13)


def test_too_many_trajectories_is_a_clear_error(world, theta):
    pi = mdp.softmax(theta)
    with pytest.raises(
        ValueError, match="trajectories after 3 steps, more than max_columns = 100: shorten the horizon"
    ):
        mdp.trajectories(world, pi, 30, max_columns=100)
    with pytest.raises(ValueError, match="a shorter horizon or a smaller group"):
        mdp.trajectories(world, pi, 2, group=5, max_columns=1000)
    with pytest.raises(ValueError, match="horizon = 0"):
        mdp.trajectories(world, pi, 0)
    with pytest.raises(ValueError, match=r"give \[S\], or \[H\+1, S\] for every time up to 2"):
        mdp.trajectories(world, pi, 2, value=np.zeros((2, 4)))


def test_sparse_lists_the_same_trajectories(world, theta):
    P, R = sp.csr_array(world.P.reshape(8, 4)), sp.csr_array(world.R.reshape(8, 4))
    sparse = mdp.MDP(P, R, world.rho, world.gamma, world.terminal)
    a, b = (mdp.trajectories(m, mdp.softmax(theta), 3) for m in (world, sparse))
    for name in ("observation", "action", "reward", "weight", "mask", "discount"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def test_a_sample_is_a_rollout_of_the_same_law(world, theta):
    """Discounted return of whole episodes, and visits, within four standard errors."""
    pi = mdp.softmax(theta)
    rollout = mdp.sample(world, pi, steps=H, columns=20_000, seed=0, horizon=H)
    first = np.cumsum(rollout.last, axis=0) - rollout.last == 0
    G = np.where(first, world.gamma**rollout.time * rollout.reward, 0.0).sum(0)
    assert abs(G.mean() - mdp.expected_return(world, pi, H)) < 4 * G.std() / np.sqrt(len(G))
    d = mdp.occupancy(world, pi, H, discounted=False)
    visits = np.stack([(first & (rollout.observation == s)).mean(1) for s in range(4)], axis=1)
    np.testing.assert_allclose(visits, d, atol=4 * 0.5 / np.sqrt(20_000))
    np.testing.assert_array_equal(rollout.log_prob, np.log(pi)[rollout.observation, rollout.action])


@pytest.mark.parametrize("truncate", [False, True])
def test_sampled_columns_start_anew_after_an_end(world, theta, truncate):
    V = np.arange(1.0, 5.0)
    rollout = mdp.sample(world, mdp.softmax(theta), 50, 8, seed=1, value=V, horizon=3, truncate=truncate)
    assert rollout.mask.all() and not (rollout.observation == 3).any() and rollout.weight is None
    assert rollout.last[-1].all()
    after = rollout.last[:-1]
    assert (rollout.time[0] == 0).all() and (rollout.time[1:][after] == 0).all()
    assert (np.diff(rollout.time, axis=0)[~after] == 1).all() and rollout.time.max() == 2
    assert (rollout.observation[1:][after] <= 1).all()
    ended = rollout.next_value == 4.0
    assert (rollout.discount[ended] == 0).all()
    at_horizon = ~ended & (rollout.time == 2)
    assert (rollout.discount[at_horizon] == (0.9 if truncate else 0.0)).all()
    assert (rollout.discount[~ended & (rollout.time < 2)] == 0.9).all()
    kept = ~rollout.last[:-1]
    np.testing.assert_array_equal(rollout.next_value[:-1][kept], rollout.value[1:][kept])
    again = mdp.sample(world, mdp.softmax(theta), 50, 8, seed=1, value=V, horizon=3, truncate=truncate)
    assert (again.observation == rollout.observation).all() and (again.reward == rollout.reward).all()
    other = mdp.sample(world, mdp.softmax(theta), 50, 8, seed=2)
    assert (other.observation != rollout.observation).any()


def test_sampled_rewards_are_those_of_the_transitions(rng):
    P = rng.dirichlet(np.ones(3), (3, 2))
    world = mdp.MDP(P, np.arange(18.0).reshape(3, 2, 3), np.array([1.0, 0, 0]), 0.9)
    rollout = mdp.sample(world, mdp.uniform(world), 40, 4, seed=0)
    reached = rollout.observation[1:]
    expected = world.R[rollout.observation[:-1], rollout.action[:-1], reached]
    np.testing.assert_array_equal(rollout.reward[:-1], expected)
    np.testing.assert_array_equal(rewards(world, rollout.observation[:-1], rollout.action[:-1], reached), expected)


def test_choices_invert_the_distribution_function():
    choice = Choice(sp.csr_array(np.array([[0.0, 0.25, 0.75], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0]])))
    row, u = np.array([0, 0, 0, 1, 1, 2, 2]), np.array([0.0, 0.2499, 0.25, 0.0, 1 - 2**-53, 0.5, 0.499])
    assert (choice.column[choice(row, u)] == [1, 1, 2, 0, 0, 1, 0]).all()
