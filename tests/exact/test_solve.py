"""The evaluate ⇄ improve loop: it never loses, and where it stops nothing is better."""

from itertools import islice, pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose

from vantage.mdp import classics, exact
from vantage.mdp.model import MDP, uniform
from vantage.mdp.solve import improve, policy_iteration, sweeps, value_iteration

MDPS = {
    "discounted": classics.random_mdp(12, 4, 0.95, seed=1),
    "with an end": classics.random_mdp(10, 3, 0.99, seed=2, branching=3, n_terminal=1),
    "undiscounted": classics.random_mdp(10, 3, 1.0, seed=3, n_terminal=2),
    "myopic": classics.random_mdp(6, 3, 0.0, seed=4),
    "grid": classics.gridworld_3_5(),
    "cliff": classics.cliff(),
}


@pytest.fixture(params=MDPS)
def mdp(request):
    return MDPS[request.param]


@pytest.mark.parametrize(
    ("k", "first_row", "second_row"),
    [
        (1, [0, -1, -1, -1], [-1, -1, -1, -1]),
        (2, [0, -1.75, -2, -2], [-1.75, -2, -2, -2]),
        (3, [0, -2.4375, -2.9375, -3], [-2.4375, -2.875, -3, -2.9375]),
        (
            10,
            [0, -6.1379699707, -8.352355957, -8.9673156738],
            [-6.1379699707, -7.7373962402, -8.4278259277, -8.352355957],
        ),
    ],
)
def test_sweeps_of_figure_4_1(k, first_row, second_row):
    mdp = classics.gridworld_4_1()
    V = next(islice(sweeps(mdp, uniform(mdp)), k - 1, None)).reshape(4, 4)
    assert_allclose(V[:2], [first_row, second_row], atol=1e-10)
    assert_allclose(V, V[::-1, ::-1], atol=1e-14)
    assert_allclose(V, V.T, atol=1e-14)


def test_sweeps_are_synchronous():
    mdp = classics.gridworld_4_1()
    in_place = np.zeros(16)
    for s in range(16):
        in_place[s] = exact.values_to_action_values(mdp, in_place)[s].mean()
    assert in_place[:4].tolist() == [0, -1, -1.25, -1.3125]
    assert next(sweeps(mdp, uniform(mdp)))[:4].tolist() == [0, -1, -1, -1]


def test_sweeps_converge_to_the_values_and_stay_there():
    mdp = classics.random_mdp(10, 3, 0.8, seed=0, branching=4, n_terminal=1)
    V = exact.state_values(mdp, uniform(mdp))
    assert_allclose(next(islice(sweeps(mdp, uniform(mdp)), 199, None)), V, atol=1e-12)
    assert_allclose(next(sweeps(mdp, uniform(mdp), V)), V, atol=1e-13)


def test_sweeps_leave_v0_alone_and_count_the_end_as_zero():
    mdp = classics.random_walk()
    v0 = np.full(7, 5.0)
    V = next(sweeps(mdp, uniform(mdp), v0))
    assert (v0 == 5.0).all()
    assert V.tolist() == [0, 2.5, 5, 5, 5, 3, 0]


def test_improve_shares_ties_and_mixes_in_epsilon():
    mdp = classics.random_mdp(2, 4, 0.9)
    Q = np.array([[1.0, 3.0, 3.0 - 1e-13, 0.0], [0.0, 0.0, 0.0, -1.0]])
    assert_allclose(improve(mdp, Q), [[0, 0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3, 0]], atol=1e-15)
    assert_allclose(improve(mdp, Q, epsilon=0.2)[0], [0.05, 0.45, 0.45, 0.05], atol=1e-15)
    assert_allclose(improve(mdp, Q, epsilon=1.0), uniform(mdp), atol=1e-15)


@pytest.mark.parametrize("epsilon", [-0.1, 1.1])
def test_improve_rejects_no_probability(epsilon):
    with pytest.raises(ValueError, match="epsilon"):
        improve(MDPS["grid"], np.zeros((25, 4)), epsilon=epsilon)


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_policy_iteration_never_falls(mdp, epsilon):
    turns = list(policy_iteration(mdp, epsilon=epsilon))
    for before, after in pairwise(turns):
        slack = 1e-12 * np.abs(before.values).max()
        assert (after.values >= before.values - slack).all()
        assert after.expected_return >= before.expected_return - slack
    for turn in turns:
        assert_allclose(turn.expected_return, exact.expected_return(mdp, turn.policy), rtol=1e-12)
        assert_allclose(turn.values, exact.state_values(mdp, turn.policy), rtol=1e-12)


