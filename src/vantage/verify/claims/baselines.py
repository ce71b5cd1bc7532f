"""Section 6.1, baselines made of the samples themselves: every group of n samples is listed."""

import itertools

import numpy as np

from vantage import mdp
from vantage.recipe import REINFORCE, Columns, GroupMean, RewardToGo, StateMean
from vantage.theory import psi, reduce
from vantage.verify.claim import claim, differs, equal
from vantage.verify.estimates import ascent, weighed
from vantage.verify.worlds import BANDIT, BANDIT_THETA, HORIZON, THETA, TWO, bandit_samples, every_trajectory, pairs

EXACT = mdp.policy_gradient(BANDIT, BANDIT_THETA, 1)
PROBABILITY = mdp.softmax(BANDIT_THETA)[0]
REWARD = BANDIT.expected_reward[0]


def expected_step(on, baseline, n):
    """E[ĝ] when the batch is n samples: every n-tuple is a group with a baseline of its own."""
    plan = REINFORCE(psi=RewardToGo(baseline=baseline), reduction=Columns())
    return ascent(on, plan, bandit_samples(n), theta=BANDIT_THETA)


def by_hand(n, weigh):
    """Σ over n-tuples of p · (1/n) Σ_i Ψ_i ∇log π(a_i), for Ψ = weigh(rewards), in plain loops."""
    total = np.zeros(3)
    for actions in itertools.product(range(3), repeat=n):
        chosen = list(actions)
        for a, Ψ in zip(chosen, weigh(REWARD[chosen]), strict=True):
            total += PROBABILITY[chosen].prod() * Ψ * (np.eye(3)[a] - PROBABILITY) / n
    return total[None]


@claim("6.1.state-mean-baseline", "b_i = (1/n) Σ_j G_j:  E[ĝ] = (1 − 1/n) ∇J")
def state_mean(on):
    """A mean that contains the sample itself shrinks the gradient by exactly 1 − 1/n."""
    for n in (2, 3):
        yield equal((1 - 1 / n) * EXACT, expected_step(on, StateMean(), n), f"n = {n}")


@claim("6.1.leave-one-out-baseline", "b_i = (1/(n−1)) Σ_{j≠i} G_j:  E[ĝ] = ∇J")
def leave_one_out(on):
    """Without the sample itself the mean is a baseline like any other."""
    gains, key, own = on.array(np.array([1.0, 2.0, 6.0])), on.array(np.zeros(3, dtype=np.int64)), on.array(np.arange(3))
    yield equal([4.0, 3.5, 1.5], on.numpy(psi.mean_baseline(gains, key, leave_out=own)), "of (1, 2, 6)")
    for n in (2, 3):
        yield equal(EXACT, expected_step(on, StateMean(leave_one_out=True), n), f"n = {n}")


@claim("6.1.group-baseline", "b = mean of the group's n returns: factor 1 − 1/n;  leave-one-out: 1")
def group_baseline(on):
    """Columns that answer one prompt: GRPO's baseline shrinks the gradient, RLOO's does not."""
    for n, leave, factor in ((2, False, 1 / 2), (3, False, 2 / 3), (2, True, 1.0), (3, True, 1.0)):
        got = expected_step(on, GroupMean(leave_one_out=leave), n)
        yield equal(factor * EXACT, got, f"n = {n}, {'without' if leave else 'with'} the sample itself")
    plan = REINFORCE(psi=RewardToGo(baseline=GroupMean()), reduction=Columns())
    yield equal(mdp.policy_gradient(TWO, THETA, 1), ascent(on, plan, pairs()), "several states, γ < 1")


@claim("6.1.whitening", "Ψ ← (Ψ − mean)/(std + eps):  E[ĝ] is not along ∇J;  whiten(cΨ) = whiten(Ψ)")
def whitening(on):
    """Whitening over n samples turns the expected gradient by a definite amount, and forgets its scale."""

    def whiten(x):
        return (x - x.mean()) / (x.std() + 1e-8)

    rollout = bandit_samples(3)
    gains = rollout.reward[0, :81].reshape(27, 3)
    white = np.zeros_like(rollout.reward)
    white[0, :81] = np.concatenate([on.numpy(reduce.whiten(on.array(g))) for g in gains])
    r = on.rollout(rollout)
    got = ascent(on, REINFORCE(reduction=Columns()), rollout, weighed(r, on.array(white)), BANDIT_THETA)
    yield equal(by_hand(3, whiten), got, "E[ĝ], n = 3")
    cosine = float((got * EXACT).sum() / np.linalg.norm(got) / np.linalg.norm(EXACT))
    yield differs(1.0, cosine, "cosine with ∇J")
    x = np.array([1.0, -0.5, 2.0, 4.0])
    yield equal(whiten(x), on.numpy(reduce.whiten(on.array(100.0 * x))), "scale", tol=1e-7)
    real = on.array(np.array([True, True, True, True, False, False]))
    padded = on.array(np.concatenate([x, [50.0, -70.0]]))
    yield equal([*whiten(x), 0.0, 0.0], on.numpy(reduce.whiten(padded, real)), "padding", tol=1e-7)


@claim("6.1.sample-variance", "Var = Σ(x − mean)²/(n − ddof)")
def sample_variance(on):
    """n for the variance of a population, n − 1 for an unbiased estimate from a sample; weights count as samples."""
    x, w = np.array([1.0, 2.0, 6.0]), np.array([1.0, 2.0, 1.0])
    yield equal([14 / 3, 7.0], [float(reduce.variance(on.array(x), ddof=d)) for d in (0, 1)], "of (1, 2, 6)")
    copies = np.repeat(x, w.astype(int))
    yield equal(copies.var(), float(reduce.variance(on.array(x), weight=on.array(w))), "weighted")
    outcomes = itertools.product(range(3), repeat=2)
    mean = sum(
        PROBABILITY[list(a)].prod() * float(reduce.variance(on.array(REWARD[list(a)]), ddof=1)) for a in outcomes
    )
    yield equal(PROBABILITY @ REWARD**2 - (PROBABILITY @ REWARD) ** 2, mean, "E[s²] = σ²")


@claim("6.1.whitening-of-weights", "whiten over an enumeration: mean 0, variance 1 under p(τ)")
def whitening_of_weights(on):
    """With column weights the mean and the variance are expectations, not counts."""
    rollout = every_trajectory()
    r = on.rollout(rollout)
    white = on.numpy(reduce.whiten(r.signal, r.mask, r.row_weight))
    p = np.asarray(rollout.row_weight) / HORIZON
    yield equal([0.0, 1.0], [(p * white).sum(), (p * white**2).sum()], "mean, variance", tol=1e-7)
