"""Section 8.3: k-step advantages, GAE(λ), their biases for A with a wrong V, cuts and ends, V-trace."""

import numpy as np

from vantage import mdp
from vantage.mdp.classics import chain
from vantage.recipe import GAE, REINFORCE, Columns, KStep, LearnedBaseline, RewardToGo, TDError
from vantage.theory import distributions, importance, psi, returns
from vantage.verify.claim import at_least, claim, equal, zero
from vantage.verify.claims.weighing import EXACT, unweighted
from vantage.verify.estimates import ascent, conditional_mean, weighed
from vantage.verify.worlds import (
    CLOCK,
    ENDING,
    ENDING_PI,
    ERROR,
    GAMMA,
    HORIZON,
    PI,
    PI_NEW,
    THETA_NEW,
    TWO,
    every_trajectory,
)

SHAPE = (HORIZON, 2, 2)
LAMBDAS = (0.0, 0.5, 0.95, 1.0)


def step(x):
    """E_{s'∼P(·|s,a)}[x(s')], `[…, S]` → `[…, S, A]`."""
    return np.einsum("sax,...x->...sa", TWO.P, x)


def steps_ahead(f, n):
    """E[f_{t+n}(s_{t+n}) | s_t, a_t], `[T, S, A]`, under π, for a table `[T+1, S]` that is 0 after the end."""
    ahead = np.concatenate([f[n:], np.zeros((min(n, len(f)), 2))])[: HORIZON + 1]
    x = step(ahead)
    for _ in range(n - 1):
        x = step(np.einsum("tsa,sa->ts", x, PI))
    return x[:HORIZON]


def args(r):
    return r.signal, r.value, r.next_value, r.discount, r.last


def on_every(on, critic):
    """The enumeration with this critic: as this backend's arrays, and a reader of E[x_t|s_t,a_t]."""
    rollout = every_trajectory(critic)
    return on.rollout(rollout), lambda x: conditional_mean(rollout, on.numpy(x), SHAPE)


def by_hand(r, decay):
    """Σ_l decay^l δ_{t+l} up to the end of each segment, by a double loop."""
    delta = r.signal + r.discount * r.next_value - r.value
    out = np.zeros_like(delta)
    for t, b in np.ndindex(*delta.shape):
        weight = 1.0
        for i in range(t, len(delta)):
            out[t, b] += weight * delta[i, b]
            weight *= decay
            if r.last[i, b]:
                break
    return out


def many_episodes():
    """A sampled rollout whose columns hold several episodes, ended by the world or cut at two steps."""
    return mdp.sample(ENDING, ENDING_PI, 24, 3, seed=1, value=np.array([1.5, -0.8, 0.0]), horizon=2, truncate=True)


@claim("8.3.k-step", "Â^{(k)}_t = Σ_{l<k} γ^l r_{t+l} + γ^k V(s_{t+k}) − V(s_t) = Σ_{l<k} γ^l δ_{t+l}")
def k_step(on):
    """k = 1 is the TD error, k ≥ T is G_t − V(s_t), and between them TD errors telescope."""
    r, _ = on_every(on, "wrong-v")
    two = on.numpy(psi.k_step(*args(r), 2))
    plain = every_trajectory("wrong-v")
    delta = plain.reward + plain.discount * plain.next_value - plain.value
    yield equal(delta + GAMMA * np.concatenate([delta[1:], 0 * delta[:1]]), two, "k = 2")
    yield equal(on.numpy(psi.td_error(*args(r)[:4])), on.numpy(psi.k_step(*args(r), 1)), "k = 1")
    togo = on.numpy(returns.reward_to_go(r.signal, r.discount, r.last))
    yield equal(togo - plain.value, on.numpy(psi.k_step(*args(r), 9)), "k ≥ T")


@claim("8.3.k-step-bias", "E[Â^{(k)}_t|s_t,a_t] − A_π = γ^k E[e(s_{t+k})] − e(s_t)")
def k_step_bias(on):
    """A wrong V enters twice: here, and discounted k times where the sampling stops."""
    r, mean = on_every(on, "wrong-v")
    for k in (1, 2, 3):
        bias = GAMMA**k * steps_ahead(ERROR, k) - ERROR[:-1, :, None]
        yield equal(bias, mean(psi.k_step(*args(r), k)) - mdp.advantages(TWO, PI, HORIZON), f"k = {k}")


