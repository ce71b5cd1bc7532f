"""The update: the theory's own functions, invariant to padding, split and number of processes, deaf to masked rows."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.worlds.language_models import VOCABULARY, actor, free_port, torch
from vantage import theory
from vantage.control import update as control_update
from vantage.language import blocks
from vantage.language import update as learning
from vantage.language.experience import Shaping, rollout, with_signal
from vantage.language.parallel import Processes
from vantage.language.records import Experience, Sequences
from vantage.language.roles import LoRA, Roles, build
from vantage.recipe import (
    A2C,
    GRPO,
    PPO,
    RLOO,
    Joint,
    KLInLoss,
    KLInReward,
    PPOPenalty,
    ResidualTD,
    Separate,
    SequenceMean,
    Truncated,
)

P, R, B = 4, 5, 6


def sequences(seed: int = 0, left: int = 0, right: int = 0) -> Sequences:
    """Prompts of 1 to P and completions of 1 to R tokens, with `left` and `right` positions of padding more."""
    rng = np.random.default_rng(seed)
    ids, mask = np.zeros((B, left + P + R + right), np.int64), np.zeros((B, left + P + R + right), bool)
    for b in range(B):
        before, after = 1 + rng.integers(P), 1 + rng.integers(R)
        here = slice(left + P - before, left + P + after)
        ids[b, here], mask[b, here] = rng.integers(0, VOCABULARY, size=before + after), True
    return Sequences(ids=torch.from_numpy(ids), mask=torch.from_numpy(mask), prompt=left + P)


def roles(family: str = "llama") -> Roles:
    """Actor, critic and a reference that differs from the actor, in float64."""
    made = build(actor(family).double(), reference=actor(family, seed=5).double())
    torch.manual_seed(3)
    torch.nn.init.normal_(made.critic.head.weight)
    made.critic.double()
    return made


def experience(models: Roles, seen: Sequences, how: learning.Pass, kl=None, moved: bool = True) -> Experience:
    """What the present models say of these sequences, with scores, and π_old a little elsewhere if `moved`."""
    score = torch.linspace(-1.0, 1.0, B, dtype=torch.float64)
    old = learning.score_log_probs(models.actor, how, seen)
    acted = old + 0.05
    if moved:
        old = old + 0.3 * torch.sin(torch.arange(B, dtype=torch.float64))[:, None]
    with models.reference() as model:
        reference = learning.score_log_probs(model, how, seen).T
    ended = torch.arange(B) % 3 > 0
    record = rollout(
        seen, old, score, ended, gamma=0.9, shaping=Shaping(length_cut="truncated"), actor_log_prob=acted,
        values=learning.score_values(models, how, seen), group=torch.arange(B) // 2,
    )  # fmt: skip
    made = Experience(rollout=record, sequences=seen, score=score, ended=ended, reference_log_prob=reference)
    return with_signal(made, kl or KLInReward(), 0.2)


def plan(models: Roles, recipe, how: learning.Pass, **options) -> learning.Plan:
    return learning.Plan(recipe=recipe, roles=models, how=how, optim=options.pop("optim", Joint()), **options)


def gradient(recipe, seen=None, micro_batch=64, family="llama", spoil=None, packing=False, **options):
    """The gradient of one minibatch, flat, and its metrics."""
    models, how = roles(family), learning.Pass(micro_batch=micro_batch, packing=packing)
    seen = sequences() if seen is None else seen
    made = plan(models, recipe, how, **options)
    had = experience(models, seen, how)
    had = had if spoil is None else spoil(had)
    batch = learning.prepare(made, had)
    batch = learning._whitened(made.recipe, batch)
    total = learning.denominator(made.recipe, had.rollout, np.arange(B))
    says = learning.gradients(made, batch, seen, total)
    moved = [*models.actor_parameters, *models.critic_parameters]
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for _, p in moved])
    return flat, {k: float(v) for k, v in learning.measured(made, batch, says, total).items()}


CHOICES = {
    "PPO": (PPO(whiten="batch"), {}),
    "PPO, minibatch, entropy": (PPO(ent_coef=0.1, reduction=SequenceMean()), {}),
    "penalty": (PPOPenalty(whiten=None), {}),
    "GRPO, k3": (GRPO(group_size=2), {"reference": KLInLoss(beta=0.2, estimator="k3")}),
    "RLOO, exact": (RLOO(group_size=2), {"reference": KLInLoss(beta=0.2, estimator="exact")}),
    "A2C, residual": (A2C(critic=ResidualTD()), {"optim": Separate()}),
    "corrected": (PPO(), {"correction": Truncated(cap=1.02)}),
}


def close(a, b) -> None:
    """Gradients and metrics agree to rounding."""
    assert float(a[0].abs().max()) > 1e-3, "a gradient of zeros shows nothing"
    torch.testing.assert_close(a[0], b[0], rtol=1e-8, atol=1e-9)
    assert a[1].keys() == b[1].keys()
    for name in a[1]:
        assert a[1][name] == pytest.approx(b[1][name], rel=1e-8, abs=1e-9), name


@pytest.mark.parametrize("name", CHOICES)
def test_micro_batches_change_nothing(name):
    recipe, options = CHOICES[name]
    close(gradient(recipe, **options), gradient(recipe, micro_batch=1, **options))
    close(gradient(recipe, **options), gradient(recipe, micro_batch=4, **options))


@pytest.mark.parametrize("name", CHOICES)
def test_padding_changes_nothing(name):
    recipe, options = CHOICES[name]
    close(gradient(recipe, **options), gradient(recipe, seen=sequences(left=3, right=2), **options))


@pytest.mark.parametrize("family", ["gpt2", "qwen2", "qwen3"])
def test_other_families_too(family):
    padded = gradient(PPO(), seen=sequences(left=2, right=1), micro_batch=1, family=family)
    close(gradient(PPO(), family=family), padded)


def close_in_float32(a, b) -> None:
    """Agreement to the rounding of Transformers' norms and angles, which are float32 in every model."""
    torch.testing.assert_close(a[0], b[0], rtol=1e-5, atol=1e-6 * float(a[0].abs().max()))
    for name in a[1].keys() | b[1].keys():
        assert a[1][name] == pytest.approx(b[1][name], rel=1e-5, abs=1e-6), name


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "qwen3"])
def test_packing_changes_nothing(family):
    models = roles(family)
    assert blocks.body(models.actor) is not None and blocks.body(models.critic.backbone) is not None
    close_in_float32(gradient(PPO(), family=family), gradient(PPO(), family=family, packing=True))
    padded = gradient(PPO(), family=family, packing=True, seen=sequences(left=3, right=2), micro_batch=2)
    close(gradient(PPO(), family=family, packing=True), padded)


