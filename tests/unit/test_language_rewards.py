"""Rewards: called as TRL calls them, summed with weights, and every failure named with the experience saved."""

import asyncio
import json
from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.unit._tokens import TEMPLATE, tokenizer  # noqa: E402
from vantage.language import classifier, rewards  # noqa: E402

PROMPTS, COMPLETIONS = ["the cat", "a dog"], ["sat .", "ran far far"]
IDS = [[7, 23, 1], [13, 14, 14]]
COLUMNS = {"answer": [3, 4]}


def score(source, **options):
    return rewards.make(source, **options).score(PROMPTS, COMPLETIONS, COLUMNS, IDS)


def length(completions, **kwargs):
    return [float(len(completion)) for completion in completions]


def test_a_function_gets_what_trl_gives():
    seen = {}

    def reward(prompts, completions, completion_ids, answer, **kwargs):
        seen.update(prompts=prompts, completions=completions, completion_ids=completion_ids, answer=answer, rest=kwargs)
        return [1, 2.5]

    assert score(reward).tolist() == [1.0, 2.5]
    assert seen.pop("rest").keys() == {"log_extra", "log_metric"}
    assert seen == {"prompts": PROMPTS, "completions": COMPLETIONS, "completion_ids": IDS, "answer": [3, 4]}


@pytest.mark.parametrize(
    "function",
    [
        length,
        lambda completions: [len(completion) for completion in completions],
        lambda *, completions, other=1: np.array([len(completion) for completion in completions]),
        lambda completions: torch.tensor([len(completion) for completion in completions]),
        lambda completions: [np.float32(len(completion)) for completion in completions],
        partial(length, extra=1),
    ],
)
def test_any_form_of_function_and_answer(function):
    found = score(function)
    assert found.dtype == np.float64
    assert found.tolist() == [5.0, 11.0]


def test_coroutines_wait_together():
    here = asyncio.Event()

    async def first(completions):
        await asyncio.wait_for(here.wait(), 5)
        return [1.0, 2.0]

    async def second(completions):
        here.set()
        return [10.0, 20.0]

    assert score([first, second]).tolist() == [11.0, 22.0]

    async def inside_a_loop():
        return score(second)

    assert asyncio.run(inside_a_loop()).tolist() == [10.0, 20.0]


def test_weights_none_and_metrics():
    def some(completions):
        return [None, 2.0]

    made = rewards.make([(length, 0.5), some])
    assert made.score(PROMPTS, COMPLETIONS).tolist() == [2.5, 7.5]
    assert made.parts["length"].tolist() == [5.0, 11.0]
    assert np.isnan(made.parts["some"][0])
    std = float(torch.tensor([5.0, 11.0]).std())
    assert made.metrics() == {
        "rewards/length/mean": 8.0, "rewards/length/std": pytest.approx(std), "rewards/some/mean": 2.0,
    }  # fmt: skip


def test_what_a_function_logs():
    def reward(completions, log_metric, log_extra):
        log_metric("share", 0.25)
        log_metric("share", 0.75)
        log_extra("note", ["a", "b"])
        return [1, 1]

    made = rewards.make(reward)
    for _ in range(2):
        made.score(PROMPTS, COMPLETIONS)
        assert made.metrics()["share"] == 0.5
        assert made.extra == {"note": ["a", "b"]}


def test_two_functions_of_one_name():
    made = rewards.make([lambda completions: [1, 1], lambda completions: [2, 2]])
    made.score(PROMPTS, COMPLETIONS)
    assert list(made.parts) == ["reward", "reward-2"]


def fails(completions):
    raise KeyError("key")


