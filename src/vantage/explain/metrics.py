"""The metrics of a run: the formula of each comes from the docstring of the function that computes it."""

import inspect
import re
from dataclasses import asdict, dataclass, replace
from typing import Any

from vantage.explain.formula import block
from vantage.runs.familiar import FAMILIAR
from vantage.theory import critics, divergences, importance, loss, objectives
from vantage.theory import distributions as distribution

MINIBATCHES = "mean over real steps of each minibatch, then over the minibatches of the update"
ROLLOUT = "all real steps of the rollout"
LEARNED = "all real steps of the rollout that were learned from, once, after the last epoch"
HELD = "the real steps of the environments held out of this update, once, after the last epoch"
EPISODES = "the last 100 episodes that ended"
EVALUATED = "the episodes of one evaluation, on environments of its own"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What one name in the log stands for."""

    what: str
    over: str
    """Over what it is averaged or counted."""
    by: Any = None
    """The function that computes it."""
    given: str = ""
    """What the arguments of that function are here."""
    formula: str = ""
    """Only where no function's docstring has it."""
    unit: str = ""
    """Only where no function's docstring says it."""


_KL = "p = π_old, q = π_θ"
METRICS: dict[str, Metric] = {
    "rollout/ep_rew_mean": Metric(
        what="return of an episode, in the world's own reward", over=EPISODES, formula="Σ_{t=0}^{T−1} r_t",
        unit="reward",
    ),
    "rollout/ep_len_mean": Metric(what="length of an episode", over=EPISODES, formula="T", unit="steps"),
    "rollout/success_rate": Metric(
        what="share of the episodes that the world calls a success (info[\"is_success\"])", over=EPISODES,
        formula="successes / episodes", unit="share",
    ),
    "eval/mean_reward": Metric(
        what="return of an episode, in the world's own reward, with the most likely actions", over=EVALUATED,
        formula="Σ_{t=0}^{T−1} r_t", unit="reward",
    ),
    "eval/mean_ep_length": Metric(
        what="length of an episode with the most likely actions", over=EVALUATED, formula="T", unit="steps"
    ),
    "rollout/truncated_share": Metric(
        what="share of the episodes that a time limit ended", over="the episodes that ended in this rollout",
        formula="truncated / ended", unit="share",
    ),
    "train/approx_kl": Metric(
        what="sampled estimate of how far the policy moved", over=MINIBATCHES, by=divergences.k3,
        given=f"{_KL}, x = a_t ∼ π_old(·|s_t)",
    ),
    "train/kl": Metric(
        what="how far the policy moved in this update, exact in each state",
        over="all real steps of the rollout, once, after the last epoch",
        by=distribution.Categorical.kl, given=_KL, formula="E_{a ∼ p(·|s_t)}[log p(a|s_t) − log q(a|s_t)]", unit="nats",
    ),
    "train/clip_fraction": Metric(
        what="share of decisions whose ratio has left the clip range", over=MINIBATCHES, by=objectives.clip_fraction,
        formula="r_t(θ) < 1 − ε_low or r_t(θ) > 1 + ε_high", unit="share",
    ),
    "train/ess": Metric(
        what="effective sample size, as a share of the samples", over=MINIBATCHES, by=importance.effective_sample_size,
        given="w = r_t(θ); divided by the number of steps", unit="share",
    ),
    "train/ratio_deviation": Metric(
        what="largest distance of a ratio from 1", over="largest of each minibatch, then mean over the minibatches",
        by=importance.ratio, given="max |r_t(θ) − 1|", unit="no unit",
    ),
    "train/first_ratio_deviation": Metric(
        what="largest distance of a ratio from 1 before any step: rounding, or π_old is not what acted",
        over="the first minibatch of the update", by=importance.ratio, given="max |r_t(θ) − 1|", unit="no unit",
    ),
    "train/minibatches": Metric(
        what="optimiser steps of this update; fewer than planned where target_kl stopped it", over="the update",
        formula="count", unit="steps",
    ),
    "train/act_mismatch": Metric(
        what="how far the recorded log π of whoever acted is from the scored one",
        over="the rows where it was recorded", formula="max |log π_actor(a_t|s_t) − log π_old(a_t|s_t)|", unit="nats",
    ),
    "train/policy_gradient_loss": Metric(
        what="the actor's objective, negated, without the entropy bonus", over=MINIBATCHES, by=loss,
        formula="−reduce(objective_t)", given="objective_t as in vantage explain ppo", unit="Ψ",
    ),
    "train/policy_objective": Metric(
        what="the actor's objective before the natural step", over=ROLLOUT, by=objectives.importance_weighted,
        formula="reduce(r_t(θ) Ψ_t + c_ent H)", unit="Ψ",
    ),
    "train/surrogate_gain": Metric(
        what="what the update added to the actor's objective; with TRPO, what the accepted step did", over=LEARNED,
        by=loss, formula="reduce(objective_t + c_ent H_t) at π_θ after − at π_old",
        given="objective_t as in vantage explain ppo; Ψ_t whitened over all of it", unit="Ψ",
    ),
    "train/line_search_steps": Metric(
        what="step lengths tried before one kept the KL within δ and raised the objective", over="the update",
        formula="count", unit="tries",
    ),
    "train/is_line_search_success": Metric(
        what="whether a step length was accepted; otherwise the actor stayed as it was", over="the update",
        formula="1 if accepted, else 0", unit="yes or no",
    ),
    "train/entropy_loss": Metric(
        what="the policy's entropy, negated: it rises towards 0 as a discrete policy becomes certain", over=MINIBATCHES,
        by=distribution.Categorical.entropy, formula="−H(π_θ(·|s_t)) = E_{a ∼ π_θ(·|s_t)}[log π_θ(a|s_t)]", unit="nats",
    ),
    "train/value_loss": Metric(
        what="the critic's loss, without ½ and before vf_coef", over=MINIBATCHES, by=critics.squared,
        given="or what the recipe's critic says: see vantage explain ppo",
    ),
    "train/loss": Metric(what="what the optimiser minimises", over=MINIBATCHES, by=loss, unit="Ψ"),
    "train/explained_variance": Metric(
        what="how much of the critic's target the critic predicted", over=ROLLOUT, by=critics.explained_variance,
        given="V = V_old, R = R_t", unit="1 is perfect, 0 no better than a constant, below 0 worse",
    ),
    "train/learning_rate": Metric(what="step size of the optimiser", over="the update", formula="lr", unit="no unit"),
    "train/critic_learning_rate": Metric(
        what="step size of the critic's optimiser", over="the update", formula="lr", unit="no unit"
    ),
    "train/clip_range": Metric(what="ε now", over="the update", formula="ε", unit="ratio"),
    "train/beta": Metric(
        what="the price of KL after this update", over="the update, after its last epoch", formula="β", unit="Ψ per nat"
    ),
    "train/std": Metric(
        what="standard deviation of a Gaussian policy", over="action entries", formula="σ = exp(log σ)", unit="action"
    ),
    "train/grad_norm": Metric(
        what="length of the gradient before it is clipped", over="the minibatches of the update", formula="‖∇ loss‖₂",
        unit="loss per parameter",
    ),
    "train/actor_grad_norm": Metric(
        what="length of the actor's part of the gradient before it is clipped; with TRPO, before the natural step",
        over="the minibatches of the update", formula="‖∇_θ loss‖₂", unit="loss per parameter",
    ),
    "train/critic_grad_norm": Metric(
        what="length of the critic's part of the gradient before it is clipped", over="the minibatches of the update",
        formula="‖∇_φ loss‖₂", unit="loss per parameter",
    ),
    "train/n_updates": Metric(what="epochs made so far", over="the run", formula="count", unit="epochs"),
    "time/fps": Metric(what="environment steps per second", over="this run", formula="steps / seconds", unit="1/s"),
    "time/iterations": Metric(what="rollouts so far", over="the run", formula="count", unit="rollouts"),
    "time/total_timesteps": Metric(what="environment steps so far", over="the run", formula="count", unit="steps"),
    "time/time_elapsed": Metric(what="time since this start", over="this run", formula="clock", unit="seconds"),
}  # fmt: skip


