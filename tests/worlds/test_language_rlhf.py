"""RLHF with real Transformers models of several families: the first minibatch, the reference, resuming, the files."""

import copy
import types
from dataclasses import fields, replace

import numpy as np
import pytest

from tests.worlds.language_models import actor, late_words, prompts, scorer, tokenizer, torch
from vantage.language import (
    RLHF,
    Evaluate,
    FromReward,
    LoRA,
    OnActor,
    Replace,
    Sampling,
    Settings,
    Shaping,
    generators,
)
from vantage.language.data import load
from vantage.recipe import (
    A2C,
    GRPO,
    PPO,
    REINFORCE,
    RLOO,
    TRPO,
    Banded,
    Joint,
    KLInLoss,
    KLInReward,
    LearnedBaseline,
    PPOPenalty,
    Proportional,
    RewardToGo,
    RMSProp,
    Separate,
    Truncated,
)

FAMILIES = ("gpt2", "llama", "qwen2", "qwen3")
FAST = dict(
    batch_size=8, micro_batch=4, sampling=Sampling(max_new_tokens=5),
    optim=Separate(actor_lr=1e-2, critic_lr=1e-2, max_grad_norm=1.0),
)  # fmt: skip


def run(model=None, reward=late_words, recipe=None, **options) -> RLHF:
    return RLHF(model or actor(), reward, recipe or PPO(), tokenizer=tokenizer(), **{**FAST, **options})


def bits(model) -> dict[str, bytes]:
    return {name: p.detach().numpy().tobytes() for name, p in model.named_parameters()}


@pytest.mark.parametrize("lora", [None, LoRA(rank=2)], ids=["full", "LoRA"])
@pytest.mark.parametrize("family", FAMILIES)
def test_first_minibatch_of_real_models(family, lora):
    """Left padding, mixed lengths, end token as padding: the ratio is 1, the KL to the reference 0, and the generator's
    log-probabilities are the scored ones.
    """
    rlhf = run(actor(family), recipe=PPO(n_minibatches=2), lora=lora)
    reference = rlhf.roles.frozen if lora is None else rlhf.actor.get_base_model()
    before = {k: v for k, v in bits(reference).items() if "lora" not in k}
    row = rlhf.learn(prompts(), total_episodes=8).final
    assert row["train/first_ratio_deviation"] < 1e-4
    assert row["train/act_mismatch"] < 1e-4
    assert abs(row["objective/kl"]) < 1e-6
    assert row["train/ratio_deviation"] > 1e-3, "later minibatches must see a policy that has moved"
    rlhf.learn(prompts(), total_episodes=16)
    assert {k: v for k, v in bits(reference).items() if "lora" not in k} == before, "the reference has moved"


def test_a_policy_that_is_not_the_one_that_acted_stops_the_run(monkeypatch):
    """Before anything moves: stale log-probabilities in the record, and a generator that is not the trainer."""
    rlhf = run()
    rlhf.world.prompts = load(prompts(), tokenizer())
    record, before = rlhf.world.collect(rlhf.settings.recipe), bits(rlhf.actor)
    with pytest.raises(RuntimeError, match=r"differs from π_old before the first step: a ratio is 0\.01"):
        rlhf.world.update(rlhf.settings.recipe, replace(record, log_prob=record.log_prob - 0.01), 0.0)
    assert bits(rlhf.actor) == before
    with torch.no_grad():
        other = copy.deepcopy(rlhf.actor)
        other.lm_head.weight.mul_(1.1)
    real = generators.generate
    monkeypatch.setattr(generators, "generate", lambda model, *inputs, **options: real(other, *inputs, **options))
    with pytest.raises(RuntimeError, match="the model that generated is not the one that learns"):
        rlhf.world.collect(rlhf.settings.recipe)


def test_a_forward_that_a_trainer_left_behind_is_not_copied():
    """Bound to the original, it would make the reference, and the critic, answer with the actor's parameters."""
    model = actor()
    original = type(model).forward
    model.forward = types.MethodType(lambda self, *a, **k: original(model, *a, **k), model)
    rlhf = run(model)
    rlhf.learn(prompts(), total_episodes=16)
    assert abs(rlhf.world._metrics["objective/kl"]) > 1e-4
    assert "forward" not in vars(rlhf.roles.frozen)


def test_dropout_is_off():
    """A model that has dropout, in training mode as it comes: scored and updated without it."""
    model = actor("gpt2")
    assert model.config.resid_pdrop > 0
    assert run(model.train()).learn(prompts(), total_episodes=8).final["train/first_ratio_deviation"] < 1e-4


