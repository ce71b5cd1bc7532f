"""vantage rlhf and vantage chat at work: train, look first, resume, talk; what cannot be is said in one sentence."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("datasets")

from tests.unit._tokens import tokenizer  # noqa: E402
from tests.worlds.language_models import free_port  # noqa: E402
from vantage.cli import main, rlhf_options  # noqa: E402
from vantage.cli.options import of_fields  # noqa: E402
from vantage.cli.rlhf import Run  # noqa: E402
from vantage.explain.choices import convert  # noqa: E402
from vantage.language import Settings  # noqa: E402
from vantage.recipe import LANGUAGE_RECIPES  # noqa: E402

SHORT = ["--max-new-tokens", "5", "--batch-size", "4", "--micro-batch", "4", "--actor-lr", "1e-2"]
REWARD = """
def brevity(completions, **kwargs):
    return [-float(len(completion.split())) for completion in completions]

def truth(completions, answer):
    return [float(a in c) for a, c in zip(answer, completions)]

def broken(completions):
    return [float("nan") for _ in completions]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model, its tokenizer, prompts and rewards."""
    folder = tmp_path_factory.mktemp("rlhf")
    tok = tokenizer()
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=len(tok), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
            pad_token_id=0, eos_token_id=1, bos_token_id=None,
        )
    )  # fmt: skip
    model.save_pretrained(folder / "model")
    tok.save_pretrained(folder / "model")
    judge = transformers.LlamaForSequenceClassification.from_pretrained(folder / "model", num_labels=1)
    judge.save_pretrained(folder / "judge")
    tok.save_pretrained(folder / "judge")
    (folder / "reward.py").write_text(REWARD)
    rows = [{"prompt": text, "answer": "far"} for text in ("the cat", "a dog ran", "it was", "the mat is not")]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def command(place, out, *more, reward="reward.py:brevity"):
    source = ",".join(str(place / part) for part in reward.split(","))
    return ["rlhf", "--actor", str(place / "model"), "--reward", source, "--prompts", str(place / "prompts.jsonl"),
            "--out", str(out), *SHORT, *more]  # fmt: skip


def rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return [{k: x for k, x in row.items() if not k.startswith("time/")} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def finished(place, tmp_path_factory):
    """A run that was never interrupted: 8 updates."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    assert main(command(place, path, "--episodes", "32", "--kl-target", "2")) == 0
    return path


def by_two(place, words, *launcher):
    """A command in two processes; what it printed."""
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(root)}
    launch = [str(Path(sys.executable).parent / launcher[0]), *launcher[1:]]
    done = subprocess.run(
        [*launch, "-m", "vantage", *words], env=environment, cwd=place, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


TORCHRUN = ["torchrun", "--standalone", "--nproc_per_node", "2"]
ZERO = ["accelerate", "launch", "--use_deepspeed", "--zero_stage", "2", "--num_processes", "2"]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [TORCHRUN, ZERO], ids=["torchrun", "DeepSpeed"])
def test_two_processes_leave_one_run(place, tmp_path, launcher):
    """One of them speaks and writes; the run is that of one process, and goes on with any number of them."""
    if launcher is ZERO:
        pytest.importorskip("deepspeed")
        launcher = [*launcher, "--main_process_port", free_port()]
    more = ["--episodes", "16", "--held-out", str(place / "prompts.jsonl")]
    assert by_two(place, command(place, tmp_path / "two", *more), *launcher).count("Mean score") == 1
    assert main(command(place, tmp_path / "one", *more)) == 0
    onward = {name: ["rlhf", "--resume", str(tmp_path / name), "--episodes", "24"] for name in ("one", "two")}
    assert main(onward["two"]) == 0
    assert by_two(place, onward["one"], *launcher).count("Mean score") == 1
    ours, theirs = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert len(ours) == len(theirs) == 6
    for one, two in zip(ours, theirs, strict=True):
        numbers = [{k: float(x) for k, x in row.items() if x} for row in (one, two)]
        assert numbers[1] == pytest.approx(numbers[0], rel=1e-4, abs=1e-5, nan_ok=True)


