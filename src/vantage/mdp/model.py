"""A finite Markov decision process as data, and the policies that act in it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.special
from jaxtyping import Bool, Float, Int

Array = Any
Matrix = Any  # a dense array or a SciPy sparse one
Policy = Float[Array, "S A"] | Int[Array, " S"]
TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False, repr=False)
class MDP:
    """A finite MDP (theory 2.1, 3): s₀ ~ ρ₀, s' ~ P(·|s,a), r = R(s,a,s'), discounted by γ.

    P: `[S, A, S]`, or sparse `[S·A, S]` with row s·A + a. R, in units of reward: like P, or `[S, A]` where s' does
    not matter. rho: `[S]`. gamma: in [0, 1]. terminal: the states in which the world has ended, as indices or a
    mask `[S]`; V = 0 there, and whatever P and R say about leaving them is dropped (stored as zero).
    Raises ValueError naming the field if any of this does not hold.
    """

    # Given as anything that NumPy reads; kept as float64 arrays or CSR, and `terminal` as a mask.
    P: Array | Matrix
    R: Array | Matrix
    rho: Array
    gamma: float | int
    terminal: Array = ()

    def __post_init__(self) -> None:
        rho = _distribution("rho", self.rho)
        gamma = _discount(self.gamma)
        terminal = _terminal(self.terminal, len(rho))
        if (rho[terminal] > 0).any():
            s = int(np.flatnonzero(terminal & (rho > 0))[0])
            raise ValueError(f"rho[{s}] = {rho[s]:g}, but state {s} is terminal: start episodes where they can go on.")
        P = _transitions(self.P, terminal)
        for name, value in {
            "P": P, "R": _rewards(self.R, P, terminal), "rho": rho, "gamma": gamma, "terminal": terminal,
        }.items():  # fmt: skip
            object.__setattr__(self, name, value)

    @classmethod
    def from_function(
        cls,
        f: Callable[[int, int], int],
        R: Callable[[int, int, int], float],
        n_states: int,
        n_actions: int,
        rho: Array,
        gamma: float | int,
        terminal: Array = (),
        sparse: bool = False,
    ) -> "MDP":
        """The MDP with deterministic transitions s' = f(s, a) and rewards R(s, a, s') (theory 3).

        Neither function is called on a terminal state. Raises ValueError where f leaves 0 … n_states − 1.
        """
        ended = _terminal(terminal, n_states)
        row, column, reward = [], [], []
        for s in np.flatnonzero(~ended).tolist():
            for a in range(n_actions):
                t = int(f(s, a))
                if not 0 <= t < n_states:
                    raise ValueError(f"f({s}, {a}) = {t}, outside the {n_states} states 0 … {n_states - 1}.")
                row.append(s * n_actions + a)
                column.append(t)
                reward.append(float(R(s, a, t)))
        shape = (n_states * n_actions, n_states)
        P = sp.csr_array((np.ones(len(row)), (row, column)), shape=shape)
        rewards = sp.csr_array((np.asarray(reward), (row, column)), shape=shape)
        if sparse:
            return cls(P, rewards, rho, gamma, ended)
        dense = (n_states, n_actions, n_states)
        return cls(P.toarray().reshape(dense), rewards.toarray().reshape(dense), rho, gamma, ended)

    @property
    def n_states(self) -> int:
        """S."""
        return len(self.rho)

    @property
    def n_actions(self) -> int:
        """A."""
        return self.P.shape[0] // self.n_states if self.is_sparse else self.P.shape[1]

    @property
    def is_sparse(self) -> bool:
        """Whether P and R are CSR matrices `[S·A, S]` rather than arrays `[S, A, S]`."""
        return sp.issparse(self.P)

    @cached_property
    def expected_reward(self) -> Float[Array, "S A"]:
        """E[r|s,a] = Σ_s' P(s'|s,a) R(s,a,s'), `[S, A]`, reward units (theory 6.3); 0 in terminal states."""
        if not self.is_sparse:
            return np.einsum("sat,sat->sa", self.P, self.R)
        products = sp.csr_array((self.P.data * self.R.data, self.P.indices, self.P.indptr), shape=self.P.shape)
        return (products @ np.ones(self.n_states)).reshape(self.n_states, self.n_actions)

    def __repr__(self) -> str:
        kind = f"sparse, {self.P.nnz:,} transitions" if self.is_sparse else "dense"
        return (
            f"MDP({self.n_states:,} states × {self.n_actions} actions, {kind}, gamma={self.gamma:g}, "
            f"{int(self.terminal.sum())} terminal)"
        )


def uniform(mdp: MDP) -> Float[Array, "S A"]:
    """The policy π(a|s) = 1/A."""
    return np.full((mdp.n_states, mdp.n_actions), 1.0 / mdp.n_actions)


def softmax(theta: Float[Array, "*T S A"]) -> Float[Array, "*T S A"]:
    """The table policy π_θ(a|s) = exp θ(s,a) / Σ_b exp θ(s,b), over the last axis."""
    return scipy.special.softmax(np.asarray(theta, dtype=np.float64), axis=-1)


def as_policy(mdp: MDP, policy: Policy) -> Float[Array, "S A"]:
    """A policy as the table π(a|s): a deterministic one, actions `[S]` (theory 1.1), becomes one-hot rows.

    Raises ValueError if the shape, an action, or the sum of a row is wrong.
    """
    table, (S, A) = np.asarray(policy), (mdp.n_states, mdp.n_actions)
    if table.shape == (S,) and np.issubdtype(table.dtype, np.integer):
        if table.min() < 0 or table.max() >= A:
            s = int(np.flatnonzero((table < 0) | (table >= A))[0])
            raise ValueError(f"policy[{s}] = {table[s]} is not an action: use 0 … {A - 1}.")
        return np.eye(A)[table]
    if table.shape != (S, A):
        raise ValueError(
            f"policy has shape {table.shape} and dtype {table.dtype}: "
            f"give probabilities of shape {(S, A)} or integer actions of shape {(S,)}."
        )
    return _distribution("policy", table)


def transition_matrix(mdp: MDP, policy: Policy) -> Any:
    """P_π(s'|s) = Σ_a π(a|s) P(s'|s,a), `[S, S]`, sparse if the MDP is; rows of terminal states are zero."""
    pi = as_policy(mdp, policy)
    if not mdp.is_sparse:
        return np.einsum("sa,sat->st", pi, mdp.P)
    data = mdp.P.data * np.repeat(pi.reshape(-1), np.diff(mdp.P.indptr))
    shape = (mdp.n_states, mdp.n_states)
    return sp.csr_array((data, mdp.P.indices, mdp.P.indptr[:: mdp.n_actions]), shape=shape)


def _distribution(name: str, value: Any) -> Float[Array, "*N K"]:
    p = np.array(value, dtype=np.float64)
    if p.ndim == 0:
        raise ValueError(f"{name} = {value!r} is a number: give a vector of probabilities.")
    if not np.isfinite(p).all():
        raise ValueError(f"{name} has NaN or infinite entries: give finite probabilities.")
    if (p < 0).any():
        raise ValueError(f"{name}[{_first(p < 0)}] = {p[p < 0][0]:g} is negative: probabilities must be at least 0.")
    off = np.abs(p.sum(-1) - 1.0) > TOLERANCE
    if off.any():
        where = f"row {_first(off)} of {name}" if p.ndim > 1 else name
        raise ValueError(f"{where} sums to {p.sum(-1)[off].flat[0]:.12g}, not to 1: normalise it.")
    return p


def _discount(gamma: Any) -> float:
    if not 0.0 <= float(gamma) <= 1.0:
        raise ValueError(f"gamma = {gamma!r} is outside [0, 1]: choose a discount in between, such as 0.99.")
    return float(gamma)


def _terminal(terminal: Any, n_states: int) -> Bool[Array, " S"]:
    given = np.asarray(terminal if isinstance(terminal, np.ndarray) else list(terminal))
    if given.dtype == bool:
        if given.shape != (n_states,):
            raise ValueError(f"terminal is a mask of shape {given.shape}: give shape {(n_states,)}, or indices.")
        return given.copy()
    mask = np.zeros(n_states, dtype=bool)
    if given.size:
        if not np.issubdtype(given.dtype, np.integer) or given.min() < 0 or given.max() >= n_states:
            raise ValueError(f"terminal = {terminal!r}: give a bool mask, or state indices 0 … {n_states - 1}.")
        mask[given] = True
    return mask


def _transitions(P: Any, terminal: Bool[Array, " S"]) -> Float[Array, "S A S"] | Matrix:
    S = len(terminal)
    if sp.issparse(P):
        P = sp.csr_array(P, dtype=np.float64)
        if not P.has_canonical_format:
            P = P.copy()
            P.sum_duplicates()
        if P.shape[1] != S or P.shape[0] % S or not P.shape[0]:
            raise ValueError(f"P has shape {P.shape} for {S} states in rho: sparse P is [S·A, S] with row s·A + a.")
        values, sums, leaves = P.data, P @ np.ones(S), np.repeat(~terminal, P.shape[0] // S)
    else:
        P = np.array(P, dtype=np.float64)
        if P.ndim != 3 or P.shape[0] != S or P.shape[2] != S or not P.shape[1]:
            raise ValueError(f"P has shape {P.shape} for {S} states in rho: give [S, A, S].")
        values, sums, leaves = P, P.sum(-1), np.repeat(~terminal[:, None], P.shape[1], axis=1)
    if not np.isfinite(values).all():
        raise ValueError("P has NaN or infinite entries: give finite probabilities.")
    if (values < 0).any():
        raise ValueError(f"P has the negative entry {values.min():g}: probabilities must be at least 0.")
    off = leaves & (np.abs(sums - 1.0) > TOLERANCE)
    if off.any():
        where = np.unravel_index(np.flatnonzero(off)[0], (S, off.size // S))
        raise ValueError(
            f"P(·|s={where[0]}, a={where[1]}) sums to {sums[off].flat[0]:.12g}, not to 1: normalise the row, "
            f"or list state {where[0]} in `terminal`."
        )
    return _without(P, leaves) if terminal.any() else P


def _rewards(R: Any, P: Any, terminal: Bool[Array, " S"]) -> Float[Array, "S A S"] | Matrix:
    S = len(terminal)
    A = P.shape[0] // S if sp.issparse(P) else P.shape[1]
    values = R.data if sp.issparse(R) else np.asarray(R, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("R has NaN or infinite entries: give finite rewards.")
    leaves = np.repeat(~terminal[:, None], A, axis=1)
    if not sp.issparse(P):
        if sp.issparse(R) or values.shape not in {(S, A), (S, A, S)}:
            raise ValueError(f"R has shape {R.shape}: with dense P give {(S, A, S)} or {(S, A)}.")
        table = values[..., None] if values.ndim == 2 else values
        return np.broadcast_to(np.where(leaves[..., None], table, 0.0), (S, A, S))
    if sp.issparse(R):
        if R.shape != P.shape:
            raise ValueError(f"R has shape {R.shape} but P has {P.shape}: sparse P and R have the same shape.")
        return _aligned(sp.csr_array(R, dtype=np.float64), P)
    if values.shape != (S, A):
        raise ValueError(f"R has shape {values.shape}: with sparse P give {(S, A)}, or sparse {P.shape}.")
    data = np.repeat(np.where(leaves, values, 0.0).reshape(-1), np.diff(P.indptr))
    return sp.csr_array((data, P.indices, P.indptr), shape=P.shape)


def _without(P: Any, leaves: Bool[Array, "*N"]) -> Any:
    """P with the rows of terminal states empty, so that no formula needs to treat the end as a special case."""
    if not sp.issparse(P):
        return np.where(leaves[..., None], P, 0.0)
    kept = sp.csr_array(sp.diags_array(leaves.reshape(-1).astype(np.float64)) @ P)
    kept.eliminate_zeros()
    kept.sort_indices()
    return kept


def _aligned(R: Any, P: Any) -> Any:
    """R at exactly the stored entries of P: 0 where R stores none, dropped where P stores none."""
    R = R.copy()
    R.sum_duplicates()
    if R.nnz == P.nnz and (R.indptr == P.indptr).all() and (R.indices == P.indices).all():
        return sp.csr_array((R.data, P.indices, P.indptr), shape=P.shape)
    keys, wanted = _keys(R), _keys(P)
    place = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    data = np.where(keys[place] == wanted, R.data[place], 0.0) if len(keys) else np.zeros(P.nnz)
    return sp.csr_array((data, P.indices, P.indptr), shape=P.shape)


def _keys(matrix: Any) -> Int[Array, " N"]:
    rows = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))
    return rows * matrix.shape[1] + matrix.indices


def _first(where: Bool[Array, "*N"]) -> str:
    return ", ".join(str(i) for i in np.argwhere(where)[0])
