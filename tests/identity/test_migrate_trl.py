"""What the page for users of TRL's PPOTrainer says: every argument is mapped, and numbers differ where it says they do.

The numbers were recorded from TRL 1.9.2: its own lines from the log-probabilities to the loss, run on the arrays below.
"""

import re
from pathlib import Path

import numpy as np
import pytest

from vantage.theory import critics, divergences, importance, objectives, psi, reduce, signal

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "migrate_trl.md").read_text(encoding="utf-8")
TRAINER = """args processing_class model ref_model reward_model train_dataset value_model data_collator eval_dataset
    optimizers callbacks peft_config"""
CONFIG = """dataset_num_proc num_mini_batches total_episodes local_rollout_forward_batch_size num_sample_generations
    response_length stop_token stop_token_id temperature missing_eos_penalty sft_model_path world_size num_total_batches
    micro_batch_size local_batch_size batch_size local_mini_batch_size mini_batch_size reward_model_path
    model_adapter_name ref_adapter_name num_ppo_epochs whiten_rewards kl_coef kl_estimator cliprange vf_coef
    cliprange_value gamma lam ds3_gather_for_generation learning_rate bf16 gradient_checkpointing logging_steps"""
"""What PPOConfig adds to TrainingArguments, and the fields of the latter whose default it changes."""


def mapped(section: str) -> set[str]:
    """The names in the first column of a section's table."""
    rows = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0].splitlines()
    return {name for row in rows if row.startswith("| ") for name in re.findall(r"`(\w+)", row.split("|")[1])}


@pytest.mark.parametrize(("section", "names"), [("PPOTrainer", TRAINER), ("PPOConfig", CONFIG)])
def test_every_argument_is_mapped(section, names):
    assert set(names.split()) - mapped(section) == set()


# Two answers in four positions: one that fills them, one of two tokens. 9 stands where nothing may be read.
LOG_PROB = np.array([[-0.5, -1.2, -0.3, -2.0], [-0.9, -1.6, 9, 9]]).T
REFERENCE = np.array([[-0.7, -1.0, -0.4, -1.5], [-1.1, -1.3, 9, 9]]).T
NEW = np.array([[-0.4, -1.0, -0.9, -1.9], [-0.95, -1.1, 9, 9]]).T
VALUE = np.array([[0.2, -0.1, 0.4, 0.3], [0.1, 0.6, -0.2, 9]]).T
NEW_VALUE = np.array([[0.5, 0.0, 0.45, -0.4], [0.2, 0.55, -0.6, 9]]).T
SCORE, BETA, CLIP = np.array([1.5, -0.7]), 0.1, 0.2
MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0]]).T > 0
AFTER = np.array([[1, 1, 1, 1], [1, 1, 1, 0]]).T > 0
"""With the position behind the last token, where TRL puts the score if there is room."""
N = 6

TRL = {
    "k1": [[0.2, -0.2, 0.1, -0.5], [0.2, -0.3, 0, 0]],
    "k3": [
        [0.018730753077981888, 0.0214027581601699, 0.004837418035959551, 0.1487212707001282],
        [0.018730753077981888, 0.04985880757600314, 0, 0],
    ],
    0.95: [[1.14644375, 1.543625, 1.0775, 1.25], [-0.70275, -1.245, -0.5, 0]],
    1.0: [[1.34, 1.66, 1.14, 1.25], [-0.79, -1.27, -0.5, 0]],
    "whitened": [
        [0.5406240889292483, 0.87887753094198, 0.4819091804516572, 0.6288162128133215],
        [-1.0342139752692268, -1.4960130378669798, 0, 0],
    ],
    "pg_loss": 0.13978691107794486,
    "vf_loss": 0.7143212660742186,
    "pg_clipfrac": 1 / 6,
    "approxkl": 0.04203125,
    "ratio": 1.0725633657007916,
    "entropy": 2.25,
}
"""By λ: advantages before they are whitened. From `whitened` on λ = 0.95 and the KL is k1's."""