@claim("8.3.gae", "Â_t = Σ_{l} (γλ)^l δ_{t+l}, up to the end of the episode or the cut")
def gae(on):
    """The scan is the double sum, in columns that hold several episodes, some ended and some cut."""
    plain = many_episodes()
    for lam in LAMBDAS:
        got = on.numpy(psi.gae(*args(on.rollout(plain)), lam))
        yield equal(by_hand(plain, plain.gamma * lam), got, f"λ = {lam:g}")


@claim("8.3.gae-recursion", "Â_t = δ_t + γ_t λ (1 − last_t) Â_{t+1}")
def gae_recursion(on):
    """Each row follows from the next."""
    plain = many_episodes()
    got = on.numpy(psi.gae(*args(on.rollout(plain)), 0.7))
    ahead = np.where(plain.last, 0.0, np.concatenate([got[1:], 0 * got[:1]]))
    delta = plain.signal + plain.discount * plain.next_value - plain.value
    yield equal(delta + plain.discount * 0.7 * ahead, got)


@claim("8.3.gae-mixture", "Â_t = (1−λ) Σ_{k≥1} λ^{k−1} Â^{(k)}_t")
def gae_mixture(on):
    """GAE is the exponential mixture of the k-step advantages; the last one takes the weight that is left."""
    r, _ = on_every(on, "wrong-v")
    lam = 0.6
    ks = [on.numpy(psi.k_step(*args(r), k)) for k in (1, 2, 3)]
    mixture = (1 - lam) * (ks[0] + lam * ks[1]) + lam**2 * ks[2]
    yield equal(mixture[0], on.numpy(psi.gae(*args(r), lam))[0], "t = 0 of T = 3")


@claim("8.3.gae-zero", "λ = 0:  Â_t = δ_t")
def gae_zero(on):
    """For every V."""
    r, _ = on_every(on, "wrong-v")
    yield equal(on.numpy(psi.td_error(*args(r)[:4])), on.numpy(psi.gae(*args(r), 0.0)))


@claim("8.3.gae-one", "λ = 1:  Â_t = G_t − V(s_t)")
def gae_one(on):
    """For every V."""
    r, _ = on_every(on, "wrong-v")
    togo = on.numpy(returns.reward_to_go(r.signal, r.discount, r.last))
    yield equal(togo - on.numpy(r.value), on.numpy(psi.gae(*args(r), 1.0)))


@claim("8.3.return-minus-value", "E[G_t − V̂(s_t)|s_t,a_t] = A_π + V_π(s_t) − V̂(s_t)")
def return_minus_value(on):
    """With λ = 1 the advantage is still biased, by −e(s_t); only the gradient is not."""
    r, mean = on_every(on, "wrong-v")
    bias = np.broadcast_to(-ERROR[:-1, :, None], SHAPE)
    yield equal(bias, mean(psi.gae(*args(r), 1.0)) - mdp.advantages(TWO, PI, HORIZON), "bias of A")
    got = ascent(on, REINFORCE(reduction=Columns()), every_trajectory("wrong-v"), weighed(r, psi.gae(*args(r), 1.0)))
    yield equal(EXACT, got, "gradient")


@claim("8.3.gae-bias", "E[Â_t|s_t,a_t] − A_π = −e(s_t) + γ(1−λ) Σ_l (γλ)^l E[e(s_{t+l+1})]")
def gae_bias(on):
    """A wrong V leaves this and no other trace, at every λ: the fingerprint of GAE."""
    r, mean = on_every(on, "wrong-v")
    for lam in LAMBDAS:
        tail = sum((GAMMA * lam) ** i * steps_ahead(ERROR, i + 1) for i in range(HORIZON))
        bias = -ERROR[:-1, :, None] + GAMMA * (1 - lam) * tail
        yield equal(bias, mean(psi.gae(*args(r), lam)) - mdp.advantages(TWO, PI, HORIZON), f"λ = {lam:g}")