@pytest.mark.parametrize("name", CHOICES)
def test_packing_changes_no_recipe(name):
    recipe, options = CHOICES[name]
    close_in_float32(gradient(recipe, **options), gradient(recipe, packing=True, **options))


@pytest.mark.parametrize("part", ["a layer", "the activation"])
def test_a_model_that_computes_something_else_keeps_its_own_forward(part):
    model = actor("llama")
    if part == "a layer":
        model.model.layers[0].register_forward_hook(lambda module, given, out: 1.5 * out)
    else:
        model.model.layers[0].mlp.act_fn = torch.nn.GELU()
    assert blocks.body(model) is None


@pytest.mark.parametrize("where", ["the whole model", "a layer", "a norm"])
def test_who_watches_a_model_sees_it_called(where):
    """A hook that changes nothing would be passed over without a word: its model keeps its own forward."""
    model = actor()
    place = {"the whole model": model, "a layer": model.model.layers[0], "a norm": model.model.norm}[where]
    assert blocks.body(model) is not None
    seen: list[tuple] = []
    hook = place.register_forward_hook(lambda *facts: seen.append(facts))
    assert blocks.body(model) is None
    learning.score_log_probs(model, learning.Pass(packing=True), sequences())
    assert seen
    hook.remove()
    assert blocks.body(model) is not None


