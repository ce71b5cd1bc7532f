"""The textbook MDPs, with the values their sources publish, and families of random and chain-shaped ones.

Grid cells are numbered row by row from the top left. Grid actions are 0 north, 1 south, 2 east, 3 west, then the
king's moves 4 NE, 5 NW, 6 SE, 7 SW; "stay", where there is one, comes last. S&B is Sutton & Barto (2018), 2nd edition.
"""

from typing import Any

import numpy as np
import scipy.special
from jaxtyping import Bool, Float, Int

from vantage.mdp.model import MDP

Array = Any

NORTH, SOUTH, EAST, WEST = range(4)
LEFT, RIGHT = range(2)
_STRAIGHT = ((-1, 0), (1, 0), (0, 1), (0, -1))
_DIAGONAL = ((-1, 1), (-1, -1), (1, 1), (1, -1))
_CARS = 20
_MAX_MOVED = 5


def gridworld_3_5() -> MDP:
    """The 5×5 grid of S&B examples 3.5 and 3.8: γ = 0.9, never ending, started anywhere.

    Stepping off the grid costs 1 and moves nobody; A = 1 jumps to 21 for +10, B = 3 to 13 for +5, whatever the action.
    Published: V(A) = 8.8 under the equiprobable policy (figure 3.2), V*(A) = 10/(1−0.9⁵) = 24.4 (figure 3.5).
    """
    after, inside = _moves((5, 5), _STRAIGHT)
    reward = np.where(inside, 0.0, -1.0)
    after[1], reward[1] = 21, 10.0
    after[3], reward[3] = 13, 5.0
    return _deterministic(after, reward, gamma=0.9)


def gridworld_4_1() -> MDP:
    """The 4×4 grid of S&B example 4.1: −1 a step until a corner (0 or 15) is reached, γ = 1, started anywhere else.

    Published (figure 4.1): V = 0 −14 −20 −22 in the first row under the equiprobable policy.
    """
    after, _ = _moves((4, 4), _STRAIGHT)
    return _deterministic(after, np.full(after.shape, -1.0), gamma=1.0, terminal=(0, 15))


def windy(kings: bool = False, stay: bool = False) -> MDP:
    """The windy 7×10 grid of S&B example 6.5: −1 a step from 30 to 37, γ = 1; the wind lifts by 0 to 2 cells.

    `kings` adds the diagonal moves, `stay` a ninth action (exercise 6.9).
    Published: the shortest episode takes 15 steps, with king's moves 7, with staying too still 7.
    """
    moves = _STRAIGHT + _DIAGONAL * kings + ((0, 0),) * stay
    wind = np.array([0, 0, 0, 1, 1, 1, 2, 2, 1, 0])
    after, _ = _moves((7, 10), moves, wind)
    return _deterministic(after, np.full(after.shape, -1.0), gamma=1.0, start=30, terminal=(37,))


def cliff() -> MDP:
    """The 4×12 cliff of S&B example 6.6: −1 a step from 36 to 47, −100 and back to 36 for stepping on 37 … 46, γ = 1.

    Published: the optimal path returns −13, the safest −17; the best 0.1-soft policy, to which Sarsa tends, keeps one
    row away from the edge and returns −20.71.
    """
    after, _ = _moves((4, 12), _STRAIGHT)
    fallen = (after > 36) & (after < 47)
    return _deterministic(
        np.where(fallen, 36, after), np.where(fallen, -100.0, -1.0), gamma=1.0, start=36, terminal=(47,)
    )


