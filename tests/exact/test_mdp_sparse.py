"""Large sparse chains: the certificate covers the true error, on easy chains and on hard ones."""

import numpy as np
import pytest
import scipy.sparse as sp

from vantage import mdp
from vantage.mdp import sparse


def grid(n, gamma):
    """An n×n grid, −1 a step, ending in the far corner."""

    def f(s, a):
        x, y = divmod(s, n)
        dx, dy = ((0, 1), (1, 0), (0, -1), (-1, 0))[a]
        return min(max(x + dx, 0), n - 1) * n + min(max(y + dy, 0), n - 1)

    rho = (np.arange(n * n) == 0).astype(float)
    return mdp.MDP.from_function(f, lambda s, a, t: -1.0, n * n, 4, rho, gamma, [n * n - 1], sparse=True)


def residual(world, pi, V):
    Q = mdp.values_to_action_values(world, V)
    return np.abs((pi * Q).sum(1) - V).max()


def test_twenty_thousand_random_states():
    world = mdp.random_sparse(20_000, 4, 5, 0.99, seed=0)
    pi = mdp.softmax(np.random.default_rng(1).normal(size=(20_000, 4)))
    V = sparse.certified_state_values(world, pi)
    assert V.error <= 1e-8
    assert residual(world, pi, V.value) / (1 - 0.99) <= 1e-8
    d = mdp.occupancy(world, pi)
    assert d.sum() == pytest.approx(100.0, abs=1e-7)
    J = (d[:, None] * pi * world.expected_reward).sum()
    assert mdp.expected_return(world, pi) == pytest.approx(J, abs=1e-8)


def test_random_sparse_has_distinct_successors_that_sum_to_one():
    world = mdp.random_sparse(50, 3, 5, 0.9, seed=3)
    assert world.P.nnz == 50 * 3 * 5 and world.P.has_canonical_format
    np.testing.assert_allclose(world.P @ np.ones(50), 1.0, atol=1e-12)
    assert (mdp.random_sparse(50, 3, 5, 0.9, seed=3).R.data == world.R.data).all()


def test_the_certificate_covers_the_error_of_the_dense_solution():
    world = mdp.random_sparse(300, 2, 4, 0.99, seed=1)
    P, r = mdp.transition_matrix(world, mdp.uniform(world)), world.expected_reward.mean(1)
    exact = np.linalg.solve(np.eye(300) - 0.99 * P.toarray(), r)
    for tolerance in (1e-2, 1e-5, 1e-8):
        V = sparse.solve(P, r, 0.99, tolerance=tolerance)
        assert np.abs(V.value - exact).max() <= V.error <= tolerance
    d = sparse.solve(P, world.rho, 0.99, transpose=True)
    exact = np.linalg.solve(np.eye(300) - 0.99 * P.T.toarray(), world.rho)
    assert np.abs(d.value - exact).sum() <= d.error <= 1e-8


def test_a_grid_is_certified_too():
    world = grid(60, 0.99)
    for pi in (mdp.uniform(world), np.random.default_rng(0).integers(0, 4, world.n_states)):
        table = mdp.as_policy(world, pi)
        V = sparse.certified_state_values(world, pi)
        assert V.error <= 1e-8 and residual(world, table, V.value) <= 1e-10


def test_a_long_chain_of_known_values():
    n, gamma = 3000, 0.99
    P = sp.csr_array((np.ones(n - 1), (np.arange(n - 1), np.arange(1, n))), shape=(n, n))
    V = sparse.solve(P, np.ones(n), gamma)
    np.testing.assert_allclose(V.value, (1 - gamma ** np.arange(n, 0, -1)) / (1 - gamma), atol=1e-8, rtol=0)
    assert V.error <= 1e-8


def test_without_discounting_the_certificate_uses_the_steps_to_the_end():
    world = grid(12, 1.0)
    V = sparse.certified_state_values(world, mdp.uniform(world))
    P = mdp.transition_matrix(world, mdp.uniform(world)).toarray()
    exact = np.linalg.solve(np.eye(144) - P, world.expected_reward.mean(1))
    assert np.abs(V.value - exact).max() <= V.error <= 1e-7
    assert sparse.inverse_norm(sp.csr_array(P), 1.0) >= np.abs(exact).max() * (1 - 1e-9)


@pytest.mark.parametrize("method", ["_krylov", "_sweeps", "_direct"])
def test_each_method_alone_solves(method):
    world = mdp.random_sparse(200, 2, 4, 0.9, seed=2)
    P, r = mdp.transition_matrix(world, mdp.uniform(world)), world.expected_reward.mean(1)
    x = getattr(sparse, method)(P, r, 0.9, np.zeros(200), 1e-12, lambda v: float(np.abs(v).max()))
    np.testing.assert_allclose(x, np.linalg.solve(np.eye(200) - 0.9 * P.toarray(), r), atol=1e-10)


def test_what_cannot_be_certified_is_not_returned():
    world = mdp.random_sparse(50, 2, 4, 0.99, seed=0)
    P = mdp.transition_matrix(world, mdp.uniform(world))
    with pytest.raises(ArithmeticError, match="the error could only be bounded by"):
        sparse.solve(P, np.ones(50), 0.99, tolerance=1e-18)


def test_reachability_ignores_stored_zeros():
    P = sp.csr_array((np.array([1.0, 0.0, 1.0]), (np.array([0, 1, 1]), np.array([1, 2, 1]))), shape=(3, 3))
    assert (sparse.can_reach(P, np.array([False, False, True])) == [False, False, True]).all()
    assert (sparse.can_reach(P, np.array([False, True, False])) == [True, True, False]).all()