def test_packing_of_adapters_on_one_backbone():
    """The critic's adapter for the critic, the actor's for the actor."""

    def said(packing: bool):
        torch.manual_seed(0)
        models = build(actor("qwen3"), lora=LoRA(rank=2))
        for name, p in [*models.actor_parameters, *models.critic_parameters]:
            p.data += 0.1 * torch.sin(torch.arange(p.numel())).view_as(p) * ("lora_B" in name or "head" in name)
        how, seen = learning.Pass(packing=packing), sequences()
        with models.reference() as model:
            reference = learning.score_log_probs(model, how, seen)
        actor_says, critic_says = (
            learning.score_log_probs(models.actor, how, seen),
            learning.score_values(models, how, seen),
        )
        return reference, actor_says, torch.where(seen.real, critic_says[:, :-1], 0.0)

    for own, theirs in zip(said(True), said(False), strict=True):
        assert float(own.abs().max()) > 1e-2
        torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(*said(True)[:2])


@pytest.mark.parametrize("name", CHOICES)
def test_nan_under_the_mask_changes_nothing(name):
    def spoil(had: Experience) -> Experience:
        record, hidden = had.rollout, ~had.rollout.mask
        assert bool(hidden.any())
        fields = ("reward", "signal", "log_prob", "value", "next_value", "actor_log_prob")
        bad = record.map(lambda x: torch.where(hidden, torch.full_like(x, float("nan")), x), *fields)
        reference = torch.where(hidden, torch.full_like(had.reference_log_prob, float("nan")), had.reference_log_prob)
        return replace(had, rollout=bad, reference_log_prob=reference)

    recipe, options = CHOICES[name]
    close(gradient(recipe, **options), gradient(recipe, spoil=spoil, **options))


def test_tokens_under_the_mask_change_nothing():
    """The end token, or any other, may be the padding."""
    seen = sequences()
    other = replace(seen, ids=torch.where(seen.mask, seen.ids, 7))
    close(gradient(PPO()), gradient(PPO(), seen=other))


@pytest.mark.parametrize("shared", [False, True], ids=["two backbones", "one"])
def test_checkpointing_recomputes_and_changes_nothing(shared):
    """Without dropout, and with the right adapter on when activations are made a second time."""

    def slopes(checkpointing: bool):
        torch.manual_seed(0)
        models = build(actor("gpt2"), lora=LoRA(rank=2) if shared else None)
        with torch.no_grad():
            for name, p in [*models.actor_parameters, *models.critic_parameters]:
                p.add_(0.1 * torch.sin(torch.arange(p.numel())).view_as(p) * ("lora_B" in name or "head" in name))
        how, seen, calls = learning.Pass(checkpointing=checkpointing), sequences(), []
        inner = models.actor.get_base_model() if shared else models.actor
        inner.transformer.h[0].ln_1.register_forward_hook(lambda *others: calls.append(1))
        made = plan(models, PPO(whiten=None), how)
        had = experience(models, seen, how)
        calls.clear()
        total = learning.denominator(made.recipe, had.rollout, np.arange(B))
        learning.gradients(made, learning.prepare(made, had), seen, total)
        moved = [*models.actor_parameters, *models.critic_parameters]
        return torch.cat([p.grad.flatten() for _, p in moved]), len(calls)

    (plain, once), (again, more) = slopes(False), slopes(True)
    assert more == 2 * once
    torch.testing.assert_close(again, plain, rtol=1e-5, atol=1e-6)


def test_whole_gradient_is_that_of_one_loss():
    """Actor first, then critic, in micro-batches: the gradient of the one loss of theory 8.7, by autograd at once."""
    recipe = PPO(whiten="batch", ent_coef=0.1)
    models, how = roles(), learning.Pass()
    seen = sequences()
    had = experience(models, seen, how)
    batch = recipe.prepare(had.rollout)
    logits = learning.scoring.response_logits(models.actor, seen, 1.0)
    outputs = theory.Outputs(
        log_prob=logits.log_softmax(-1).gather(-1, seen.completion[..., None])[..., 0].T,
        entropy=theory.divergences.categorical_entropy(logits).T,
        value=learning.scoring.values(models.critic, seen)[:, :-1].T,
    )
    value, _ = theory.loss(recipe, batch, outputs, vf_coef=0.5)
    moved = [p for _, p in [*models.actor_parameters, *models.critic_parameters]]
    slopes = torch.autograd.grad(value, moved, allow_unused=True)
    flat = torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(moved, slopes, strict=True)])
    torch.testing.assert_close(gradient(recipe)[0], flat, rtol=1e-8, atol=1e-10)


