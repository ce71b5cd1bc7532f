"""The theory's functions against numbers worked out by hand, from the textbook, or published by other libraries."""

import math

import numpy as np
import pytest

from tests.backends._cases import RECIPES, call_loss, loss_inputs
from vantage.theory import critics, divergences, importance, kl_control, objectives, psi, reduce, returns
from vantage.theory.scan import reverse_scan, shift_back


def column(*x: float) -> np.ndarray:
    return np.asarray(x, dtype=np.float64)


def ended(n: int) -> np.ndarray:
    """One episode of n steps: `last` at its end."""
    return np.arange(n) == n - 1


# ---- returns (Sutton & Barto 3.8, 3.9, 3.22) ----


def test_exercise_3_8():
    g = returns.reward_to_go(column(-1, 2, 6, 3, 2), np.full(5, 0.5), ended(5))
    np.testing.assert_array_equal(g, [2, 6, 8, 4, 2])


def test_exercise_3_9():
    """R1 = 2 and then 7 for ever: G1 = 70, G0 = 65, here with the endless tail as the value of the state reached."""
    next_value = column(0, 0, 70)
    g = returns.reward_to_go(column(2, 7, 7), np.full(3, 0.9), ended(3), next_value)
    np.testing.assert_allclose(g, [65, 70, 70])


