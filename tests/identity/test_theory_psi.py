"""Algebra of the backward recursion and of everything built on it, on every layout: ends, cuts, gaps."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.backends._cases import record
from vantage.theory import importance, psi, returns
from vantage.theory.scan import reverse_scan

LAMBDAS = st.floats(0.0, 1.0)


@st.composite
def layouts(draw, p_masked=(0.0, 0.3, 0.8), p_end=(0.0, 0.2, 0.6)):
    """A record of the contract: T and B from 1 on, with and without gaps and ends."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    steps, columns = draw(st.integers(1, 12)), draw(st.integers(1, 3))
    gamma = draw(st.sampled_from([0.0, 0.5, 0.99, 1.0]))
    return record(
        rng, steps, columns, p_end=draw(st.sampled_from(p_end)), p_masked=draw(st.sampled_from(p_masked)), gamma=gamma
    )


def pick(x, *names):
    return {name: x[name] for name in names}


def segment(x):
    return pick(x, "reward", "value", "next_value", "discount", "last", "mask")


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11)


def segments(x):
    """(column, rows) of each segment of real decisions: the layout read by a loop."""
    for b in range(x["mask"].shape[1]):
        rows = []
        for t in np.flatnonzero(x["mask"][:, b]):
            rows.append(t)
            if x["last"][t, b]:
                yield b, rows
                rows = []
        if rows:
            yield b, rows


# ---- the recursion ----


@given(layouts())
def test_scan_is_the_dense_sum(x):
    """y_t = Σ_u (Π_{t≤i<u} c_i) x_u, written as the O(T²) sum; a masked row counts as x = 0, c = 1."""
    decay = x["discount"]
    y = reverse_scan(x["reward"], decay, x["mask"])
    signal, c = np.where(x["mask"], x["reward"], 0.0), np.where(x["mask"], decay, 1.0)
    steps = len(y)
    dense = sum(
        np.prod(c[t:u], axis=0) * signal[u] * (np.arange(steps) == t)[:, None]
        for t in range(steps)
        for u in range(t, steps)
    )
    close(y, np.where(x["mask"], dense, 0.0))


@given(layouts())
def test_scan_under_a_mask_is_the_scan_of_the_real_rows(x):
    y = reverse_scan(x["reward"], x["discount"], x["mask"])
    for b in range(y.shape[1]):
        real = x["mask"][:, b]
        close(y[real, b], reverse_scan(x["reward"][real, b], x["discount"][real, b]) if real.any() else [])
        assert (y[~real, b] == 0).all()


@given(layouts(), st.randoms(use_true_random=False))
def test_columns_are_strangers(x, random):
    """Permuting columns permutes every result, for each function over time."""
    order = list(range(x["mask"].shape[1]))
    random.shuffle(order)
    y = {name: v[:, order] for name, v in x.items()}
    two = {"log_prob": x["reward"], "log_prob_old": x["value"], **pick(x, "last", "mask")}
    twain = {name: v[:, order] for name, v in two.items()}
    for f in (
        lambda z, _: psi.gae(**segment(z), lam=0.7),
        lambda z, _: psi.lambda_return(**segment(z), lam=0.7),
        lambda z, _: psi.k_step(**segment(z), k=2),
        lambda z, _: psi.vtrace(**segment(z), ratio=np.exp(z["reward"]))[1],
        lambda z, _: returns.reward_to_go(**pick(z, "reward", "discount", "last", "mask")),
        lambda _, w: importance.step_weight(**w),
        lambda _, w: importance.trajectory_weight(**w),
    ):
        np.testing.assert_array_equal(f(x, two)[:, order], f(y, twain))


