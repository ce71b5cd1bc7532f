"""Every trajectory of an MDP, weighted by its probability, or a sample of them: one `Rollout` either way."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from vantage.mdp.model import MDP, Policy, as_policy
from vantage.rollout import Rollout

Array = Any
MAX_COLUMNS = 1_000_000


@dataclass(frozen=True)
class Paths:
    """Trajectories as columns: what happened in each row, `[T, B]`; zeros where `real` is False, after the end."""

    state: Int[Array, "T B"]
    action: Int[Array, "T B"]
    reached: Int[Array, "T B"]
    """s_{t+1}, before any new start."""
    real: Bool[Array, "T B"]
    time: Int[Array, "T B"]
    terminated: Bool[Array, "T B"]
    last: Bool[Array, "T B"]


def trajectories(
    mdp: MDP,
    policy: Policy,
    horizon: int,
    group: int = 1,
    value: Float[Array, "*T1 S"] | None = None,
    truncate: bool = False,
    max_columns: int = MAX_COLUMNS,
) -> Rollout:
    """List every trajectory of at most `horizon` steps with its weight P(τ|π) (theory 3, 5.1); Σ weight = 1.

    An expectation over trajectories is then a weighted sum, with no sampling noise. `group=n` lists every n-tuple of
    independent trajectories: its n columns share one `group` number, and carry the weight Π P(τᵢ)/n each.
    The horizon ends the world (discount 0), unless `truncate`: then it is a cut, and `discount` stays γ there.
    `value`: any critic, V(s) `[S]` or V_t(s) `[H+1, S]`, right or wrong. Rows after the end are masked zeros.
    Raises ValueError if more than `max_columns` columns would be needed.
    """
    pi = as_policy(mdp, policy)
    paths, probability = enumerate_paths(mdp, pi, horizon, truncate, max_columns)
    count = len(probability)
    if group < 1 or count**group * group > max_columns:
        raise ValueError(
            f"group = {group} of {count:,} trajectories needs {count**group * group:,} columns: choose at least 1, "
            f"and at most max_columns = {max_columns:,} columns, with a shorter horizon or a smaller group."
        )
    members = np.indices((count,) * group).reshape(group, -1)
    columns, tuples = members.T.reshape(-1), members.shape[1]
    return _rollout(
        mdp,
        pi,
        Paths(**{name: x[:, columns] for name, x in vars(paths).items()}),
        value,
        weight=np.repeat(probability[members].prod(0) / group, group),
        group=np.repeat(np.arange(tuples), group),
    )


def enumerate_paths(
    mdp: MDP, policy: Policy, horizon: int, truncate: bool = False, max_columns: int = MAX_COLUMNS
) -> tuple[Paths, Float[Array, " B"]]:
    """Every trajectory of at most `horizon` steps that has positive probability, and those probabilities, `[B]`."""
    if horizon < 1:
        raise ValueError(f"horizon = {horizon}: give a whole number of steps, at least 1.")
    branches = _Branches(mdp, as_policy(mdp, policy))
    here = np.flatnonzero(mdp.rho)
    alive, probability = np.ones(len(here), dtype=bool), mdp.rho[here]
    rows = np.zeros((4, 0, len(here)), dtype=np.int64)
    for t in range(horizon):
        parent, branch = branches.of(here, alive, max_columns, t + 1)
        went = alive[parent]
        taken = [here[parent], branches.action[branch], branches.reached[branch], np.ones_like(parent)]
        rows = np.concatenate([rows[:, :, parent], np.where(went, taken, 0)[:, None]], axis=1)
        probability = probability[parent] * np.where(went, branches.probability[branch], 1.0)
        here = rows[2, -1]
        alive = went & ~mdp.terminal[here]
    state, action, reached, real = rows[0], rows[1], rows[2], rows[3].astype(bool)
    time = np.where(real, np.arange(horizon)[:, None], 0)
    ended, cut = real & mdp.terminal[reached], real & (time == horizon - 1)
    terminated = ended if truncate else ended | cut
    return Paths(state, action, reached, real, time, terminated, ended | cut), probability


def sample(
    mdp: MDP,
    policy: Policy,
    steps: int,
    columns: int,
    seed: int,
    value: Float[Array, "*T1 S"] | None = None,
    horizon: int | None = None,
    truncate: bool = False,
) -> Rollout:
    """Sample `columns` slots of `steps` rows each, starting anew from ρ₀ after the end of an episode.

    `horizon`, `truncate` and `value` as in `trajectories`, but the horizon may be absent; the end of the rollout is
    always a cut. The same seed gives the same rollout.
    """
    pi, rng = as_policy(mdp, policy), np.random.default_rng(seed)
    sampler, act = Sampler(mdp), Choice(sp.csr_array(pi))
    state, action, reached, time = np.zeros((4, steps, columns), dtype=np.int64)
    terminated, last = np.zeros((2, steps, columns), dtype=bool)
    here, now = sampler.start(rng.random(columns)), np.zeros(columns, dtype=np.int64)
    for t in range(steps):
        state[t], time[t], action[t] = here, now, act.column[act(here, rng.random(columns))]
        reached[t], _ = sampler.step(here, action[t], rng.random(columns))
        ended, cut = mdp.terminal[reached[t]], now + 1 == (horizon or np.inf)
        terminated[t] = ended if truncate else ended | cut
        last[t] = ended | cut | (t == steps - 1)
        now = np.where(last[t], 0, now + 1)
        here = np.where(last[t], sampler.start(rng.random(columns)), reached[t])
    return _rollout(mdp, pi, Paths(state, action, reached, np.ones_like(last), time, terminated, last), value)


class Choice:
    """Draws an entry of a row of a stochastic CSR matrix by inverting its distribution function."""

    def __init__(self, matrix: Any) -> None:
        """Zero entries are dropped; `column[i]` and `entry[i]` say which column and which stored entry the i-th is."""
        row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        self.entry = np.flatnonzero(matrix.data > 0.0)
        self.column = matrix.indices[self.entry].astype(np.int64)
        row, p = row[self.entry], matrix.data[self.entry]
        self.first = np.searchsorted(row, np.arange(matrix.shape[0] + 1))
        before = np.concatenate([[0.0], np.cumsum(p)])
        self._cumulative = row + (before[1:] - before[self.first[row]])

    def __call__(self, row: Int[Array, " B"], u: Float[Array, " B"]) -> Int[Array, " B"]:
        """The index i of the entry drawn in each row by u, uniform in [0, 1)."""
        i = np.searchsorted(self._cumulative, row + u, side="right")
        return np.clip(i, self.first[row], self.first[row + 1] - 1)


class Sampler:
    """Draws s₀ ~ ρ₀ and s' ~ P(·|s,a) for many columns at once, from uniform numbers it is given."""

    def __init__(self, mdp: MDP) -> None:
        """Tables for `mdp`, built once."""
        S, A = mdp.n_states, mdp.n_actions
        self._n_actions = A
        self._start = Choice(sp.csr_array(mdp.rho[None]))
        P = mdp.P if mdp.is_sparse else sp.csr_array(mdp.P.reshape(S * A, S))
        self._next = Choice(P)
        here = np.repeat(np.arange(S * A), np.diff(P.indptr))[self._next.entry]
        self._reward = rewards(mdp, here // A, here % A, self._next.column)

    def start(self, u: Float[Array, " B"]) -> Int[Array, " B"]:
        """s₀ ~ ρ₀, `[B]`."""
        return self._start.column[self._start(np.zeros(len(u), dtype=np.int64), u)]

    def step(
        self, state: Int[Array, " B"], action: Int[Array, " B"], u: Float[Array, " B"]
    ) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
        """(s', R(s,a,s')) with s' ~ P(·|s,a), each `[B]`; no state may be terminal."""
        i = self._next(state * self._n_actions + action, u)
        return self._next.column[i], self._reward[i]


def rewards(
    mdp: MDP, state: Int[Array, "*B"], action: Int[Array, "*B"], reached: Int[Array, "*B"]
) -> Float[Array, "*B"]:
    """R(s, a, s') of each transition (theory 2.1)."""
    if not mdp.is_sparse:
        return mdp.R[state, action, reached]
    row = state * mdp.n_actions + action
    return np.asarray(mdp.R[row.reshape(-1), reached.reshape(-1)]).reshape(row.shape)


class _Branches:
    """What can happen next in each state: every (a, s') with π(a|s) P(s'|s,a) > 0; one blank row for what has ended."""

    def __init__(self, mdp: MDP, pi: Float[Array, "S A"]) -> None:
        S, A = mdp.n_states, mdp.n_actions
        P = (mdp.P if mdp.is_sparse else sp.csr_array(mdp.P.reshape(S * A, S))).tocoo()
        p = P.data * pi.reshape(-1)[P.row]
        kept = p > 0.0
        row = P.row[kept].astype(np.int64)
        self.action = np.append(row % A, 0)
        self.reached = np.append(P.col[kept].astype(np.int64), 0)
        self.probability = np.append(p[kept], 1.0)
        self._first = np.searchsorted(row // A, np.arange(S + 2))
        self._first[-1] = len(row) + 1

    def of(
        self, state: Int[Array, " B"], alive: Bool[Array, " B"], limit: int, step: int
    ) -> tuple[Int[Array, " C"], Int[Array, " C"]]:
        """(parent column, branch) of every continuation; a column that has ended continues once, blankly."""
        key = np.where(alive, state, len(self._first) - 2)
        count = self._first[key + 1] - self._first[key]
        if count.sum() > limit:
            raise ValueError(
                f"there are {count.sum():,} trajectories after {step} steps, more than max_columns = {limit:,}: "
                "shorten the horizon, or raise max_columns."
            )
        parent = np.repeat(np.arange(len(state)), count)
        within = np.arange(len(parent)) - np.repeat(np.cumsum(count) - count, count)
        return parent, self._first[key][parent] + within


def _rollout(
    mdp: MDP,
    pi: Float[Array, "S A"],
    paths: Paths,
    value: Float[Array, "*T1 S"] | None,
    weight: Float[Array, " B"] | None = None,
    group: Int[Array, " B"] | None = None,
) -> Rollout:
    s, a, real = paths.state, paths.action, paths.real
    with np.errstate(divide="ignore"):
        log_pi = np.where(real[..., None], np.log(pi)[s], 0.0)
    reward = np.where(real, rewards(mdp, s, a, paths.reached), 0.0)
    return Rollout(
        observation=s,
        action=a,
        reward=reward,
        signal=reward,
        discount=np.where(real & ~paths.terminated, mdp.gamma, 0.0),
        last=paths.last,
        mask=real,
        log_prob=np.take_along_axis(log_pi, a[..., None], axis=-1)[..., 0],
        value=_critic(mdp, value, s, paths.time, real),
        next_value=_critic(mdp, value, paths.reached, paths.time + 1, real),
        policy=(log_pi,),
        group=group,
        time=paths.time,
        weight=weight,
        gamma=mdp.gamma,
    )


def _critic(mdp: MDP, value: Any, state: Any, time: Any, real: Any) -> Float[Array, "T B"] | None:
    if value is None:
        return None
    V = np.asarray(value, dtype=np.float64)
    if V.shape == (mdp.n_states,):
        return np.where(real, V[state], 0.0)
    if V.ndim != 2 or V.shape[1] != mdp.n_states or len(V) <= time.max():
        raise ValueError(f"value has shape {V.shape}: give [S], or [H+1, S] for every time up to {time.max()}.")
    return np.where(real, V[time, state], 0.0)