def test_reward_rises():
    """A dozen updates are enough to prefer some words."""
    rlhf = run(kl=KLInReward(beta=0.01), batch_size=16)
    scores = rlhf.learn(prompts(), total_episodes=192).column("objective/scores")
    assert np.mean(scores[-3:]) > np.mean(scores[:3]) + 0.1


RECIPES = {
    "a2c": (A2C(), {}),
    "reinforce, baseline": (REINFORCE(psi=RewardToGo(baseline=LearnedBaseline())), {}),
    "rloo": (RLOO(), {}),
    "grpo, k3": (GRPO(group_size=4, clip_range_high=0.3), {"kl": KLInLoss(estimator="k3")}),
    "grpo, exact": (GRPO(group_size=2, scale=False, n_epochs=2), {"kl": KLInLoss(estimator="exact")}),
    "penalty": (PPOPenalty(), {}),
    "penalty, exact": (PPOPenalty(), {"exact_kl": True}),
    "no reference": (PPO(), {"kl": None}),
    "warm-up": (PPO(), {"critic_warmup": 1}),
    "entropy, checkpointing": (PPO(ent_coef=0.01), {"gradient_checkpointing": True}),
    "bf16": (PPO(), {"bf16": True}),
    "shared backbone": (PPO(), {"lora": LoRA(rank=2), "critic": OnActor()}),
    "corrected": (PPO(), {"correction": Truncated()}),
    "adaptive": (PPO(), {"kl": KLInReward(controller=Proportional(target=1.0, horizon=100.0))}),
    "shaped": (PPO(), {"shaping": Shaping(missing_eos=Replace(), length_cut="truncated", normalise_score=True)}),
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_and_options_train(name):
    recipe, options = RECIPES[name]
    rlhf = run(recipe=recipe, **options)
    before = bits(rlhf.actor)
    rows = rlhf.learn(prompts(), total_episodes=16).rows
    assert all(np.isfinite(x) for row in rows for x in row.values()), rows
    assert rows[0]["train/first_ratio_deviation"] < (0.2 if "bf16" in options else 1e-4)
    assert bits(rlhf.actor) != before


def test_warm_up_moves_the_critic_alone():
    rlhf = run(critic_warmup=1)
    actor_before, critic_before = bits(rlhf.actor), bits(rlhf.roles.critic)
    rlhf.learn(prompts(), total_episodes=8)
    assert bits(rlhf.actor) == actor_before
    assert bits(rlhf.roles.critic) != critic_before


def test_reward_model_and_a_critic_made_of_it():
    model = scorer()
    rlhf = run(reward=model, critic=FromReward())
    assert torch.equal(rlhf.roles.critic.head.weight, model.score.weight)
    frozen = bits(model)
    row = rlhf.learn(prompts(), total_episodes=8).final
    assert bits(model) == frozen
    assert np.isfinite(row["objective/scores"])


def test_trpo_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="TRPO is refused for language models: each of its conjugate-gradient steps"):
        run(recipe=TRPO())


BAD = [
    (dict(batch_sise=3), TypeError, "did you mean 'batch_size'"),
    (dict(batch_size=9, recipe=RLOO()), ValueError, "Settings.batch_size = 9: a multiple of the recipe's 4"),
    (dict(recipe=PPO(n_minibatches=9)), ValueError, "Recipe.n_minibatches = 9"),
    (dict(critic=OnActor()), ValueError, "set lora=LoRA"),
    (dict(critic=FromReward()), ValueError, "the reward is no model"),
    (dict(critic_warmup=1, recipe=RLOO()), ValueError, "Settings.critic_warmup = 1"),
    (dict(optim=Joint(optimiser=RMSProp())), ValueError, r"Joint.optimiser = RMSProp\(.*language models learn by Adam"),
]


@pytest.mark.parametrize(("options", "error", "says"), BAD)
def test_bad_settings_are_named(options, error, says):
    with pytest.raises(error, match=says):
        run(**options)


def test_world_defaults_give_way_to_what_was_told():
    """`PPO()` means the practice of RLHF here; what was written down stays."""
    assert run().settings.recipe.n_epochs == 4
    told = run(recipe=PPO(n_epochs=10)).settings.recipe
    assert (told.n_epochs, told.n_minibatches, told.whiten) == (10, 1, "batch")


