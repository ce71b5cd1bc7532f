"""Values, gradients and occupancies against closed forms, finite differences and plain sums."""

import numpy as np
import pytest
import scipy.sparse as sp

from vantage import mdp

# p, q, γ: V, d, A(·, switch), ∂J/∂logit, from the closed forms of the two-state MDP.
TWO_STATE = [
    (0.5, 0.5, 0.9, (4.5, 5.5), (5.5, 4.5), (0.45, -0.45), (1.2375, -1.0125)),
    (
        0.7, 0.2, 0.9, (6.923076923077, 8.021978021978), (3.076923076923, 6.923076923077),
        (0.296703296703, -0.791208791209), (0.639053254438, -1.095519864751),
    ),
    (
        0.3, 0.6, 0.99, (32.963374028857, 34.073251942286), (67.036625971143, 32.963374028857),
        (0.769145394007, -0.439511653718), (15.468273628636, -8.692672218930),
    ),
]  # fmt: skip


def two_state(gamma=0.9):
    return mdp.MDP.from_function(
        lambda s, a: s if a == 0 else 1 - s, lambda s, a, t: float(s), 2, 2, np.array([1.0, 0.0]), gamma
    )


def switching(p, q):
    return np.array([[1 - p, p], [1 - q, q]])


def random_world(rng, S=5, A=3, gamma=0.9, terminal=()):
    P = rng.dirichlet(np.full(S, 0.5), (S, A))
    rho = np.where(np.isin(np.arange(S), terminal), 0.0, rng.random(S))
    return mdp.MDP(P, rng.normal(size=(S, A, S)), rho / rho.sum(), gamma, terminal)


def as_sparse(world):
    S, A = world.n_states, world.n_actions
    P, R = sp.csr_array(world.P.reshape(S * A, S)), sp.csr_array(world.R.reshape(S * A, S))
    return mdp.MDP(P, R, world.rho, world.gamma, world.terminal)


def derivative(f, theta, h=1e-4):
    """∂f/∂θ by central differences, extrapolated: error O(h⁴)."""

    def central(i, h):
        step = np.zeros_like(theta)
        step.flat[i] = h
        return (f(theta + step) - f(theta - step)) / (2 * h)

    slopes = [(4 * central(i, h / 2) - central(i, h)) / 3 for i in range(theta.size)]
    return np.array(slopes).reshape(theta.shape)


@pytest.mark.parametrize(("p", "q", "gamma", "V", "d", "A", "slope"), TWO_STATE)
def test_two_state_closed_forms(p, q, gamma, V, d, A, slope):
    world, pi = two_state(gamma), switching(p, q)
    np.testing.assert_allclose(mdp.state_values(world, pi), V, atol=1e-10)
    np.testing.assert_allclose(mdp.occupancy(world, pi), d, atol=1e-10)
    np.testing.assert_allclose(mdp.advantages(world, pi)[:, 1], A, atol=1e-10)
    assert mdp.expected_return(world, pi) == pytest.approx(V[0], abs=1e-10)
    gradient = mdp.policy_gradient(world, np.log(pi))
    np.testing.assert_allclose(gradient[:, 1], slope, atol=1e-10)
    np.testing.assert_allclose(gradient.sum(1), 0.0, atol=1e-12)


@pytest.mark.parametrize(
    ("p", "q", "J", "L", "kl"),
    [
        (0.71, 0.199, 6.960026140943, 6.960355029586, 0.000241221008),
        (0.72, 0.19, 7.051142546246, 7.052409129332, 0.000978247569),
        (0.5, 0.6, 4.128440366972, 3.575655114117, 0.334795286714),
    ],
)
def test_surrogate_and_kl_of_published_pairs(p, q, J, L, kl):
    world, old, new = two_state(), switching(0.7, 0.2), switching(p, q)
    assert mdp.expected_return(world, new) == pytest.approx(J, abs=1e-10)
    assert mdp.surrogate(world, old, new) == pytest.approx(L, abs=1e-10)
    assert mdp.policy_kl(old, new).max() == pytest.approx(kl, abs=1e-10)
    assert mdp.surrogate(world, old, old) == pytest.approx(mdp.expected_return(world, old), abs=1e-12)


