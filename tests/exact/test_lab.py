"""The lab's table against closed forms, brute force and its own figures."""

import numpy as np
import pytest

import vantage as vt
from vantage.lab.figures import draw, wrong_sign
from vantage.mdp import exact
from vantage.mdp.model import softmax
from vantage.mdp.moments import column_gradients

ALWAYS_UNBIASED = (
    "total return",
    "reward-to-go",
    "  minus a learned baseline",
    "GAE(λ = 1)",
    "  … of the other episode, n=2",
)
NEEDS_TRUE_VALUES = ("action value", "advantage", "TD error", "2-step", "GAE(λ = 0.5)", "GAE(λ = 0.95)")


@pytest.fixture(scope="module")
def lab():
    return vt.Lab(vt.mdp.random_mdp(2, 2, 0.9, seed=0), horizon=3)


def test_unbiased_whatever_the_critic(lab):
    table = lab.table()
    for name in ALWAYS_UNBIASED:
        assert table[name].bias < 1e-12 and table[name].wrong_bias < 1e-12, name


def test_unbiased_with_the_true_critic_only(lab):
    table = lab.table()
    for name in NEEDS_TRUE_VALUES:
        assert table[name].bias < 1e-12, name
        assert table[name].wrong_bias > 1e-3, name


def test_in_sample_baseline_is_biased(lab):
    assert lab.table()["  minus the mean per state, n=2"].bias > 0.1


def test_bias_of_the_td_error_is_the_theorys(lab):
    """E[ĝ] − ∇J = Σ_t γ^t P(s_t=s) π(a|s) (γE[e(s')] − e(s)): theory 6.6, from dynamic programming alone."""
    error = lab.wrong - lab.values
    expected_gap = exact.expected_td_error(lab.mdp, lab.wrong) - exact.expected_td_error(lab.mdp, lab.values)
    following = np.einsum("sax,tx->tsa", lab.mdp.P, error[1:])
    np.testing.assert_allclose(expected_gap, lab.mdp.gamma * following - error[:-1, :, None], atol=1e-13)
    pi, d = softmax(lab.theta), exact.occupancy(lab.mdp, softmax(lab.theta), lab.horizon)
    centred = expected_gap - np.einsum("sa,tsa->ts", pi, expected_gap)[..., None]
    bias = (d[..., None] * pi * centred).sum(0)
    assert lab.table()["TD error"].wrong_bias == pytest.approx(np.linalg.norm(bias), abs=1e-12)


def test_moments_agree_with_samples(lab):
    """Mean and variance from a million sampled trajectories agree within their standard error."""
    rollout, m = lab.rollout(lab.values), lab.measure(vt.RewardToGo())
    gradient = column_gradients(rollout, lab.weigh(vt.RewardToGo(), rollout), 2).reshape(-1, 4)
    rng = np.random.default_rng(0)
    drawn = gradient[rng.choice(len(gradient), 200_000, p=np.asarray(rollout.weight))]
    standard_error = drawn.std(0) / np.sqrt(len(drawn))
    assert np.all(np.abs(drawn.mean(0) - m.mean.ravel()) < 4.5 * standard_error + 1e-15)
    assert drawn.var(0).sum() == pytest.approx(m.variance, rel=0.02)


def test_group_of_n_divides_the_variance(lab):
    """n independent trajectories: the mean stays, the variance falls by n."""
    one, two = lab.measure(vt.RewardToGo()), lab.measure(vt.RewardToGo(), group=2)
    np.testing.assert_allclose(two.mean, one.mean, atol=1e-13)
    assert two.variance == pytest.approx(one.variance / 2, rel=1e-12)


def test_table_prints_and_indexes(lab):
    text = str(lab.table())
    assert "critic V̂ is wrong" in text and "TD error" in text and f"{lab.table().gradient_norm:.6g}" in text
    assert all(row.name in text for row in lab.table())


def test_wrong_sign_is_a_binomial_tail():
    """One sample is wrong exactly when it falls on q's side: P = q_R when E_p[f] < 0."""
    assert wrong_sign(0.9, 0.2, 1) == pytest.approx(0.8)
    assert wrong_sign(0.9, 0.2, 2) == pytest.approx(0.8**2)
    assert wrong_sign(0.9, 0.9, 2000) < 1e-6


def test_figures_are_drawn(tmp_path):
    paths = draw(tmp_path)
    assert len(paths) == 4 and all(path.stat().st_size > 10_000 for path in paths)