_AS_TRAINED = ("surrogate_gain", "kl", "approx_kl", "clip_fraction", "ess", "explained_variance")
METRICS |= {f"held_out/{name}": replace(METRICS[f"train/{name}"], over=HELD) for name in _AS_TRAINED}
METRICS["held_out/entropy"] = Metric(
    what="entropy of the policy after the update", over=HELD, by=distribution.Categorical.entropy,
    formula="H(π_θ(·|s_t)) = −E_{a ∼ π_θ(·|s_t)}[log π_θ(a|s_t)]", unit="nats",
)  # fmt: skip


def _of_texts(
    what: str, formula: str, unit: str, over: str = "the completions of this update", by: Any = None
) -> Metric:
    return Metric(what=what, formula=formula, unit=unit, over=over, by=by)


_HELD = "the held-out completions of one evaluation"
METRICS |= {
    "objective/scores": _of_texts("what the reward gave, untouched: mean", "mean R(prompt, y)", "score"),
    "objective/scores_std": _of_texts("what the reward gave, untouched: deviation", "std R(prompt, y)", "score"),
    "objective/kl": _of_texts(
        "how far the actor is from the reference, summed over a completion; may be negative by chance",
        "mean Σ_t log π(y_t|…) − log π_ref(y_t|…)", "nats per completion", by=divergences.k1,
    ),
    "objective/kl_coef": _of_texts("the price of that KL in this update", "β", "score per nat", "the update"),
    "objective/non_score_reward": _of_texts("what the KL to the reference cost", "−β · objective/kl", "score"),
    "objective/rlhf_reward": _of_texts(
        "what Ψ reads: the shaped score, less the KL where it stands in the reward", "mean Σ_t r_t", "score"
    ),
    "objective/entropy": _of_texts("surprise of a whole completion", "mean −Σ_t log π(y_t|…)", "nats per completion"),
    "policy/entropy_avg": _of_texts("surprise of a token", "−Σ log π(y_t|…) / tokens", "nats"),
    "completions/mean_length": _of_texts("tokens that the actor chose: mean", "mean T", "tokens"),
    "completions/max_length": _of_texts("tokens that the actor chose: longest", "max T", "tokens"),
    "completions/clipped_ratio": _of_texts("share that the length limit cut", "cut / completions", "share"),
    "val/num_eos_tokens": _of_texts("completions that ended by themselves", "count", "completions"),
    "val/ratio": _of_texts("mean ratio", "mean r_t(θ)", "no unit", MINIBATCHES, importance.ratio),
    "val/ratio_var": _of_texts("variance of the ratio", "var r_t(θ)", "no unit", MINIBATCHES, importance.ratio),
    "train/value_clip_fraction": _of_texts(
        "share of tokens whose value has left its band", "|V − V_old| > width", "share", MINIBATCHES
    ),
    "frac_reward_zero_std": _of_texts(
        "share of the groups that teach nothing: all scores are alike", "groups with std R = 0 / groups", "share"
    ),
    "rewards/NAME/mean": _of_texts("what the reward function NAME gave, before weights: mean", "mean R_NAME", "score"),
    "rewards/NAME/std": _of_texts("what the reward function NAME gave: deviation", "std R_NAME", "score"),
    "eval/score": _of_texts("score of held-out prompts", "mean R(prompt, y)", "score", _HELD),
    "eval/score_se": _of_texts("standard error of eval/score", "std R / √n", "score", _HELD),
    "eval/kl": _of_texts("as objective/kl", "mean Σ_t log π − log π_ref", "nats per completion", _HELD),
    "eval/length": _of_texts("tokens of a completion", "mean T", "tokens", _HELD),
    "episode": _of_texts("completions so far", "count", "completions", "the run"),
    "time/tokens": _of_texts("tokens that the actor chose so far", "count", "tokens", "the run"),
}  # fmt: skip
METRICS |= {theirs: replace(METRICS[ours], what=f"{METRICS[ours].what} ({ours})") for ours, theirs in FAMILIAR.items()}