def test_what_a_run_leaves(finished):
    names = {path.name.split(".")[0] for path in finished.iterdir()}
    assert {"actor", "state", "config", "metrics", "samples", "events", "learning_curve"} <= names
    assert len(rows(finished)) == 8
    model = transformers.AutoModelForCausalLM.from_pretrained(finished / "actor")
    assert model.config.vocab_size == len(transformers.AutoTokenizer.from_pretrained(finished / "actor"))
    line = json.loads((finished / "samples.jsonl").read_text().splitlines()[0])
    assert line["score"] == -float(len(line["completion"].split()))


def test_a_run_that_was_cut_goes_on_bit_for_bit(place, finished, tmp_path):
    path = tmp_path / "cut"
    assert main(command(place, path, "--episodes", "16", "--kl-target", "2")) == 0
    assert main(["rlhf", "--resume", str(path), "--episodes", "32"]) == 0
    assert rows(path) == rows(finished)
    ours, theirs = (transformers.AutoModelForCausalLM.from_pretrained(p / "actor") for p in (path, finished))
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)


def test_several_rewards_a_critic_from_the_reward_and_held_out_prompts(place, tmp_path, capsys):
    held = ["--held-out", str(place / "prompts.jsonl"), "--eval-every", "4", "--critic-model", "reward", "--json"]
    run = command(place, tmp_path / "run", "--episodes", "8", *held, reward="judge,reward.py:brevity=0.5")
    assert main(run) == 0
    told = json.loads(capsys.readouterr().out)
    final = told["final"]
    parts = final["rewards/judge/mean"] + 0.5 * final["rewards/brevity/mean"]
    assert final["objective/scores"] == pytest.approx(parts, abs=1e-5)
    assert np.isfinite(final["eval/score"])
    assert "On held-out prompts" in told["verdict"][1]


@pytest.mark.parametrize("recipe", ["grpo", "rloo"])
def test_recipes_with_groups(place, tmp_path, recipe, capsys):
    run = command(place, tmp_path / "run", "--recipe", recipe, "--group-size", "2", "--episodes", "8", "--json")
    assert main(run) == 0
    assert "frac_reward_zero_std" in json.loads(capsys.readouterr().out)["final"]


