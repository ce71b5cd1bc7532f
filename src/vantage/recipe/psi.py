"""Ψ as a choice: each type unpacks a Rollout into a function of `theory`, and returns Ψ with the critic's target."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from vantage.recipe.schedule import Coefficient, check, everywhere
from vantage.theory import psi, returns
from vantage.theory._array import keep, namespace, take_last

Array = Any


@dataclass(frozen=True, kw_only=True)
class TotalReturn:
    """Ψ_t = R(τ): the whole episode's (discounted) return, at each of its steps. Theory 6.1(1)."""

    needs_value = False
    counts_from_start = True

    def __call__(self, r: Any) -> tuple[Array, Array | None]:
        total = returns.total_return(r.signal, r.discount, r.last, r.time, r.mask)
        return total, returns.reward_to_go(r.signal, r.discount, r.last, None, r.mask)


@dataclass(frozen=True, kw_only=True)
class LearnedBaseline:
    """b(s_t) = V_φ(s_t), the critic's value."""

    needs_value = True

    def __call__(self, r: Any, gain: Array) -> Array:
        return r.value


@dataclass(frozen=True, kw_only=True)
class StateMean:
    """b(s_t): the mean of G over the visits to the same state in the batch; observations are state numbers. Theory
    6.1(3).

    A batch is the whole rollout, or one group of its columns where `Rollout.group` is set. `leave_one_out` leaves out
    the visits of one's own episode, for what follows a_t must not stand in its baseline.
    """

    leave_one_out: bool = False
    needs_value = False

    def __call__(self, r: Any, gain: Array) -> Array:
        key = r.observation
        if r.group is not None:
            key = key + (namespace(key).max(key) + 1) * r.group
        return psi.mean_baseline(gain, key, r.mask, leave_out=r.episode if self.leave_one_out else None)


@dataclass(frozen=True, kw_only=True)
class BatchMean:
    """b: the mean of G over all steps of the batch; `leave_one_out` leaves out those of one's own episode."""

    leave_one_out: bool = False
    needs_value = False

    def __call__(self, r: Any, gain: Array) -> Array:
        own = r.episode
        return psi.mean_baseline(gain, 0 * own, r.mask, leave_out=own if self.leave_one_out else None)


@dataclass(frozen=True, kw_only=True)
class GroupMean:
    """b: the mean return of the columns with the same `Rollout.group`, without one's own if `leave_one_out`."""

    leave_one_out: bool = True
    needs_value = False

    def __call__(self, r: Any, gain: Array) -> Array:
        xp = namespace(gain)
        begins = xp.argmax(xp.astype(r.mask, xp.int32), axis=0)
        columns = r.episode[0] if self.leave_one_out else None
        mean = psi.mean_baseline(take_last(gain.T, begins), r.group, xp.any(r.mask, axis=0), leave_out=columns)
        return xp.broadcast_to(mean, gain.shape)


Baseline = LearnedBaseline | StateMean | BatchMean | GroupMean


@dataclass(frozen=True, kw_only=True)
class RewardToGo:
    """Ψ_t = G_t, or G_t − b with a baseline. Theory 6.1(2), 6.1(3)."""

    baseline: Baseline | None = None
    """b, what is subtracted from the return; None: nothing."""
    counts_from_start = False

    @property
    def needs_value(self) -> bool:
        """Whether a critic must exist."""
        return self.baseline is not None and self.baseline.needs_value

    def __call__(self, r: Any) -> tuple[Array, Array | None]:
        gain = returns.reward_to_go(r.signal, r.discount, r.last, r.next_value, r.mask)
        if self.baseline is None:
            return gain, gain
        return keep(gain - self.baseline(r, gain), r.mask), gain


@dataclass(frozen=True, kw_only=True)
class ActionValue:
    """Ψ_t = Q(s_t, a_t), by the critic of actions. Theory 6.1(4), 6.4."""

    needs_value = needs_action_value = True
    counts_from_start = False

    def __call__(self, r: Any) -> tuple[Array, Array | None]:
        return keep(r.action_value, r.mask), keep(psi.expected_sarsa(r.signal, r.next_value, r.discount), r.mask)


@dataclass(frozen=True, kw_only=True)
class Advantage:
    """Ψ_t = A(s_t, a_t) = Q(s_t, a_t) − V(s_t), by the critic of actions. Theory 6.1(5), 6.5."""

    needs_value = needs_action_value = True
    counts_from_start = False

    def __call__(self, r: Any) -> tuple[Array, Array | None]:
        target = psi.expected_sarsa(r.signal, r.next_value, r.discount)
        return keep(r.action_value - r.value, r.mask), keep(target, r.mask)