def test_performance_difference_is_the_new_occupancy_of_the_old_advantage(rng):
    world = random_world(rng, terminal=[2])
    old, new = mdp.softmax(rng.normal(size=(2, 5, 3)))
    for horizon in (None, 4):
        gain = (mdp.occupancy(world, new, horizon) * (new * mdp.advantages(world, old, horizon)).sum(-1)).sum()
        difference = mdp.expected_return(world, new, horizon) - mdp.expected_return(world, old, horizon)
        assert gain == pytest.approx(difference, abs=1e-12)


@pytest.mark.parametrize("horizon", [None, 1, 6])
@pytest.mark.parametrize("terminal", [(), (1, 3)])
def test_gradient_is_the_slope_of_the_return(rng, horizon, terminal):
    world, theta = random_world(rng, terminal=terminal), rng.normal(size=(5, 3))
    slope = derivative(lambda x: mdp.expected_return(world, mdp.softmax(x), horizon), theta)
    np.testing.assert_allclose(mdp.policy_gradient(world, theta, horizon), slope, atol=1e-8)


@pytest.mark.parametrize("horizon", [None, 6])
def test_undiscounted_weighting_is_another_vector(rng, horizon):
    """Σ_t P(s_t) π A without γ^t: ∇J of the critic's own Ψ only at γ = 1, where both must agree."""
    theta = rng.normal(size=(5, 3))
    world = random_world(rng, terminal=[1], gamma=0.8)
    undiscounted = mdp.policy_gradient(world, theta, horizon, "undiscounted")
    assert np.abs(undiscounted - mdp.policy_gradient(world, theta, horizon)).max() > 1e-3
    pi = mdp.softmax(theta)
    visits = mdp.occupancy(world, pi, horizon, discounted=False)
    if horizon is None:
        P, at = mdp.transition_matrix(world, pi), world.rho
        total = np.zeros(5)
        for _ in range(2000):
            total, at = total + np.where(world.terminal, 0, at), at @ P
        np.testing.assert_allclose(visits, total, atol=1e-10)
    expected = visits[..., None] * pi * mdp.advantages(world, pi, horizon)
    np.testing.assert_allclose(undiscounted, expected.reshape(-1, 5, 3).sum(0), atol=1e-14)
    even = mdp.MDP(world.P, world.R, world.rho, 1.0, world.terminal)
    np.testing.assert_allclose(
        mdp.policy_gradient(even, theta, horizon, "undiscounted"), mdp.policy_gradient(even, theta, horizon), atol=1e-10
    )


def test_unknown_time_weighting_is_refused(rng):
    with pytest.raises(ValueError, match="choose 'discounted' or 'undiscounted'"):
        mdp.policy_gradient.__wrapped__(two_state(), np.zeros((2, 2)), None, "sideways")


def test_occupancy_sums_to_the_effective_horizon(rng):
    world, pi = random_world(rng, gamma=0.95), mdp.softmax(rng.normal(size=(5, 3)))
    assert mdp.occupancy(world, pi).sum() == pytest.approx(20.0, abs=1e-10)
    H = 7
    d = mdp.occupancy(world, pi, H)
    assert d.shape == (H, 5)
    np.testing.assert_allclose(d.sum(1), 0.95 ** np.arange(H), atol=1e-14)
    np.testing.assert_allclose(mdp.occupancy(world, pi, H, discounted=False).sum(1), 1.0, atol=1e-14)
    np.testing.assert_allclose(mdp.occupancy(world, pi, 800).sum(0), mdp.occupancy(world, pi), atol=1e-10)


def test_terminal_states_are_worth_and_visited_nothing(rng):
    world, pi = random_world(rng, terminal=[0, 4]), mdp.softmax(rng.normal(size=(5, 3)))
    for horizon in (None, 3):
        assert (mdp.state_values(world, pi, horizon)[..., world.terminal] == 0).all()
        assert (mdp.action_values(world, pi, horizon)[..., world.terminal, :] == 0).all()
        assert (mdp.advantages(world, pi, horizon)[..., world.terminal, :] == 0).all()
        assert (mdp.occupancy(world, pi, horizon)[..., world.terminal] == 0).all()


