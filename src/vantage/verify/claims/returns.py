"""Sections 1, 2 and 6.2: policies are distributions, rewards are samples, returns are sums."""

import itertools
import math

import numpy as np

from vantage import mdp
from vantage.theory import distributions, returns
from vantage.verify import textbook
from vantage.verify.claim import claim, equal
from vantage.verify.estimates import conditional_mean
from vantage.verify.worlds import GAMMA, HORIZON, PI, TWO, V, every_trajectory

GRID = np.linspace(-20.0, 20.0, 4001)
"""The trapezoidal rule on it is exact to rounding for the Gaussians below."""
STEP = GRID[1] - GRID[0]


def discrete(on):
    """Each discrete family with all of its actions: (log π(a), H, expected H)."""
    half = on.array(np.array([0.4, -1.0]))
    categorical = distributions.Categorical(on.array(np.array([0.2, -np.inf, 1.0])))
    switches = distributions.Bernoulli(half)
    pairs = [on.array(np.array(bits)) for bits in itertools.product((0, 1), repeat=2)]
    choices = [on.array(np.array(a)) for a in range(3)]
    both = distributions.Product((categorical, switches))
    yield categorical, choices
    yield switches, pairs
    yield both, list(itertools.product(choices, pairs))


@claim("1.1.deterministic-policy", "a_t = μ(s_t):  V_μ(s) = Q_μ(s, μ(s))")
def deterministic_policy():
    """A deterministic policy is worth in each state what its action is worth there."""
    actions = np.array([1, 0])
    yield equal(mdp.action_values(TWO, actions)[[0, 1], actions], mdp.state_values(TWO, actions))


@claim("1.2.stochastic-policy", "Σ_a π(a|s) = 1,  ∫ π(a|s) da = 1")
def normalisation(on):
    """Every family of policies is a probability distribution over its actions."""
    for pi, actions in discrete(on):
        total = sum(math.exp(float(pi.log_prob(a))) for a in actions)
        yield equal(1.0, total, type(pi).__name__)
    mean, log_std = on.array(np.full((4001, 1), 0.3)), on.array(np.full((4001, 1), -0.4))
    u = on.array(GRID[:, None])
    density = np.exp(on.numpy(distributions.DiagonalGaussian(mean, log_std).log_prob(u)))
    yield equal(1.0, density.sum() * STEP, "DiagonalGaussian")
    squashed = np.exp(on.numpy(distributions.SquashedGaussian(mean, log_std).log_prob(u)))
    slope = 1.0 / np.cosh(GRID) ** 2
    yield equal(1.0, (squashed * slope).sum() * STEP, "SquashedGaussian, over a = tanh u")


@claim("1.2.entropy", "H(π(·|s)) = −E_{a∼π(·|s)}[log π(a|s)]")
def entropy(on):
    """The entropies are the expectations they stand for; ln n for the uniform choice among n."""
    uniform = distributions.Categorical(on.array(np.zeros(5)))
    yield equal(math.log(5.0), float(uniform.entropy()), "uniform over 5")
    for pi, actions in discrete(on):
        logs = [float(pi.log_prob(a)) for a in actions]
        expected = -sum(math.exp(x) * x for x in logs if x > -math.inf)
        yield equal(expected, float(pi.entropy()), type(pi).__name__)
    gaussian = distributions.DiagonalGaussian(on.array(np.zeros((1, 2))), on.array(np.log([[2.0, 0.5]])))
    yield equal(math.log(2 * math.pi * math.e), on.numpy(gaussian.entropy()), "σ = (2, ½): ln 2πe")


@claim("2.1.reward", "E_{s'∼P(·|s,a)}[R(s,a,s')] = Σ_s' P(s'|s,a) R(s,a,s')")
def reward():
    """The sampled rewards of a state and action average to the expected reward, which no policy enters."""
    for policy in ("old", "new"):
        r = every_trajectory(policy=policy)
        got = conditional_mean(r, r.reward, (HORIZON, 2, 2))
        yield equal(np.broadcast_to(TWO.expected_reward, got.shape), got, f"{policy} policy")