def advantages(lam: float, mask: np.ndarray, ends: list[int]) -> np.ndarray:
    """By the library's own functions, with the score in row `ends[b]` of column b."""
    world = np.zeros((4, 2))
    world[ends, [0, 1]] = SCORE
    reads = signal.kl_signal(world, np.where(MASK, LOG_PROB, 0.0), np.where(MASK, REFERENCE, 0.0), BETA, mask)
    following = np.vstack([VALUE[1:], np.zeros((1, 2))])
    last = np.zeros((4, 2), bool)
    last[ends, [0, 1]] = True
    return psi.gae(reads, VALUE, np.where(last, 0.0, following), np.where(last, 0.0, 1.0), last, lam, mask=mask)


def of(name) -> np.ndarray:
    return np.array(TRL[name], float).T


def test_estimators_of_the_kl_agree():
    for name, estimate in (("k1", divergences.k1), ("k3", divergences.k3)):
        ours = np.where(MASK, estimate(LOG_PROB, REFERENCE), 0.0)
        np.testing.assert_allclose(ours, of(name), atol=1e-12)


@pytest.mark.parametrize("lam", [0.95, 1.0])
def test_advantages_differ_where_the_score_stands(lam):
    np.testing.assert_allclose(advantages(lam, AFTER, [3, 2]), of(lam), atol=1e-12, err_msg="TRL's place of the score")
    ours, theirs = advantages(lam, MASK, [3, 1]), of(lam)
    np.testing.assert_allclose(ours[:, 0], theirs[:, 0], atol=1e-12, err_msg="no room behind the last token")
    gap = theirs[1, 1] - ours[1, 1]
    assert gap == pytest.approx((lam - 1) * SCORE[1] + (1 - lam) * VALUE[2, 1], abs=1e-12)
    assert bool(abs(gap) > 1e-3) == (lam < 1)


def test_whitening_divides_by_one_more():
    ours, theirs = reduce.whiten(of(0.95), MASK), of("whitened")
    np.testing.assert_allclose(ours[MASK] / theirs[MASK], np.sqrt(N / (N - 1)), rtol=1e-7)
    np.testing.assert_allclose(reduce.whiten(of(0.95), MASK, ddof=1), theirs, atol=1e-7)


def test_the_losses_agree_but_for_the_half_and_the_place_behind():
    ratio = importance.ratio(np.where(MASK, NEW, 0.0), np.where(MASK, LOG_PROB, 0.0))
    gain = objectives.clipped(ratio, of("whitened"), CLIP)
    assert -reduce.mean(gain, MASK) == pytest.approx(TRL["pg_loss"], abs=1e-12)
    target = np.where(AFTER, of(0.95) + VALUE, 0.0)
    error = critics.clipped_value(NEW_VALUE, VALUE, target, CLIP)
    assert 0.5 * reduce.mean(error, AFTER) == pytest.approx(TRL["vf_loss"], abs=1e-12)


def test_the_metrics_differ_as_it_says():
    ratio = importance.ratio(np.where(MASK, NEW, 0.0), np.where(MASK, LOG_PROB, 0.0))
    assert (objectives.clip_fraction(ratio, CLIP) & MASK).sum() / N == pytest.approx(3 / N)
    bites = (ratio * of("whitened") > objectives.clipped(ratio, of("whitened"), CLIP)) & MASK
    assert bites.sum() / N == pytest.approx(TRL["pg_clipfrac"])
    k2 = divergences.k2(LOG_PROB, NEW)
    assert reduce.reduce(k2, MASK, total=float(MASK.size)) == pytest.approx(TRL["approxkl"])
    padded = float((~MASK).sum())
    assert (reduce.reduce(ratio, MASK, total=1.0) + padded) / MASK.size == pytest.approx(TRL["ratio"])
    surprise = reduce.reduce(-LOG_PROB, MASK, total=1.0)
    assert (surprise - padded) / 2 == pytest.approx(TRL["entropy"]), "each padded position counts −1"