@pytest.mark.parametrize("horizon", [None, 5])
def test_return_is_reward_summed_over_occupancy(rng, horizon):
    world, pi = random_world(rng, terminal=[3]), mdp.softmax(rng.normal(size=(5, 3)))
    d = mdp.occupancy(world, pi, horizon).reshape(-1, 5).sum(0)
    J = (d[:, None] * pi * world.expected_reward).sum()
    assert mdp.expected_return(world, pi, horizon) == pytest.approx(J, abs=1e-12)


def test_values_grow_into_the_endless_ones_with_the_horizon(rng):
    world, pi = random_world(rng), mdp.softmax(rng.normal(size=(5, 3)))
    V = mdp.state_values(world, pi, 400)
    assert V.shape == (401, 5) and (V[-1] == 0).all()
    np.testing.assert_allclose(V[0], mdp.state_values(world, pi), atol=1e-12)
    np.testing.assert_allclose(V[399], (pi * world.expected_reward).sum(1), atol=1e-15)


@pytest.mark.parametrize("horizon", [None, 5])
def test_values_and_action_values_convert_both_ways(rng, horizon):
    world, pi = random_world(rng, terminal=[1]), mdp.softmax(rng.normal(size=(5, 3)))
    V, Q = mdp.state_values(world, pi, horizon), mdp.action_values(world, pi, horizon)
    np.testing.assert_allclose(mdp.values_to_action_values(world, V), Q, atol=1e-13)
    np.testing.assert_allclose(mdp.action_values_to_values(world, pi, Q), V, atol=1e-12)


def test_expected_td_error_of_a_wrong_critic_is_off_by_its_own_change(rng):
    """E[δ|s,a] − A = γ E[e(s')] − e(s) for e = V̂ − V_π."""
    world, pi = random_world(rng, terminal=[2]), mdp.softmax(rng.normal(size=(5, 3)))
    e = rng.normal(size=5)
    V = mdp.state_values(world, pi)
    got = mdp.expected_td_error(world, V + e)
    inside = np.where(world.terminal, 0.0, e)
    expected = np.where(world.terminal[:, None], 0, world.gamma * world.P @ inside - inside[:, None])
    np.testing.assert_allclose(got - mdp.advantages(world, pi), expected, atol=1e-12)
    np.testing.assert_allclose(mdp.expected_td_error(world, V), mdp.advantages(world, pi), atol=1e-12)


def test_the_horizon_ends_the_world_for_a_wrong_critic_too(rng):
    world, wrong = random_world(rng), rng.normal(size=(4, 5))
    got = mdp.expected_td_error(world, wrong)
    assert got.shape == (3, 5, 3)
    np.testing.assert_allclose(got[-1], world.expected_reward - wrong[2][:, None], atol=1e-14)
    np.testing.assert_allclose(
        got[0], world.expected_reward + world.gamma * world.P @ wrong[1] - wrong[0][:, None], atol=1e-13
    )
    with pytest.raises(ValueError, match=r"give \[S\] or \[H\+1, S\] with S = 5"):
        mdp.expected_td_error(world, np.zeros(4))


def test_deterministic_policies_are_one_hot_ones(rng):
    world, actions = random_world(rng), rng.integers(0, 3, 5)
    table = np.eye(3)[actions]
    np.testing.assert_array_equal(mdp.state_values(world, actions), mdp.state_values(world, table))
    direct = [world.P[s, actions[s]] for s in range(5)]
    r = [world.expected_reward[s, actions[s]] for s in range(5)]
    V = np.linalg.solve(np.eye(5) - world.gamma * np.array(direct), r)
    np.testing.assert_allclose(mdp.state_values(world, actions), V, atol=1e-12)


def test_log_probability_of_a_trajectory():
    world, pi = two_state(), switching(0.7, 0.2)
    assert mdp.trajectory_log_prob(world, pi, np.array([0, 1, 1]), np.array([1, 0])) == pytest.approx(np.log(0.7 * 0.8))
    assert mdp.trajectory_log_prob(world, pi, np.array([0, 0, 1]), np.array([1, 0])) == -np.inf
    with pytest.raises(ValueError, match="one state more than actions"):
        mdp.trajectory_log_prob.__wrapped__(world, pi, np.array([0, 1]), np.array([1, 0]))