@claim("8.3.gae-unbiased", "V = V_π:  E[Â_t|s_t,a_t] = A_π for every λ")
def gae_unbiased(on):
    """With the true V every λ is right. (So are some wrong formulas.)"""
    r, mean = on_every(on, "true-v")
    for lam in LAMBDAS:
        yield equal(mdp.advantages(TWO, PI, HORIZON), mean(psi.gae(*args(r), lam)), f"λ = {lam:g}")


@claim("8.3.chain", "n steps, Var r = s², x = γλ:  Var Â_0 = s²(1−x^{2n})/(1−x²)")
def rewards_in_a_row(on):
    """Ten independent rewards: how variance grows with λ; V + b leaves a bias of −(1−γ)b Σ_{l<n−1} x^l − b x^{n−1}."""
    n, gamma, s, b = 10, 0.99, 2.0, 0.5
    world = chain(n, gamma, mean=1.0, std=s)
    pi = np.ones((world.n_states, 1))
    exact = mdp.state_values(world, pi)
    critics = (exact, np.where(world.terminal, 0.0, exact + b))
    records = [args(on.rollout(mdp.trajectories(world, pi, n, value=critic))) for critic in critics]
    p = np.full(2**n, 0.5**n)
    published = {0.0: (4.0, -0.005), 0.5: (5.2981845491, -0.0107754313), 0.95: (24.4861738236, -0.3235236424),
                 1.0: (36.6016205835, -0.5)}  # fmt: skip
    for lam, (variance, bias) in published.items():
        right, wrong = (on.numpy(psi.gae(*r, lam))[0] for r in records)
        yield equal([variance, bias], [p @ right**2, p @ wrong], f"λ = {lam:g}: variance, bias", tol=1e-8)
        yield zero(p @ right, "exact critic: no bias")


@claim("8.3.variance-of-sum", "Var(Σ γ^l r_{t+l}) = Σ Var + 2 Σ Cov")
def variance_of_sum(on):
    """A sum of rewards need not vary more than one of them: here the second takes back the first."""
    P = np.array([[0.0, 0.5, 0.5, 0.0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1]])[:, None]
    R = np.array([[0.0, 1.0, -1.0, 0.0], [0, 0, 0, -1], [0, 0, 0, 1], [0, 0, 0, 0]])[:, None]
    rollout = mdp.trajectories(mdp.MDP(P, R, np.eye(4)[0], 1.0, (3,)), np.ones((4, 1)), 2)
    r = on.rollout(rollout)
    togo = on.numpy(returns.reward_to_go(r.signal, r.discount, r.last))
    yield equal([0.0, 1.0], (togo**2) @ rollout.weight, "Var(r_0 + r_1), Var(r_1)")


@claim("8.3.bias-variance", "wrong V:  bias of ĝ > 0 at λ = 0, = 0 at λ = 1")
def bias_variance(on):
    """λ trades the critic's bias for the samples' variance."""
    rollout, plan = every_trajectory("wrong-v"), REINFORCE(reduction=Columns())
    ladder = (0.0, 0.25, 0.5, 0.75, 1.0)
    steps = [ascent(on, plan, rollout, unweighted(GAE(lam=lam))(on, on.rollout(rollout))) for lam in ladder]
    bias = np.array([np.linalg.norm(g - EXACT) for g in steps])
    yield at_least(1e-2, bias[:-1], "λ < 1")
    yield zero(bias[-1], "λ = 1")


@claim("8.3.truncation", "at a cut: δ_t = r_t + γV(s_{t+1} reached) − V(s_t), nothing after;  V = V_π: E[Â|s,a] = A_π")
def truncation(on):
    """A time limit is no end: with the exact V no advantage is changed by it. Treated as an end it is off by γV."""
    values = mdp.state_values(CLOCK, np.ones((4, 1)))
    r = on.rollout(mdp.sample(CLOCK, np.ones((4, 1)), 17, 1, seed=0, value=values, horizon=5, truncate=True))
    for Ψ in (GAE(lam=0.95), GAE(lam=1.0), TDError(), KStep(k=3), RewardToGo(baseline=LearnedBaseline())):
        yield zero(on.numpy(Ψ(r)[0]), f"{Ψ}, limit of 5 steps")
    cut = mdp.trajectories(TWO, PI, HORIZON, value=mdp.state_values(TWO, PI), truncate=True)
    got = conditional_mean(cut, on.numpy(GAE(lam=0.95)(on.rollout(cut))[0]), SHAPE)
    yield equal(np.broadcast_to(mdp.advantages(TWO, PI), SHAPE), got, "E[Â|s,a] = A_π, stochastic")
    forever = mdp.MDP(np.ones((1, 1, 1)), np.ones((1, 1)), np.ones(1), GAMMA)
    one = mdp.trajectories(forever, np.ones((1, 1)), 6, value=np.array([1 / (1 - GAMMA)]), truncate=True)
    yield zero(on.numpy(GAE(lam=0.95)(on.rollout(one))[0]), "reward 1 for ever")


