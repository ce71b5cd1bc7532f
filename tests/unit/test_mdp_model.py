"""What an MDP accepts, what it refuses and with which words."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp

from vantage import mdp

STAY_OR_SWITCH = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]])
R = np.array([[0.0, 0.0], [1.0, 1.0]])
RHO = np.array([1.0, 0.0])


def two_state(P=STAY_OR_SWITCH, R=R, rho=RHO, gamma=0.9, terminal=()):
    return mdp.MDP(P, R, rho, gamma, terminal)


def spoiled(where, value):
    P = STAY_OR_SWITCH.copy()
    P[where] = value
    return P


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"P": spoiled((1, 0, 0), 0.5)}, r"P\(·\|s=1, a=0\) sums to 1.5, not to 1"),
        ({"P": spoiled((0, 0), [1.5, -0.5])}, "P has the negative entry -0.5"),
        ({"P": spoiled((0, 0, 0), np.nan)}, "P has NaN"),
        ({"P": np.ones((2, 2, 3)) / 3}, r"P has shape \(2, 2, 3\) for 2 states"),
        ({"P": sp.csr_array(np.ones((3, 2)) / 2)}, r"P has shape \(3, 2\)"),
        ({"R": np.ones((2, 3))}, r"R has shape \(2, 3\)"),
        ({"R": np.full((2, 2), np.inf)}, "R has NaN or infinite"),
        ({"R": sp.csr_array(np.ones((4, 2)))}, "with dense P give"),
        ({"P": sp.csr_array(STAY_OR_SWITCH.reshape(4, 2)), "R": sp.csr_array(np.ones((2, 2)))}, "the same shape"),
        ({"P": sp.csr_array(STAY_OR_SWITCH.reshape(4, 2)), "R": np.ones((2, 2, 2))}, "with sparse P give"),
        ({"rho": np.array([0.5, 0.4])}, "rho sums to 0.9, not to 1"),
        ({"rho": np.array([1.5, -0.5])}, r"rho\[1\] = -0.5 is negative"),
        ({"rho": np.array([np.nan, 1.0])}, "rho has NaN"),
        ({"gamma": 1.01}, r"gamma = 1.01 is outside \[0, 1\]"),
        ({"gamma": np.nan}, "gamma = nan is outside"),
        ({"terminal": [2]}, r"state indices 0 … 1"),
        ({"terminal": np.array([True])}, r"mask of shape \(1,\)"),
        ({"terminal": [0]}, r"rho\[0\] = 1, but state 0 is terminal"),
    ],
)
def test_what_is_no_mdp_is_refused_by_name(changes, words):
    with pytest.raises(ValueError, match=words):
        two_state(**changes)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (np.array([[0.5, 0.6], [0.5, 0.5]]), "row 0 of policy sums to 1.1"),
        (np.array([[0.5, 0.5], [-0.5, 1.5]]), r"policy\[1, 0\] = -0.5 is negative"),
        (np.array([[0.5, 0.5]]), r"policy has shape \(1, 2\)"),
        (np.array([0, 2]), r"policy\[1\] = 2 is not an action: use 0 … 1"),
    ],
)
def test_what_is_no_policy_is_refused(policy, words):
    with pytest.raises(ValueError, match=words):
        mdp.as_policy(two_state(), policy)


def test_policies_are_tables():
    assert (mdp.as_policy(two_state(), np.array([1, 0])) == [[0, 1], [1, 0]]).all()
    assert (mdp.uniform(two_state()) == 0.5).all()
    np.testing.assert_allclose(mdp.softmax(np.log([[1.0, 3.0], [2.0, 2.0]])), [[0.25, 0.75], [0.5, 0.5]], atol=1e-15)


def test_rewards_may_ignore_the_next_state():
    R3 = np.broadcast_to(R[..., None], (2, 2, 2))
    assert (two_state(R=R3).R == two_state().R).all()
    assert (two_state().expected_reward == R).all()


def test_what_happens_after_the_end_is_dropped():
    P = spoiled(1, np.nan_to_num(7.0))
    with pytest.raises(ValueError, match="list state 1 in `terminal`"):
        two_state(P=P)
    world = two_state(P=P, terminal=[1])
    assert (world.P[1] == 0).all() and (world.R[1] == 0).all() and (world.expected_reward[1] == 0).all()
    assert (world.terminal == [False, True]).all()


def test_inputs_are_neither_changed_nor_kept():
    P, rho = STAY_OR_SWITCH.copy(), RHO.copy()
    world = two_state(P=P, rho=rho, terminal=[1])
    assert (P == STAY_OR_SWITCH).all()
    rho[:], P[:] = 0.5, 0.0
    assert (world.rho == RHO).all() and (world.P[0] == STAY_OR_SWITCH[0]).all()


def test_deterministic_transitions_from_functions():
    f, reward = (lambda s, a: max(s - 1, 0) if a == 0 else s + 1), (lambda s, a, t: 10.0 * s + t)
    dense = mdp.MDP.from_function(f, reward, 4, 2, np.eye(4)[1], 0.5, terminal=[3])
    sparse = mdp.MDP.from_function(f, reward, 4, 2, np.eye(4)[1], 0.5, terminal=[3], sparse=True)
    assert dense.P[2, 1, 3] == 1.0 and dense.R[2, 1, 3] == 23.0 and dense.n_actions == 2
    assert (sparse.P.toarray().reshape(4, 2, 4) == dense.P).all()
    assert (sparse.expected_reward == dense.expected_reward).all()
    with pytest.raises(ValueError, match=r"f\(3, 1\) = 4, outside the 4 states"):
        mdp.MDP.from_function(f, reward, 4, 2, np.eye(4)[1], 0.5)


def test_sparse_rewards_need_not_be_stored_where_transitions_are():
    P = sp.csr_array(STAY_OR_SWITCH.reshape(4, 2))
    R = sp.csr_array(np.array([[0.0, 9.0], [0.0, 2.0], [0.0, 0.0], [3.0, 9.0]]))
    world = two_state(P=P, R=R)
    assert (world.expected_reward == [[0.0, 2.0], [0.0, 3.0]]).all()
    assert world.R.nnz == world.P.nnz == 4


def test_duplicate_sparse_entries_add_up():
    P = sp.csr_array((np.full(8, 0.5), np.repeat([0, 1, 1, 0], 2), np.arange(0, 9, 2)), shape=(4, 2))
    world = two_state(P=P)
    assert (world.P.toarray().reshape(2, 2, 2) == STAY_OR_SWITCH).all()
    assert world.P.nnz == world.R.nnz == 4 and P.nnz == 8


def test_repr_says_what_it_is():
    assert repr(two_state()) == "MDP(2 states × 2 actions, dense, gamma=0.9, 0 terminal)"


def test_importing_the_world_needs_no_simulator():
    code = "import sys, vantage.mdp; print({'gymnasium', 'jax', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_every_public_name_exists():
    for name in mdp.__all__:
        assert callable(getattr(mdp, name)), name
    assert dir(mdp) == mdp.__all__
    with pytest.raises(AttributeError, match="no attribute 'trajectory'"):
        _ = mdp.trajectory