WRONG = {
    "short": (lambda completions: [1.0], "reward 'reward' returned 1 numbers for 2 completions"),
    "nan": (lambda completions: [1.0, float("nan")], "returned nan for row 1: return a finite number"),
    "infinite": (lambda completions: [float("inf"), 0], "returned inf for row 0"),
    "text": (lambda completions: [1.0, "good"], "returned 'good' for row 1: return a number"),
    "one number": (lambda completions: 3.0, "returned a float: return a list of one number"),
    "raises": (fails, "reward 'fails' raised KeyError: 'key'; mend it, or let it be asked again with retries"),
    "none applies": (lambda completions: [1.0, None], "no reward applies to row 1"),
    "no such column": (lambda truth: [1.0], "needs 'truth', which is no column of the prompts .there are answer."),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_failure_is_named_and_the_experience_saved(case, tmp_path):
    function, message = WRONG[case]
    made = rewards.make([length, function] if case != "none applies" else function)
    with pytest.raises(rewards.RewardError, match=message) as caught:
        made.score(PROMPTS, COMPLETIONS, COLUMNS, IDS)
    lines = [json.loads(line) for line in caught.value.save(tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [line["prompt"] for line in lines] == PROMPTS
    assert [line["completion_ids"] for line in lines] == IDS
    assert [line["answer"] for line in lines] == [3, 4]
    if case != "none applies":
        assert [line["scores"]["length"] for line in lines] == [5.0, 11.0]


def test_a_failing_reward_is_asked_again_and_the_others_are_not():
    calls = {"bad": 0, "good": 0}

    def bad(completions):
        calls["bad"] += 1
        if calls["bad"] < 3:
            raise ConnectionError("gone")
        return [1.0, 1.0]

    def good(completions):
        calls["good"] += 1
        return [1.0, 1.0]

    assert score([bad, good], retries=2).tolist() == [2.0, 2.0]
    assert calls == {"bad": 3, "good": 1}
    calls["bad"] = 0
    with pytest.raises(rewards.RewardError, match="ConnectionError"):
        score([bad, good], retries=1)


def test_columns_are_checked_before_any_work():
    made = rewards.make(lambda completions, truth: [0, 0])
    made.check(["truth"])
    with pytest.raises(ValueError, match="needs 'truth'"):
        made.check(["answer"])


@pytest.mark.parametrize(
    ("source", "message"),
    [([], "empty list"), (3, "reward has 3: give a function"), (lambda x, /: x, "takes 'x' by position")],
)
def test_what_cannot_score_is_refused(source, message):
    with pytest.raises((TypeError, ValueError), match=message):
        rewards.make(source)


def test_negative_retries_are_refused():
    with pytest.raises(ValueError, match="retries = -1"):
        rewards.make(length, retries=-1)


def llama(**changes):
    from transformers import LlamaConfig, LlamaForSequenceClassification

    sizes = dict(vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    torch.manual_seed(0)
    return LlamaForSequenceClassification(LlamaConfig(**sizes, num_labels=1, pad_token_id=1, **changes))


def alone(model, ids):
    """The model's number for one text, read off at its last token without any padding."""
    with torch.no_grad():
        hidden = model.model(input_ids=torch.tensor([ids])).last_hidden_state
        return float(model.score(hidden)[0, -1, 0])


def test_the_score_is_that_of_the_last_real_token_where_pad_is_eos():
    model, tok = llama(), tokenizer(pad=None)
    found = rewards.make(model, tok).score(PROMPTS, COMPLETIONS, {}, IDS)
    texts = [tok(prompt)["input_ids"] + ids for prompt, ids in zip(PROMPTS, IDS, strict=True)]
    np.testing.assert_allclose(found, [alone(model, ids) for ids in texts], atol=1e-6)
    assert abs(found[0] - alone(model, texts[0][:-1])) > 1e-4, "the end-of-sequence token is read"


def test_another_tokenizer_reads_the_text():
    model, own, actors = llama(), tokenizer(), tokenizer(pad=None)
    own.add_tokens(["new"])
    made = rewards.make(classifier.Classifier(model, own, actor_tokenizer=actors))
    found = made.score(PROMPTS, COMPLETIONS, {}, IDS)
    texts = [[*own("the cat sat .")["input_ids"], own.eos_token_id], own("a dog ran far far")["input_ids"]]
    reads = [made.scorers[0].tokens(rewards.Batch(prompts=["the cat "], completions=["sat ."], completion_ids=IDS), 0)]
    assert reads[0] == texts[0], "only what the actor ended is ended"
    assert np.isfinite(found).all()


def test_conversations_go_through_the_models_own_template():
    model, tok = llama(), tokenizer(template=TEMPLATE)
    prompts = [[{"role": "user", "content": "the cat"}]]
    replies = [[{"role": "assistant", "content": "sat"}]]
    found = rewards.make(model, tok).score(prompts, replies)
    assert found[0] == pytest.approx(alone(model, tok("<user> the cat <e> <assistant> sat <e>")["input_ids"]), abs=1e-6)


def test_a_model_from_a_folder_and_in_a_sum(tmp_path):
    model, tok = llama(), tokenizer()
    model.save_pretrained(tmp_path / "judge")
    tok.save_pretrained(tmp_path / "judge")
    made = rewards.make([(str(tmp_path / "judge"), 2.0), length], tok)
    both = made.score(PROMPTS, COMPLETIONS, {}, IDS)
    np.testing.assert_allclose(both, 2 * made.parts["judge"] + [5, 11])
    np.testing.assert_allclose(made.parts["judge"], rewards.make(model, tok).score(PROMPTS, COMPLETIONS, {}, IDS))
    assert made.model is made.scorers[0].model


def test_an_encoder_is_asked_as_a_whole():
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    model = BertForSequenceClassification(
        BertConfig(vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                   num_labels=1)
    ).eval()  # fmt: skip
    tok = tokenizer()
    found = rewards.make(model, tok).score(PROMPTS, COMPLETIONS, {}, IDS)
    ids = torch.tensor([tok(PROMPTS[1])["input_ids"] + IDS[1]])
    assert found[1] == pytest.approx(float(model(input_ids=ids).logits[0, 0].detach()), abs=1e-6)


def test_an_unfit_model_is_refused():
    from transformers import LlamaConfig, LlamaForSequenceClassification

    two = LlamaForSequenceClassification(
        LlamaConfig(vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    )
    with pytest.raises(ValueError, match="num_labels = 2: load one that gives a single number"):
        rewards.make(two, tokenizer())
    with pytest.raises(ValueError, match="a reward model needs a tokenizer"):
        rewards.make(llama())
    with pytest.raises(rewards.RewardError, match="row 0 has 5 tokens and the reward model reads 4"):
        rewards.make(llama(max_position_embeddings=4), tokenizer()).score(PROMPTS, COMPLETIONS, {}, IDS)
