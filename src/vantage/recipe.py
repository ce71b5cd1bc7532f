"""An algorithm is a value: Ψ × objective × critic loss × reuse × reduction × whitening.

Every choice is a frozen type whose fields are exactly the knobs it has; each is also callable, unpacking a record into the pure
function of `theory` that it stands for. REINFORCE and PPO differ in nothing but the `Recipe` their names return.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal

from vantage.theory import critics, kl_control, objectives, psi, reduce, returns
from vantage.theory._array import namespace
from vantage.theory.loss import Batch, Terms

Array = Any


def check(condition: bool, owner: object, field: str, remedy: str) -> None:
    """Raise ValueError naming the field, its value and the remedy unless the condition holds."""
    if not condition:
        raise ValueError(f"{type(owner).__name__}.{field} = {getattr(owner, field)!r}: {remedy}")


@dataclass(frozen=True)
class Linear:
    """A coefficient that goes linearly from `start` to `end` over the run.

    c(x) = start + (end − start) x,   x = fraction of the run that is done, in [0, 1]
    """

    start: float
    end: float = 0.0

    def __call__(self, progress: float) -> float:
        return self.start + (self.end - self.start) * progress


Coefficient = float | Linear


def first(c: Any) -> Any:
    """The value of a coefficient at the start of a run."""
    return c.start if isinstance(c, Linear) else c


def at(choice: Any, progress: float) -> Any:
    """The same choice with every schedule in it, however deep, replaced by its value at `progress`."""
    if isinstance(choice, Linear):
        return choice(progress)
    if not is_dataclass(choice) or isinstance(choice, type):
        return choice
    old = {f.name: getattr(choice, f.name) for f in fields(choice) if f.init}
    new = {name: at(x, progress) for name, x in old.items()}
    return choice if all(new[n] is old[n] for n in old) else replace(choice, **new)


# ---- Ψ: how a step is weighed -----------------------------------------------------------------------------------------


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
    """b(s_t): the mean of G over the visits to the same state in the batch; observations are state numbers. Theory 6.1(3).

    A batch is the whole rollout, or one group of its columns where `Rollout.group` is set. `leave_one_out` leaves out the
    visits of one's own episode, for what follows a_t must not stand in its baseline.
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
    """b: the mean return of the columns that answer the same prompt (`Rollout.group`), without one's own if `leave_one_out`."""

    leave_one_out: bool = True
    needs_value = False

    def __call__(self, r: Any, gain: Array) -> Array:
        columns = r.episode[0] if self.leave_one_out else None
        return psi.mean_baseline(gain[0], r.group, leave_out=columns) + 0.0 * gain


Baseline = LearnedBaseline | StateMean | BatchMean | GroupMean


@dataclass(frozen=True, kw_only=True)
class RewardToGo:
    """Ψ_t = G_t, or G_t − b with a baseline. Theory 6.1(2), 6.1(3)."""

    baseline: Baseline | None = None
    counts_from_start = False

    @property
    def needs_value(self) -> bool:
        """Whether a critic must exist."""
        return self.baseline is not None and self.baseline.needs_value

    def __call__(self, r: Any) -> tuple[Array, Array | None]:
        gain = returns.reward_to_go(r.signal, r.discount, r.last, r.next_value, r.mask)
        if self.baseline is None:
            return gain, gain
        return namespace(gain).where(r.mask, gain - self.baseline(r, gain), 0.0), gain


@dataclass(frozen=True, kw_only=True)
class TDError:
    """Ψ_t = δ_t = r_t + γV(s_{t+1}) − V(s_t). Theory 6.6."""

    needs_value = True
    counts_from_start = False

    def __call__(self, r: Any) -> tuple[Array, Array | None]:
        delta = psi.td_error(r.signal, r.value, r.next_value, r.discount)
        xp = namespace(delta)
        return xp.where(r.mask, delta, 0.0), xp.where(r.mask, delta + r.value, 0.0)


