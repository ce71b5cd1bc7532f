"""Somebody answers inside a completion: what the actor did not choose is read, and is no decision of anybody."""

from dataclasses import fields, replace

import numpy as np
import pytest

from tests.worlds.language_models import END, actor, late_words, prompts, tokenizer, torch
from vantage.language import RLHF, LoRA, Sampling
from vantage.language.data import load
from vantage.language.experience import with_signal
from vantage.recipe import GRPO, PPO, KLInLoss, KLInReward, PPOPenalty, Separate

STOP = (END, *range(2, 20))
"""More than half of all words end a turn."""


def twice(completions, prompts, topic, **others):
    """A tool that answers two turns of each completion; `topic` is a column of the data."""
    asked = [text.split().count("w30") for text in completions]
    return ["w30 w31" if n < 2 and t == "tools" else None for n, t in zip(asked, topic, strict=True)]


ROWS = [{"prompt": text, "topic": "none" if i % 4 == 3 else "tools"} for i, text in enumerate(prompts())]


def run(reply=twice, recipe=None, model=None, **options) -> RLHF:
    rlhf = RLHF(
        model or actor(), late_words, recipe or PPO(), tokenizer=tokenizer(), reply=reply, batch_size=8, micro_batch=3,
        sampling=Sampling(max_new_tokens=12), optim=Separate(actor_lr=1e-2, critic_lr=1e-2), **options,
    )  # fmt: skip
    rlhf.stop = STOP
    return rlhf


def test_a_reply_is_read_and_chosen_by_nobody():
    rlhf = run()
    rlhf.world.prompts = load(ROWS, tokenizer())
    record = rlhf.world.collect(rlhf.settings.recipe)
    seen = rlhf.world.experience
    heard = seen.sequences.real & ~seen.sequences.decisions
    assert int(heard.sum()) >= 8
    ids = seen.sequences.completion
    assert set(ids[heard].tolist()) == {30, 31}
    assert torch.equal(record.mask.T, seen.sequences.decisions)
    for b in range(8):
        row = ids[b][seen.sequences.real[b]].tolist()
        spoken = seen.sequences.decisions[b][seen.sequences.real[b]].tolist()
        for t in range(1, len(row)):
            if not spoken[t] and spoken[t - 1]:
                assert row[t - 1] in STOP, "a reply follows a turn that has ended"
        assert len(row) <= 12
    assert float(record.actor_log_prob[record.mask].abs().min()) > 0
    gap = (record.actor_log_prob - record.log_prob)[record.mask].abs().max()
    assert float(gap) < 1e-4, "each turn was sampled after what was said before"


def test_noise_belongs_to_column_and_position():
    """A completion is the same whoever else is in the batch, and the first turn is that of a run without a tool."""
    whole, alone, silent = run().world, run().world, run(reply=lambda completions: [None] * len(completions)).world
    asked = load(ROWS[:4], tokenizer())
    noise = torch.rand(12, 4, generator=torch.Generator().manual_seed(0))
    says = whole._generator.complete(asked, noise)
    one = alone._generator.complete(asked.take([1]), noise[:, 1:2])
    n = int(one.mask.sum())
    assert torch.equal(says.ids[1, :n], one.ids[0, :n]) and int(says.mask[1].sum()) == n
    first = silent._generator.complete(asked, noise)
    for b in range(4):
        length = int(first.mask[b].sum())
        assert torch.equal(says.ids[b, :length], first.ids[b, :length])
    assert int(says.mask.sum()) > int(first.mask.sum())


OPTIONS = {
    "PPO": dict(kl=KLInReward(beta=0.1)),
    "penalty, whitened minibatches": dict(recipe=PPOPenalty(beta=1.0, whiten="minibatch", ent_coef=0.1)),
    "GRPO, k3": dict(recipe=GRPO(group_size=2), kl=KLInLoss(estimator="k3")),
    "LoRA": dict(lora=LoRA(rank=2)),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_what_stands_at_a_reply_changes_nothing(name):
    """NaN in every number that the record holds where somebody else spoke: the same update, bit for bit."""
    ends = []
    for spoilt in (False, True):
        rlhf = run(model=actor(), **OPTIONS[name])
        world, chosen = rlhf.world, rlhf.settings
        world.prompts = load(ROWS, tokenizer())
        world.collect(chosen.recipe)
        if spoilt:
            world.experience = _spoilt(world.experience)
            world.experience = with_signal(world.experience, chosen.kl, world.kl_coef, chosen.shaping)
        row = world.update(chosen.recipe, world.experience.rollout, 0.0)
        moved = [*world._roles.actor_parameters, *world._roles.critic_parameters]
        ends.append((torch.cat([p.detach().flatten() for _, p in moved]), row))
    assert torch.isfinite(ends[0][0]).all()
    assert torch.equal(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]


def _spoilt(had):
    record, hidden = had.rollout, ~had.rollout.mask & had.sequences.real.T
    assert int(hidden.sum()) >= 4
    names = [f.name for f in fields(record) if f.name in
             ("reward", "signal", "log_prob", "value", "next_value", "actor_log_prob")]  # fmt: skip
    bad = record.map(lambda x: torch.where(hidden, torch.full_like(x, float("nan")), x), *names)
    reference = torch.where(hidden, torch.full_like(had.reference_log_prob, float("nan")), had.reference_log_prob)
    return replace(had, rollout=bad, reference_log_prob=reference)


def test_it_trains_and_says_what_the_actor_said():
    report = run().learn(ROWS, total_episodes=24)
    assert all(np.isfinite(x) for row in report.rows for x in row.values())
    assert all(row["train/first_ratio_deviation"] < 1e-4 for row in report.rows)


IN_PROCESSES = """
import json, sys
from tests.worlds.test_turns import ROWS, run
rlhf = run()
rows = rlhf.learn(ROWS, total_episodes=16).rows
seen = rlhf.world.experience.sequences
heard = int((seen.real & ~seen.decisions).sum())
if rlhf.world.first:
    told = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]
    json.dump([told, heard], open(sys.argv[1], "w"))
"""


@pytest.mark.slow
def test_two_processes_hear_what_one_does(tmp_path):
    """Each has its own share of the turns, which need not be equally many; the run is that of one process."""
    from tests.worlds.test_language_update import trained

    rows, heard = trained(tmp_path / "one.json", 1, script=IN_PROCESSES)
    both, theirs = trained(tmp_path / "two.json", 2, script=IN_PROCESSES)
    assert heard == theirs >= 8
    assert len(rows) == len(both) == 2
    for one, two in zip(rows, both, strict=True):
        for key in one:
            rel = 1e-5 if "loss" in key else 1e-4
            assert two[key] == pytest.approx(one[key], rel=rel, abs=1e-6 if "loss" in key else 1e-5), key


BAD = [
    (lambda completions: "no", ValueError, "reply returned 'no' for .* completions: return one text or None for each"),
    (lambda completions: [3] * len(completions), TypeError, "reply returned 3: return a text, or None where"),
    (lambda completions, answer: None, ValueError, "reply 'reward' needs 'answer', which is no column of the prompts"),
]


@pytest.mark.parametrize(("reply", "error", "says"), BAD)
def test_a_bad_reply_is_named(reply, error, says):
    with pytest.raises(error, match=says):
        run(reply=reply).learn(prompts(), total_episodes=8)
