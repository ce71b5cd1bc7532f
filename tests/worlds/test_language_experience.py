"""From completions to a rollout, by hand: where the score stands, what a cut means, what a tool's answer costs."""

import numpy as np
import pytest

from tests.worlds.language_models import actor, torch
from vantage.language import Replace, Sequences, Shaping, Subtract
from vantage.language.experience import both_values, rollout, shaped, with_signal, with_values
from vantage.language.records import Experience, pad_left
from vantage.language.scoring import log_probs, token_log_prob
from vantage.recipe import GAE, RLOO, KLInLoss, KLInReward, RewardToGo
from vantage.theory.distributions import Categorical

T, F = True, False
SEEN = Sequences(
    ids=torch.arange(21).reshape(3, 7),
    mask=torch.tensor([[F, T, T, T, T, T, F], [T, T, T, T, F, F, F], [F, F, T, T, T, T, T]]),
    prompt=3,
)
"""Three completions of 3, 1 and 4 tokens."""
LOG_PROB = torch.tensor([[-1.0, -2.0, -3.0, 0.0], [-0.5, 0.0, 0.0, 0.0], [-1.0, -1.0, -1.0, -1.0]])
VALUES = torch.arange(15.0).reshape(3, 5)
ENDED = torch.tensor([True, True, False])
SCORE = torch.tensor([1.0, 2.0, 3.0])


def made(shaping=None, **options):
    return rollout(SEEN, LOG_PROB, SCORE, ENDED, shaping=shaping or Shaping(), values=VALUES, **options)


def test_the_score_stands_at_the_last_token():
    r = made(gamma=0.9)
    assert r.reward.T.tolist() == [[0, 0, 1, 0], [2, 0, 0, 0], [0, 0, 0, 3]]
    assert r.last.T.int().tolist() == [[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
    assert r.mask.T.int().tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]]
    np.testing.assert_allclose(r.discount.T[0, :3], [0.9, 0.9, 0.0])
    assert r.discount[3, 2] == 0.0, "the length limit ends the answer unless a truncation was asked for"
    assert r.time.T[0].tolist()[:3] == [0, 1, 2]


def test_a_truncation_bootstraps_from_what_was_reached():
    r = made(Shaping(length_cut="truncated"), gamma=0.9)
    assert float(r.discount[3, 2]) == pytest.approx(0.9)
    assert float(r.next_value[3, 2]) == 14.0
    assert float(r.discount[2, 0]) == 0.0
    assert float(r.discount[0, 1]) == 0.0


def test_values_are_those_before_and_after_each_token():
    r = made()
    assert r.value.T.tolist() == [[0, 1, 2, 0], [5, 0, 0, 0], [10, 11, 12, 13]]
    assert r.next_value.T.tolist() == [[1, 2, 3, 0], [6, 0, 0, 0], [11, 12, 13, 14]]


def test_a_tools_answer_is_skipped():
    """Two decisions, two tokens of a tool, one decision: GAE crosses the gap as if it were not there."""
    chosen = torch.tensor([[T, T, F, F, T]])
    seen = Sequences(ids=torch.zeros(1, 6, dtype=torch.int64), mask=torch.ones(1, 6, dtype=torch.bool), prompt=1,
                     chosen=chosen)  # fmt: skip
    values = torch.tensor([[1.0, 2.0, 99.0, 98.0, 3.0, 7.0]])
    ended, score = torch.tensor([True]), torch.tensor([1.0])
    r = rollout(seen, torch.zeros(1, 5), score, ended, gamma=0.5, values=values)
    assert r.next_value.T.tolist() == [[2.0, 3.0, 0.0, 0.0, 7.0]]
    assert r.time.T[0, [0, 1, 4]].tolist() == [0, 1, 2]
    short = Sequences(ids=torch.zeros(1, 4, dtype=torch.int64), mask=torch.ones(1, 4, dtype=torch.bool), prompt=1)
    dense = rollout(short, torch.zeros(1, 3), score, ended, gamma=0.5, values=values[:, [0, 1, 4, 5]])
    weights, target = GAE(lam=0.7, critic_lam=1.0)(r)
    same, aim = GAE(lam=0.7, critic_lam=1.0)(dense)
    torch.testing.assert_close(weights[[0, 1, 4]], same)
    torch.testing.assert_close(target[[0, 1, 4]], aim)
    assert weights[[2, 3]].abs().sum() == 0


def test_the_critic_may_have_a_lambda_of_its_own():
    r = made()
    weights, target = GAE(lam=0.0, critic_lam=1.0)(r)
    torch.testing.assert_close(weights, GAE(lam=0.0)(r)[0])
    torch.testing.assert_close(target, GAE(lam=1.0)(r)[1])