@dataclass(frozen=True, kw_only=True)
class KStep:
    """Ψ_t: k sampled rewards, then the critic. k = 1 is the TD error."""

    k: int = 5
    needs_value = True
    counts_from_start = False

    def __post_init__(self) -> None:
        check(self.k >= 1, self, "k", "take at least one step; k = 1 is the TD error")

    def __call__(self, r: Any) -> tuple[Array, Array | None]:
        ahead = psi.k_step(r.signal, r.value, r.next_value, r.discount, r.last, self.k, r.mask)
        return ahead, ahead + r.value


@dataclass(frozen=True, kw_only=True)
class GAE:
    """Ψ_t = Σ_l (γλ)^l δ_{t+l}. λ = 0 trusts the critic, λ = 1 the samples. Theory 8.3."""

    lam: Coefficient = 0.95
    needs_value = True
    counts_from_start = False

    def __post_init__(self) -> None:
        check(0.0 <= first(self.lam) <= 1.0, self, "lam", "λ lies between 0 (TD error) and 1 (return minus V)")

    def __call__(self, r: Any) -> tuple[Array, Array | None]:
        estimate = psi.gae(r.signal, r.value, r.next_value, r.discount, r.last, self.lam, r.mask)
        return estimate, estimate + r.value


Psi = TotalReturn | RewardToGo | TDError | KStep | GAE


# ---- objectives: what the actor's step maximises ------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """Ψ log π, for data of the very policy that is updated. Theory 5.2, 7.1."""

    reuses = False

    def __call__(self, terms: Terms) -> Array:
        return objectives.likelihood(terms.log_prob, terms.psi)

    def outside(self, terms: Terms) -> Array | None:
        """No clip range."""
        return None


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """r_t(θ) Ψ_t, importance-weighted and unconstrained. Theory 8.2."""

    reuses = True

    def __call__(self, terms: Terms) -> Array:
        return objectives.importance_weighted(terms.ratio, terms.psi)

    def outside(self, terms: Terms) -> Array | None:
        """No clip range."""
        return None


