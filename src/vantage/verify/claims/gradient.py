"""Sections 3, 4 and 5: trajectories and their probabilities, J, and the policy gradient with its denominators."""

from dataclasses import replace

import numpy as np

from vantage import mdp
from vantage.mdp.classics import two_state, two_state_policy
from vantage.mdp.moments import moments
from vantage.recipe import REINFORCE, Columns, RewardToGo, Steps, TotalReturn, Trajectories
from vantage.theory import distributions
from vantage.verify import textbook
from vantage.verify.backend import Backend
from vantage.verify.claim import at_least, claim, differs, equal, zero
from vantage.verify.estimates import PLAIN, ascent, objective
from vantage.verify.worlds import (
    ENDING,
    ENDING_THETA,
    GAMMA,
    HORIZON,
    PI,
    THETA,
    TWO,
    V,
    ending_trajectories,
    every_trajectory,
    pairs,
)

FINITE_DIFFERENCES = Backend()
TOGO = REINFORCE(psi=RewardToGo(), reduction=Columns(), time_weighting="discounted")


def listed():
    """The textbook's trajectories of `TWO`, their states `[T+1, B]` and their actions `[T, B]`."""
    some = textbook.paths(TWO, PI, HORIZON)
    return some, np.array([p.s for p in some]).T, np.array([p.a for p in some]).T


@claim("3.transition", "s_{t+1} = f(s_t, a_t) is P(f(s,a)|s,a) = 1")
def transition():
    """Deterministic transitions are stochastic ones that are certain."""
    f = np.array([[1, 0], [0, 1]])
    by_function = mdp.MDP.from_function(lambda s, a: f[s, a], lambda s, a, t: s + 0.5 * t, 2, 2, [0.5, 0.5], GAMMA)
    by_table = mdp.MDP(np.eye(2)[f], np.arange(2)[:, None] + 0.5 * f, np.array([0.5, 0.5]), GAMMA)
    yield equal(mdp.state_values(by_table, PI), mdp.state_values(by_function, PI), "V")
    yield equal(mdp.expected_return(by_table, PI), mdp.expected_return(by_function, PI), "J")


@claim("4.objective", "J(π) = E_{τ∼π}[R(τ)] = Σ_τ P(τ|π) R(τ) = Σ_s ρ₀(s) V_π(s)")
def objective_is_an_expectation():
    """The objective listed trajectory by trajectory equals the one solved for."""
    some = textbook.paths(TWO, PI, HORIZON)
    weigh = textbook.Weigher(GAMMA, V)
    yield equal(sum(p.p * weigh.discounted_total(p, 0) for p in some), mdp.expected_return(TWO, PI, HORIZON))


@claim("4.evaluate-improve", "V_{π_k} → π_{k+1} = greedy(Q_{π_k}) → … → π*:  J(π_k) never falls")
def evaluate_improve():
    """Policy iteration climbs and ends where value iteration ends, at the fixed point of max_a Q."""
    world = mdp.random_mdp(6, 3, 0.9, seed=4)
    turns = list(mdp.policy_iteration(world))
    J = np.array([turn.expected_return for turn in turns])
    yield at_least(0.0, np.diff(J), f"J_{{k+1}} − J_k, {len(J)} policies")
    values = turns[-1].values
    yield equal(mdp.value_iteration(world).values, values, "V*", tol=1e-8)
    yield equal(values, mdp.values_to_action_values(world, values).max(-1), "Bellman optimality")


@claim("5.1.trajectory-probability", "P(τ|π) = ρ₀(s_0) Π_t π(a_t|s_t) P(s_{t+1}|s_t,a_t)")
def trajectory_probability():
    """The product over the steps is the weight that the enumeration gives."""
    some, states, actions = listed()
    got = np.exp(mdp.trajectory_log_prob(TWO, PI, states, actions))
    yield equal([p.p for p in some], got, "one by one")
    yield equal(np.sort(every_trajectory().row_weight[0]), np.sort(got), "as the enumeration has them")


@claim("5.1.probability-sum", "Σ_τ P(τ|π) = 1")
def probability_sum():
    """All trajectories are there, once; of fixed length and of random length, singly and in pairs."""
    yield equal(1.0, every_trajectory().row_weight[0].sum(), "128 trajectories of 3 steps")
    yield equal(1.0, ending_trajectories().row_weight[0].sum(), "random length")
    yield equal(1.0, pairs().row_weight[0].sum(), "all pairs")


