"""Values from single steps: TD(0), SARSA and Q-learning, the value-based branch of theory 4.

All take `steps` or `episodes`, after which they stop; a step size `alpha`, which is a number or a function of how often
each entry has been updated, this time included, `[L]`; and `learners`: with L of them, L independent runs go side by
side and the table gains a leading axis. `seed` is an integer or a `numpy.random.Generator`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from vantage.mdp.episodes import Seed, Simulator, at_least_one, ends
from vantage.mdp.model import MDP, Policy, uniform
from vantage.theory.psi import td_error

Array = Any
StepSize = float | int | Callable[[Int[Array, " L"]], Float[Array, " L"]]


def td0(
    mdp: MDP,
    policy: Policy,
    *,
    alpha: StepSize,
    steps: int | None = None,
    episodes: int | None = None,
    seed: Seed = 0,
    learners: int | None = None,
) -> Float[Array, "*L S"]:
    """Learn V_π while acting by π: V(s_t) ← V(s_t) + α δ_t, δ_t = r_t + γ V(s_{t+1}) − V(s_t), from V = 0.

    Shape `[S]`, or `[L, S]`; other arguments as at the top of the module. Raises ValueError unless exactly one of
    `steps` and `episodes` is given. Source: Sutton & Barto (2018) eq. 6.2; theory 6.6.
    """
    walk = _Walk(mdp, policy, steps, episodes, seed, learners)
    V = np.zeros((walk.learners, mdp.n_states))
    visits, step_size = np.zeros(V.shape, dtype=np.int64), _step_size(alpha)
    while len(walk.active):
        here = walk.active, walk.state
        reached, r, discount = walk.step(walk.simulator.act(walk.state))
        visits[here] += 1
        delta = td_error(r, V[here], V[walk.active, reached], discount)
        V[here] += step_size(visits[here]) * delta
        walk.retire()
    return V[0] if learners is None else V


def sarsa(
    mdp: MDP,
    episodes: int | None = None,
    *,
    alpha: StepSize,
    epsilon: float | int,
    steps: int | None = None,
    seed: Seed = 0,
    learners: int | None = None,
) -> Float[Array, "*L S A"]:
    """Learn Q of the ε-greedy policy that acts: Q(s,a) ← Q(s,a) + α [r + γ Q(s',a') − Q(s,a)], a' ~ π, from Q = 0.

    Tends to the values of the best ε-soft policy if α falls as it should. Shape `[S, A]`, or `[L, S, A]`; other
    arguments as at the top of the module. Source: Sutton & Barto (2018) eq. 6.7.
    """
    return _control(mdp, True, alpha, epsilon, steps, episodes, seed, learners)


def q_learning(
    mdp: MDP,
    episodes: int | None = None,
    *,
    alpha: StepSize,
    epsilon: float | int,
    steps: int | None = None,
    seed: Seed = 0,
    learners: int | None = None,
) -> Float[Array, "*L S A"]:
    """Learn Q* while acting ε-greedily: Q(s,a) ← Q(s,a) + α [r + γ max_b Q(s',b) − Q(s,a)], from Q = 0.

    Off-policy: it tends to Q* whatever ε > 0, if α falls as it should. Shape `[S, A]`, or `[L, S, A]`; other arguments
    as at the top of the module. Source: Sutton & Barto (2018) eq. 6.8.
    """
    return _control(mdp, False, alpha, epsilon, steps, episodes, seed, learners)


def _control(
    mdp: MDP,
    on_policy: bool,
    alpha: StepSize,
    epsilon: float | int,
    steps: int | None,
    episodes: int | None,
    seed: Seed,
    learners: int | None,
) -> Float[Array, "*L S A"]:
    if not 0.0 <= epsilon <= 1.0:
        raise ValueError(f"epsilon = {epsilon!r}: choose a probability in [0, 1].")
    walk = _Walk(mdp, uniform(mdp), steps, episodes, seed, learners)
    Q = np.zeros((walk.learners, mdp.n_states, mdp.n_actions))
    visits, step_size = np.zeros(Q.shape, dtype=np.int64), _step_size(alpha)
    a = _epsilon_greedy(Q, walk, epsilon)
    while len(walk.active):
        here = walk.active, walk.state, a
        _, r, discount = walk.step(a)
        # Where an episode has ended, walk.state is the start of the next one, and the discount is 0.
        if on_policy:
            a = _epsilon_greedy(Q, walk, epsilon)
            next_value = Q[walk.active, walk.state, a]
        else:
            next_value = Q[walk.active, walk.state].max(-1)
        visits[here] += 1
        Q[here] += step_size(visits[here]) * td_error(r, Q[here], next_value, discount)
        if not on_policy:
            a = _epsilon_greedy(Q, walk, epsilon)
        a = a[walk.retire()]
    return Q[0] if learners is None else Q


class _Walk:
    """Independent learners' worlds, each starting over where its episode ends, until its budget is spent."""

    def __init__(
        self, mdp: MDP, policy: Policy, steps: int | None, episodes: int | None, seed: Seed, learners: int | None
    ) -> None:
        if (steps is None) == (episodes is None):
            raise ValueError(f"steps = {steps}, episodes = {episodes}: give exactly one of them.")
        if episodes is not None and not ends(mdp, policy):
            raise ValueError(f"episodes = {episodes}, but an episode need not end here: give steps instead.")
        name, budget = ("episodes", episodes) if steps is None else ("steps", steps)
        self.simulator = Simulator(mdp, seed, policy)
        self.learners = 1 if learners is None else at_least_one("learners", learners)
        self.active = np.arange(self.learners)
        self.state = self.simulator.start(self.learners)
        self._left = np.full(self.learners, at_least_one(name, budget or 0))
        self._counts_episodes = steps is None

    def step(self, action: Int[Array, " n"]) -> tuple[Int[Array, " n"], Float[Array, " n"], Float[Array, " n"]]:
        """Act; returns the state reached, r, and the discount of what follows (0 at an end)."""
        mdp = self.simulator.mdp
        reached, reward = self.simulator.step(self.state, action)
        ended = mdp.terminal[reached]
        self.state = np.where(ended, self.simulator.start(len(ended)), reached) if ended.any() else reached
        self._left = self._left - (ended if self._counts_episodes else 1)
        return reached, reward, np.where(ended, 0.0, mdp.gamma)

    def retire(self) -> Bool[Array, " n"]:
        """Drop the learners whose budget is spent; returns which stay."""
        stays = self._left > 0
        if not stays.all():
            self.active, self.state, self._left = self.active[stays], self.state[stays], self._left[stays]
        return stays


def _epsilon_greedy(Q: Float[Array, "L S A"], walk: _Walk, epsilon: float | int) -> Int[Array, " n"]:
    """Each learner's next action, ties broken at random, so that a table of zeros does not act always alike."""
    here, rng = Q[walk.active, walk.state], walk.simulator.rng
    allowed = (here == here.max(-1, keepdims=True)) | (rng.random((len(here), 1)) < epsilon)
    return np.where(allowed, rng.random(here.shape), -1.0).argmax(-1)


def _step_size(alpha: StepSize) -> Callable[[Int[Array, " L"]], Any]:
    return alpha if callable(alpha) else lambda visits: alpha
