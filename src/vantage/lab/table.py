"""Every Ψ against the true gradient: exact bias and variance on a finite MDP, with a right and a wrong critic."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from vantage.mdp import exact
from vantage.mdp.model import MDP, softmax
from vantage.mdp.moments import Moments, moments
from vantage.mdp.trajectories import trajectories
from vantage.recipe import GAE, KStep, LearnedBaseline, RewardToGo, StateMean, TDError, TotalReturn
from vantage.rollout import Rollout
from vantage.theory import psi as weights
from vantage.theory import returns

Array = Any
Estimator = Callable[[Rollout], Float[Array, "T B"]]
MAX_PAIRS = 20_000


@dataclass(frozen=True)
class Row:
    """One Ψ: ‖E[ĝ] − ∇J‖ and √tr Cov[ĝ] of the gradient from one trajectory, with V_π and with the wrong V̂."""

    name: str
    formula: str
    bias: float
    deviation: float
    wrong_bias: float
    wrong_deviation: float


@dataclass(frozen=True)
class Table:
    """The rows, and the length ‖∇J‖ that they are to be read against. `print` it, or iterate over it."""

    rows: tuple[Row, ...]
    gradient_norm: float
    caption: str

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)

    def __str__(self) -> str:
        head = f"{'Ψ_t':<31} {'formula':<28} {'bias':>9} {'std':>9}   {'bias':>9} {'std':>9}"
        over = f"{'':<60} {'critic V = V_π':>19}   {'critic V̂ is wrong':>19}"
        lines = [
            f"{r.name:<31} {r.formula:<28} {_number(r.bias)} {_number(r.deviation)}   "
            f"{_number(r.wrong_bias)} {_number(r.wrong_deviation)}"
            for r in self.rows
        ]
        rule = "─" * len(head)
        return "\n".join([self.caption, "", over, head, rule, *lines, rule, f"‖∇J‖ = {self.gradient_norm:.6g}"])


def _number(x: float) -> str:
    return f"{'0':>9}" if abs(x) < 1e-10 else f"{x:9.4f}"


class Lab:
    """A finite MDP, a softmax policy and two critics, on which every Ψ is measured with no sampling at all.

        bias = ‖E_{τ∼π_θ}[ĝ] − ∇J‖,    std = √E‖ĝ − E[ĝ]‖²,    ĝ = Σ_t γ^t Ψ_t ∇log π_θ(a_t|s_t)

    All trajectories of at most `horizon` steps are listed with their probabilities, so both are exact. V is that of
    the world that ends at the horizon, hence time-dependent, `[T+1, S]`.

    theta: the policy's logits `[S, A]`, unless given a fixed uneven table. wrong: the wrong critic V̂, `[S]` or
    `[T+1, S]`, unless given V_π with an error of alternating sign. horizon: T. lambdas: the λ of GAE that get a row.
    """

    def __init__(
        self,
        mdp: MDP,
        *,
        theta: Float[Array, "S A"] | None = None,
        wrong: Float[Array, "*T1 S"] | None = None,
        horizon: int = 5,
        lambdas: tuple[float, ...] = (0.5, 0.95),
    ) -> None:
        if not isinstance(mdp, MDP):
            raise TypeError(f"mdp = {mdp!r}: give an MDP, such as vt.mdp.corridor()")
        if horizon < 1:
            raise ValueError(f"horizon = {horizon}: list trajectories of at least one step")
        self.mdp, self.horizon, self.lambdas = mdp, horizon, lambdas
        self.theta = _uneven(mdp) if theta is None else np.asarray(theta, dtype=np.float64)
        self.policy = softmax(self.theta)
        self.values = exact.state_values(mdp, self.policy, self.horizon)
        self.gradient = exact.policy_gradient(mdp, self.theta, self.horizon)
        self.wrong = _wrong(self.values) if wrong is None else self._critic(wrong)

    def __repr__(self) -> str:
        return f"Lab({self.mdp!r}, horizon={self.horizon})"

    def _critic(self, values: Float[Array, "*T1 S"]) -> Float[Array, "T1 S"]:
        values, shape = np.asarray(values, dtype=np.float64), self.values.shape
        if values.shape not in (shape, shape[1:]):
            raise ValueError(f"wrong has shape {values.shape}: give values of shape {shape[1:]} or {shape}")
        values = np.broadcast_to(values, shape)
        return np.concatenate([values[:-1], 0.0 * values[-1:]])

    def rollout(self, values: Float[Array, "T1 S"], group: int = 1) -> Rollout:
        """Every trajectory, or every n-tuple of them with `group=n`, with these values as the critic's."""
        return trajectories(self.mdp, self.policy, self.horizon, group=group, value=values)

    def measure(self, psi: Any, values: Float[Array, "T1 S"] | None = None, group: int = 1) -> Moments:
        """Exact mean and covariance of ĝ under a Ψ: a type of `recipe`, or any function Rollout → `[T, B]`.

        values: the critic's, V_π unless given. group=n: ĝ is the mean over n trajectories seen together.
        """
        return self.moments(psi, self.rollout(self.values if values is None else values, group))

    @cached_property
    def _rollouts(self) -> tuple[Rollout, Rollout, Rollout | None]:
        right = self.rollout(self.values)
        pairs = self.rollout(self.values, group=2) if right.shape[1] ** 2 <= MAX_PAIRS else None
        return right, self.rollout(self.wrong), pairs

    def weigh(self, psi: Any, rollout: Rollout) -> Float[Array, "T B"]:
        """γ^t Ψ_t of a rollout, `[T, B]`; R(τ), which already counts from the start, takes no γ^t of its own."""
        weight = psi(rollout)
        weight = weight[0] if isinstance(weight, tuple) else weight
        if getattr(psi, "counts_from_start", False):
            return weight
        return weight * returns.discount_weight(rollout.time, rollout.gamma)

    def moments(self, psi: Any, rollout: Rollout) -> Moments:
        """Exact mean and covariance of ĝ under a Ψ over an enumerated rollout of this lab."""
        return moments(rollout, self.weigh(psi, rollout), self.mdp.n_states)

    def table(self) -> Table:
        """Each Ψ of theory 6.1 and 8.3: exact bias and standard deviation of the gradient from one trajectory."""
        rows = tuple(self._row(name, formula, make) for name, formula, make in self._estimators())
        rows = rows[:3] + self._paired_rows() + rows[3:]
        listed = self._rollouts[0].shape[1]
        caption = (
            f"{self.mdp!r}, {self.horizon} steps at most: {listed} trajectories listed, none sampled.\n"
            "bias = ‖E[ĝ] − ∇J‖ and std = √tr Cov[ĝ] of the gradient from one trajectory; 0 means below 1e-10."
        )
        return Table(rows, float(np.linalg.norm(self.gradient)), caption)

    def _row(self, name: str, formula: str, make: Callable[[Any], Any]) -> Row:
        right, wrong, _ = self._rollouts
        found = [self.moments(make(values), rollout) for values, rollout in ((self.values, right), (self.wrong, wrong))]
        return Row(name, formula, *self._numbers(found[0]), *self._numbers(found[1]))

    def _numbers(self, m: Moments) -> tuple[float, float]:
        return float(np.linalg.norm(m.mean - self.gradient)), m.variance**0.5

    def _paired_rows(self) -> tuple[Row, ...]:
        """Baselines made from the samples need company: two trajectories at a time, if the pairs are not too many."""
        pairs = self._rollouts[2]
        if pairs is None:
            return ()
        rows = []
        for name, formula, leave in (
            ("  minus the mean per state, n=2", "G_t − mean G(s_t)", False),
            ("  … of the other episode, n=2", "G_t − mean other G(s_t)", True),
        ):
            numbers = self._numbers(self.moments(RewardToGo(baseline=StateMean(leave_one_out=leave)), pairs))
            rows.append(Row(name, formula, *numbers, *numbers))
        return tuple(rows)

    def _estimators(self) -> Iterator[tuple[str, str, Callable[[Any], Any]]]:
        """Name, formula, and the Ψ made from the critic's values (most read them from the rollout instead)."""
        yield "total return", "R(τ)", lambda _: TotalReturn()
        yield "reward-to-go", "G_t", lambda _: RewardToGo()
        yield "  minus a learned baseline", "G_t − V(s_t)", lambda _: RewardToGo(baseline=LearnedBaseline())
        yield "action value", "Q(s_t, a_t)", self._action_value
        yield "advantage", "Q(s_t, a_t) − V(s_t)", self._advantage
        yield "TD error", "r_t + γV(s_{t+1}) − V(s_t)", lambda _: TDError()
        yield "2-step", "δ_t + γδ_{t+1}", lambda _: KStep(k=2)
        for lam in self.lambdas:
            yield f"GAE(λ = {lam:g})", "Σ_l (γλ)^l δ_{t+l}", lambda _, lam=lam: GAE(lam=lam)
        yield "GAE(λ = 1)", "Σ_l γ^l δ_{t+l}", lambda _: GAE(lam=1.0)

    def _action_values(self, values: Float[Array, "T1 S"], r: Rollout) -> Float[Array, "T B A"]:
        return exact.values_to_action_values(self.mdp, values)[r.time, r.observation]

    def _action_value(self, values: Float[Array, "T1 S"]) -> Estimator:
        return lambda r: weights.action_value(self._action_values(values, r), r.action)

    def _advantage(self, values: Float[Array, "T1 S"]) -> Estimator:
        return lambda r: weights.advantage(self._action_values(values, r), r.action, self.policy[r.observation])


def _uneven(mdp: MDP) -> Float[Array, "S A"]:
    """Logits between −½ and ½ that favour no action everywhere, the same on every machine."""
    index = np.arange(mdp.n_states * mdp.n_actions, dtype=np.float64)
    return 0.5 * np.cos(1.0 + 2.0 * index).reshape(mdp.n_states, mdp.n_actions)


def _wrong(values: Float[Array, "T1 S"]) -> Float[Array, "T1 S"]:
    """V_π off by a quarter of its range, up in one state and down in the next."""
    error = 0.25 * float(np.ptp(values)) * (-1.0) ** np.arange(values.shape[1])
    return np.concatenate([values[:-1] + error, 0.0 * values[-1:]])
