"""Values from whole episodes: restarts from a state and action (theory 6.1), and Monte-Carlo evaluation.

Everything acts in many copies of the MDP side by side, so that the cost is in NumPy and not in the interpreter.
`seed` is an integer or a `numpy.random.Generator`; the same integer gives the same numbers.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.special
from jaxtyping import Bool, Float, Int

from vantage.mdp import sparse
from vantage.mdp.model import MDP, Policy, as_policy, transition_matrix
from vantage.mdp.trajectories import Choice, Sampler
from vantage.theory.returns import reward_to_go

Array = Any
Seed = int | np.random.Generator
NEGLIGIBLE = 1e-10


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A sample mean with its 95 % confidence interval (Student's t); one entry per row of samples."""

    mean: Float[Array, "*R"]
    standard_error: Float[Array, "*R"]
    low: Float[Array, "*R"]
    high: Float[Array, "*R"]
    n: int

    @classmethod
    def of(cls, samples: Float[Array, "*R n"]) -> "Estimate":
        """x̄ ± t_{0.975, n−1} s/√n over the last axis; `[…, n]` → `[…]`. Raises ValueError for n < 2."""
        n = samples.shape[-1]
        if n < 2:
            raise ValueError(f"n = {n} has no standard error: draw at least 2 samples.")
        mean = samples.mean(-1)
        error = samples.std(-1, ddof=1) / math.sqrt(n)
        width = scipy.special.stdtrit(n - 1, 0.975) * error
        return cls(mean=mean, standard_error=error, low=mean - width, high=mean + width, n=n)

    def covers(self, value: float | int | Float[Array, "*R"]) -> Bool[Array, "*R"]:
        """Whether low ≤ value ≤ high."""
        return np.asarray((self.low <= value) & (value <= self.high))


@dataclass(frozen=True, kw_only=True)
class MonteCarlo:
    """V̂(s), its standard error and the number of returns behind it, each `[S]`; NaN where nothing is known."""

    values: Float[Array, " S"]
    standard_errors: Float[Array, " S"]
    counts: Int[Array, " S"]


def restart_values(
    mdp: MDP,
    policy: Policy,
    state: int,
    action: int | None = None,
    *,
    n: int,
    seed: Seed = 0,
    horizon: int | None = None,
) -> Estimate:
    """Restart n times from (s, a), play to the end by π, average: Q̂(s,a); without an action, V̂(s) (theory 6.1).

    Fields of the result are scalars, in units of discounted reward. Unbiased. Arguments as in `restart_returns`.
    """
    return Estimate.of(restart_returns(mdp, policy, state, action, n=n, seed=seed, horizon=horizon))


def restart_returns(
    mdp: MDP,
    policy: Policy,
    state: int,
    action: int | None = None,
    *,
    n: int,
    seed: Seed = 0,
    horizon: int | None = None,
) -> Float[Array, " n"]:
    """n independent samples of Σ_t γ^t r_t from s₀ = state (and a₀ = action), a_t ~ π(·|s_t): the theory's experiment.

    Shape `[n]`. It ends in a terminal state or after `horizon` steps; where γ < 1 and neither comes, once no more than
    1e-10 of the largest possible return is left. Raises ValueError for no such state or action, or if nothing ends it.
    """
    for name, index, size in (("state", state, mdp.n_states), ("action", action, mdp.n_actions)):
        if index is not None and not 0 <= index < size:
            raise ValueError(f"{name} = {index} does not exist: choose 0 … {size - 1}.")
    simulator = Simulator(mdp, seed, policy)
    steps = _longest(mdp, policy) if horizon is None else at_least_one("horizon", horizon)
    playing = np.arange(0 if mdp.terminal[state] else at_least_one("n", n))
    s, G, t = np.full(len(playing), state), np.zeros(n), 0
    while len(playing) and t < steps:
        a = np.full(len(s), action) if t == 0 and action is not None else simulator.act(s)
        s, r = simulator.step(s, a)
        G[playing] += mdp.gamma**t * r  # summed on the way: the rewards of 10⁵ long episodes would not fit in memory
        going = ~mdp.terminal[s]
        playing, s, t = playing[going], s[going], t + 1
    return G