def test_one_loss_and_one_recipe_for_all_worlds():
    """The very functions that control calls: not copies."""
    assert learning.loss is control_update.loss is theory.loss
    assert learning.Batch is control_update.Batch
    assert learning.reduce is control_update.reduce
    recipe = PPO()
    made = plan(roles(), recipe, learning.Pass())
    assert made.recipe is recipe
    assert type(recipe).prepare.__module__ == "vantage.recipe.core"


PLANTED = {
    "GAE without λ": (theory.psi, "gae", lambda r, v, n, d, last, lam, mask=None: r + d * n - v),
    "clip on one side": (theory.objectives, "clipped", lambda ratio, psi, *others: ratio * psi),
    "ratio upside down": (theory.importance, "ratio", lambda new, old: torch.exp(old - new)),
    "clipped value without maximum": (theory.critics, "clipped_value", lambda v, old, target, width: (v - target) ** 2),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_a_bug_in_the_theory_is_a_bug_here(bug, monkeypatch):
    """The update has no copy of a formula: planting a bug in `theory` changes the gradient of a language model."""
    from vantage.recipe import ClippedValue

    recipe = PPO(whiten=None, critic=ClippedValue(width=0.05))
    right, _ = gradient(recipe, spoil=_off)
    module, name, wrong = PLANTED[bug]
    monkeypatch.setattr(module, name, wrong)
    assert float((gradient(recipe, spoil=_off)[0] - right).abs().max()) > 1e-4


def _off(had: Experience) -> Experience:
    """V_old elsewhere than V, so that the clipped critic loss has something to clip."""
    return replace(had, rollout=replace(had.rollout, value=had.rollout.value + 0.5 * had.rollout.mask))


TRAINED = """
import sys
from tests.worlds.language_models import actor, late_words, prompts, tokenizer
from vantage.language import RLHF, FromActor, LoRA, Sampling
from vantage.recipe import PPO, Separate
shard, lora = "shard" in sys.argv, LoRA(rank=2) if "lora" in sys.argv else None
rlhf = RLHF(actor(), late_words, PPO(n_minibatches=2), tokenizer=tokenizer(), batch_size=8, micro_batch=3, lora=lora,
            critic=FromActor(), sampling=Sampling(max_new_tokens=5), optim=Separate(actor_lr=1e-3, critic_lr=1e-3),
            shard=shard)
report = rlhf.learn(prompts(), total_episodes=8)
rlhf.world.restore(rlhf.world.state())
report.rows += rlhf.learn(prompts(), total_episodes=16).rows
held = {type(p).__name__ for p in [*rlhf.actor.parameters(), *rlhf.roles.critic.parameters()]}
assert held == {"DTensor" if shard else "Parameter"}, held
from vantage.language.vllm import plain_weights
weights = {n: p.double().sum().item() for n, p in plain_weights(rlhf.actor).items()}
rlhf.save(sys.argv[1] + ".run")
if rlhf.world.first:
    import json
    rows = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in report.rows]
    if lora is None:
        from transformers import AutoModelForCausalLM
        saved = AutoModelForCausalLM.from_pretrained(sys.argv[1] + ".run/actor")
        assert weights == {n: p.double().sum().item() for n, p in saved.state_dict().items()}
    json.dump([rows, weights], open(sys.argv[1], "w"))
"""


def trained(path: Path, processes: int, *options: str, script: str = TRAINED) -> tuple:
    """Metrics and weights of a short run by so many processes."""
    import json

    root = Path(__file__).resolve().parents[2]
    common = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    common["PYTHONPATH"] = str(root)
    common["CUDA_VISIBLE_DEVICES"] = ""
    ranks = [{"WORLD_SIZE": str(processes), "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
    running = [
        subprocess.Popen([sys.executable, "-c", script, str(path), *options], env={**common, **rank}, cwd=path.parent)
        for rank in ranks
    ]
    assert [process.wait(240) for process in running] == [0] * processes
    return tuple(json.loads(path.read_text()))


@pytest.mark.parametrize("name", CHOICES)
def test_shares_of_a_minibatch_add_up(name, monkeypatch):
    """What two processes would each compute sums to what one does."""
    recipe, options = CHOICES[name]
    monkeypatch.setattr(Processes, "add_gradients", lambda *others: None)
    whole = torch.zeros(R, B, dtype=torch.float64)
    monkeypatch.setattr(Processes, "interleave", lambda self, records, columns: dict.fromkeys(records, whole))
    halves = [gradient(recipe, processes=Processes(rank=rank, size=2), **options)[0] for rank in (0, 1)]
    torch.testing.assert_close(halves[0] + halves[1], gradient(recipe, **options)[0], rtol=1e-8, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [(), ("shard",), ("lora",), ("shard", "lora")], ids=["whole", "FSDP2", "LoRA", "both"]
)
def test_two_processes_are_as_one(tmp_path, options):
    """torchrun's environment with gloo, each process with whole models or with a share of them (FSDP2), all parameters
    trained or adapters: the same losses to 1e-5, and metrics and weights as float32 allows.
    """
    rows, weights = trained(tmp_path / "one.json", 1, *(name for name in options if name != "shard"))
    both, theirs = trained(tmp_path / "two.json", 2, *options)
    assert len(rows) == len(both)
    for one, two in zip(rows, both, strict=True):
        assert one.keys() == two.keys()
        for key in one:
            rel = 1e-5 if "loss" in key else 1e-4
            assert two[key] == pytest.approx(one[key], rel=rel, abs=1e-6 if "loss" in key else 1e-5), key
    assert weights.keys() == theirs.keys()
    for key, x in weights.items():
        assert theirs[key] == pytest.approx(x, abs=1e-4), key


def test_bfloat16_is_for_products_alone():
    """The gradient is float32's to the rounding of products; parameters, moments and log-probabilities stay float32."""

    def moved(bf16: bool):
        models, seen = build(actor(), reference=actor(seed=5)), sequences()
        how = learning.Pass(bf16=bf16)
        had = experience(models, seen, learning.Pass(), moved=False)
        assert learning.score_log_probs(models.actor, how, seen).dtype == torch.float32
        made = plan(models, PPO(whiten=None), how, optim=Separate(actor_lr=1e-3, critic_lr=1e-3))
        batch, total = learning.prepare(made, had), learning.denominator(made.recipe, had.rollout, np.arange(B))
        learning.gradients(made, batch, seen, total)
        held = [p for _, p in [*models.actor_parameters, *models.critic_parameters]]
        slope = torch.cat([p.grad.flatten() for p in held if p.grad is not None])
        optimiser = learning.Moving.of(models, made.optim)
        optimiser.step(made.optim, True, made.processes)
        states = [x for x in optimiser.actor.state.values() for x in (x["exp_avg"], x["exp_avg_sq"])]
        assert {x.dtype for x in [*held, *states]} == {torch.float32}
        return slope

    exact, rounded = moved(False), moved(True)
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(rounded, exact, rtol=0.1, atol=0.05 * float(exact.abs().max()))


@pytest.mark.slow
def test_a_launcher_that_starts_too_few_is_refused(tmp_path):
    """`accelerate launch --num_processes 2` starts one process on a CPU, and says nothing."""
    script = tmp_path / "script.py"
    script.write_text("from vantage.language.parallel import Processes\nprint(Processes.join())\n")
    launch = [str(Path(sys.executable).parent / "accelerate"), "launch", "--cpu"]
    done = [
        subprocess.run([*launch, "--num_processes", n, str(script)], capture_output=True, text=True, cwd=tmp_path)
        for n in ("2", "1")
    ]
    assert "2 processes were asked for and 1 runs: start them by torchrun --nproc_per_node 2" in done[0].stderr
    assert "Processes(rank=0, size=1)" in done[1].stdout