def test_policy_iteration_ends_at_the_optimum(mdp):
    solved = list(policy_iteration(mdp))[-1]
    assert_allclose(exact.advantages(mdp, solved.policy).max(-1), 0.0, atol=1e-9)
    assert_allclose(solved.values, value_iteration(mdp).values, atol=2e-10)


def test_policy_iteration_from_any_policy_ends_at_the_same_values():
    mdp = MDPS["discounted"]
    from_actions = list(policy_iteration(mdp, np.zeros(12, dtype=int)))
    assert_allclose(from_actions[0].policy, np.eye(4)[np.zeros(12, dtype=int)])
    assert_allclose(from_actions[-1].values, list(policy_iteration(mdp))[-1].values, atol=1e-11)


def test_no_soft_policy_beats_soft_policy_iteration(rng):
    mdp = MDPS["discounted"]
    best = list(policy_iteration(mdp, epsilon=0.3))[-1]
    assert (best.policy >= 0.3 / 4 - 1e-15).all()
    for _ in range(50):
        greedy = rng.dirichlet(np.full(4, 0.2), size=12)
        other = exact.state_values(mdp, 0.3 / 4 + 0.7 * greedy)
        assert (other <= best.values + 1e-12).all()


def test_soft_policy_iteration_rejects_a_policy_that_is_not_soft():
    with pytest.raises(ValueError, match=r"not 0\.1-soft"):
        next(policy_iteration(MDPS["grid"], np.zeros(25, dtype=int), epsilon=0.1))


def test_policy_iteration_stops_where_everything_ties():
    mdp = MDP(np.full((3, 2, 3), 1 / 3), np.zeros((3, 2)), np.full(3, 1 / 3), 0.9)
    assert len(list(policy_iteration(mdp))) == 1


def test_ties_do_not_make_an_undiscounted_policy_endless():
    # +1 at the end and γ = 1: every action is worth 1 everywhere, and the first of them alone would never arrive.
    after = np.array([[0, 1], [0, 2], [1, 3], [3, 3]])
    mdp = MDP(np.eye(4)[after], np.eye(4)[after][..., 3] * 1.0, np.eye(4)[0], 1.0, (3,))
    turns = list(policy_iteration(mdp))
    assert_allclose(turns[-1].values, [1, 1, 1, 0], atol=1e-12)
    assert_allclose(exact.state_values(mdp, value_iteration(mdp).policy), [1, 1, 1, 0], atol=1e-12)


@pytest.mark.parametrize("tol", [1.0, 1e-3, 1e-9])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.99])
def test_value_iteration_is_within_its_certified_error(gamma, tol):
    mdp = classics.random_mdp(10, 3, gamma, seed=7)
    truth = list(policy_iteration(mdp))[-1]
    found = value_iteration(mdp, tol=tol)
    assert np.abs(found.values - truth.values).max() <= tol
    assert_allclose(found.action_values, exact.values_to_action_values(mdp, found.values), atol=1e-13)
    assert_allclose(found.policy, improve(mdp, found.action_values))


def test_value_iteration_bound_is_tight():
    # One state, r = 1: V_k = (1−γᵏ)/(1−γ), and the bound holds with equality.
    mdp = MDP(np.ones((1, 1, 1)), np.ones((1, 1)), np.ones(1), 0.9)
    error = 10.0 - value_iteration(mdp, tol=0.1).values[0]
    assert 0.09 <= error <= 0.1


def test_value_iteration_says_when_it_cannot():
    with pytest.raises(ArithmeticError, match=r"tol = 1e-10 .* 3 sweeps"):
        value_iteration(MDPS["discounted"], max_sweeps=3)


def test_sparse_and_dense_agree():
    dense = MDPS["with an end"]
    rows = dense.P.reshape(30, 10)
    import scipy.sparse as sp

    sparse = MDP(sp.csr_array(rows), dense.expected_reward, dense.rho, dense.gamma, dense.terminal)
    assert_allclose(value_iteration(sparse).values, value_iteration(dense).values, atol=1e-12)
    assert_allclose(list(policy_iteration(sparse))[-1].values, list(policy_iteration(dense))[-1].values, atol=1e-7)