def test_updates_are_whole(place, tmp_path, capsys):
    assert main(command(place, tmp_path / "run", "--episodes", "6", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == 8
    assert main(command(place, tmp_path / "other", "--episodes", "6", "--dry-run")) == 0
    assert "8 completions of 4 prompts, 4 an update" in capsys.readouterr().out


def test_what_is_called_otherwise_is_there():
    options = rlhf_options.ELSEWHERE
    known = {option.flag for option in (*rlhf_options.options(), *of_fields(Run, "run"))}
    assert not known & options.keys()
    assert {word for text in options.values() for word in text.split() if word.startswith("--")} <= known


def test_a_dry_run_shows_tokens_and_memory_and_does_nothing(place, tmp_path, capsys):
    assert main(command(place, tmp_path / "run", "--dry-run")) == 0
    out = capsys.readouterr().out
    assert "· the (5) cat (6)" in out
    assert "a (9) dog (12) ran (13)" in out
    assert "Memory, at least: actor" in out
    assert not (tmp_path / "run").exists()


def test_talking(finished, capsys, monkeypatch):
    assert main(["chat", str(finished), "--prompt", "the cat", "--greedy"]) == 0
    out = capsys.readouterr().out
    assert "before" in out
    assert "after" in out
    monkeypatch.setattr("sys.stdin", io.StringIO("a dog\nthe cat\n\nnot read\n"))
    assert main(["chat", str(finished), "--top-p", "0.5"]) == 0
    assert capsys.readouterr().out.count("before") == 2
    for words, says in (
        (("--temperature", "0"), "give --greedy"),
        (("--temperature", "-1"), "--temperature -1.0: a pos"),
    ):
        assert main(["chat", str(finished), *words, "--prompt", "the cat"]) in (1, 2)
        assert says in capsys.readouterr().err


def test_a_reward_that_fails_leaves_the_experience(place, tmp_path, capsys):
    assert main(command(place, tmp_path / "run", reward="reward.py:broken")) == 1
    err = capsys.readouterr().err
    assert "reward 'broken' returned nan for row 0" in err
    assert f"vantage rlhf --resume {tmp_path / 'run'}" in err
    lines = (tmp_path / "run" / "experience.jsonl").read_text().splitlines()
    assert len(lines) == 4
    assert json.loads(lines[0])["answer"] == "far"


BAD = {
    "no actor": (["rlhf", "--reward", "x"], "name --actor, --reward and --prompts"),
    "no such recipe": (["--recipe", "ppa"], "there is no recipe 'ppa': did you mean ppo?"),
    "not for this recipe": (["--recipe", "rloo", "--clip-range", "0.1"], "RLOO has no option 'clip_range'"),
    "no such function": (["--reward", "PLACE/reward.py:nothing"], "has no function 'nothing'"),
    "no such file": (["--reward", "nowhere.py:f"], "there is no file nowhere.py"),
    "weight": (["--reward", "PLACE/reward.py:brevity=much"], "'much' is no weight"),
    "no prompts": (["--prompts", "nowhere.jsonl"], "nowhere.jsonl does not exist"),
    "target without kl": (["--kl", "none", "--kl-target", "3"], "--kl-target steers the price of the KL"),
    "trust region": (["--recipe", "trpo"], "second derivatives; choose ppo or ppo-penalty"),
    "less than an update": (["--episodes", "3"], "--episodes 3: an update makes 4 completions"),
    "another's name": (["--learning-rate", "1e-5"], "there is no option --learning-rate: here it is --actor-lr and"),
    "a field of the recipe": (["--gae-lambda", "2"], "--gae-lambda 2.0: "),
    "a field of the objective": (["--clip-range", "-1"], "--clip-range -1.0: "),
    "a field of the KL": (["--kl", "kl-in-reward:beta=-1"], "KLInReward.beta = -1.0: "),
    "no completions": (["--episodes", "0"], "--episodes 0: give at least 1"),
    "nothing to evaluate on": (["--eval-every", "8"], "add --held-out FILE"),
    "no held-out file": (["--held-out", "nowhere.jsonl"], "nowhere.jsonl does not exist"),
    "no such model": (["--reward", "PLACE/nowhere"], "is neither a folder with a model nor one on the hub"),
    "horizon without target": (["--kl-horizon", "100"], "--kl-horizon 100 is how slowly β follows --kl-target"),
    "a bad number": (["--temperature", "0"], "--temperature 0.0: a positive number"),
    "a bad target": (["--kl-target", "-1"], "--kl-target -1.0: a KL target in nats"),
    "a group that does not fit": (["--recipe", "rloo", "--group-size", "3"], "--batch-size 4: a multiple of"),
    "resume with settings": (["rlhf", "--resume", "x", "--seed", "1"], "leave out seed"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_said(case, place, tmp_path, capsys):
    words, message = BAD[case]
    words = [word.replace("PLACE", str(place)) for word in words]
    assert main(words if words[0] == "rlhf" else command(place, tmp_path / "run", *words)) in (1, 2)
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_another_commands_run_is_refused(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"env": "CartPole-v1"}')
    assert main(["chat", str(tmp_path)]) == 2
    assert "is no run of vantage rlhf" in capsys.readouterr().err


def test_help_shows_what_holds_for_language_models():
    """Defaults as the settings resolve them, not as agents have them; names as a user would spell them."""
    told = {option.name: option for option in rlhf_options.options()}
    resolved = Settings()
    assert told["n_epochs"].default == resolved.recipe.n_epochs == 4
    assert told["n_minibatches"].default == resolved.recipe.n_minibatches == 1
    assert told["critic"].default == resolved.recipe.critic
    assert told["actor_lr"].default == resolved.optim.actor_lr == 3e-6
    assert convert("lora:rank=4", told["lora"].annotation).rank == 4
    recipe = next(option for option in of_fields(Run, "run") if option.name == "recipe")
    assert all(name in recipe.help for name in LANGUAGE_RECIPES)
