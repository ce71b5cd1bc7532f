"""What a training curve says: rules that turn the metrics of a run into what is wrong, the evidence and the remedy."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, float]

LEAST = 5
"""Updates below which a run says nothing yet."""
RETURN = "rollout/ep_rew_mean"
KL_MUCH, CLIP_MUCH = 0.05, 0.4
"""Above which an update has gone too far: nats, and share of the ratios."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong with a run."""

    rule: str
    problem: str
    evidence: str
    """The numbers that show it."""
    remedy: str
    """What to change, as options of `vantage train`."""

    def __str__(self) -> str:
        return f"{self.problem}: {self.evidence}. {self.remedy}."


@dataclass(frozen=True)
class Curves:
    """The rows of a run by metric; what is not a number is left out."""

    rows: Sequence[Row]
    recipe: Any = None

    def all(self, name: str) -> list[float]:
        """A metric over the updates."""
        found = [float(row[name]) for row in self.rows if row.get(name) is not None]
        return [value for value in found if not math.isnan(value)]

    def late(self, name: str) -> float | None:
        """The median over the last quarter of the updates; None if the metric is missing or the run too short."""
        values = self.all(name)
        return None if len(values) < LEAST else _median(values[-max(3, len(values) // 4) :])

    def early(self, name: str) -> float | None:
        """The first value of a metric."""
        values = self.all(name)
        return values[0] if len(values) >= LEAST else None


def _median(values: Sequence[float]) -> float:
    ranked, half = sorted(values), len(values) // 2
    return ranked[half] if len(values) % 2 else 0.5 * (ranked[half - 1] + ranked[half])


Rule = Callable[[Curves], Finding | None]
RULES: list[Rule] = []


def rule(check: Rule) -> Rule:
    """Add a rule: a function of the curves that returns a Finding, or None where all is well."""
    RULES.append(check)
    return check


def verdict(rows: Sequence[Row], *, recipe: Any = None) -> list[Finding]:
    """What is wrong with a run, the gravest first; empty for a healthy one. Pure: reads `rows`, one dict an update."""
    curves = Curves(rows, recipe)
    return [found for found in (check(curves) for check in RULES) if found is not None]


@rule
def not_finite(run: Curves) -> Finding | None:
    """A metric of the update that is infinite or not a number; explained variance may be, for a constant target."""
    for number, row in enumerate(run.rows, 1):
        for name in ("train/loss", "train/value_loss", "train/approx_kl", "train/policy_gradient_loss"):
            value = row.get(name)
            if value is not None and not math.isfinite(value):
                return Finding(
                    rule="not_finite",
                    problem="The numbers have exploded",
                    evidence=f"{name} is {value} at update {number}",
                    remedy="Lower --lr tenfold, and look for rewards or observations that are not finite",
                )
    return None


@rule
def act_mismatch(run: Curves) -> Finding | None:
    """Whoever acted did not use the policy that is being updated."""
    worst = max(run.all("train/act_mismatch"), default=0.0)
    return None if worst <= 1e-3 else Finding(
        rule="act_mismatch",
        problem="The policy that acted is not the one that was updated",
        evidence=f"their log-probabilities differ by up to {worst:.2g} nats, where rounding explains 0.001",
        remedy="Check a network or a normaliser of your own for state that changes between acting and scoring",
    )  # fmt: skip


@rule
def policy_jumps(run: Curves) -> Finding | None:
    """Updates so large that the old data says nothing about the new policy."""
    kl, clip = _kl(run), run.late("train/clip_fraction")
    facts = []
    if kl is not None and kl > KL_MUCH:
        facts.append(f"KL is {kl:.2g} nats an update, where {KL_MUCH} is much")
    if clip is not None and clip > CLIP_MUCH:
        facts.append(f"{clip:.0%} of the ratios are clipped, where {CLIP_MUCH:.0%} is much")
    return None if not facts else Finding(
        rule="policy_jumps",
        problem="The policy moves too far in each update",
        evidence=" and ".join(facts),
        remedy="Lower --lr threefold, or set --target-kl 0.02, or use fewer --n-epochs",
    )  # fmt: skip


@rule
def policy_stands(run: Curves) -> Finding | None:
    """Updates so small that nothing is learned."""
    kl = _kl(run)
    if kl is None or abs(kl) > 1e-5 or not run.all("train/learning_rate"):
        return None
    rates = run.all("train/learning_rate")
    if rates[-1] < 0.2 * rates[0]:  # a schedule that ends near 0 makes the last updates small by design
        return None
    return Finding(
        rule="policy_stands",
        problem="The policy hardly moves",
        evidence=f"KL is {abs(kl):.1g} nats an update, where 0.001 to 0.02 is usual",
        remedy="Raise --lr threefold, or use more --n-epochs",
    )


@rule
def critic_explains_nothing(run: Curves) -> Finding | None:
    """A critic no better than a constant, where there was something to explain."""
    share = run.late("train/explained_variance")
    if share is None or share > 0.05 or _fitted(run):
        return None
    return Finding(
        rule="critic_explains_nothing",
        problem="The critic explains nothing of the returns",
        evidence=f"explained variance is {share:.2f} at the end, where 0 is a constant and 1 is perfect",
        remedy="Set --normalise-reward true, raise --vf-coef or --n-epochs, or widen the network",
    )


@rule
def entropy_collapsed(run: Curves) -> Finding | None:
    """A policy that became certain before it became good."""
    first, last = _entropy(run)
    if first is None or last is None or first <= 0.0 or last > 0.02 * first or _solved(run):
        return None
    return Finding(
        rule="entropy_collapsed",
        problem="The policy has stopped exploring",
        evidence=f"its entropy fell from {first:.2f} to {last:.3f} nats while the return ended at {_ending(run)}",
        remedy="Set --ent-coef 0.01, or lower --lr",
    )


@rule
def entropy_at_ceiling(run: Curves) -> Finding | None:
    """A policy as random as at the start, with nothing gained."""
    first, last = _entropy(run)
    if first is None or last is None or first <= 0.0 or last < 0.99 * first or _improved(run):
        return None
    return Finding(
        rule="entropy_at_ceiling",
        problem="The policy is still as random as at the start",
        evidence=f"its entropy is {last:.2f} of {first:.2f} nats and the return has not risen ({_ending(run)})",
        remedy="Train for more --steps, raise --lr, or lower --ent-coef if it is not 0",
    )


@rule
def reward_scale(run: Curves) -> Finding | None:
    """Rewards so large that the critic's loss drowns all else, or so small that it never had anything to learn.

    A loss that is small at the end only is a critic that has learned.
    """
    first, last = run.early("train/value_loss"), run.late("train/value_loss")
    if first is None or last is None or _solved(run):
        return None
    if last < 1e4 and first > 1e-6:
        return None
    size, when, loss = ("large", "end", last) if last >= 1e4 else ("small", "start", first)
    return Finding(
        rule="reward_scale",
        problem=f"The rewards are too {size} for the critic",
        evidence=f"its loss is {loss:.2g} reward² at the {when}, where 0.01 to 1000 is usual",
        remedy="Set --normalise-reward true",
    )


@rule
def fell_back(run: Curves) -> Finding | None:
    """A return that had risen and was lost again."""
    returns = run.all(RETURN)
    if len(returns) < 2 * LEAST:
        return None
    best, last, first = max(returns), returns[-1], returns[0]
    if best - first <= 0 or best - last < 0.5 * (best - first) or best - first < 0.05 * abs(best):
        return None
    return Finding(
        rule="fell_back",
        problem="The policy has lost what it had learned",
        evidence=f"the return was {best:.4g} at its best and is {last:.4g} at the end",
        remedy="Let the step size fall with --lr lin_3e-4 and --clip-range lin_0.2, or set --target-kl 0.02",
    )


def _kl(run: Curves) -> float | None:
    """How far an update moves the policy: exact where it is known, else the estimate of the last minibatches."""
    exact = run.late("train/kl")
    return run.late("train/approx_kl") if exact is None else exact


def _entropy(run: Curves) -> tuple[float | None, float | None]:
    first, last = run.early("train/entropy_loss"), run.late("train/entropy_loss")
    return (None if first is None else -first), (None if last is None else -last)


def _fitted(run: Curves) -> bool:
    """Whether the critic's loss has fallen tenfold: then targets hardly vary, and nothing is left to explain."""
    losses = run.all("train/value_loss")
    return bool(losses) and losses[-1] <= 0.1 * max(losses)


def _improved(run: Curves) -> bool:
    """Whether the return at the end lies above that at the start by more than a tenth of its size."""
    first, last = run.early(RETURN), run.late(RETURN)
    return first is not None and last is not None and last - first > 0.1 * abs(first)


def _solved(run: Curves) -> bool:
    """Whether the run ends near its best and well above its start: then certainty and a flat value are earned."""
    returns, last = run.all(RETURN), run.late(RETURN)
    if last is None or not _improved(run):
        return False
    return max(returns) - last <= 0.1 * (max(returns) - returns[0])


def _ending(run: Curves) -> str:
    last = run.late(RETURN)
    return "an unknown value" if last is None else f"{last:.4g}"


def sentences(
    rows: Sequence[Row], *, recipe: Any = None, goal: float | None = None, next_step: str = ""
) -> tuple[str, str, str]:
    """A run in three sentences: what came out, whether it is healthy (or what is not), what to do next."""
    findings = verdict(rows, recipe=recipe)
    if findings:
        worst, others = findings[0], len(findings) - 1
        more = f" (and {others} more: vantage doctor shows all)" if others else ""
        return _outcome(Curves(rows), goal), f"{worst.problem}: {worst.evidence}{more}.", f"{worst.remedy}."
    return _outcome(Curves(rows), goal), _health(Curves(rows)), next_step or "Evaluate it with vantage eval."


def _outcome(run: Curves, goal: float | None) -> str:
    returns, steps = run.all(RETURN), run.all("time/total_timesteps")
    taken = f"{int(steps[-1]):,} steps" if steps else f"{len(run.rows)} updates"
    if not returns:
        return f"No episode ended within {taken}, so the return is unknown."
    if len(returns) == 1:
        return f"The mean return is {returns[0]:.4g} after {taken}; one update has it, so whether it rises is unknown."
    way = "rose" if returns[-1] > returns[0] else "fell"
    reached = f", and the goal of {goal:g} is reached" if goal is not None and returns[-1] >= goal else ""
    missed = f", short of the goal of {goal:g}" if goal is not None and returns[-1] < goal else ""
    first, last = f"{returns[0]:.4g}", f"{returns[-1]:.4g}"
    change = f"hardly changed from {first}" if first == last else f"{way} from {first} to {last}"
    return f"The mean return {change} in {taken}{reached}{missed}."


def _health(run: Curves) -> str:
    if len(run.rows) < LEAST:
        return f"{len(run.rows)} update{'s are' if len(run.rows) != 1 else ' is'} too few to judge its health."
    facts = []
    share, kl, clip = run.late("train/explained_variance"), _kl(run), run.late("train/clip_fraction")
    if share is not None and not (share < 0.5 and _fitted(run)):
        facts.append(f"the critic explains {share:.0%} of the variance")
    if kl is not None:
        facts.append(f"KL is {kl:.2g} nats an update")
    if clip is not None:
        facts.append(f"{clip:.0%} of the ratios are clipped")
    return "The run looks healthy" + (": " + ", ".join(facts) if facts else "") + "."
