"""The one record that flows through the library: world → rollout → Ψ → objective → update."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Bool, Float, Int

from vantage.theory._array import namespace

Array = Any


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """What one collection saw. Time is axis 0, columns axis 1: `[T, B]`.

    A column is an environment slot, a prompt, or one enumerated trajectory. A field is either a *sample*
    (observation, action, reward), a *flag* (last, mask), or a number that was *fixed* when the data was taken
    (log_prob, value, next_value, policy); nothing here is an expectation over the world.
    """

    observation: Any
    """s_t, `[T, B, …]` (or a dict/tuple of such): what the policy saw, after normalisation."""
    action: Any
    """a_t, `[T, B, …]`: as the policy sampled it (unclipped, before any squashing)."""
    reward: Float[Array, "T B"]
    """r_t = R(s_t, a_t, s_{t+1}): what the world gave. A sample; never edited."""
    signal: Float[Array, "T B"]
    """r_t as Ψ reads it: scaled, clipped or with −β·KL; computed once from `reward`."""
    discount: Float[Array, "T B"]
    """γ·(1 − terminated): exactly 0 where the world ended."""
    last: Bool[Array, "T B"]
    """The column does not continue into row t+1: terminated, truncated, or end of the rollout."""
    mask: Bool[Array, "T B"]
    """A real decision; False for padding, prompt tokens and autoreset filler."""
    log_prob: Float[Array, "T B"]
    """log π_old(a_t|s_t), nats, of the policy that acted."""
    value: Float[Array, "T B"] | None = None
    """V(s_t), in units of `signal`; None without a critic."""
    action_value: Float[Array, "T B"] | None = None
    """Q(s_t, a_t) of a critic of actions, whose `value` is V(s) = Σ_a π_old(a|s) Q(s, a); None for other critics."""
    next_value: Float[Array, "T B"] | None = None
    """V(s_{t+1}) of the state actually *reached*: at a truncation the true final observation."""
    policy: tuple[Any, ...] | None = None
    """Parameters of π_old(·|s_t), each `[T, B, …]`, for the exact KL."""
    actor_log_prob: Float[Array, "T B"] | None = None
    """log-probability recorded by whoever acted, NaN where it was not recorded."""
    group: Int[Array, "B"] | None = None
    """Columns that answer one prompt or share one seed carry one number."""
    carry: Any = None
    """Hidden state of a recurrent policy before row 0, `[B, …]`."""
    time: Int[Array, "T B"] | None = None
    """t: decisions since the episode began."""
    weight: Float[Array, "B"] | None = None
    """Column weight: 1 (or None) if sampled, p(τ) if enumerated."""
    gamma: float | Float[Array, ""] = 1.0
    """γ of the problem, as it stands inside `discount`."""

    @property
    def shape(self) -> tuple[int, int]:
        """(T, B)."""
        steps, columns = self.reward.shape
        return steps, columns

    @property
    def row_weight(self) -> Any:
        """`weight` spread over rows, `[T, B]`; 1.0 where columns are not weighted."""
        return 1.0 if self.weight is None else self.weight * namespace(self.reward).ones_like(self.reward)

    @property
    def episode(self) -> Int[Array, "T B"]:
        """A number for each episode segment, `[T, B]`: equal for rows of one, different across; the column's own in
        row 0.
        """
        xp = namespace(self.last)
        steps, columns = self.shape
        ended = xp.astype(xp.logical_and(self.last, self.mask), xp.int64 if steps * columns > 2**31 - 1 else xp.int32)
        before = xp.cumulative_sum(ended, axis=0) - ended
        return before * columns + xp.arange(columns)[None, :]

    def map(self, f: Callable[[Any], Any], *names: str) -> "Rollout":
        """A new rollout with `f` applied to the named fields that are present."""
        present = {name: getattr(self, name) for name in names}
        return replace(self, **{name: f(x) for name, x in present.items() if x is not None})