def monte_carlo(mdp: MDP, policy: Policy, episodes: int, seed: Seed = 0, every_visit: bool = False) -> MonteCarlo:
    """Average the returns G_t that followed the visits to each state, in whole episodes from ρ₀.

    Only the first visit of an episode counts, or every one; the first is unbiased, the other biased as 1/episodes.
    Standard errors take episodes, not visits, as independent. Raises ValueError if the policy need not end.
    Source: Sutton & Barto (2018) section 5.1; theory 6.2.
    """
    if not ends(mdp, policy):
        raise ValueError("monte_carlo needs whole episodes, but this policy need not end: use restart_values or td0.")
    state, reward = _play(Simulator(mdp, seed, policy), at_least_one("episodes", episodes))
    real = state >= 0
    last = real & np.concatenate([~real[1:], np.ones_like(real[:1])])
    G = reward_to_go(reward, np.full(reward.shape, mdp.gamma), last, mask=real)[real]
    key = (np.arange(episodes) * mdp.n_states + state)[real]
    visited, first, visit = np.unique(key, return_index=True, return_inverse=True)
    visits = np.bincount(visit) if every_visit else np.ones_like(visited)
    total = np.bincount(visit, G) if every_visit else G[first]
    return _pooled(visited % mdp.n_states, visits, total, mdp.n_states)


class Simulator:
    """An MDP, and a policy in it, acted out in any number of copies at once with one stream of random numbers."""

    def __init__(self, mdp: MDP, seed: Seed, policy: Policy) -> None:
        self.mdp = mdp
        self.rng = np.random.default_rng(seed)
        self._sampler = Sampler(mdp)
        self._choice = Choice(sp.csr_array(as_policy(mdp, policy)))

    def start(self, n: int) -> Int[Array, " n"]:
        """s₀ ~ ρ₀, n times."""
        return self._sampler.start(self.rng.random(n))

    def act(self, s: Int[Array, " n"]) -> Int[Array, " n"]:
        """a ~ π(·|s)."""
        return self._choice.column[self._choice(s, self.rng.random(len(s)))]

    def step(self, s: Int[Array, " n"], a: Int[Array, " n"]) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
        """s' ~ P(·|s,a), and r."""
        return self._sampler.step(s, a, self.rng.random(len(s)))


def ends(mdp: MDP, policy: Policy) -> bool:
    """Whether the policy reaches a terminal state from every state, with probability 1."""
    return bool(sparse.can_reach(transition_matrix(mdp, as_policy(mdp, policy)), mdp.terminal).all())


def at_least_one(name: str, value: int) -> int:
    """The value, if it is a count; else a ValueError that names it."""
    if value < 1:
        raise ValueError(f"{name} = {value}: choose at least 1.")
    return value


def _longest(mdp: MDP, policy: Policy) -> float | int:
    """Steps after which at most NEGLIGIBLE of the largest possible return max|R|/(1−γ) is left."""
    if mdp.gamma < 1.0:
        return 1 if mdp.gamma == 0.0 else math.ceil(math.log(NEGLIGIBLE) / math.log(mdp.gamma))
    if not ends(mdp, policy):
        raise ValueError("with gamma = 1 this policy need not end: give a horizon, or use gamma < 1.")
    return math.inf


def _play(simulator: Simulator, n: int) -> tuple[Int[Array, "T n"], Float[Array, "T n"]]:
    """n whole episodes as columns: the states in which a decision was made, −1 after the end, and the rewards."""
    playing, s = np.arange(n), simulator.start(n)
    states, rewards = [], []
    while len(playing):
        state, reward = np.full(n, -1), np.zeros(n)
        state[playing] = s
        s, reward[playing] = simulator.step(s, simulator.act(s))
        states.append(state)
        rewards.append(reward)
        going = ~simulator.mdp.terminal[s]
        playing, s = playing[going], s[going]
    return np.stack(states), np.stack(rewards)


def _pooled(state: Int[Array, " K"], visits: Int[Array, " K"], total: Float[Array, " K"], n_states: int) -> MonteCarlo:
    """From each episode's visits to, and total return from, a state: the ratio Σ total / Σ visits and its error."""
    counts = np.bincount(state, visits, n_states).astype(np.int64)
    episodes = np.bincount(state, minlength=n_states)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.bincount(state, total, n_states) / counts
        spread = np.bincount(state, (total - visits * values[state]) ** 2, n_states)
        errors = np.where(episodes > 1, np.sqrt(spread * (episodes / (episodes - 1))) / counts, np.nan)
    return MonteCarlo(values=values, standard_errors=errors, counts=counts)
