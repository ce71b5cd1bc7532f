"""vLLM as the generator: what it completes, that it follows the actor, when it sleeps, what is said of failures."""

import copy
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.worlds.language_models import actor, late_words, prompts, tokenizer, torch
from tests.worlds.vllm_engine import Engine, module, server
from vantage.language import RLHF, VLLM, LoRA, Sampling, VLLMServer
from vantage.language.data import load
from vantage.language.generators import Generator
from vantage.language.roles import build
from vantage.language.update import Plan, prepare
from vantage.language.vllm import plain_weights
from vantage.recipe import PPO, RLOO, Banded, Separate, Truncated

WAY = ["wake weights", "reload", "reset", "wake kv_cache", "complete", "sleep"]


def run(generator, **options) -> RLHF:
    options = {"batch_size": 8, "recipe": PPO(n_epochs=1), **options}
    return RLHF(
        actor(), late_words, options.pop("recipe"), tokenizer=tokenizer(), sampling=Sampling(max_new_tokens=5),
        generator=generator, optim=Separate(actor_lr=1e-2, critic_lr=1e-2), **options,
    )  # fmt: skip


@pytest.fixture
def engine(monkeypatch):
    """An engine that has other weights than the actor, until it is given some."""
    made = Engine(actor(seed=7).eval())
    monkeypatch.setitem(sys.modules, "vllm", module(made))
    return made


@pytest.fixture(params=["server", "in process"])
def chosen(request, engine):
    if request.param == "in process":
        yield VLLM(memory=0.2)
    else:
        with server(engine) as url:
            yield VLLMServer(url=url)


def both(chosen, **options) -> tuple[Any, Any]:
    """The engine and the actor itself, of one run."""
    following, local = run(chosen, **options).world._generator, run(None, **options).world._generator
    assert isinstance(following, Generator) and isinstance(local, Generator)
    return following, local


@pytest.mark.parametrize("lora", [None, LoRA(rank=2)], ids=["full", "LoRA"])
def test_the_likeliest_completions_are_the_actors_own(chosen, lora):
    """Same ids in, same ids, ends and log-probabilities out, before and after the actor has moved."""
    following, local = both(chosen, lora=lora)
    following._stop = stop = (0, 12, 17)  # what the likeliest completions come to
    local = replace(local, stop=stop)
    asked = load(prompts(), tokenizer())
    seen = []
    for moved in (0.0, 0.2):
        with torch.no_grad():
            for model in (following._actor, local.actor):
                for p in (p for p in model.parameters() if p.requires_grad):
                    p.add_(moved * torch.sin(torch.arange(p.numel())).view_as(p))
        following.moved()
        with following.ready(), local.ready():
            theirs, ours = following.complete(asked), local.complete(asked)
        assert torch.equal(theirs.ids, ours.ids) and torch.equal(theirs.mask, ours.mask)
        assert torch.equal(theirs.ended, ours.ended)
        assert moved or 0 < int(ours.ended.sum()) < len(ours.ended), "some end, some are cut"
        torch.testing.assert_close(theirs.log_prob, ours.log_prob, rtol=1e-4, atol=1e-5)
        seen.append(ours.ids)
    assert seen[0].shape != seen[1].shape or not torch.equal(*seen), "the second round must be told from the first"


def test_training_samples_from_the_present_weights(chosen, engine):
    """Three updates of a group recipe: the engine's log-probabilities are the trainer's at every one, and it slept."""
    rlhf = run(chosen, recipe=RLOO(group_size=4), kl=None)
    assert rlhf.settings.correction == Truncated()
    rows = rlhf.learn(prompts(), total_episodes=24).rows
    assert [row["train/act_mismatch"] < 1e-4 for row in rows] == [True] * 3
    assert float(np.ptp([row["objective/scores"] for row in rows])) > 0
    first = ["reload", *WAY[4:]] if isinstance(chosen, VLLM) else ["reload", "reset", *WAY[4:]]
    assert engine.calls == [*first, *WAY, *WAY]
    assert not engine.held, "asleep while the actor learns"
    again = run(chosen, recipe=RLOO(group_size=4), kl=None)
    assert again.learn(prompts(), total_episodes=24).rows[-1]["objective/scores"] == rows[-1]["objective/scores"]


def test_experience_is_that_of_the_actor(chosen):
    """Near temperature 0 nothing is left to chance: both paths make the same experience, column by column."""
    cold = dict(sampling=Sampling(max_new_tokens=5, temperature=1e-3))
    worlds = []
    for generator in (chosen, None):
        rlhf = RLHF(actor(), late_words, PPO(), tokenizer=tokenizer(), batch_size=8, generator=generator,
                    correction=Truncated(), **cold)  # fmt: skip
        rlhf.world.prompts = load(prompts(), tokenizer())
        rlhf.world.collect(rlhf.settings.recipe)
        worlds.append(rlhf.world.experience)
    theirs, ours = worlds
    assert torch.equal(theirs.sequences.ids, ours.sequences.ids)
    assert torch.equal(theirs.sequences.mask, ours.sequences.mask)
    for name in ("reward", "signal", "discount", "last", "mask", "log_prob", "value", "next_value"):
        assert torch.equal(getattr(theirs.rollout, name), getattr(ours.rollout, name)), name
    assert torch.equal(theirs.score, ours.score) and torch.equal(theirs.ended, ours.ended)


