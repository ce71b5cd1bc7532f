"""What a run reports: our names, and beside them those that users of RLHF libraries know."""

from typing import Any

from vantage.language.moving import rate
from vantage.language.records import Experience
from vantage.recipe import Clip, Recipe, value
from vantage.runs.familiar import FAMILIAR
from vantage.theory import critics, divergences, reduce


def of_experience(experience: Experience, beta: float, recipe: Recipe) -> dict[str, float]:
    """Scores, KL, entropy and lengths of what was collected; sums over a completion's decisions, means over
    completions.
    """
    record, mask = experience.rollout, experience.rollout.mask
    columns = reduce.total_columns(record.reward, mask)
    surprise = float(reduce.reduce(-record.log_prob, mask, total=columns))
    decisions = mask.sum(0).to(record.log_prob.dtype)
    found = {
        "objective/scores": float(experience.score.mean()),
        "objective/scores_std": float(experience.score.std(correction=0)),
        "objective/entropy": surprise,
        "policy/entropy_avg": surprise / float(decisions.mean()),
        "objective/rlhf_reward": float(reduce.reduce(record.signal, mask, total=columns)),
        "completions/mean_length": float(decisions.mean()),
        "completions/max_length": float(decisions.max()),
        "completions/clipped_ratio": 1.0 - float(experience.ended.double().mean()),
        "val/num_eos_tokens": float(experience.ended.sum()),
    }
    if experience.reference_log_prob is not None:
        kl = float(reduce.reduce(divergences.k1(record.log_prob, experience.reference_log_prob), mask, total=columns))
        found |= {"objective/kl": kl, "objective/non_score_reward": -beta * kl}
    if record.value is not None:
        _, target = recipe.psi(record)
        found["train/explained_variance"] = float(critics.explained_variance(record.value, target, mask))
    if record.group is not None:
        found |= _groups(experience)
    return found


def _groups(experience: Experience) -> dict[str, float]:
    """How many groups teach nothing, because all their scores are alike."""
    group, score = experience.rollout.group, experience.score
    if group is None or len(group) == int(group.max()) + 1:
        return {}
    flat = [float(score[group == g].std(correction=0)) == 0.0 for g in range(int(group.max()) + 1)]
    return {"frac_reward_zero_std": sum(flat) / len(flat)}


def told(recipe: Recipe, optim: Any, episodes: int, tokens: int) -> dict[str, float]:
    """What was chosen or counted rather than measured."""
    found = {
        "train/learning_rate": rate(optim, "actor"),
        "episode": float(episodes),
        "time/tokens": float(tokens),
    }
    if recipe.critic is not None:
        found["train/critic_learning_rate"] = rate(optim, "critic")
    if isinstance(recipe.objective, Clip):
        found["train/clip_range"] = value(recipe.objective.low, 0.0)
    return found


def with_familiar_names(row: dict[str, float]) -> dict[str, float]:
    """The row with each number that other libraries report under their name too."""
    return row | {theirs: row[ours] for ours, theirs in FAMILIAR.items() if ours in row}
