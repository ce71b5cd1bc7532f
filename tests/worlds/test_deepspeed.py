"""DeepSpeed's ZeRO deals out what one process holds, and nothing else changes; skipped where it is not installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.worlds.language_models import actor, free_port, late_words, prompts, tokenizer
from vantage.language import RLHF, LoRA, zero
from vantage.recipe import PPO, Joint

ROOT = Path(__file__).resolve().parents[2]
TRAINED = """
import json, sys
from tests.worlds.language_models import actor, free_port, late_words, prompts, tokenizer
from vantage.language import RLHF, FromActor, LoRA, Sampling
from vantage.language.vllm import plain_weights
from vantage.recipe import PPO, Separate
place, options = sys.argv[1], sys.argv[2:]
given = dict(critic=FromActor(), reference=actor()) if "lora" not in options else dict(critic=FromActor())
rlhf = RLHF(actor(), late_words, PPO(n_minibatches=2, target_kl=1e-4 if "stop" in options else None), **given,
            tokenizer=tokenizer(), batch_size=8, micro_batch=1, lora=LoRA(rank=2) if "lora" in options else None,
            critic_warmup=int("warm-up" in options), gradient_checkpointing="checkpointing" in options,
            sampling=Sampling(max_new_tokens=5), optim=Separate(actor_lr=1e-3, critic_lr=1e-3, max_grad_norm=0.1))
rows = rlhf.learn(prompts(), total_episodes=16).rows
rlhf.save(place)
given["reference"] = actor() if "lora" not in options else None
rlhf = RLHF.resume(place, late_words, actor=actor(), **{k: x for k, x in given.items() if x is not None})
rows += rlhf.learn(prompts(), total_episodes=24).rows
rlhf.save(place)
weights = {n: p.double().sum().item() for n, p in plain_weights(rlhf.actor).items()}
if rlhf.world.first:
    rows = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]
    json.dump([rows, weights, rlhf.world._zero and rlhf.world._zero.stage], open(place + ".json", "w"))