@claim("5.1.log-derivative", "∇_θ P(τ|π_θ) = P(τ|π_θ) Σ_t ∇_θ log π_θ(a_t|s_t)")
def log_derivative(on):
    """A mixture Σ_τ c(τ) P(τ|π_θ) with arbitrary c, differentiated directly, and through the logarithms."""
    _, states, actions = listed()
    c = np.cos(np.arange(128.0))

    def direct(theta):
        return float(c @ np.exp(mdp.trajectory_log_prob(TWO, mdp.softmax(theta), states, actions)))

    P = np.exp(mdp.trajectory_log_prob(TWO, PI, states, actions))
    s, a, weight = on.array(states[:-1]), on.array(actions), on.array(c * P)

    def through_logarithms(theta):
        return (weight * distributions.Categorical(theta[s]).log_prob(a)).sum()

    yield equal(FINITE_DIFFERENCES.gradient(direct, THETA), on.gradient(through_logarithms, THETA))


@claim("5.1.score", "∇_θ log P(τ|π_θ) = Σ_t ∇_θ log π_θ(a_t|s_t)")
def score(on):
    """The world's own probabilities drop out of the score, for each of a few trajectories."""
    _, states, actions = listed()
    s, a = on.array(states[:-1]), on.array(actions)
    for b in (0, 37, 127):
        chosen = on.array(np.eye(128)[b])
        log_p = lambda x, b=b: mdp.trajectory_log_prob(TWO, mdp.softmax(x), states, actions)[b]  # noqa: E731
        got = on.gradient(lambda x, c=chosen: (c * distributions.Categorical(x[s]).log_prob(a)).sum(), THETA)
        yield equal(FINITE_DIFFERENCES.gradient(log_p, THETA), got, f"trajectory {b}")


@claim("5.1.score-mean", "E_{τ∼π}[∇ log P(τ|π)] = 0,  E_{a∼π(·|s)}[∇ log π(a|s)] = 0")
def score_mean(on):
    """The score has mean zero: what makes baselines free."""
    r = on.rollout(every_trajectory())
    log_prob = lambda x: distributions.Categorical(x[r.observation]).log_prob(r.action)  # noqa: E731
    got = on.gradient(lambda x: (r.weight * log_prob(x)).sum(), THETA)
    yield zero(got, "over trajectories")
    pi, action = on.array(PI), on.array(np.array([[0, 1], [0, 1]]))
    state = on.array(np.array([[0, 0], [1, 1]]))
    got = on.gradient(lambda x: (pi * distributions.Categorical(x[state]).log_prob(action)).sum(), THETA)
    yield zero(got, "over actions")


@claim("5.1.policy-gradient", "∇J = E_{τ∼π_θ}[R(τ) Σ_t ∇log π_θ(a_t|s_t)]")
def policy_gradient(on):
    """The library's own loss, differentiated over all trajectories, is the exact gradient and the slope of J."""
    got = ascent(on, PLAIN, every_trajectory())
    slope = FINITE_DIFFERENCES.gradient(lambda x: mdp.expected_return(TWO, mdp.softmax(x), HORIZON), THETA)
    yield equal(slope, got, "slope of J")
    yield equal(mdp.policy_gradient(TWO, THETA, HORIZON), got, "from the occupancy")


@claim("5.1.occupancy-gradient", "∇J = Σ_s d_π(s) Σ_a π(a|s) A_π(s,a) ∇log π(a|s),  Σ_s d_π = 1/(1−γ)")
def occupancy_gradient():
    """For the two-state MDP dJ/dθ has a closed form, and so do V and d."""
    table = {
        (0.5, 0.5, 0.9): (1.2375, -1.0125),
        (0.7, 0.2, 0.9): (0.639053254438, -1.095519864751),
        (0.3, 0.6, 0.99): (15.468273628636, -8.692672218930),
    }
    for (p, q, gamma), expected in table.items():
        world, pi = two_state(gamma), two_state_policy(p, q)
        yield equal(expected, mdp.policy_gradient(world, np.log(pi))[:, 1], f"p, q, γ = {p}, {q}, {gamma}")
        D = (1 - gamma) * (1 - gamma + gamma * (p + q))
        yield equal([gamma * p / D, (1 - gamma + gamma * p) / D], mdp.state_values(world, pi), "V")
        yield equal(1 / (1 - gamma), mdp.occupancy(world, pi).sum(), "Σ d")