@dataclass(frozen=True, kw_only=True)
class Clip:
    """PPO-Clip: min(rΨ, clip(r, 1 − low, 1 + high)Ψ); `high=None` is symmetric, `dual` bounds the loss where Ψ < 0. Theory 8.5."""

    low: Coefficient = 0.2
    high: Coefficient | None = None
    dual: float | None = None
    reuses = True

    def __post_init__(self) -> None:
        check(0.0 < first(self.low), self, "low", "the clip range is a positive ratio, such as 0.2")
        check(
            self.high is None or 0.0 < first(self.high),
            self,
            "high",
            "the clip range is a positive ratio, such as 0.28",
        )
        check(self.dual is None or self.dual > 1.0, self, "dual", "the dual clip is a ratio above 1, such as 3.0")

    def __call__(self, terms: Terms) -> Array:
        return objectives.clipped(terms.ratio, terms.psi, self.low, self.high, self.dual)

    def outside(self, terms: Terms) -> Array | None:
        """Where the ratio has left the clip range."""
        return objectives.clip_fraction(terms.ratio, self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """β doubles at KL ≥ kl_max and halves at KL ≤ kl_min. Theory 8.6."""

    kl_min: float = 0.005
    kl_max: float = 0.02
    factor: float = 2.0

    def __post_init__(self) -> None:
        check(0.0 <= self.kl_min < self.kl_max, self, "kl_min", f"it must lie below kl_max = {self.kl_max}")
        check(self.factor > 1.0, self, "factor", "a factor above 1 is needed, such as 2")

    def __call__(self, beta: float, kl: float, n: int) -> float:
        return kl_control.threshold_beta(beta, kl, self.kl_min, self.kl_max, self.factor)


@dataclass(frozen=True, kw_only=True)
class PaperTarget:
    """β doubles above 1.5 d_targ and halves below d_targ/1.5, as in the PPO paper."""

    target: float = 0.01

    def __post_init__(self) -> None:
        check(self.target > 0.0, self, "target", "a KL target in nats per step, such as 0.01")

    def __call__(self, beta: float, kl: float, n: int) -> float:
        return kl_control.paper_beta(beta, kl, self.target)


@dataclass(frozen=True, kw_only=True)
class Proportional:
    """β moves by at most 20 % · n/horizon towards the target (Ziegler et al. 2019)."""

    target: float = 6.0
    horizon: float = 10_000.0

    def __post_init__(self) -> None:
        check(self.target > 0.0, self, "target", "a KL target in nats, such as 6")
        check(self.horizon > 0.0, self, "horizon", "a positive number of episodes, such as 10000")

    def __call__(self, beta: float, kl: float, n: int) -> float:
        return kl_control.proportional_beta(beta, kl, self.target, n, self.horizon)


BetaRule = Thresholds | PaperTarget | Proportional


@dataclass(frozen=True, kw_only=True)
class Penalty:
    """PPO-Penalty: rΨ − β KL(π_old‖π); `rule=None` keeps β fixed. Theory 8.6."""

    beta: float = 1.0
    rule: BetaRule | None = Thresholds()
    reuses = True

    def __post_init__(self) -> None:
        check(
            isinstance(self.beta, bool) or not isinstance(self.beta, int | float) or self.beta >= 0,
            self,
            "beta",
            "the price of KL is not negative",
        )

    def __call__(self, terms: Terms) -> Array:
        return objectives.penalised(terms.ratio, terms.psi, terms.kl, self.beta)

    def outside(self, terms: Terms) -> Array | None:
        """No clip range."""
        return None


Objective = Likelihood | Ratio | Clip | Penalty


# ---- critic losses ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Squared:
    """(V_φ − R_t)², with the target R_t that belongs to Ψ. Theory 8.7."""

    def __call__(self, batch: Batch, value: Array, next_value: Array | None) -> Array:
        return critics.squared(value, batch.target)


@dataclass(frozen=True, kw_only=True)
class ClippedValue:
    """max((V_φ − R_t)², (clip(V_φ, V_old ± width) − R_t)²); `width` is in units of the value, never the policy's ε. Theory 8.7."""

    width: Coefficient = 0.2

    def __post_init__(self) -> None:
        check(first(self.width) > 0.0, self, "width", "a positive number in units of the value")

    def __call__(self, batch: Batch, value: Array, next_value: Array | None) -> Array:
        return critics.clipped_value(value, batch.value, batch.target, self.width)


@dataclass(frozen=True, kw_only=True)
class ResidualTD:
    """(r_t + γV_φ(s_{t+1}) − V_φ(s_t))² with the full gradient, through the target too. Theory 7.2."""

    def __call__(self, batch: Batch, value: Array, next_value: Array | None) -> Array:
        return critics.squared_td_error(batch.reward, value, next_value, batch.discount, residual=True)


CriticLoss = Squared | ClippedValue | ResidualTD


# ---- reduction: the denominator of a batch ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Mean over decisions."""

    def total(self, r: Any) -> Array:
        return reduce.total_steps(r.reward, r.mask, r.weight)


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Sum over time, mean over columns: the one whose gradient is literally ∇J for one episode a column."""

    def total(self, r: Any) -> Array:
        return reduce.total_columns(r.reward, r.mask, r.weight)


@dataclass(frozen=True, kw_only=True)
class Trajectories:
    """Sum over time, mean over segments."""

    def total(self, r: Any) -> Array:
        return reduce.total_trajectories(r.reward, r.last, r.mask, r.weight)


@dataclass(frozen=True, kw_only=True)
class Constant:
    """Sum divided by a fixed number."""

    n: float

    def __post_init__(self) -> None:
        check(self.n > 0, self, "n", "a positive denominator")

    def total(self, r: Any) -> Array:
        return self.n + 0.0 * reduce.total_steps(r.reward, r.mask, r.weight)


Reduction = Steps | Columns | Trajectories | Constant


# ---- the recipe -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One algorithm. γ belongs to the problem, learning rates to `Optim`; everything else that distinguishes algorithms is here."""

    psi: Psi = GAE()
    """How a step is weighed."""
    objective: Objective = Clip()
    """What the actor's step maximises."""
    critic: CriticLoss | None = Squared()
    """What the critic's step minimises; None: there is no critic."""
    n_epochs: int = 10
    """k: how often each rollout is used."""
    n_minibatches: int = 4
    """Into how many parts a rollout is split, anew in each epoch."""
    ent_coef: Coefficient = 0.0
    """c_ent, weight of the entropy bonus, in Ψ per nat."""
    whiten: Literal["minibatch", "batch"] | None = "minibatch"
    """Over what Ψ is brought to mean 0 and variance 1; None leaves it as it is."""
    target_kl: float | None = None
    """Stop the epochs before a minibatch whose k3 estimate of KL(π_old‖π) exceeds 1.5 times this; None: never."""
    reduction: Reduction = Steps()
    """The denominator of the batch."""
    time_weighting: Literal["discounted", "undiscounted"] = "undiscounted"
    """Whether step t carries γ^t: exact for the discounted J with it, the usual practice without."""
    recompute_advantages: bool = False
    """Whether Ψ and targets are computed anew before each epoch with the critic of that moment."""

    def __post_init__(self) -> None:
        check(self.n_epochs >= 1, self, "n_epochs", "use each rollout at least once")
        check(self.n_minibatches >= 1, self, "n_minibatches", "use at least one minibatch")
        check(self.whiten in ("minibatch", "batch", None), self, "whiten", 'choose "minibatch", "batch" or None')
        check(
            self.time_weighting in ("discounted", "undiscounted"),
            self,
            "time_weighting",
            'choose "discounted" or "undiscounted"',
        )
        check(
            self.target_kl is None or self.target_kl > 0,
            self,
            "target_kl",
            "a positive KL in nats per step, such as 0.01, or None",
        )
        check(
            self.objective.reuses or self.n_epochs * self.n_minibatches == 1,
            self,
            "objective",
            "Ψ log π is right only for data of the policy being updated: "
            f"with n_epochs = {self.n_epochs} and n_minibatches = {self.n_minibatches} use Ratio, Clip or Penalty",
        )
        check(
            self.critic is not None or not self.psi.needs_value,
            self,
            "psi",
            "it reads V(s), so it needs a critic such as Squared()",
        )

    def at(self, progress: float, beta: float | None = None) -> "Recipe":
        """The recipe at a moment of the run: schedules become numbers, and β is the one carried in the training state."""
        now = at(self, progress)
        if beta is not None and isinstance(now.objective, Penalty):
            now = replace(now, objective=replace(now.objective, beta=beta))
        return now

    def prepare(self, rollout: Any) -> Batch:
        """Ψ and the critic's target of a rollout, `[T, B]`, computed once and then held fixed while the data is reused."""
        weights, target = self.psi(rollout)
        if self.time_weighting == "discounted" and not self.psi.counts_from_start:
            weights = weights * returns.discount_weight(rollout.time, rollout.gamma)
        if self.whiten == "batch":
            weights = reduce.whiten(weights, rollout.mask, rollout.row_weight if rollout.weight is not None else None)
        return Batch(
            log_prob=rollout.log_prob, psi=weights, target=target, value=rollout.value, reward=rollout.signal,
            discount=rollout.discount, mask=rollout.mask, weight=None if rollout.weight is None else rollout.row_weight,
        )  # fmt: skip


def REINFORCE(*, psi: Psi = RewardToGo(), whiten: Literal["minibatch", "batch"] | None = None, **others: Any) -> Recipe:
    """Ψ log π once, on whole episodes: E_{τ∼π_θ}[Σ_t Ψ_t ∇log π_θ(a_t|s_t)]. Theory 5, 6.1."""
    needs = dict(critic=Squared() if psi.needs_value else None, n_epochs=1, n_minibatches=1, reduction=Trajectories())
    return recipe(Likelihood(), **{**needs, "psi": psi, "whiten": whiten, **others})


def A2C(*, psi: Psi = GAE(lam=1.0), whiten: Literal["minibatch", "batch"] | None = None, **others: Any) -> Recipe:
    """Actor-critic: Ψ log π once, with Ψ from the critic. Theory 7."""
    return recipe(Likelihood(), **{"n_epochs": 1, "n_minibatches": 1, "psi": psi, "whiten": whiten, **others})


def ImportanceWeighted(*, psi: Psi = GAE(), **others: Any) -> Recipe:
    """r_t(θ)Ψ_t, k times over the same data, with nothing holding π near π_old. Theory 8.2."""
    return recipe(Ratio(), **{"psi": psi, **others})


def PPO(
    *,
    clip_range: Coefficient = 0.2,
    clip_range_high: Coefficient | None = None,
    dual_clip: float | None = None,
    gae_lambda: Coefficient = 0.95,
    psi: Psi | None = None,
    **others: Any,
) -> Recipe:
    """PPO-Clip: min(rΨ, clip(r, 1−ε, 1+ε)Ψ), k epochs of minibatches. Theory 8.5."""
    return recipe(Clip(low=clip_range, high=clip_range_high, dual=dual_clip), psi=psi or GAE(lam=gae_lambda), **others)


def PPOPenalty(
    *,
    beta: float = 1.0,
    rule: BetaRule | None = Thresholds(),
    gae_lambda: Coefficient = 0.95,
    psi: Psi | None = None,
    **others: Any,
) -> Recipe:
    """PPO-Penalty: rΨ − β KL(π_old‖π), β adapted once per update. Theory 8.6."""
    return recipe(Penalty(beta=beta, rule=rule), psi=psi or GAE(lam=gae_lambda), **others)


def recipe(objective: Objective, **options: Any) -> Recipe:
    """A Recipe with the given objective; an unknown option is an error that suggests the nearest one."""
    known = [f.name for f in fields(Recipe)]
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise TypeError(f"unknown recipe option {name!r}: {hint}")
    return Recipe(objective=objective, **options)


RECIPES: dict[str, Callable[..., Recipe]] = {
    "reinforce": REINFORCE, "a2c": A2C, "importance-weighted": ImportanceWeighted, "ppo": PPO, "ppo-penalty": PPOPenalty,
}  # fmt: skip
"""The named recipes, as the command line knows them."""


# ---- optimisers -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Joint:
    """One Adam step on actor loss + vf_coef · critic loss, clipped by the joint gradient norm."""

    lr: Coefficient = 3e-4
    """Learning rate."""
    vf_coef: float = 0.5
    """Weight of the critic's loss, which carries no ½."""
    max_grad_norm: float | None = 0.5
    """Bound on the norm of the whole gradient; None: unbounded."""
    eps: float = 1e-5
    """Adam's ε."""

    def __post_init__(self) -> None:
        check(first(self.lr) > 0, self, "lr", "a positive learning rate, such as 3e-4")
        check(self.max_grad_norm is None or self.max_grad_norm > 0, self, "max_grad_norm", "a positive norm, or None")


@dataclass(frozen=True, kw_only=True)
class Separate:
    """Two Adam steps, each network with its own learning rate and gradient norm, as in theory 8.7."""

    actor_lr: Coefficient = 3e-4
    """Learning rate of the actor."""
    critic_lr: Coefficient = 1e-3
    """Learning rate of the critic."""
    max_grad_norm: float | None = 0.5
    """Bound on the norm of each network's gradient; None: unbounded."""
    eps: float = 1e-5
    """Adam's ε."""

    def __post_init__(self) -> None:
        check(first(self.actor_lr) > 0, self, "actor_lr", "a positive learning rate, such as 3e-4")
        check(first(self.critic_lr) > 0, self, "critic_lr", "a positive learning rate, such as 1e-3")


Optim = Joint | Separate