@claim("2.2.total-return", "R(τ) = Σ_{t<T} r_t,  E_{τ∼π}[R(τ)] = J for γ = 1")
def total_return(on):
    """The plain return averages to the undiscounted J of the T-step world."""
    r = on.rollout(every_trajectory())
    total = on.numpy(returns.total_return(r.signal, 0.0 * r.discount + 1.0, r.last, r.time, r.mask))
    flow = mdp.occupancy(TWO, PI, HORIZON, discounted=False)
    expected = float(np.einsum("ts,sa,sa->", flow, PI, TWO.expected_reward))
    yield equal(expected, float(every_trajectory().weight @ total[0]))


@claim("2.3.discounted-return", "R(τ) = Σ_{t<T} γ^t r_t;  r = 1: (1−γ^T)/(1−γ)")
def discounted_return(on):
    """The discounted return of a constant reward is a geometric sum; over π it averages to J."""
    ones = on.array(np.ones((7, 1)))
    last = on.array(np.arange(7)[:, None] == 6)
    got = returns.total_return(ones, GAMMA * ones, last, on.array(np.arange(7)[:, None]))
    yield equal((1 - GAMMA**7) / (1 - GAMMA), on.numpy(got)[0, 0], "r = 1, T = 7")
    r = on.rollout(every_trajectory())
    total = on.numpy(returns.total_return(r.signal, r.discount, r.last, r.time, r.mask))
    yield equal(float(TWO.rho @ V[0]), float(every_trajectory().weight @ total[0]), "J")


@claim("6.2.return", "G_t = Σ_{l<T−t} γ^l r_{t+l};  γ = ½, r = −1, 2, 6, 3, 2")
def published_returns(on):
    """Sutton & Barto, exercise 3.8; and the vectors of rlax's tests, with a discount of its own at each step."""
    reward = np.array([-1.0, 2.0, 6.0, 3.0, 2.0])
    last = on.array(np.arange(5) == 4)
    got = returns.reward_to_go(on.array(reward), on.array(np.full(5, 0.5)), last)
    yield equal([2.0, 6.0, 8.0, 4.0, 2.0], on.numpy(got), "S&B 3.8")
    rewards = np.array([[1.0, 0.0, -1.0, 0.0, 1.0], [0.5, 0.8, -0.7, 0.0, 2.1]]).T
    discounts = np.array([[0.5, 0.9, 1.0, 0.5, 0.8], [0.9, 0.5, 0.3, 0.8, 0.7]]).T
    ends = np.array([[3.0, 2.7]] * 5)
    cut = on.array(np.broadcast_to((np.arange(5) == 4)[:, None], (5, 2)))
    got = returns.reward_to_go(on.array(rewards), on.array(discounts), cut, on.array(ends))
    published = [[1.315, 0.63, 0.7, 1.7, 3.4], [1.33592, 0.9288, 0.2576, 3.192, 3.99]]
    yield equal(np.array(published).T, on.numpy(got), "rlax", tol=1e-7)


@claim("6.2.return-recursion", "G_t = r_t + γ G_{t+1},  G_T = 0")
def recursion(on):
    """The recursion is the sum, on every trajectory."""
    r = on.rollout(every_trajectory())
    got = on.numpy(returns.reward_to_go(r.signal, r.discount, r.last))
    psi = textbook.Weigher(GAMMA, V).togo
    expected = textbook.conditional_mean(textbook.paths(TWO, PI, HORIZON), psi, (HORIZON, 2, 2))
    yield equal(expected, conditional_mean(every_trajectory(), got, (HORIZON, 2, 2)), "E[G_t|s,a]")
    ahead = np.concatenate([got[1:], np.zeros_like(got[:1])])
    yield equal(every_trajectory().reward + GAMMA * ahead, got, "every row")


@claim("6.2.total-is-first", "R(τ) = G_0,  Σ_{t'≥t} γ^{t'} r_{t'} = γ^t G_t")
def total_is_first(on):
    """The return of a trajectory is its first reward-to-go, and discounting from the start is γ^t times from now."""
    r = on.rollout(every_trajectory())
    total = on.numpy(returns.total_return(r.signal, r.discount, r.last, r.time, r.mask))
    togo = on.numpy(returns.reward_to_go(r.signal, r.discount, r.last))
    yield equal(np.broadcast_to(togo[0], total.shape), total, "R(τ)")
    gains = GAMMA ** np.arange(HORIZON)[:, None] * every_trajectory().reward
    from_start = np.cumsum(gains[::-1], axis=0)[::-1]
    weight = on.numpy(returns.discount_weight(r.time, r.gamma))
    yield equal(from_start, weight * togo, "γ^t G_t")