def test_kl_between_policies():
    p, q = np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([[0.25, 0.75], [0.5, 0.5]])
    kl = [0.5 * np.log(2) + 0.5 * np.log(2 / 3), np.log(2)]
    np.testing.assert_allclose(mdp.policy_kl(p, q), kl, atol=1e-15)
    assert mdp.policy_kl(q, p)[1] == np.inf and (mdp.policy_kl(p, p) == 0).all()


@pytest.mark.parametrize("horizon", [None, 3])
def test_fisher_is_the_curvature_of_the_kl(rng, horizon):
    """∇²_θ' Σ_s d̄(s) KL(π‖π')(s) at π' = π."""
    world, theta = random_world(rng, S=3, A=2, terminal=[2]), rng.normal(size=(3, 2))
    pi = mdp.softmax(theta)
    d = mdp.occupancy(world, pi, horizon).reshape(-1, 3).sum(0)

    def kl(x):
        return float(d @ mdp.policy_kl(pi, mdp.softmax(x)) / d.sum())

    hessian = [
        derivative(lambda x, i=i: derivative(kl, x, 1e-2).flat[i], theta, 1e-2).reshape(-1) for i in range(theta.size)
    ]
    np.testing.assert_allclose(mdp.fisher(world, theta, horizon), hessian, atol=1e-6)


def test_without_discounting_a_policy_must_end():
    def corridor(terminal):
        return mdp.MDP.from_function(
            lambda s, a: max(s - 1, 0) if a == 0 else min(s + 1, 3),
            lambda s, a, t: -1.0, 4, 2, np.array([0, 1.0, 0, 0]), 1.0, terminal,
        )  # fmt: skip

    assert mdp.expected_return(corridor([0, 3]), np.full((4, 2), 0.5)) == pytest.approx(-2.0, abs=1e-12)
    with pytest.raises(ValueError, match="from state 2 it never does"):
        mdp.state_values(corridor([0]), np.array([0, 0, 1, 1]))
    with pytest.raises(ValueError, match="use gamma < 1, give a horizon, or list"):
        mdp.expected_return(corridor([]), np.full((4, 2), 0.5))
    assert mdp.expected_return(corridor([]), np.full((4, 2), 0.5), horizon=5) == -5.0
    with pytest.raises(ValueError, match="must end"):
        mdp.occupancy(two_state(), switching(0.5, 0.5), discounted=False)


@pytest.mark.parametrize("horizon", [0, -1])
def test_a_horizon_is_at_least_one_step(horizon):
    with pytest.raises(ValueError, match=f"horizon = {horizon}"):
        mdp.state_values(two_state(), switching(0.5, 0.5), horizon)


@pytest.mark.parametrize("horizon", [None, 4])
@pytest.mark.parametrize("terminal", [(), (1, 3)])
def test_sparse_equals_dense(rng, horizon, terminal):
    dense = random_world(rng, terminal=terminal)
    sparse, theta = as_sparse(dense), rng.normal(size=(5, 3))
    pi = mdp.softmax(theta)
    assert sparse.is_sparse and not dense.is_sparse and sparse.n_actions == 3
    for f in (mdp.state_values, mdp.action_values, mdp.advantages, mdp.occupancy, mdp.expected_return):
        np.testing.assert_allclose(f(sparse, pi, horizon), f(dense, pi, horizon), atol=1e-8, err_msg=str(f))
    for f in (mdp.policy_gradient, mdp.fisher):
        np.testing.assert_allclose(f(sparse, theta, horizon), f(dense, theta, horizon), atol=1e-8, err_msg=str(f))
    states, actions = np.array([[0, 2, 4], [4, 2, 0]]).T, np.array([[1, 2], [0, 0]]).T
    np.testing.assert_allclose(
        mdp.trajectory_log_prob(sparse, pi, states, actions), mdp.trajectory_log_prob(dense, pi, states, actions)
    )