@pytest.mark.parametrize(("gamma", "left", "right"), [(0.0, 1, 0), (0.5, 4 / 3, 4 / 3), (0.9, 1 / 0.19, 1.8 / 0.19)])
def test_exercise_3_22(gamma, left, right):
    n = 600
    for rewards, value in (((1.0, 0.0), left), ((0.0, 2.0), right)):
        g = returns.reward_to_go(np.tile(rewards, n // 2), np.full(n, gamma), ended(n))
        assert g[0] == pytest.approx(value, abs=1e-12)


def test_total_return_is_the_same_at_each_step_of_an_episode():
    reward, last = column(1, 2, 4, 8, 16), np.asarray([False, True, False, False, True])
    time = np.asarray([0, 1, 0, 1, 2])
    np.testing.assert_array_equal(returns.total_return(reward, np.ones(5), last, time), [3, 3, 28, 28, 28])
    half = returns.total_return(reward, np.full(5, 0.5), last, time)
    np.testing.assert_array_equal(half, [2, 2, 12, 12, 12])


def test_total_return_refuses_an_episode_whose_start_it_has_not_seen():
    with pytest.raises(ValueError, match=r"first step \(time == 0\) is missing, so R\(τ\) is unknown"):
        returns.total_return(column(1, 2), np.ones(2), ended(2), np.asarray([3, 4]))
    masked = np.asarray([False, True])
    np.testing.assert_array_equal(
        returns.total_return(column(1, 2), np.ones(2), ended(2), np.asarray([3, 0]), masked), [0, 2]
    )


def test_total_return_is_nan_under_jit_where_the_start_is_missing():
    jax = pytest.importorskip("jax")
    total = jax.jit(returns.total_return)
    inputs = column(1, 2, 4), np.ones(3), np.asarray([True, False, True]), np.asarray([3, 0, 1])
    got = total(*map(jax.numpy.asarray, inputs))
    np.testing.assert_array_equal(got, [np.nan, 6, 6])


def test_discount_weight():
    np.testing.assert_array_equal(returns.discount_weight(np.asarray([0, 1, 3]), 0.5), [1, 0.5, 0.125])
    np.testing.assert_array_equal(returns.discount_weight(np.asarray([0, 1, 2]), 0.0), [1, 0, 0])


def test_scan_by_hand():
    np.testing.assert_array_equal(reverse_scan(column(1, 2, 3), column(10, 100, 1000)), [3021, 302, 3])
    np.testing.assert_array_equal(reverse_scan(column(5), column(3)), [5])
    masked = reverse_scan(column(1, np.nan, 3), column(2, np.nan, 7), np.asarray([True, False, True]))
    np.testing.assert_array_equal(masked, [7, 0, 3])
    np.testing.assert_array_equal(shift_back(column(1, 2, 3), 9.0), [2, 3, 9])


def test_scan_works_from_one_axis_to_four(rng):
    x, c = rng.normal(size=(5, 2, 3, 4)), rng.random((5, 2, 3, 4))
    np.testing.assert_allclose(reverse_scan(x, c)[:, 1, 2, 3], reverse_scan(x[:, 1, 2, 3], c[:, 1, 2, 3]))
    assert reverse_scan(x[:, :0, 0, 0], c[:, :0, 0, 0]).shape == (5, 0), "no columns"


# ---- GAE and its relatives ----


@pytest.mark.parametrize(
    ("lam", "variance", "bias"),
    [
        (0.0, 4.0, -0.005),
        (0.5, 5.2981845491, -0.0107754313),
        (0.95, 24.4861738236, -0.3235236424),
        (1.0, 36.6016205835, -0.5),
    ],
)
def test_variance_and_bias_of_gae_in_a_chain(lam, variance, bias):
    """Ten independent rewards of standard deviation 2, γ = 0.99; the critic too high by ½ except at the end."""
    n, gamma = 10, 0.99
    discount = np.where(ended(n), 0.0, gamma)[:, None] * np.ones(n)
    last = np.repeat(ended(n)[:, None], n, axis=1)
    zero = np.zeros((n, n))
    response = psi.gae(np.eye(n), zero, zero, discount, last, lam)[0]
    assert 4.0 * np.sum(response**2) == pytest.approx(variance, rel=1e-9)
    high = np.full((n, n), 0.5)
    assert psi.gae(zero, high, high, discount, last, lam)[0, 0] == pytest.approx(bias, abs=1e-10)


def test_torchtune_lambda_returns():
    value = column(0, 0, 0, 1)
    got = psi.lambda_return(column(0, 0, 0, 1), value, shift_back(value), np.full(4, 0.9), ended(4), 0.95)
    np.testing.assert_allclose(got, [0.6579225, 0.7695, 0.9, 1.0], rtol=1e-12)


RLAX_REWARD = np.asarray([[0, 0, 1, 0, -0.5], [0, 0, 0, 0, 1]], dtype=np.float64).T
RLAX_VALUE = np.asarray([[1, 4, -3, -2, -1, -1], [-3, -2, -1, 0, 5, -1]], dtype=np.float64).T
RLAX_DISCOUNT = np.asarray([[0.99] * 5, [0.9, 0.9, 0.9, 0.0, 0.9]]).T


@pytest.mark.parametrize(
    ("lam", "first", "second"),
    [
        (1.0, (-1.45118, -4.4557, 2.5396, 0.5249, -0.49), (3.0, 2.0, 1.0, 0.0, -4.9)),
        (0.7, (-0.676979, -5.248167, 2.4846, 0.6704, -0.49), (2.2899, 1.73, 1.0, 0.0, -4.9)),
        (0.4, (0.56731, -6.042, 2.3431, 0.815, -0.49), (1.725, 1.46, 1.0, 0.0, -4.9)),
    ],
)
def test_rlax_gae_with_a_discount_for_each_step(lam, first, second):
    """`multistep_test.py` of rlax, its tolerance (1e-3): an episode ends inside the second column."""
    last = np.repeat(ended(5)[:, None], 2, axis=1)
    got = psi.gae(RLAX_REWARD, RLAX_VALUE[:-1], RLAX_VALUE[1:], RLAX_DISCOUNT, last, lam)
    np.testing.assert_allclose(got.T, [first, second], atol=1e-3)


def test_rlax_n_step_returns():
    reward = np.asarray([[1, 0, -1, 0, 1], [0.5, 0.8, -0.7, 0.0, 2.1]]).T
    discount = np.asarray([[0.5, 0.9, 1.0, 0.5, 0.8], [0.9, 0.5, 0.3, 0.8, 0.7]]).T
    next_value = np.asarray([[3, 1, 5, -5, 3], [-1.7, 1.2, 2.3, 2.2, 2.7]]).T
    value = np.concatenate([np.zeros((1, 2)), next_value[:-1]])
    last = np.repeat(ended(5)[:, None], 2, axis=1)
    got = psi.k_step(reward, value, next_value, discount, last, 3) + value
    expected = [[2.8, -3.15, 0.7, 1.7, 3.4], [1.2155, 0.714, 0.2576, 3.192, 3.99]]
    np.testing.assert_allclose(got.T, expected, rtol=1e-5)
    lam = psi.lambda_return(reward, value, next_value, discount, last, 0.75)
    expected = [[1.6460547, 0.72281253, 0.7375001, 0.6500001, 3.4], [0.7866317, 0.9913063, 0.1101501, 2.834, 3.99]]
    np.testing.assert_allclose(lam.T, expected, rtol=1e-5)


def test_k_step_refuses_zero():
    with pytest.raises(ValueError, match="k_step: k = 0 must be at least 1"):
        psi.k_step(*(np.zeros(3),) * 4, ended(3), 0)


def test_vtrace_by_hand():
    """Two steps, γ = ½, V = 1, 2, end: ratios 3 and ½ under ρ̄ = 2, c̄ = 1."""
    target, weight = psi.vtrace(
        column(1, 4), column(1, 2), column(2, 6), column(0.5, 0.5), ended(2), column(3, 0.5), rho_bar=2.0
    )
    second = 2 + 0.5 * (4 + 0.5 * 6 - 2)
    first = 1 + 2 * (1 + 0.5 * 2 - 1) + 0.5 * 1 * (second - 2)
    np.testing.assert_allclose(target, [first, second])
    np.testing.assert_allclose(weight, [2 * (1 + 0.5 * second - 1), 0.5 * (4 + 3 - 2)])


def test_q_v_and_advantage():
    q, p, a = np.asarray([[1.0, 4.0, np.inf]]), np.asarray([[0.25, 0.75, 0.0]]), np.asarray([1])
    assert psi.action_value(q, a)[0] == 4.0
    assert psi.expected_value(q, p)[0] == 3.25
    assert psi.advantage(q, a, p)[0] == 0.75


def test_mean_baseline_in_float32_keeps_far_sums_apart():
    """Hundreds of thousands of large entries under one key leave the mean of two small ones under another untouched."""
    x = np.concatenate([np.full(200_000, 1e3), [1.0, 3.0]]).astype(np.float32)
    key = np.concatenate([np.zeros(200_000, dtype=np.int32), [1, 1]]).astype(np.int32)
    np.testing.assert_array_equal(psi.mean_baseline(x, key)[-2:], [2, 2])


def test_mean_baseline_takes_any_integers_as_keys():
    key = np.asarray([-5, 2**31 - 1, -5, 2**31 - 1], dtype=np.int64)
    got = psi.mean_baseline(column(1, 10, 3, 30), key, leave_out=np.asarray([2**40, 0, 1, 0]))
    np.testing.assert_array_equal(got, [3, 0, 1, 0])


# ---- objectives (references 2.7) ----


def clip_slope(ratio, advantage, **how):
    torch = pytest.importorskip("torch")
    r = torch.tensor(ratio, dtype=torch.float64, requires_grad=True)
    objectives.clipped(r, torch.full_like(r, advantage), **how).sum().backward()
    assert r.grad is not None
    return r.grad.numpy()


@pytest.mark.parametrize(
    "how", [{"low": 0.2}, {"low": 0.1, "high": 0.3}, {"low": 0.2, "dual": 3.0}, {"low": 0.2, "dual": 1.1}]
)
def test_where_the_clipped_gradient_vanishes(how):
    ratio = np.asarray([0.05, 0.5, 0.79, 0.85, 0.95, 1.0, 1.05, 1.15, 1.25, 1.35, 2.0, 2.9, 3.1, 9.0])
    low, high, dual = how["low"], how.get("high", how["low"]), how.get("dual", math.inf)
    np.testing.assert_array_equal(clip_slope(ratio, 2.0, **how), np.where(ratio > 1 + high, 0.0, 2.0))
    off = (ratio < 1 - low) | (ratio > dual)
    np.testing.assert_array_equal(clip_slope(ratio, -2.0, **how), np.where(off, 0.0, -2.0))


def test_clipped_never_exceeds_the_plain_surrogate(rng):
    ratio, advantage = np.exp(rng.normal(size=1000)), rng.normal(size=1000)
    plain = objectives.importance_weighted(ratio, advantage)
    assert (objectives.clipped(ratio, advantage, 0.2) <= plain).all()
    np.testing.assert_array_equal(objectives.clipped(np.ones(9), advantage[:9], 0.2), advantage[:9])


def test_rlax_clipped_loss():
    """`policy_gradients_test.py` of rlax: three rows of logits, ε = 0.2, and the advantages with both signs."""
    new = np.asarray([[1, 1, 1], [2, 0, 0], [-1, -2, -3]], dtype=np.float64)
    old = np.asarray([[1, 1, 1], [2, 0, 0], [-3, -2, -1]], dtype=np.float64)
    log_prob, log_prob_old = (divergences.log_softmax(z)[[0, 1, 2], [0, 1, 2]] for z in (new, old))
    ratio, advantage = importance.ratio(log_prob, log_prob_old), column(0.3, 0.2, 0.1)
    assert -reduce.mean(objectives.clipped(ratio, advantage, 0.2)) == pytest.approx(-0.171177842775, abs=1e-12)
    assert -reduce.mean(objectives.clipped(ratio, -advantage, 0.2)) == pytest.approx(0.193333333333, abs=1e-12)


def test_clip_fraction_counts_both_sides():
    got = objectives.clip_fraction(column(0.75, 0.85, 1.0, 1.25, 1.35), 0.2, 0.3)
    np.testing.assert_array_equal(got, [True, False, False, False, True])
    np.testing.assert_array_equal(objectives.clip_fraction(column(0.75, 1.25), 0.2), [True, True])


def test_penalised_and_entropy_by_hand():
    assert objectives.penalised(column(1.5), column(2), column(0.1), 4.0)[0] == pytest.approx(2.6)
    assert objectives.with_entropy(column(1), column(0.5), 0.1)[0] == pytest.approx(1.05)
    assert objectives.likelihood(column(-0.5), column(3))[0] == -1.5


# ---- critics ----


def test_where_the_clipped_critic_has_no_gradient():
    """V_old = 0, band ±1, target R: no gradient where V lies outside the band and nearer to R than the band's edge."""
    torch = pytest.importorskip("torch")
    for target in (-3.0, -0.5, 0.0, 0.5, 3.0):
        v = torch.tensor([-4.0, -2.0, -1.2, -0.7, 0.2, 0.7, 1.2, 2.0, 4.0], dtype=torch.float64, requires_grad=True)
        critics.clipped_value(v, torch.zeros_like(v), torch.full_like(v, target), 1.0).sum().backward()
        x = v.detach().numpy()
        edge = np.clip(x, -1.0, 1.0)
        free = (np.abs(x) > 1.0) & (np.abs(x - target) < np.abs(edge - target))
        assert v.grad is not None
        np.testing.assert_allclose(v.grad.numpy(), np.where(free, 0.0, 2.0 * (x - target)), atol=1e-12)


def test_critics_carry_no_half_and_targets_get_no_gradient():
    torch = pytest.importorskip("torch")
    assert critics.squared(column(3), column(1))[0] == 4.0
    v, nxt = (torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (3.0, 2.0))
    one, gamma = torch.ones(1, dtype=torch.float64), torch.full((1,), 0.5, dtype=torch.float64)
    critics.squared_td_error(one, v, nxt, gamma).sum().backward()
    assert (v.grad.item(), nxt.grad) == (2.0, None)
    critics.squared_td_error(one, v, nxt, gamma, residual=True).sum().backward()
    assert (v.grad.item(), nxt.grad.item()) == (4.0, -1.0)


def test_explained_variance():
    target = column(1, 2, 3, 4)
    assert critics.explained_variance(target, target) == 1.0
    assert critics.explained_variance(np.full(4, 7.0), target) == 0.0
    assert critics.explained_variance(-target, target) == -3.0
    assert critics.explained_variance(target + 5.0, target) == 1.0, "a constant error is not seen"
    assert np.isnan(critics.explained_variance(target, np.ones(4)))
    mask, weight = np.asarray([True, True, True, False]), column(1, 1, 2, 9)
    repeated = critics.explained_variance(column(1, 1, 4, 4), column(1, 2, 3, 3))
    assert critics.explained_variance(column(1, 1, 4, 0), column(1, 2, 3, 0), mask, weight) == pytest.approx(repeated)


# ---- KL, weights, β (references 2.4, 2.5, 2.8, 2.10) ----


def test_gaussian_kl():
    for mp, sp, mq, sq, value in (
        (0, 1, 0.5, 1, 0.125), (0, 1, 0, 2, 0.318147180560), (0, 2, 0, 1, 0.806852819440),
        (0, 1, 0.5, 2, 0.349397180560), (0.5, 2, 0, 1, 0.931852819440),
    ):  # fmt: skip
        got = divergences.gaussian_kl(column(mp), column(math.log(sp)), column(mq), column(math.log(sq)))
        assert got == pytest.approx(value, abs=1e-12)


def test_categorical_kl_and_entropy():
    p, q = np.log(column(0.5, 0.3, 0.2)), np.log(column(0.2, 0.5, 0.3))
    assert divergences.categorical_kl(p, q) == pytest.approx(0.223804657186, abs=1e-12)
    assert divergences.categorical_kl(q, p) == pytest.approx(0.193794197941, abs=1e-12)
    assert divergences.categorical_entropy(p) == pytest.approx(1.029653014065, abs=1e-12)
    assert divergences.categorical_entropy(np.zeros(7)) == pytest.approx(math.log(7))
    assert divergences.bernoulli_kl(np.log(column(1.0)), np.log(column(3.0))) == pytest.approx(0.5 * math.log(4 / 3))


def test_categorical_kl_at_the_border():
    gone = column(0.0, 0.0, -np.inf)
    assert divergences.categorical_kl(gone, gone) == 0.0
    assert divergences.categorical_kl(gone, np.zeros(3)) == pytest.approx(math.log(1.5))
    assert divergences.categorical_kl(np.zeros(3), gone) == np.inf
    faint = np.asarray([0.0, 0.0, -200.0], dtype=np.float32)
    assert divergences.categorical_kl(faint, gone.astype(np.float32)) == 0.0, "what underflows counts as 0"


def test_trl_estimators():
    log_p, log_q = column(0.5, 0.2, 0.1, 0.6, 0.2, 0.1), column(0.4, 0.3, 0.0, 0.7, 0.1, 0.3)
    np.testing.assert_allclose(divergences.k1(log_p, log_q), [0.1, -0.1, 0.1, -0.1, 0.1, -0.2])
    np.testing.assert_allclose(divergences.k2(log_p, log_q), [0.005, 0.005, 0.005, 0.005, 0.005, 0.02])
    assert divergences.k3(column(0.0), column(math.log(2)))[0] == pytest.approx(1 - math.log(2))


@pytest.mark.parametrize(
    ("mp", "sp", "second", "share"),
    [
        (0.5, 1, 1.284025416688, 0.778800783071),
        (1, 1, 2.718281828459, 0.367879441171),
        (0.3, 0.8, 1.145198142243, 0.873211336199),
        (0.2, 1.2, 1.196040194328, 0.836092302535),
    ],
)
def test_gaussian_importance_weights(mp, sp, second, share):
    """E_q[w] = 1 and E_q[w²] of p = N(mp, sp) against q = N(0, 1), integrated; the same grid gives ESS/n."""
    x = np.linspace(-14.0, 14.0, 20_001)
    q = np.exp(-0.5 * x**2) / np.sqrt(2 * np.pi) * (x[1] - x[0])
    w = importance.ratio(-0.5 * ((x - mp) / sp) ** 2 - math.log(sp), -0.5 * x**2)
    assert reduce.reduce(w, None, q, 1.0) == pytest.approx(1.0, abs=1e-10)
    assert reduce.reduce(w**2, None, q, 1.0) == pytest.approx(second, abs=1e-10)
    assert importance.effective_sample_size(w, None, q) == pytest.approx(share, abs=1e-10)


def test_effective_sample_size_by_hand():
    assert importance.effective_sample_size(column(2, 2, 2)) == 3.0
    assert importance.effective_sample_size(column(5, 0, 0)) == 1.0
    assert importance.effective_sample_size(column(1, 3), np.asarray([True, True])) == pytest.approx(1.6)
    twice = importance.effective_sample_size(column(1, 3, 3))
    assert importance.effective_sample_size(column(1, 3), None, column(1, 2)) == pytest.approx(twice)


def test_beta_sequences():
    beta, got = 1.0, []
    for kl in (0.004, 0.0066, 0.0067, 0.01, 0.0149, 0.0151, 0.05, 0.05, 0.001):
        beta = kl_control.paper_beta(beta, kl, 0.01)
        got += [beta]
    assert got == [0.5, 0.25, 0.25, 0.25, 0.25, 0.5, 1, 2, 1]
    beta, got = 0.2, []
    for kl in (3.0, 6.0, 6.6, 9.0, 100.0, 0.0):
        beta = kl_control.proportional_beta(beta, kl, 6.0, 256, 10_000.0)
        got += [beta]
    expected = [0.198976, 0.198976, 0.19948537856, 0.200506743698, 0.201533338226, 0.200501487534]
    np.testing.assert_allclose(got, expected, rtol=1e-11)


def test_thresholds_are_inclusive_and_bounded():
    step = [kl_control.threshold_beta(1.0, kl, 0.005, 0.02) for kl in (0.0, 0.005, 0.00501, 0.0199, 0.02, 9.0)]
    assert step == [0.5, 0.5, 1.0, 1.0, 2.0, 2.0]
    assert kl_control.threshold_beta(1.0, 0.02, 0.005, 0.02, factor=3.0) == 3.0
    assert kl_control.threshold_beta(1e6, 9.0, 0.005, 0.02) == 1e6
    assert kl_control.threshold_beta(1e-6, 0.0, 0.005, 0.02) == 1e-6
    assert kl_control.paper_beta(3.0, 9.0, 0.01, bounds=(0.1, 4.0)) == 4.0
    assert kl_control.threshold_beta(1.0, math.nan, 0.005, 0.02) == 1.0, "an unknown KL moves nothing"


# ---- reduction and loss ----


def test_reductions_by_hand():
    x, mask, weight = column(1, 2, 3, np.nan), np.asarray([True, True, True, False]), column(1, 1, 2, np.nan)
    assert reduce.mean(x, mask) == 2.0
    assert reduce.mean(x, mask, weight) == 2.25
    assert reduce.reduce(x, mask, total=12.0) == 0.5
    assert reduce.variance(x, mask) == pytest.approx(2 / 3)
    assert reduce.variance(x, mask, ddof=1) == 1.0
    assert reduce.variance(x, mask, weight) == pytest.approx(np.var([1, 2, 3, 3]))
    assert reduce.mean(np.asarray(3.0)) == 3.0
    assert np.isnan(reduce.mean(x, np.zeros(4, dtype=bool)))
    assert reduce.reduce(x, np.zeros(4, dtype=bool), total=5.0) == 0.0


def test_whitening():
    x, mask = column(1, 2, 3, 99), np.asarray([True, True, True, False])
    np.testing.assert_allclose(reduce.whiten(x, mask, eps=0.0), np.asarray([-1, 0, 1, 0]) * math.sqrt(1.5))
    np.testing.assert_allclose(reduce.whiten(x, mask, eps=0.0, ddof=1), [-1, 0, 1, 0])
    np.testing.assert_allclose(reduce.whiten(x, mask, eps=0.0, ddof=1, shift=False), [1, 2, 3, 0])
    np.testing.assert_array_equal(reduce.whiten(np.full(3, 5.0)), np.zeros(3))


def test_denominators():
    x, mask = np.zeros((3, 2)), np.asarray([[True, True], [False, True], [False, False]])
    last = np.ones((3, 2), dtype=bool)
    assert (reduce.total_steps(x, mask), reduce.total_columns(x, mask)) == (3, 2)
    assert reduce.total_trajectories(x, last, mask) == 3
    assert reduce.total_columns(x, np.asarray([[False, True]] * 3), np.asarray([5.0, 0.5])) == 0.5


def test_the_loss_by_hand():
    """Two steps of PPO, written out: one ratio clipped, the entropy bonus, the critic, and the only minus sign."""
    from vantage import PPO

    inputs = {
        "b_log_prob": column(0, 0), "b_psi": column(2, -1), "b_target": column(1, 0), "b_value": column(0, 0),
        "o_log_prob": np.log(column(1.5, 0.9)), "o_entropy": column(0.5, 0.7), "o_value": column(3, 1),
        "o_kl": column(0.1, 0.3),
    }  # fmt: skip
    value, metrics = call_loss(PPO(whiten=None, ent_coef=0.1), inputs, vf_coef=0.5)
    gain, entropy, critic = (1.2 * 2 - 0.9) / 2, 0.6, (4 + 1) / 2
    assert value == pytest.approx(-(gain + 0.1 * entropy) + 0.5 * critic)
    k3 = [1.5 - 1 - math.log(1.5), 0.9 - 1 - math.log(0.9)]
    expected = {
        "train/loss": value, "train/policy_gradient_loss": -gain, "train/entropy_loss": -entropy,
        "train/value_loss": critic,
        "train/approx_kl": np.mean(k3), "train/kl": 0.2, "train/clip_fraction": 0.5, "train/ratio_deviation": 0.5,
        "train/ess": 2.4**2 / (1.5**2 + 0.9**2) / 2,
    }  # fmt: skip
    assert metrics == pytest.approx(expected)


def test_metrics_of_a_weighted_batch_count_a_row_as_often_as_it_weighs(rng):
    inputs = loss_inputs(rng, (5,))
    counts = np.asarray([1, 2, 3, 1, 2])
    weighted = inputs | {"b_mask": np.ones(5, dtype=bool), "b_weight": counts.astype(np.float64)}
    repeated = {k: np.repeat(v, counts) for k, v in (weighted | {"b_weight": np.ones(5)}).items()}
    for recipe in RECIPES.values():
        (a, left), (b, right) = call_loss(recipe, weighted), call_loss(recipe, repeated)
        assert a == pytest.approx(b)
        assert left == pytest.approx(right)