@given(layouts())
def test_a_gap_or_padding_changes_nothing(x):
    """An extra masked row anywhere, full of nonsense, leaves the real rows' numbers as they were."""
    steps = len(x["mask"])
    at = steps // 2
    junk = {"last": True, "mask": False, "time": 3}
    y = {name: np.insert(v, [0, at, steps], junk.get(name, np.nan), axis=0) for name, v in x.items()}
    kept = np.delete(np.arange(steps + 3), [0, at + 1, steps + 2])
    for f in (
        lambda z: psi.gae(**segment(z), lam=0.7),
        lambda z: psi.k_step(**segment(z), k=3),
        lambda z: psi.vtrace(**segment(z), ratio=np.exp(z["reward"]), lam=0.6)[0],
        lambda z: returns.reward_to_go(**pick(z, "reward", "discount", "last", "mask", "next_value")),
        lambda z: returns.total_return(**pick(z, "reward", "discount", "last", "time", "mask")),
        lambda z: importance.trajectory_weight(z["reward"], z["value"], z["last"], z["mask"]),
        lambda z: importance.step_weight(z["reward"], z["value"], z["last"], z["mask"]),
    ):
        close(f(y)[kept], f(x))


# ---- Ψ ----


@given(layouts())
def test_gae_0_is_the_td_error(x):
    delta = psi.td_error(**pick(x, "reward", "value", "next_value", "discount"))
    np.testing.assert_array_equal(psi.gae(**segment(x), lam=0.0), np.where(x["mask"], delta, 0.0))


@given(layouts())
def test_gae_1_is_the_return_minus_the_value(x):
    """On every layout: termination, truncation, rollout end, gaps; where it is cut, G_t goes on with V."""
    gain = returns.reward_to_go(**pick(x, "reward", "discount", "last", "mask", "next_value"))
    close(psi.gae(**segment(x), lam=1.0), np.where(x["mask"], gain - x["value"], 0.0))


@given(layouts(), LAMBDAS)
def test_lambda_return_is_gae_plus_value(x, lam):
    close(
        psi.lambda_return(**segment(x), lam=lam), np.where(x["mask"], psi.gae(**segment(x), lam=lam) + x["value"], 0.0)
    )


@given(layouts())
def test_k_step_1_is_the_td_error_and_many_steps_are_gae_1(x):
    np.testing.assert_array_equal(psi.k_step(**segment(x), k=1), psi.gae(**segment(x), lam=0.0))
    close(psi.k_step(**segment(x), k=10**6), psi.gae(**segment(x), lam=1.0))
    longest = max(len(rows) for _, rows in segments(x))
    close(psi.k_step(**segment(x), k=longest), psi.gae(**segment(x), lam=1.0))


@given(layouts(), st.integers(1, 13))
def test_k_step_is_k_rewards_and_then_the_critic(x, k):
    got = psi.k_step(**segment(x), k=k)
    for b, rows in segments(x):
        for i, t in enumerate(rows):
            reach = rows[i : i + k]
            discounts = np.cumprod([1.0, *x["discount"][reach, b]])
            expected = discounts[:-1] @ x["reward"][reach, b] + discounts[-1] * x["next_value"][reach[-1], b]
            close(got[t, b], expected - x["value"][t, b])


@given(layouts(), st.floats(0.0, 0.95))
def test_gae_averages_the_k_step_advantages(x, lam):
    """Â = (1 − λ) Σ_{k≥1} λ^{k−1} Â^{(k)}; from the longest segment on, all Â^{(k)} are alike."""
    longest = max(len(rows) for _, rows in segments(x))
    mixture = sum((1 - lam) * lam ** (k - 1) * psi.k_step(**segment(x), k=k) for k in range(1, longest))
    close(psi.gae(**segment(x), lam=lam), mixture + lam ** (longest - 1) * psi.k_step(**segment(x), k=longest))


@given(layouts(), LAMBDAS)
def test_vtrace_on_its_own_policy_is_the_lambda_return(x, lam):
    one = np.ones_like(x["reward"])
    target, weight = psi.vtrace(**segment(x), ratio=one, lam=lam)
    close(target, psi.lambda_return(**segment(x), lam=lam))
    if lam == 1.0:
        close(target, returns.reward_to_go(**pick(x, "reward", "discount", "last", "mask", "next_value")))
        close(weight, psi.gae(**segment(x), lam=1.0))