"""


def launched(place: Path, *options: str, config: dict | None = None) -> tuple[list[dict], dict, int | None]:
    """Metrics and weights of a short run by two processes of `accelerate launch`, or by one without it."""
    script = place.with_suffix(".py")
    script.write_text(TRAINED)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    words = [sys.executable]
    if config is not None:
        place.with_suffix(".config").write_text(json.dumps(config))
        words = [
            str(Path(sys.executable).parent / "accelerate"), "launch", "--use_deepspeed", "--num_processes", "2",
            "--main_process_port", free_port(),
            "--deepspeed_config_file", str(place.with_suffix(".config")),
        ]  # fmt: skip
    done = subprocess.run(
        [*words, str(script), str(place), *options], env=env, cwd=place.parent, capture_output=True, text=True,
        timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, "\n".join(line for line in done.stderr.splitlines() if "rank" in line or not config)
    return tuple(json.loads(place.with_suffix(".json").read_text()))


def dealt(stage: int, **more: object) -> dict:
    """A configuration of DeepSpeed; in stage 3 small parameters are dealt out too."""
    return {
        "train_micro_batch_size_per_gpu": "auto", "gradient_clipping": "auto", "bf16": {"enabled": "auto"},
        "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0, **more},
    }  # fmt: skip


OFFLOAD = {"offload_optimizer": {"device": "cpu"}}
CASES = {
    "stage 1": ((), dealt(1)),
    "stage 2": (("checkpointing",), dealt(2)),
    "stage 3": (("checkpointing",), dealt(3)),
    "stage 2, LoRA, critic first": (("lora", "warm-up"), dealt(2)),
    "stage 3, LoRA, stopped by target_kl": (("lora", "stop"), dealt(3)),
    "stage 2, offloaded, stopped by target_kl": (("stop",), dealt(2, **OFFLOAD)),
    "stage 3, offloaded": ((), dealt(3, **OFFLOAD)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_dealt_out_by_deepspeed_is_as_one_process(name, tmp_path):
    """Two processes of `accelerate launch` with gloo, saved and resumed by the way: losses to 1e-5, metrics, weights
    and checkpoints as float32 allows.
    """
    pytest.importorskip("deepspeed")
    from vantage.runs import checkpoint

    options, config = CASES[name]
    rows, weights, _ = launched(tmp_path / "one", *options)
    both, theirs, stage = launched(tmp_path / "two", *options, config=config)
    assert stage == config["zero_optimization"]["stage"]
    assert len(rows) == len(both) == 3
    for one, two in zip(rows, both, strict=True):
        assert one.keys() == two.keys()
        for key in one:
            rel = 1e-5 if "loss" in key else 1e-4
            assert two[key] == pytest.approx(one[key], rel=rel, abs=1e-6 if "loss" in key else 1e-5), key
    assert all(row["train/actor_grad_norm"] > 0.1 for row in both[1:]), "the norm is clipped, and was longer"
    stopped = [row["train/minibatches"] < 8 for row in both]
    assert any(stopped) == ("stop" in options)
    assert theirs == pytest.approx(weights, abs=1e-4)
    (ours, told), (held, said) = (checkpoint.load(tmp_path / name / "state.safetensors") for name in ("one", "two"))
    assert told["counters"] == said["counters"]
    assert _flat(ours).keys() == _flat(held).keys()
    for key, x in _flat(ours).items():
        assert _flat(held)[key] == pytest.approx(x, abs=1e-4), key


def _flat(tree: dict, prefix: str = "") -> dict:
    found = {}
    for name, x in tree.items():
        found |= _flat(x, f"{prefix}{name}/") if isinstance(x, dict) else {f"{prefix}{name}": x}
    return found


def test_without_deepspeed_it_is_said(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setattr(zero, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"accelerate was asked for DeepSpeed: pip install 'vantage\[deepsp"):
        zero.configuration()


CONFIGURED = {
    "nothing asked": ({}, None),
    "nothing dealt out": ({"zero_optimization": {"stage": 0}}, None),
    "what is ours is left out": (
        {"optimizer": {"type": "AdamW"}, "zero_optimization": {"stage": 2, "reduce_bucket_size": "auto"}},
        {"stage": 2},
    ),
    "offloaded": (dealt(2, **OFFLOAD), {"stage": 2, "stage3_param_persistence_threshold": 0, **OFFLOAD}),
}


@pytest.mark.parametrize("case", CONFIGURED)
def test_what_the_launcher_asks_for(case, monkeypatch, tmp_path):
    asked, sharing = CONFIGURED[case]
    _ask(asked, monkeypatch, tmp_path)
    found = zero.configuration()
    assert (found is None) == (sharing is None)
    if found is not None:
        assert found["zero_optimization"] == sharing
        assert not {"optimizer", "gradient_clipping", "train_micro_batch_size_per_gpu"} & found.keys()


def _ask(config: dict, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(zero, "find_spec", lambda name: name)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", str(bool(config)).lower())
    (tmp_path / "zero.json").write_text(json.dumps(config))
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(tmp_path / "zero.json"))


REFUSED = {
    "half precision": (
        {}, {"bf16": {"enabled": True}}, r"DeepSpeed's bf16.enabled = true: parameters stay in float32; set Sett"
    ),
    "one backbone for two": (dict(lora=LoRA(rank=2)), {}, r"critic = OnActor\(\): .*; use FromActor\(\)"),
    "one norm for two": (dict(optim=Joint(lr=1e-3, max_grad_norm=0.5)), {}, r"Settings.optim = Joint\(…\): .*use Sep"),
    "dealt out twice": (dict(shard=True), {}, "Settings.shard = True: DeepSpeed deals out the parameters already"),
    "unequal shares": (
        dict(batch_size=7, recipe=PPO(n_minibatches=2)), {}, "Settings.batch_size = 7: with DeepSpeed it must be a mult"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_dealt_out_is_refused(case, monkeypatch, tmp_path):
    options, config, says = REFUSED[case]
    _ask(dealt(2) | config, monkeypatch, tmp_path)
    rlhf = RLHF(actor(), late_words, options.pop("recipe", PPO()), tokenizer=tokenizer(), **options)
    with pytest.raises(ValueError, match=says):
        rlhf.learn(prompts(), total_episodes=8)
