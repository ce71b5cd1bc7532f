"""What one-decision worlds, listed completely, say of formulas for language models; and that all have their place.

A policy over three answers, π = softmax(z): ∇_z log π(a) = e_a − π, so every expectation below is a sum of a few terms.
"""

import itertools
from pathlib import Path

import numpy as np
import pytest

from tests.architecture.source import modules, public
from vantage.theory import importance, objectives, psi, reduce, signal

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "theory.md").read_text(encoding="utf-8")
FUNCTIONS = [
    f"{module.name}.{name}"
    for module in modules()
    if module.part == "theory" and not module.path.name.startswith("_")
    for name, _ in public(module)
    if name[0].islower() and "." not in name
]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_theory_names_every_function(name):
    assert f"[vantage.{name}]" in PAGE


PI = np.exp([0.3, -0.5, 1.0]) / np.exp([0.3, -0.5, 1.0]).sum()
MU = np.array([0.5, 0.1, 0.4])
REWARD = np.array([1.0, -2.0, 0.5])
SCORE = np.eye(3) - PI
"""∇_z log π(a), a row an answer."""
GRADIENT = PI * (REWARD - PI @ REWARD)
"""∇_z E[R]."""


def test_the_price_in_the_reward_has_the_gradient_of_the_divergence():
    beta, logs = 0.7, np.log(PI)
    reads = signal.kl_signal(REWARD, logs, np.log(MU), beta)
    gap = logs - np.log(MU)
    exact = GRADIENT - beta * PI * (gap - PI @ gap)  # ∇(E[R] − β KL(π‖μ))
    np.testing.assert_allclose((PI * reads) @ SCORE, exact, atol=1e-14)
    masked = signal.kl_signal(REWARD, np.array([np.nan, *logs[1:]]), np.log(MU), beta, np.array([False, True, True]))
    np.testing.assert_array_equal(masked, [0.0, *reads[1:]])


def test_what_bounded_weights_add_up_to():
    pi, mu = np.log(PI), np.log(MU)
    for cap in (0.5, 1.0, 1.2, 9.0):
        assert MU @ importance.truncated_ratio(pi, mu, cap) == pytest.approx(np.minimum(PI, cap * MU).sum(), abs=1e-14)
    kept = (PI / MU >= 0.6) & (PI / MU <= 1.3)
    assert 0 < kept.sum() < 3
    assert MU @ importance.banded_ratio(pi, mu, 0.6, 1.3) == pytest.approx(PI[kept].sum(), abs=1e-14)


@pytest.mark.parametrize(("leave_one_out", "share"), [(True, 1.0), (False, 1 - 1 / 3)])
def test_groups_shrink_the_gradient_unless_one_is_left_out(leave_one_out, share):
    total = np.zeros(3)
    for answers in itertools.product(range(3), repeat=3):
        weight = psi.group_relative(REWARD[list(answers)][None], np.zeros(3, int), leave_one_out=leave_one_out)[0]
        total += PI[list(answers)].prod() * (weight @ SCORE[list(answers)]) / 3
    np.testing.assert_allclose(total, share * GRADIENT, atol=1e-14)


def test_the_scale_of_a_group_is_its_own_deviation():
    gain, group = np.array([[1.0, 3.0, 5.0, 2.0, 2.0]]), np.array([0, 0, 0, 1, 1])
    found = psi.group_relative(gain, group, scale=True, eps=0.0 + 1e-9)
    np.testing.assert_allclose(found, [[-1.0, 0.0, 1.0, 0.0, 0.0]], atol=1e-8)


def test_every_column_counts_alike():
    x, mask = np.array([[1.0, 2.0], [3.0, np.nan]]), np.array([[True, True], [True, False]])
    share = reduce.column_share(x, mask)
    np.testing.assert_array_equal(share, [[0.5, 1.0], [0.5, 0.0]])
    assert reduce.reduce(x, mask, share, reduce.total_columns(x, mask)) == (2.0 + 2.0) / 2


def test_a_gradient_is_cut_to_its_bound_and_never_stretched():
    gradients = np.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.5]])
    factor = reduce.clip_factor(np.linalg.norm(gradients, axis=1), 0.5)
    np.testing.assert_allclose(factor[:, None] * gradients, [[0.3, 0.4], [0.3, 0.4], [0.0, 0.5]])
    assert factor[2] == 1.0


def test_the_bonus_is_added():
    np.testing.assert_array_equal(objectives.with_entropy(REWARD, MU, 0.5), REWARD + 0.5 * MU)