def test_without_sleep_weights_are_sent_when_they_moved(chosen, engine):
    rlhf = run(replace(chosen, sleep=False))
    rlhf.learn(prompts(), total_episodes=8)
    engine.calls.clear()
    rlhf.generate(prompts(3))
    rlhf.generate(prompts(3))
    assert engine.calls == ["reload", "reset", "complete"], "once, and for both"


def test_an_engine_speaks_in_turns(chosen, engine):
    """Weights are sent once for all turns, and each is sampled after what was said before."""
    rlhf = run(chosen, reply=lambda completions: [None if "w30" in text else "w30" for text in completions])
    rlhf.stop = (0, *range(2, 20))
    row = rlhf.learn(prompts(), total_episodes=8).final
    sequences = rlhf.world.experience.sequences
    assert bool((sequences.real & ~sequences.decisions).any())
    assert row["train/act_mismatch"] < 1e-4
    assert engine.calls.count("reload") == 1


def test_a_copied_prompt_has_other_completions_and_each_prompt_a_seed_of_its_own(chosen):
    asked = load(["w2 w3"] * 2, tokenizer())
    following, _ = both(chosen)
    noise = torch.rand(5, 8, generator=torch.Generator().manual_seed(0))
    seeds = [each["seed"] for each in following._options(2, noise, 4)]
    assert len(set(seeds)) == 2
    with following.ready():
        says = following.complete(asked, noise, copies=4)
        again = following.complete(asked, noise, copies=4)
    assert torch.equal(says.ids, again.ids)
    assert len({tuple(row) for row in says.ids.tolist()}) > 4


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_adapters_are_added_to_the_weights_and_the_model_is_left_alone(family):
    shared = build(actor(family), lora=LoRA(rank=2)).actor
    with torch.no_grad():
        for name, p in shared.named_parameters():
            p.add_(torch.sin(torch.arange(p.numel())).view_as(p) * ("lora_B.actor" in name))
    before = {name: p.detach().clone() for name, p in shared.named_parameters()}
    made = plain_weights(shared)
    assert all(torch.equal(before[name], p) for name, p in shared.named_parameters())
    merged = copy.deepcopy(shared).merge_and_unload(adapter_names=["actor"]).state_dict()
    assert made.keys() == merged.keys()
    for name, x in merged.items():
        torch.testing.assert_close(made[name], x, rtol=1e-5, atol=1e-6)


def test_a_correction_that_was_chosen_stays():
    assert run(None).settings.correction is None
    assert run(None, correction=Banded()).settings.correction == Banded()
    assert run(VLLMServer(), correction=Banded()).settings.correction == Banded()


def test_a_server_that_is_not_there_is_named_before_any_work():
    with server(Engine()) as url:
        gone = url
    with pytest.raises(ConnectionError, match=f"no vLLM server answers at {gone}/v1/models .*vllm serve MODEL"):
        run(VLLMServer(url=gone)).learn(prompts(), total_episodes=8)


def test_a_server_that_dies_or_refuses_is_named(engine):
    with server(engine) as url:
        rlhf = run(VLLMServer(url=url, sleep=False))
        rlhf.generate(prompts(2))
        engine.held.clear()
        with pytest.raises(RuntimeError, match=r"refused /v1/completions \(500: .*asleep.*start it by VLLM_SERVER_DEV"):
            rlhf.generate(prompts(2))
    with pytest.raises(ConnectionError, match=r"no vLLM server answers .*leave generator out"):
        rlhf.generate(prompts(2))


def test_a_server_of_another_model_is_named():
    with (
        server(Engine(actor("gpt2").eval())) as url,
        pytest.raises(RuntimeError, match=r"of tiny at .* refused /collective_rpc \(500: .*another model.*actor's own"),
    ):
        run(VLLMServer(url=url)).generate(prompts(2))


def test_what_the_engine_says_of_itself_weighs_its_tokens(chosen, engine):
    """An engine that thinks its tokens likelier by b nats: each counts exp(−b), one that thinks them less likely 2 at
    most.
    """
    for bias, weight in ((0.3, np.exp(-0.3)), (-1.0, 2.0), (0.0, 1.0)):
        engine.bias, engine.model = bias, None
        rlhf = run(chosen, correction=Truncated(cap=2.0))
        row = rlhf.learn(prompts(), total_episodes=8).final
        assert row["train/act_mismatch"] == pytest.approx(abs(bias), abs=1e-4)
        world, record = rlhf.world, rlhf.world.experience.rollout
        plan = Plan(recipe=rlhf.settings.recipe, roles=world._roles, how=world.how, optim=rlhf.settings.optim,
                    correction=rlhf.settings.correction)  # fmt: skip
        found = prepare(plan, world.experience).correction[record.mask]
        torch.testing.assert_close(found, torch.full_like(found, weight), rtol=1e-4, atol=0)


def test_a_server_left_asleep_is_woken(engine):
    engine.sleep(2)
    with server(engine) as url:
        run(VLLMServer(url=url)).generate(prompts(2))
    assert engine.calls == ["sleep", *WAY]


def test_without_the_package_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ModuleNotFoundError, match=r"generator = VLLM\(\) needs vllm: pip install 'vantage\[vllm\]'"):
        run(VLLM()).generate(prompts(2))


BAD = [
    (lambda: VLLMServer(url="localhost"), "VLLMServer.url = 'localhost': an address such as http"),
    (lambda: VLLMServer(timeout=0.0), "VLLMServer.timeout = 0.0"),
    (lambda: VLLM(memory=1.5), "VLLM.memory = 1.5: a share"),
]


@pytest.mark.parametrize(("make", "says"), BAD)
def test_bad_choices_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()