@given(layouts(), st.floats(0.5, 2.0), st.floats(0.5, 2.0), LAMBDAS)
def test_vtrace_is_the_recursion_of_the_paper(x, rho_bar, c_bar, lam):
    """Remark 1 of Espeholt et al.: v_s = V_s + δ_s + γ c_s (v_{s+1} − V_{s+1}), by a loop."""
    ratio = np.exp(0.5 * x["reward"])
    target, weight = psi.vtrace(**segment(x), ratio=ratio, lam=lam, rho_bar=rho_bar, c_bar=c_bar)
    for b, rows in segments(x):
        ahead = None
        for t in reversed(rows):
            rho, c = min(ratio[t, b], rho_bar), lam * min(ratio[t, b], c_bar)
            reached = x["next_value"][t, b]
            delta = rho * (x["reward"][t, b] + x["discount"][t, b] * reached - x["value"][t, b])
            excess = 0.0 if ahead is None else ahead - reached
            v = x["value"][t, b] + delta + x["discount"][t, b] * c * excess
            then = reached if ahead is None else ahead
            close(target[t, b], v)
            close(weight[t, b], rho * (x["reward"][t, b] + x["discount"][t, b] * then - x["value"][t, b]))
            ahead = v


@given(layouts())
def test_total_return_is_the_first_reward_to_go(x):
    total = returns.total_return(**pick(x, "reward", "discount", "last", "time", "mask"))
    gain = returns.reward_to_go(**pick(x, "reward", "discount", "last", "mask"))
    for b, rows in segments(x):
        close(total[rows, b], np.full(len(rows), gain[rows[0], b]))
    assert (total[~x["mask"]] == 0).all()


@given(layouts())
def test_reward_to_go_is_a_sum_of_discounted_rewards(x):
    gain = returns.reward_to_go(**pick(x, "reward", "discount", "last", "mask"))
    for b, rows in segments(x):
        for i, t in enumerate(rows):
            discounts = np.cumprod([1.0, *x["discount"][rows[i:], b]])[:-1]
            close(gain[t, b], discounts @ x["reward"][rows[i:], b])


# ---- weights of what an episode did ----


@given(layouts())
def test_weights_of_episodes_are_products(x):
    two = (x["reward"], x["value"], x["last"], x["mask"])
    step, whole = importance.step_weight(*two), importance.trajectory_weight(*two)
    one = importance.ratio(x["reward"], x["value"])
    for b, rows in segments(x):
        close(step[rows, b], np.cumprod(one[rows, b]))
        close(whole[rows, b], np.full(len(rows), np.prod(one[rows, b])))
    for b, rows in segments(x):
        for s, t in pairwise(rows):
            close(step[t, b], step[s, b] * one[t, b])


# ---- baselines from samples ----


@st.composite
def samples(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (draw(st.integers(1, 6)), draw(st.integers(1, 4)))
    mask = rng.random(shape) < draw(st.sampled_from([0.5, 1.0]))
    return {
        "x": rng.normal(size=shape),
        "key": rng.integers(-2, 3, size=shape),
        "mask": mask,
        "weight": rng.uniform(0.5, 2.0, size=shape),
    }, rng.integers(0, 4, size=shape)


@given(samples())
def test_mean_baseline_is_the_loop(drawn):
    given, own = drawn
    plain, alone = psi.mean_baseline(**given), psi.mean_baseline(**given, leave_out=own)
    x, key, mask, weight = given.values()
    for i in np.ndindex(x.shape):
        peers = mask & (key == key[i])
        others = peers & (own != own[i])
        assert plain[i] == 0 if not mask[i] else abs(plain[i] - np.average(x[peers], weights=weight[peers])) < 1e-12
        expected = np.average(x[others], weights=weight[others]) if others.any() else 0.0
        assert alone[i] == 0 if not mask[i] else abs(alone[i] - expected) < 1e-12


@given(st.integers(2, 30), st.integers(0, 2**32 - 1))
def test_leave_one_out_is_the_plain_baseline_stretched(n, seed):
    """x_i − b_i^{LOO} = n/(n−1) (x_i − b): RLOO and GRPO differ by a factor."""
    x = np.random.default_rng(seed).normal(size=n)
    key, own = np.zeros(n, dtype=np.int64), np.arange(n)
    close(x - psi.mean_baseline(x, key, leave_out=own), n / (n - 1) * (x - psi.mean_baseline(x, key)))