@dataclass(frozen=True, kw_only=True)
class MetricExplanation:
    """One metric: `str()` of it is what `vantage explain train/approx_kl` prints."""

    name: str
    what: str
    formula: str
    given: str
    unit: str
    over: str
    by: str
    note: str

    def to_dict(self) -> dict[str, str]:
        """The explanation as JSON-able data."""
        return asdict(self)

    def __str__(self) -> str:
        facts = {
            "formula": self.formula, "where": self.given, "unit": self.unit, "over": self.over, "computed by": self.by,
            "note": self.note,
        }  # fmt: skip
        return "\n".join([f"{self.name}: {self.what}", "", *(f"    {k:<13}{v}" for k, v in facts.items() if v)])


def explain_metric(name: str) -> MetricExplanation:
    """What a metric stands for: formula, unit, over what it is averaged, and the function that computes it."""
    metric = METRICS[name]
    text = " ".join((inspect.getdoc(metric.by) or "").split())
    unit = re.search(r"Units: (.+?)[.;](?:\s|$)", text)
    return MetricExplanation(
        name=name,
        what=metric.what,
        formula=metric.formula or "; ".join(block(metric.by)) if metric.by else metric.formula,
        given=metric.given,
        unit=metric.unit or (unit[1] if unit else ""),
        over=metric.over,
        by=f"{metric.by.__module__.removeprefix('vantage.')}.{metric.by.__qualname__}" if metric.by else "",
        note=_note(text),
    )


def _note(text: str) -> str:
    """What the docstring says about when the estimate is right."""
    found = re.search(r"((?:Unbiased|Biased|With a λ-return)[^.]*\.)", text)
    return found[1] if found else ""
