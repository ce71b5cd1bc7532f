"""The textbook problems against the numbers their sources publish (recomputed there to all digits)."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from vantage.mdp import classics, exact
from vantage.mdp.model import MDP, softmax, uniform
from vantage.mdp.solve import improve, policy_iteration, value_iteration
from vantage.mdp.trajectories import trajectories
from vantage.theory.psi import gae, td_error
from vantage.theory.returns import reward_to_go

NORTH, SOUTH, EAST, WEST = range(4)


def optimum(mdp, epsilon=0.0):
    return list(policy_iteration(mdp, epsilon=epsilon))[-1]


def test_gridworld_3_5_equiprobable():
    V = exact.state_values(classics.gridworld_3_5(), uniform(classics.gridworld_3_5()))
    published = """
     3.308996335635  8.789291862596  4.427619182583  5.322367593370  1.492178758740
     1.521588068955  2.992317856173  2.250139950709  1.907571704559  0.547402705772
     0.050822490149  0.738170589618  0.673113259838  0.358186214856 -0.403141143416
    -0.973592303615 -0.435495430079 -0.354882267015 -0.585605088288 -1.183075081285
    -1.857700550299 -1.345231263782 -1.229267261539 -1.422918147837 -1.975179048277"""
    assert_allclose(V, np.array(published.split(), float), atol=1e-11)


def test_gridworld_3_8_optimal():
    solved = optimum(classics.gridworld_3_5())
    published = """
    21.977485287295 24.419428096994 21.977485287295 19.419428096994 17.477485287295
    19.779736758565 21.977485287295 19.779736758565 17.801763082709 16.021586774438
    17.801763082709 19.779736758565 17.801763082709 16.021586774438 14.419428096994
    16.021586774438 17.801763082709 16.021586774438 14.419428096994 12.977485287295
    14.419428096994 16.021586774438 14.419428096994 12.977485287295 11.679736758565"""
    assert_allclose(solved.values, np.array(published.split(), float), atol=1e-11)
    assert_allclose(solved.values[1], 10 / (1 - 0.9**5), rtol=1e-14)


def test_gridworld_3_8_optimal_action_sets():
    mdp = classics.gridworld_3_5()
    policy = improve(mdp, exact.values_to_action_values(mdp, optimum(mdp).values))
    below = "NE N NW NW NW"
    sets = f"E NSEW W NSEW W  NE N NW W W  {below} {below} {below}".split()
    assert ["".join(name for name, p in zip("NSEW", row) if p > 0) for row in policy] == sets


def test_gridworld_4_1_equiprobable():
    mdp = classics.gridworld_4_1()
    V = exact.state_values(mdp, uniform(mdp)).reshape(4, 4)
    assert_allclose(V, [[0, -14, -20, -22], [-14, -18, -20, -20], [-20, -20, -18, -14], [-22, -20, -14, 0]], atol=1e-11)


def test_exercise_4_1():
    mdp = classics.gridworld_4_1()
    Q = exact.action_values(mdp, uniform(mdp))
    assert_allclose(Q[[11, 7], SOUTH], [-1.0, -15.0], atol=1e-11)


@pytest.mark.parametrize("reachable", [False, True])
def test_exercise_4_2_a_state_below_13(reachable):
    grid = classics.gridworld_4_1()
    P = np.zeros((17, 4, 17))
    P[:16, :, :16] = grid.P
    P[16, [NORTH, SOUTH, EAST, WEST], [13, 16, 14, 12]] = 1.0
    if reachable:
        P[13, SOUTH] = np.eye(17)[16]
    mdp = MDP(P, np.full((17, 4), -1.0), np.eye(17)[16], 1.0, (0, 15))
    assert_allclose(exact.state_values(mdp, uniform(mdp))[16], -20.0, atol=1e-11)


@pytest.mark.parametrize(
    ("gamma", "left", "right"),
    [(0.0, 1.0, 0.0), (0.5, 4 / 3, 4 / 3), (0.9, 5.263157894737, 9.473684210526)],
)
def test_exercise_3_22(gamma, left, right):
    after = np.array([[1, 2], [0, 0], [0, 0]])
    mdp = MDP(np.eye(3)[after], np.array([[1.0, 0.0], [0.0, 0.0], [2.0, 2.0]]), np.eye(3)[0], gamma)
    values = [exact.expected_return(mdp, np.array([a, 0, 0])) for a in (0, 1)]
    assert_allclose(values, [left, right], atol=1e-12)


def test_car_rental():
    mdp = classics.car_rental()
    assert_allclose(mdp.P.sum(-1), 1.0, atol=1e-12)
    solved = optimum(mdp)
    V = solved.values.reshape(21, 21)
    assert_allclose([V.min(), V.max(), V[0, 0], V[20, 20]], [421.414055, 636.989599] * 2, atol=2e-5)
    assert_allclose([V[10, 10], solved.expected_return], 574.9483, atol=1e-4)
    n_1, n_2 = np.divmod(np.arange(441), 21)
    moved = np.clip(solved.policy.argmax(-1) - 5, -n_2, n_1).reshape(21, 21)
    assert moved[20].tolist() == [5, 5, 5, 5, 4, 4, 3, 3, 3, 3, 2, 2, 2, 2, 2, 1, 1, 1, 0, 0, 0]
    assert moved[0].tolist() == [0] * 8 + [-1, -1, -2, -2, -2, -3, -3, -3, -3, -3, -4, -4, -4]


def test_car_rental_with_constant_returns():
    V = optimum(classics.car_rental(constant_returns=True)).values
    assert_allclose([V.min(), V.max()], [430.52, 644.43], atol=5e-3)


@pytest.mark.parametrize(
    ("p_heads", "published"),
    [
        (0.4, "0.00206562477654 0.0434634974533 0.0576591941737 0.16 0.4 0.403098437165 0.64 0.964332967227"),
        (0.25, "7.28611682825e-05 0.00708502024291 0.0111242331367 0.0625 0.25 0.250218583505 0.4375 0.837972392921"),
    ],
)
def test_gambler(p_heads, published):
    V = value_iteration(classics.gambler(p_heads), tol=1e-14).values
    assert_allclose(V[[1, 10, 12, 25, 50, 51, 75, 99]], np.array(published.split(), float), rtol=1e-11)


def test_gambler_with_a_favourable_coin_plays_timidly():
    mdp = classics.gambler(0.55)
    exactly = (1 - (9 / 11) ** np.arange(101)) / (1 - (9 / 11) ** 100)
    assert_allclose(optimum(mdp).values[1:100], exactly[1:100], atol=1e-10)
    timid = exact.state_values(mdp, np.zeros(101, dtype=int))
    assert_allclose(timid[1:100], exactly[1:100], atol=1e-12)


def test_gambler_bold_bets_are_optimal():
    mdp = classics.gambler(0.4)
    best = value_iteration(mdp, tol=1e-14)
    assert best.policy[50, 50 - 1] > 0 and best.policy[25, 25 - 1] > 0


def test_gambler_rejects_no_probability():
    with pytest.raises(ValueError, match=r"p_heads = 1\.4"):
        classics.gambler(1.4)


@pytest.mark.parametrize(
    ("arguments", "published"),
    [
        ({}, np.arange(1, 6) / 6),
        ({"gamma": 0.9}, [0.0655012678953, 0.145558373101, 0.257961783439, 0.427690034543, 0.692460524452]),
        ({"n": 19, "left": -1.0}, np.arange(-9, 10) / 10),
    ],
)
def test_random_walk(arguments, published):
    mdp = classics.random_walk(**arguments)
    V = exact.state_values(mdp, uniform(mdp))
    assert_allclose(V[1:-1], published, atol=1e-12)
    assert exact.expected_return(mdp, uniform(mdp)) == V[(len(V) - 1) // 2]


def test_example_6_4_batch_td_and_batch_monte_carlo_disagree():
    # A 0 B 0, six times B 1, once B 0; a step is (state, reward, next state), 2 is the end.
    state, reward, reached = (np.array(x) for x in zip((0, 0.0, 1), (1, 0.0, 2), *[(1, 1.0, 2)] * 6, (1, 0.0, 2)))
    V = np.zeros(3)
    for _ in range(2000):
        delta = td_error(reward, V[state], V[reached], np.ones(9))
        V += 0.05 * np.bincount(state, delta, 3)
    assert_allclose(V[:2], [0.75, 0.75], atol=1e-10)

    G = reward_to_go(reward, np.ones(9), reached == 2)
    assert_allclose(np.bincount(state, G) / np.bincount(state), [0.0, 0.75], atol=1e-14)

    counts = np.eye(3)[2] * np.eye(3)[:, 2:]
    np.add.at(counts, (state, reached), 1.0)
    P, mean_reward = counts / counts.sum(-1, keepdims=True), np.array([[0.0], [0.75], [0.0]])
    most_likely = MDP(P[:, None], mean_reward, np.eye(3)[0], 1.0, (2,))
    assert_allclose(exact.state_values(most_likely, np.zeros(3, dtype=int))[:2], [0.75, 0.75], atol=1e-14)


@pytest.mark.parametrize(("kings", "stay", "steps"), [(False, False, 15), (True, False, 7), (True, True, 7)])
def test_windy_shortest_episodes(kings, stay, steps):
    mdp = classics.windy(kings=kings, stay=stay)
    assert mdp.n_actions == 4 + 4 * kings + stay
    assert_allclose(optimum(mdp).expected_return, -steps, atol=1e-11)


def edge_path():
    """Along the cliff, and back to its edge from anywhere."""
    policy = np.full((4, 12), SOUTH)
    policy[2, :-1], policy[3] = EAST, NORTH
    return policy.reshape(-1)


def top_row_path():
    policy = np.full((4, 12), NORTH)
    policy[0], policy[:, -1] = EAST, SOUTH
    return policy.reshape(-1)


@pytest.mark.parametrize(
    ("path", "returns", "soft_returns"),
    [(edge_path(), -13.0, -51.813187903289), (top_row_path(), -17.0, -22.272816665776)],
)
def test_cliff_paths(path, returns, soft_returns):
    mdp = classics.cliff()
    assert_allclose(exact.expected_return(mdp, path), returns, atol=1e-11)
    soft = improve(mdp, np.eye(4)[path], epsilon=0.1)
    assert_allclose(exact.expected_return(mdp, soft), soft_returns, atol=1e-10)


def test_cliff_optimum_and_equiprobable():
    mdp = classics.cliff()
    assert_allclose(optimum(mdp).expected_return, -13.0, atol=1e-11)
    assert_allclose(exact.expected_return(mdp, uniform(mdp)), -65375.130398766, rtol=1e-11)


def test_cliff_best_soft_policy_leaves_the_edge():
    mdp = classics.cliff()
    best = optimum(mdp, epsilon=0.1)
    assert_allclose(best.expected_return, -20.707677398669, atol=1e-11)
    assert_allclose(exact.expected_return(mdp, best.policy.argmax(-1)), -15.0, atol=1e-11)


@pytest.mark.parametrize(
    ("p", "J", "gradient"),
    [
        (2 - np.sqrt(2), -(6 + 4 * np.sqrt(2)), 0.0),
        (0.5, -12.0, 2.0),
        (0.95, -44.210526315789, -37.789473684211),
        (0.05, -82.105263157895, 75.894736842105),
    ],
)
def test_corridor(p, J, gradient):
    mdp, policy = classics.corridor(), classics.corridor_policy(p)
    assert_allclose(exact.expected_return(mdp, policy), J, atol=1e-11)
    assert_allclose(exact.expected_return(mdp, policy), (2 * p - 4) / (p * (1 - p)), atol=1e-11)
    # The agent has one pair of parameters for all states, so its gradient is the sum over them.
    shared = exact.policy_gradient(mdp, np.log(policy)).sum(0)
    assert_allclose(shared, [-gradient, gradient], atol=1e-10)


@pytest.mark.parametrize(
    ("p", "V"), [(2 - np.sqrt(2), [-11.656854249492, -9.949747468306, -5.121320343560]), (0.5, [-12.0, -10.0, -6.0])]
)
def test_corridor_values(p, V):
    assert_allclose(exact.state_values(classics.corridor(), classics.corridor_policy(p))[:3], V, atol=1e-11)


def test_corridor_seen_whole_takes_three_steps():
    assert_allclose(optimum(classics.corridor()).values, [-3.0, -2.0, -1.0, 0.0], atol=1e-12)


@pytest.mark.parametrize(
    ("p", "q", "gamma", "V", "d", "A", "gradient"),
    [
        (0.5, 0.5, 0.9, (4.5, 5.5), (5.5, 4.5), (0.45, -0.45), (1.2375, -1.0125)),
        (
            *(0.7, 0.2, 0.9, (6.923076923077, 8.021978021978), (3.076923076923, 6.923076923077)),
            *((0.296703296703, -0.791208791209), (0.639053254438, -1.095519864751)),
        ),
        (
            *(0.3, 0.6, 0.99, (32.963374028857, 34.073251942286), (67.036625971143, 32.963374028857)),
            *((0.769145394007, -0.439511653718), (15.468273628636, -8.692672218930)),
        ),
    ],
)
def test_two_state(p, q, gamma, V, d, A, gradient):
    mdp, policy = classics.two_state(gamma), classics.two_state_policy(p, q)
    assert_allclose(exact.state_values(mdp, policy), V, atol=2e-12)
    assert_allclose(exact.occupancy(mdp, policy), d, atol=2e-12)
    assert_allclose(exact.advantages(mdp, policy)[:, 1], A, atol=2e-12)
    # With probability σ(θ) of switching, the logit θ moves the switch's logit alone.
    assert_allclose(exact.policy_gradient(mdp, np.log(policy))[:, 1], gradient, atol=2e-12)


def test_chain_values():
    mdp = classics.chain(10, gamma=0.99, mean=1.5, std=2.0)
    V = exact.state_values(mdp, uniform(mdp)).reshape(11, 2)
    left = 10 - np.arange(11)
    assert_allclose(V, np.repeat(1.5 * (1 - 0.99**left) / 0.01, 2).reshape(11, 2), atol=1e-12)


@pytest.mark.parametrize(
    ("lam", "variance", "bias"),
    [
        (0.0, 4.0, -0.005),
        (0.5, 5.2981845491, -0.0107754313),
        (0.95, 24.4861738236, -0.3235236424),
        (1.0, 36.6016205835, -0.5),
    ],
)
def test_chain_has_the_closed_form_bias_and_variance_of_gae(lam, variance, bias):
    mdp = classics.chain(10, gamma=0.99, mean=1.5, std=2.0)
    V = exact.state_values(mdp, uniform(mdp))

    def first_advantage(critic):
        τ = trajectories(mdp, uniform(mdp), 10, value=critic)
        A = gae(τ.signal, τ.value, τ.next_value, τ.discount, τ.last, lam, τ.mask)[0]
        return τ.weight @ A, τ.weight @ A**2 - (τ.weight @ A) ** 2

    assert_allclose(first_advantage(V), (0.0, variance), atol=1e-9)
    assert_allclose(first_advantage(V + 0.5), (bias, variance), atol=1e-9)


def test_random_mdp_is_what_was_asked_for():
    mdp = classics.random_mdp(8, 3, 0.9, seed=4, branching=2, n_terminal=2)
    assert mdp.P.shape == (8, 3, 8)
    assert mdp.terminal.tolist() == [False] * 6 + [True] * 2
    assert ((mdp.P[:6] > 0).sum(-1) == 2).all()
    assert (mdp.rho[6:] == 0).all()
    again, other = (classics.random_mdp(8, 3, 0.9, seed=s, branching=2, n_terminal=2) for s in (4, 5))
    assert (again.P == mdp.P).all() and (again.R == mdp.R).all()
    assert not (other.P == mdp.P).all()


def test_softmax_of_zeros_is_the_equiprobable_policy():
    mdp = classics.gridworld_3_5()
    assert_allclose(exact.expected_return(mdp, softmax(np.zeros((25, 4)))), exact.expected_return(mdp, uniform(mdp)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: classics.random_walk(0), "n = 0"),
        (lambda: classics.chain(0), "n = 0"),
        (lambda: classics.random_mdp(3, 2, 0.9, branching=4), "branching = 4"),
    ],
)
def test_impossible_sizes(make, message):
    with pytest.raises(ValueError, match=message):
        make()