@claim(
    "8.3.vtrace",
    "v_t = V(s_t) + Σ_l γ^l (Π_{i<l} c_{t+i}) ρ_{t+l} δ_{t+l};  unclipped: E_{π_old}[v_t|s_t] = V_{π_θ}(s_t)",
)
def vtrace(on):
    """On its own data V-trace is the λ-return; unclipped, on another policy's data, its mean is the new V."""
    r, _ = on_every(on, "wrong-v")
    ones = 0.0 * r.signal + 1.0
    got = on.numpy(psi.vtrace(*args(r), ones, 0.5)[0])
    yield equal(on.numpy(psi.lambda_return(*args(r), 0.5)), got, "ratio 1: the λ-return")
    new = distributions.Categorical(on.array(THETA_NEW)[r.observation]).log_prob(r.action)
    ratio = importance.ratio(new, r.log_prob)
    target = on.numpy(psi.vtrace(*args(r), ratio, 1.0, np.inf, np.inf)[0])
    plain = every_trajectory("wrong-v")
    for t in range(HORIZON):
        for s in (0, 1):
            here = plain.weight * (plain.observation[t] == s)
            mean = float(here @ target[t] / here.sum())
            yield equal(mdp.state_values(TWO, PI_NEW, HORIZON)[t, s], mean, f"V_{t}({s}) of the new policy")
    clipped = on.numpy(psi.vtrace(*args(r), 0.0 * ratio + 3.0, 1.0, 1.0, 1.0)[0])
    yield equal(on.numpy(psi.lambda_return(*args(r), 1.0)), clipped, "ratio 3 clipped to 1")


@claim("8.3.published", "GAE and returns of rlax's and torchtune's tests")
def published(on):
    """Numbers that other libraries publish for their own code."""
    rewards = np.array([[0.0, 0.0, 1.0, 0.0, -0.5], [0.0, 0.0, 0.0, 0.0, 1.0]]).T
    values = np.array([[1.0, 4.0, -3.0, -2.0, -1.0, -1.0], [-3.0, -2.0, -1.0, 0.0, 5.0, -1.0]]).T
    discounts = np.array([[0.99] * 5, [0.9, 0.9, 0.9, 0.0, 0.9]]).T
    last = np.zeros((5, 2), dtype=bool)
    last[-1] = True
    table = {
        1.0: [[-1.45118, -4.4557, 2.5396, 0.5249, -0.49], [3.0, 2.0, 1.0, 0.0, -4.9]],
        0.7: [[-0.676979, -5.248167, 2.4846, 0.6704, -0.49], [2.2899, 1.73, 1.0, 0.0, -4.9]],
        0.4: [[0.56731, -6.042, 2.3431, 0.815, -0.49], [1.725, 1.46, 1.0, 0.0, -4.9]],
    }
    arrays = [on.array(x) for x in (rewards, values[:-1], values[1:], discounts, last)]
    for lam, rows in table.items():
        yield equal(np.array(rows).T, on.numpy(psi.gae(*arrays, lam=lam)), f"rlax, λ = {lam}", tol=1e-3)
    row = [on.array(np.array(x)) for x in ([0.0, 0, 0, 1], [0.0, 0, 0, 1], [0.0, 0, 1, 0], [0.9, 0.9, 0.9, 0])]
    ends = on.array(np.arange(4) == 3)
    got = on.numpy(psi.lambda_return(*row, last=ends, lam=0.95))
    yield equal([0.6579225, 0.7695, 0.9, 1.0], got, "torchtune")