@dataclass(frozen=True, kw_only=True)
class TDError:
    """Ψ_t = δ_t = r_t + γV(s_{t+1}) − V(s_t). Theory 6.6."""

    needs_value = True
    counts_from_start = False

    def __call__(self, r: Any) -> tuple[Array, Array | None]:
        delta = psi.td_error(r.signal, r.value, r.next_value, r.discount)
        return keep(delta, r.mask), keep(delta + r.value, r.mask)


@dataclass(frozen=True, kw_only=True)
class KStep:
    """Ψ_t: k sampled rewards, then the critic. k = 1 is the TD error."""

    k: int = 5
    """How many rewards are sampled before the critic is trusted."""
    needs_value = True
    counts_from_start = False

    def __post_init__(self) -> None:
        check(self.k >= 1, self, "k", "take at least one step; k = 1 is the TD error")

    def __call__(self, r: Any) -> tuple[Array, Array | None]:
        ahead = psi.k_step(r.signal, r.value, r.next_value, r.discount, r.last, self.k, r.mask)
        return ahead, keep(ahead + r.value, r.mask)


@dataclass(frozen=True, kw_only=True)
class GAE:
    """Ψ_t = Σ_l (γλ)^l δ_{t+l}. λ = 0 trusts the critic, λ = 1 the samples. Theory 8.3."""

    lam: Coefficient = 0.95
    """λ: 0 trusts the critic, 1 the samples; between, bias is traded for variance."""
    critic_lam: Coefficient | None = None
    """λ of the critic's target; None: the same λ. 1 keeps the target of long episodes free of the critic."""
    needs_value = True
    counts_from_start = False

    def __post_init__(self) -> None:
        inside = everywhere(lambda lam: 0.0 <= lam <= 1.0, self.lam)
        check(inside, self, "lam", "λ lies between 0 (TD error) and 1 (return minus V)")
        inside = self.critic_lam is None or everywhere(lambda lam: 0.0 <= lam <= 1.0, self.critic_lam)
        check(inside, self, "critic_lam", "λ lies between 0 (TD error) and 1 (return minus V)")

    def __call__(self, r: Any) -> tuple[Array, Array | None]:
        def estimate(lam: Any) -> Array:
            return psi.gae(r.signal, r.value, r.next_value, r.discount, r.last, lam, r.mask)

        weights = estimate(self.lam)
        aim = weights if self.critic_lam is None else estimate(self.critic_lam)
        return weights, keep(aim + r.value, r.mask)


@dataclass(frozen=True, kw_only=True)
class GroupRelative:
    """Ψ_t = R_b − mean of the returns of the `size` columns that answer one prompt; GRPO's and RLOO's Ψ.

    `leave_one_out` leaves one's own return out of the mean (RLOO: unbiased); `scale` divides by the group's standard
    deviation (GRPO: neither unbiased nor in units of reward).
    """

    size: int = 8
    """How many columns answer one prompt."""
    leave_one_out: bool = False
    """Whether one's own return is left out of the mean."""
    scale: bool = True
    """Whether Ψ is divided by the group's standard deviation."""
    needs_value = False
    counts_from_start = False

    def __post_init__(self) -> None:
        check(self.size >= 2, self, "size", "a group has at least two columns to compare")
        both = self.leave_one_out and self.scale
        check(not both, self, "scale", "the standard deviation holds one's own return: set it False to leave that out")

    def __call__(self, r: Any) -> tuple[Array, Array | None]:
        gain = returns.reward_to_go(r.signal, r.discount, r.last, None, r.mask)
        return psi.group_relative(gain, r.group, r.mask, self.leave_one_out, self.scale), gain


@runtime_checkable
class OwnPsi(Protocol):
    """A Ψ of the user's own: of a rollout it makes the weights, and the critic's target or None, `[T, B]`."""

    @property
    def needs_value(self) -> bool:
        """Whether a critic must exist."""
        ...

    @property
    def counts_from_start(self) -> bool:
        """Whether it needs whole episodes from their first step."""
        ...

    def __call__(self, r: Any) -> tuple[Array, Array | None]: ...


Psi = TotalReturn | RewardToGo | ActionValue | Advantage | TDError | KStep | GAE | GroupRelative
AnyPsi = Psi | OwnPsi