KNOBS = {
    "recipe": PPO(clip_range=0.01),
    "kl": KLInReward(beta=5.0),
    "gamma": 0.5,
    "optim": Separate(actor_lr=1e-3, critic_lr=1e-2, max_grad_norm=1.0),
    "sampling": Sampling(max_new_tokens=5, temperature=0.5),
    "shaping": Shaping(missing_eos=Replace(score=-3.0)),
    "batch_size": 6,
    "critic_warmup": 1,
    "exact_kl": True,
    "correction": Banded(low=0.9999999, high=1.0000001),
    "lora": LoRA(rank=2),
    "bf16": True,
    "seed": 1,
}
"""A value of each setting that must change what is learned; the others change memory and time alone."""


@pytest.fixture(scope="module")
def penalised():
    return outcome(run(recipe=PPOPenalty(beta=20.0)))


def outcome(rlhf: RLHF) -> list[bytes]:
    rlhf.learn(prompts(), total_episodes=2 * rlhf.settings.batch_size)
    return [*bits(rlhf.actor).values(), *bits(rlhf.roles.critic).values()]


@pytest.mark.parametrize("name", [f.name for f in fields(Settings) if f.name in KNOBS])
def test_every_setting_turns(name, penalised):
    options = {"recipe": PPOPenalty(beta=20.0), name: KNOBS[name]}
    assert outcome(run(**options)) != penalised


def test_settings_of_memory_and_time_are_those_without_a_knob():
    assert {f.name for f in fields(Settings)} - KNOBS.keys() == {
        "micro_batch", "packing", "gradient_checkpointing", "shard", "generator",
    }  # fmt: skip


# ---- files ----


@pytest.mark.parametrize("options", [{}, {"lora": LoRA(rank=2)}], ids=["full", "LoRA"])
def test_resuming_is_bit_for_bit(tmp_path, options):
    adaptive = dict(kl=KLInReward(controller=Proportional(target=1.0, horizon=100.0)), **options)
    recipe = PPO(n_minibatches=2)
    whole = run(recipe=recipe, **adaptive)
    rows = whole.learn(prompts(), total_episodes=32).rows
    first = run(recipe=recipe, **adaptive)
    first.learn(prompts(), total_episodes=16, checkpoint=tmp_path / "run", checkpoint_every=2)
    again = RLHF.resume(tmp_path / "run", late_words, actor=actor(), tokenizer=tokenizer())
    more = again.learn(prompts(), total_episodes=32).rows
    assert bits(again.actor) == bits(whole.actor)
    assert again.world.state().counters == whole.world.state().counters
    untimed = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows[2:]]
    assert [{k: v for k, v in row.items() if not k.startswith("time/")} for row in more] == untimed


def test_a_saved_actor_is_a_transformers_model(tmp_path):
    from transformers import AutoModelForCausalLM

    rlhf = run()
    rlhf.learn(prompts(), total_episodes=8)
    rlhf.save(tmp_path / "run")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "actor")
    assert bits(loaded) == bits(rlhf.actor)
    assert not [path for path in (tmp_path / "run").rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]


def test_a_missing_module_is_asked_for(tmp_path):
    rlhf = run()
    rlhf.save(tmp_path / "run")
    with pytest.raises(ValueError, match="actor was given as a module when the run began: give it again"):
        RLHF.resume(tmp_path / "run", late_words)


def test_generation_and_evaluation_change_nothing():
    one, two = run(), run()
    for rlhf in (one, two):
        rlhf.learn(prompts(), total_episodes=8)
    seen = one.evaluate(prompts(5, seed=3))
    assert len(seen.scores) == 5
    assert [len(texts) for texts in one.generate(prompts(3), n=2)] == [2, 2, 2]
    for rlhf in (one, two):
        rlhf.learn(prompts(), total_episodes=16)
    assert bits(one.actor) == bits(two.actor)


def test_held_out_prompts_are_scored_along_the_way():
    rlhf = run()
    listener = Evaluate(rlhf, prompts(4, seed=9), every=8)
    rows = rlhf.learn(prompts(), total_episodes=16, callbacks=[listener]).rows
    assert [steps for steps, _ in listener.evaluations] == [0, 8, 16]
    assert rows[-1]["eval/score"] == listener.evaluations[-1][1].mean
    assert np.isfinite(rows[-1]["eval/kl"])


def test_rewards_that_fail_leave_what_was_generated(tmp_path):
    def broken(completions, **others):
        raise OSError("no connection")

    rlhf = run(reward=broken)
    before = bits(rlhf.actor)
    with pytest.raises(RuntimeError, match="no connection"):
        rlhf.learn(prompts(), total_episodes=8, checkpoint=tmp_path / "run")
    assert len((tmp_path / "run" / "experience.jsonl").read_text().splitlines()) == 8
    assert bits(rlhf.actor) == before