def test_kl_in_the_reward_and_in_the_loss():
    reference = LOG_PROB.T - 0.5
    had = Experience(rollout=made(), sequences=SEEN, score=SCORE, ended=ENDED, reference_log_prob=reference)
    priced = with_signal(had, KLInReward(), 0.2).rollout
    np.testing.assert_allclose(priced.signal.T[0], [-0.1, -0.1, 0.9, 0.0], atol=1e-6)
    assert torch.equal(priced.reward, had.rollout.reward), "the reward itself is never edited"
    assert torch.equal(with_signal(had, KLInLoss(), 0.2).rollout.signal, had.rollout.reward)
    white = with_signal(had, None, 0.0, Shaping(whiten_reward=True)).rollout.signal
    assert float(white.max()) > 0
    assert float(white[had.rollout.mask].std(correction=0)) == pytest.approx(1.0, rel=1e-4)


SHAPINGS = [
    (Shaping(), [1, 2, 3]),
    (Shaping(missing_eos=Replace(score=-1.0)), [1, 2, -1]),
    (Shaping(missing_eos=Subtract(amount=0.5)), [1, 2, 2.5]),
    (Shaping(score_clip=1.5), [1, 1.5, 1.5]),
    (Shaping(normalise_score=True), [-1, 0, 1]),
    (Shaping(normalise_score=True, score_clip=0.5, missing_eos=Replace(score=-9.0)), [-0.5, 0, -9]),
]


@pytest.mark.parametrize(("shaping", "expected"), SHAPINGS)
def test_shaping(shaping, expected):
    assert shaped(SCORE, ENDED, shaping, mean=2.0, std=1.0).tolist() == expected


def test_leave_one_out_of_a_group():
    r = rollout(SEEN.take([0, 1, 2, 0]), LOG_PROB[[0, 1, 2, 0]], torch.tensor([1.0, 2.0, 4.0, 9.0]),
                ENDED[[0, 1, 2, 0]], group=torch.tensor([0, 0, 1, 1]))  # fmt: skip
    weights, _ = RLOO(group_size=2).psi(r)
    np.testing.assert_allclose(weights[0], [-1.0, 1.0, -5.0, 5.0])
    gain = RewardToGo()(r)[0]
    assert gain[0].tolist() == [1.0, 2.0, 4.0, 9.0]


def test_log_probs_are_the_theorys():
    """One log-sum-exp, in chunks or at once: the categorical distribution of `theory`, in float32."""
    logits = 3.0 * torch.randn(3, 4, 11, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 0, 1]])
    expected = Categorical(logits).log_prob(tokens)
    torch.testing.assert_close(token_log_prob(logits, tokens), expected)
    half = token_log_prob(logits.bfloat16(), tokens)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, Categorical(logits.bfloat16().float()).log_prob(tokens))


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "qwen3"])
def test_log_probs_of_a_padded_text_are_those_of_the_text(family):
    """Each completion alone, without padding, by the plainest forward pass."""
    model = actor(family).double().eval()
    with torch.no_grad():
        found = log_probs(model, SEEN, temperature=0.7)
        for b in range(3):
            ids = SEEN.ids[b][SEEN.mask[b]][None]
            n = int(SEEN.real[b].sum())
            plain = (model(input_ids=ids).logits[0, :-1] / 0.7).log_softmax(-1)
            alone = plain.gather(-1, ids[0, 1:, None])[-n:, 0]
            torch.testing.assert_close(found[b, :n], alone, rtol=1e-9, atol=1e-9)
            assert not found[b, n:].any()


def test_trimming_takes_common_padding_away_alone():
    seen = Sequences(ids=SEEN.ids, mask=SEEN.mask, prompt=3).take([0])
    cut = seen.trimmed()
    assert cut.ids.tolist() == [[1, 2, 3, 4, 5]]
    assert (cut.prompt, cut.positions.tolist()) == (2, [[0, 1, 2, 3, 4]])
    ids, mask = pad_left([(4,), (5, 6, 7)], pad=0)
    assert ids.tolist() == [[0, 0, 4], [5, 6, 7]]
    assert mask.int().tolist() == [[0, 0, 1], [1, 1, 1]]


def test_values_of_another_moment():
    had = Experience(rollout=made(), sequences=SEEN, score=SCORE, ended=ENDED)
    again = with_values(had, VALUES + 100.0).rollout
    torch.testing.assert_close(again.value[:3, 0], had.rollout.value[:3, 0] + 100.0)
    value, reached = both_values(SEEN, VALUES)
    assert torch.equal(value, had.rollout.value)
    assert torch.equal(reached, had.rollout.next_value)