@claim("5.2.surrogate", "L(θ) = E_{τ∼π_old}[Σ_t R(τ) log π_θ]:  ∇L(θ_old) = ∇J, L(θ_old) ≠ J")
def surrogate(on):
    """The gradient of the surrogate is that of J; its value is another number altogether."""
    r = on.rollout(every_trajectory())
    value = float(objective(PLAIN, r)(on.array(THETA)))
    some, weigh = textbook.paths(TWO, PI, HORIZON), textbook.Weigher(GAMMA, V)
    logs = np.log(PI)
    by_hand = sum(
        p.p * weigh.discounted_total(p, 0) * sum(logs[s, a] for s, a in zip(p.s, p.a, strict=False)) for p in some
    )
    yield differs(mdp.expected_return(TWO, PI, HORIZON), value, "J against L", by=0.1)
    yield equal(by_hand, value, "L")
    yield equal(mdp.policy_gradient(TWO, THETA, HORIZON), ascent(on, PLAIN, every_trajectory()), "∇L")


@claim("5.2.sample-estimate", "ĝ_N = (1/N) Σ_n ĝ(τ_n), τ_n ∼ π iid:  E ĝ_N = ∇J, Var ĝ_N = Var ĝ_1 / N")
def sample_estimate(on):
    """All pairs of trajectories: the mean stays, the variance halves."""
    yield equal(mdp.policy_gradient(TWO, THETA, 1), ascent(on, TOGO, pairs()), "E ĝ_2")
    psi = on.numpy(TOGO.prepare(on.rollout(pairs())).psi)
    two = moments(mdp.trajectories(TWO, PI, 1, group=2), psi[:1], 2).variance
    some, togo = textbook.paths(TWO, PI, 1), textbook.Weigher(GAMMA, V).togo
    yield equal(textbook.gradient_moments(some, togo, THETA)[1] / 2, two, "Var ĝ_2")


@claim("5.2.denominator", "mean over trajectories: ∇J;  mean over steps: ∇J / E_{τ∼π}[T(τ)]")
def denominator(on):
    """With episodes of random length the denominator decides the length of the step, and is said aloud."""
    rollout, theta = ending_trajectories(), ENDING_THETA
    exact = mdp.policy_gradient(ENDING, theta, HORIZON)
    length = float((rollout.weight * rollout.mask.sum(0)).sum())
    expected = {Columns(): exact, Trajectories(): exact, Steps(): exact / length}
    for reduction, gradient in expected.items():
        got = ascent(on, replace(TOGO, reduction=reduction), rollout, theta=theta)
        yield equal(gradient, got, type(reduction).__name__)


@claim("5.2.split", "Σ_parts reduce(part, total) = reduce(whole, total)")
def split(on):
    """A batch cut into unequal parts adds up to the whole, since the total is the whole's."""
    rollout, theta = ending_trajectories(), ENDING_THETA
    plan = replace(TOGO, reduction=Steps())
    total = plan.reduction.total(on.rollout(rollout))

    early = np.arange(rollout.shape[1]) < 5
    parts = [replace(rollout, mask=rollout.mask & some) for some in (early, ~early)]
    found = [ascent(on, plan, part, theta=theta, total=total) for part in parts]
    yield equal(ascent(on, plan, rollout, theta=theta), sum(found))


@claim("5.2.mask", "a masked row has no influence, whatever stands there")
def mask(on):
    """NaN, or another state, in the fields of the rows after an end changes neither the objective nor its gradient."""
    rollout, theta = ending_trajectories(), ENDING_THETA
    plan = REINFORCE(psi=TotalReturn(), whiten="batch", reduction=Steps(), ent_coef=0.1)
    names = ("reward", "signal", "discount", "log_prob", "value", "next_value")
    soiled = replace(rollout.map(lambda x: np.where(rollout.mask, x, np.nan), *names), policy=None)
    elsewhere = np.where(rollout.mask, rollout.observation, (rollout.observation + 1) % len(theta))
    soiled = replace(soiled, observation=elsewhere)
    clean = replace(rollout, policy=None)
    yield equal(ascent(on, plan, clean, theta=theta), ascent(on, plan, soiled, theta=theta), "gradient")
    value = [float(objective(plan, on.rollout(r))(on.array(theta))) for r in (clean, soiled)]
    yield equal(value[0], value[1], "value")