def random_walk(n: int = 5, gamma: float | int = 1.0, left: float | int = 0.0, right: float | int = 1.0) -> MDP:
    """The walk of S&B example 6.2 on n states 1 … n between the ends 0 and n+1, started in the middle.

    Actions 0 left, 1 right; the book's walk is the uniform policy. Reaching an end pays `left` or `right`.
    Published: V = 1/6 … 5/6 for n = 5; −0.9 … 0.9 for n = 19 with left = −1 (section 7.1).
    """
    if n < 1:
        raise ValueError(f"n = {n}: a walk needs at least 1 state between its ends.")
    state = np.arange(n + 2)
    after = np.clip(np.stack([state - 1, state + 1], axis=-1), 0, n + 1)
    reward = np.where(after == 0, left, np.where(after == n + 1, right, 0.0))
    return _deterministic(after, reward, gamma, start=(n + 1) // 2, terminal=(0, n + 1))


def corridor() -> MDP:
    """The short corridor of S&B example 13.1: −1 on every step from 0 to the end 3, γ = 1; actions 0 left, 1 right.

    In state 1 the actions are switched; left in state 0 stays. The book's agent cannot tell the states apart, and so
    acts by `corridor_policy(p)`. Published: J(p) = (2p−4)/(p(1−p)), best −(6+4√2) = −11.657 at p = 2−√2 (theory 6.1).
    """
    after = np.array([[0, 1], [2, 0], [1, 3], [3, 3]])
    return _deterministic(after, np.full(after.shape, -1.0), gamma=1.0, start=0, terminal=(3,))


def corridor_policy(p: float | int) -> Float[Array, "S A"]:
    """The policies open to the agent of `corridor`: right with the same probability p in every state, `[4, 2]`."""
    return np.tile([1.0 - p, p], (4, 1))


def two_state(gamma: float | int = 0.9) -> MDP:
    """Two states, started in 0, r = s; actions 0 stay, 1 switch.

    Under `two_state_policy(p, q)`, with D = (1−γ)(1−γ+γ(p+q)): V(0) = γp/D and V(1) = (1−γ+γp)/D.
    """
    after = np.array([[0, 1], [1, 0]])
    return _deterministic(after, np.array([[0.0, 0.0], [1.0, 1.0]]), gamma, start=0)


def two_state_policy(p: float | int, q: float | int) -> Float[Array, "S A"]:
    """The policy of `two_state` that switches with probability p in state 0 and q in state 1, `[2, 2]`."""
    return np.array([[1.0 - p, p], [1.0 - q, q]])


def gambler(p_heads: float | int = 0.4) -> MDP:
    """The gambler of S&B example 4.3: stakes on heads until the capital is 0 or 100; +1 for reaching 100, γ = 1.

    State: the capital, started anywhere in 1 … 99. Action a stakes a+1, or as much as can be used: min(s, 100−s).
    Published: V*(25), V*(50), V*(75) = 0.16, 0.4, 0.64 for p = 0.4; for p > ½ stakes of 1 are optimal.
    """
    if not 0.0 <= p_heads <= 1.0:
        raise ValueError(f"p_heads = {p_heads!r} is no probability: choose one in [0, 1].")
    capital, action = np.mgrid[:101, :50]
    stake = np.minimum(action + 1, np.minimum(capital, 100 - capital))
    P = p_heads * np.eye(101)[capital + stake] + (1.0 - p_heads) * np.eye(101)[capital - stake]
    R = np.zeros_like(P)
    R[..., 100] = 1.0
    return MDP(P, R, _start(101, None, (0, 100)), 1.0, (0, 100))


def car_rental(constant_returns: bool = False) -> MDP:
    """Jack's car rental, S&B example 4.2: 10 a car rented, −2 a car moved overnight, at most 20 cars a site, γ = 0.9.

    State 21·n₁ + n₂, the cars in the evening, started at (10, 10). Action a moves a−5 cars from site 1 to site 2, or as
    many as there are. Requests are Poisson with means 3 and 4, returns with 3 and 2, the tails lumped, so that nothing
    is cut off; `constant_returns` puts the means in place of the returns, as many programs do.
    Exact: V* lies in 421.414 … 636.990, with constant returns in 430.52 … 644.43.
    """
    sites = [_rental_site(requests, returns, constant_returns) for requests, returns in ((3, 3), (4, 2))]
    n_1, n_2, action = np.mgrid[: _CARS + 1, : _CARS + 1, : 2 * _MAX_MOVED + 1].reshape(3, (_CARS + 1) ** 2, -1)
    moved = np.clip(action - _MAX_MOVED, -n_2, n_1)
    morning = np.minimum(n_1 - moved, _CARS), np.minimum(n_2 + moved, _CARS)
    (P_1, rented_1), (P_2, rented_2) = ((P[m], rented[m]) for (P, rented), m in zip(sites, morning))
    P = np.einsum("sax,say->saxy", P_1, P_2).reshape(*moved.shape, -1)
    start = 10 * (_CARS + 1) + 10
    return MDP(P, 10.0 * (rented_1 + rented_2) - 2.0 * np.abs(moved), _start(len(P), start, ()), 0.9)


def random_mdp(
    n_states: int, n_actions: int, gamma: float | int, seed: int = 0, branching: int | None = None, n_terminal: int = 0
) -> MDP:
    """A random MDP (Garnet): `branching` successors (None: all) with Dirichlet(1) probabilities, R(s,a,s') ~ N(0, 1).

    The last `n_terminal` states are terminal; ρ₀ is Dirichlet(1) over the others.
    Source: Archibald, McKinnon & Thomas (1995). Raises ValueError if branching is not in 1 … n_states.
    """
    branching = n_states if branching is None else branching
    if not 1 <= branching <= n_states:
        raise ValueError(f"branching = {branching}: choose 1 … n_states = {n_states} successors.")
    rng = np.random.default_rng(seed)
    shape = (n_states, n_actions, n_states)
    chosen = rng.random(shape).argsort(-1) < branching
    weight = np.where(chosen, rng.exponential(size=shape), 0.0)
    alive = np.arange(n_states) < n_states - n_terminal
    rho = np.where(alive, rng.exponential(size=n_states), 0.0)
    P = weight / weight.sum(-1, keepdims=True)
    return MDP(P, rng.standard_normal(shape), rho / rho.sum(), gamma, ~alive)


def chain(n: int, gamma: float | int = 1.0, mean: float | int = 1.0, std: float | int = 0.0) -> MDP:
    """n steps in a row, one action, with independent rewards mean ± std, each sign with probability ½.

    State 2t + coin is time t, where the coin shows the sign of the reward just received; started in 0, over in 2n and
    2n+1. V(2t) = V(2t+1) = mean (1−γ^{n−t})/(1−γ); with it as critic Var GAE₀ = std² (1−x^{2n})/(1−x²), x = γλ.
    """
    if n < 1:
        raise ValueError(f"n = {n}: a chain needs at least 1 step.")
    n_states = 2 * (n + 1)
    following = 2 * (np.arange(n_states) // 2 + 1) % n_states
    P = 0.5 * (np.eye(n_states)[following] + np.eye(n_states)[following + 1])
    R = np.tile([mean + std, mean - std], n + 1)
    terminal = (n_states - 2, n_states - 1)
    return MDP(
        P[:, None, :], np.broadcast_to(R, (n_states, 1, n_states)), _start(n_states, 0, terminal), gamma, terminal
    )


def _moves(
    shape: tuple[int, int], moves: tuple[tuple[int, int], ...], wind: Int[Array, " columns"] | None = None
) -> tuple[Int[Array, "S A"], Bool[Array, "S A"]]:
    """The cell each move leads to, stopped at the border, and whether the border left it as it was."""
    cell = np.indices(shape).reshape(2, -1, 1)
    target = cell + np.array(moves).T[:, None, :]
    if wind is not None:
        target[0] -= wind[cell[1]]
    kept = np.clip(target, 0, np.reshape(shape, (2, 1, 1)) - 1)
    return np.ravel_multi_index(tuple(kept), shape), (kept == target).all(0)


def _deterministic(
    after: Int[Array, "S A"],
    reward: Float[Array, "S A"],
    gamma: float | int,
    start: int | None = None,
    terminal: tuple[int, ...] = (),
) -> MDP:
    n_states = len(after)
    return MDP(np.eye(n_states)[after], reward, _start(n_states, start, terminal), gamma, terminal)


def _start(n_states: int, start: int | None, terminal: tuple[int, ...]) -> Float[Array, " S"]:
    """ρ₀: one state, or all that are not terminal alike."""
    weight = np.ones(n_states) if start is None else np.eye(n_states)[start]
    weight[list(terminal)] = 0.0
    return weight / weight.sum()


def _rental_site(
    requests: int, returns: int, constant_returns: bool
) -> tuple[Float[Array, "morning evening"], Float[Array, " morning"]]:
    """P(cars in the evening | cars in the morning) and E[cars rented | cars in the morning] of one site."""
    P = np.zeros((_CARS + 1, _CARS + 1))
    rented = np.zeros(_CARS + 1)
    for cars in range(_CARS + 1):
        p_rented = _lumped_poisson(requests, cars)
        rented[cars] = p_rented @ np.arange(cars + 1)
        for k, p in enumerate(p_rented):
            left, room = cars - k, _CARS - cars + k
            came = np.eye(room + 1)[min(returns, room)] if constant_returns else _lumped_poisson(returns, room)
            P[cars, left:] += p * came
    return P, rented


def _lumped_poisson(mean: int, top: int) -> Float[Array, " K"]:
    """P(min(X, top) = k) for k = 0 … top, X Poisson."""
    return np.diff(scipy.special.pdtr(np.arange(top), mean), prepend=0.0, append=1.0)
