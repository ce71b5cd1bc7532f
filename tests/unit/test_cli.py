"""The command line without training: help, errors, settings, explanations."""

import json
import subprocess
import sys
import time
from inspect import signature

import pytest

from vantage.cli import COMMANDS, main, plan, summary
from vantage.cli.options import lands
from vantage.recipe import PPO, RECIPES, Clip, Joint, Linear, Penalty, Recipe, Separate, TDError
from vantage.runs.folder import claimed, create, free_name

OUT = ["--out", "nowhere"]


def failing(capsys, *argv: str) -> str:
    """The error of a command that must fail with status 2: one sentence on stderr, nothing on stdout."""
    assert main(argv) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    return told.err


def dry_run(capsys, *argv: str) -> dict:
    """The settings that a command line resolves to."""
    assert main(["train", *argv, "--dry-run", "--json"]) == 0
    return json.loads(capsys.readouterr().out)["settings"]


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_help_lists_every_command(argv, capsys):
    assert main(argv) == 0
    out = capsys.readouterr().out
    for name in COMMANDS:
        assert f"  {name}" in out


def test_help_is_quick_and_light():
    heavy = {"jax", "torch", "gymnasium", "rich"}
    program = f"import sys\nfrom vantage.cli import main\nmain(['--help'])\nassert not {heavy} & set(sys.modules)"
    times = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
        times.append(time.perf_counter() - began)
    assert min(times) < 2.0  # half a second on an idle machine


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "verify"])
def test_each_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert summary(name)
    assert summary(name) in " ".join(out.split())


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["trian"], "did you mean train"),
        (["train"], "name an environment"),
        (["train", "CartPole-v1", "--clip-rnge", "0.2"], "did you mean --clip-range"),
        (["train", "CartPole-v1", "--clip-range", "abc"], "--clip-range abc: give number, or lin_0.2"),
        (["train", "CartPole-v1", "--recipe", "ppoo"], "did you mean ppo"),
        (["train", "CartPole-v1", "--psi", "gaee"], "did you mean gae"),
        (["train", "CartPole-v1", "--beta", "2"], "--recipe ppo-penalty"),
        (["train", "CartPole-v1", "--recipe", "sac"], "known are a2c, actor-critic"),
        (["train", "CartPole-v1", "--psi", "td", "--gae-lambda", "0.5"], "choose --psi gae"),
        (["explain", "gae"], "'gae' is a choice of psi: explain a recipe with it, ppo --psi gae"),
        (["explain", "TD"], "ppo --psi td"),
        (["train", "CartPole-v1", "--steps", "0"], "--steps 0"),
        (["train", "CartPole-v1", "--n-epochs"], "--n-epochs: expected one argument"),
        (["train", "CartPole-v1", "more"], "'more' is one argument too many"),
        (["train", "CartPole-v1", "--optim", "separate", "--lr", "0.1"], "Separate does not have"),
        (["train", "--resume", "nowhere", "--lr", "0.1"], "leave out lr"),
        (["explain", "nothing"], "there is no recipe or metric"),
        (["explain", "ppo", "--clip-rnge", "0.1"], "did you mean --clip-range"),
        (["eval"], "missing RUN"),
        (["play", "somewhere", "--gf", "x"], "did you mean --gif"),
        (["train", "CartPole-v1", "--learning-rate", "1e-3"], "there is no option --learning-rate: here it is --lr"),
        (["train", "CartPole-v1", "--total_timesteps", "9"], "here it is --steps"),
        (["train", "CartPole-v1", "--network", "lst"], "did you mean lstm"),
        (["eval", "somewhere", "--episodes", "0"], "--episodes 0: play at least one"),
        (["play", "somewhere", "--max-frames", "0"], "--max-frames 0"),
    ],
)
def test_misspelt_or_impossible(argv, part, capsys):
    assert part in failing(capsys, *argv)


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["train", "CartPole-v11", *OUT], "CartPole-v1"),
        (["train", "CartPole-v1", "--gae-lambda", "2", *OUT], "--gae-lambda 2.0: λ lies between"),
        (["train", "CartPole-v1", "--gamma", "2", *OUT], "--gamma 2.0: a discount lies between"),
        (["train", "CartPole-v1", "--n-minibatches", "3000", *OUT], "--n-minibatches 3000: the n_envs"),
        (["train", "CartPole-v1", "--clip-range", "-1", *OUT], "--clip-range -1.0: the clip range is a positive"),
        (["train", "CartPole-v1", "--lr", "-1", *OUT], "--lr -1.0: a positive learning rate"),
        (["train", "CartPole-v1", "--hidden", "0", *OUT], "--hidden (0,): each layer"),
        (["compare", "CartPole-v1", "ppo", "--n-envs", "0", *OUT], "--n-envs 0: at least one"),
        (["train", "ALE/Nowhere-v5", *OUT], "ALE/Nowhere-v5"),
        (["train", "CartPole-v1", "--objective", "likelihood", *OUT], "use Ratio, Clip or Penalty"),
        (["train", "--resume", "nowhere"], "nowhere is no run"),
        (["eval", "nowhere"], "nowhere"),
        (["info", "nowhere"], "nowhere is no run"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(argv, part, capsys):
    assert main(argv) == 1
    told = capsys.readouterr()
    assert part in told.err
    assert told.err.count("\n") == 1


@pytest.mark.parametrize(("env", "extra"), [("LunarLander-v3", "box2d"), ("HalfCheetah-v5", "mujoco")])
def test_a_missing_package_is_named_by_its_extra(env, extra, monkeypatch, capsys):
    import gymnasium

    def fail(*args, **kwargs):
        raise gymnasium.error.DependencyNotInstalled("elsewhere")

    monkeypatch.setattr(gymnasium, "make", fail)
    assert main(["train", env, *OUT]) == 1
    assert capsys.readouterr().err == f"vantage train: {env} needs {extra}: pip install 'vantage[{extra}]'\n"


def test_atari_needs_its_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    assert main(["train", "ALE/Pong-v5", *OUT]) == 1
    assert "ALE/Pong-v5 needs atari: pip install 'vantage[atari]'" in capsys.readouterr().err


def test_help_names_every_recipe_and_the_choices_first(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert f"The algorithm: {', '.join(RECIPES)}" in told
    places = [told.index(f" --{name} ") for name in ("psi", "objective", "critic", "clip-range", "gae-lambda", "delta")]
    assert places == sorted(places)


def test_a_run_in_use_is_not_touched(tmp_path):
    """The claim names its process, and ends with it even when that is killed."""
    program = f"""import pathlib, time
from vantage.runs.folder import claimed
with claimed(pathlib.Path({str(tmp_path)!r})):
    print("in", flush=True)
    time.sleep(60)"""
    other = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "in\n"
    with pytest.raises(BlockingIOError, match=f"in use by process {other.pid}"), claimed(tmp_path):
        pass
    other.kill()
    other.wait()
    with claimed(tmp_path):
        pass


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setenv("VANTAGE_DEBUG", "1")
    with pytest.raises(FileNotFoundError):
        main(["info", "nowhere"])


def test_tuned_settings_are_the_start(capsys):
    found = dry_run(capsys, "CartPole-v1")
    assert found["gamma"] == 0.98
    assert found["recipe"]["objective"]["low"] == {"type": "Linear", "start": 0.2, "end": 0.0}


def test_every_kind_of_option_arrives(capsys):
    typed = """CartPole-v1 --clip-range lin_0.3 --gae-lambda 0.7 --n-epochs 3 --n-minibatches 2 --ent-coef 0.01
        --lr lin_1e-3 --n-envs 4 --n-steps 16 --gamma 0.9 --vf-coef 0.1 --max-grad-norm none --target-kl 0.02
        --normalise-observation --hidden 32,16 --seed 7"""
    found = dry_run(capsys, *typed.split())
    recipe, optim = found["recipe"], found["optim"]
    assert recipe["objective"]["low"]["start"] == 0.3
    assert (recipe["psi"]["type"], recipe["psi"]["lam"]) == ("GAE", 0.7)
    assert (recipe["n_epochs"], recipe["n_minibatches"], recipe["ent_coef"], recipe["target_kl"]) == (3, 2, 0.01, 0.02)
    assert optim["lr"] == {"type": "Linear", "start": 1e-3, "end": 0.0}
    assert (optim["vf_coef"], optim["max_grad_norm"]) == (0.1, None)
    assert (found["n_envs"], found["n_steps"], found["gamma"], found["seed"]) == (4, 16, 0.9, 7)
    assert found["normalise_observation"] is True
    assert found["network"]["hidden"] == [32, 16]


def test_another_recipe_keeps_the_problem_and_drops_the_tuned_algorithm(capsys):
    found = dry_run(capsys, "CartPole-v1", "--recipe", "reinforce", "--psi", "td")
    assert found["recipe"]["objective"] == {"type": "Likelihood"}
    assert found["recipe"]["critic"] == {"type": "Squared"}
    assert found["gamma"] == 0.98


def test_recipe_and_objective():
    assert plan.make_recipe({"recipe": "ppo-penalty", "beta": 2.0}).objective == Penalty(beta=2.0)
    assert plan.make_recipe({"objective": Penalty(), "psi": TDError()}).psi == TDError()
    tuned = PPO(clip_range=Linear(0.2), gae_lambda=0.8)
    assert plan.make_recipe({"clip_range": 0.1}, tuned).objective == Clip(low=0.1)
    assert plan.make_recipe({"clip_range": 0.1}, tuned).psi == tuned.psi


def test_a_field_of_the_other_optimiser_chooses_it():
    assert isinstance(plan.make_optim({"critic_lr": 1e-2}, Joint()), Separate)


def test_where_a_preset_keyword_lands():
    assert lands(PPO, "clip_range") == ["objective", "low"]
    assert lands(PPO, "dual_clip") == ["objective", "dual"]
    assert lands(PPO, "gae_lambda") == ["psi", "lam"]
    for build in RECIPES.values():
        own = [name for name, p in signature(build).parameters.items() if p.kind is p.KEYWORD_ONLY]
        assert all(lands(build, name) for name in own if name not in Recipe.__dataclass_fields__), build


def test_dry_run_shows_where_settings_come_from_and_leaves_nothing(capsys):
    assert main(["train", "CartPole-v1", "--dry-run", "--ent-coef", "0.01"]) == 0
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert lines["ent_coef"][1:] == ["0.01", "you"]
    assert lines["gamma"][1:] == ["0.98", "tuned"]
    assert lines["vf_coef"][1:] == ["0.5"]


def test_explain_on_the_command_line(capsys):
    assert main(["explain", "ppo", "--psi", "td", "--objective", "penalty"]) == 0
    text = capsys.readouterr().out
    assert "TDError × Penalty" in text
    assert main(["explain", "ppo", "--clip-range", "0.3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"symbol", "what", "kind", "from", "shape", "unit", "by"} == found["symbols"][0].keys()
    assert any(row["what"].endswith("0.3") for row in found["symbols"])
    assert main(["explain", "train/approx_kl"]) == 0
    assert "k3 =" in capsys.readouterr().out


def test_info_names_versions(capsys):
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["core"]["numpy"]


def test_run_folders(tmp_path):
    folder = create(free_name(tmp_path, "run"))
    folder.write_config({"env": "x"})
    assert folder.read_config() == {"env": "x"}
    assert free_name(tmp_path, "run") == tmp_path / "run-2"
    with pytest.raises(FileExistsError, match="--resume"):
        create(folder.path)
    assert not list(create(tmp_path / "empty").path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="--out"):
        create(tmp_path / "file")
    with pytest.raises(OSError, match="--out"):
        create(tmp_path / "file" / "inside")


def test_a_full_or_read_only_disk_is_said_before_work_begins(tmp_path, monkeypatch):
    import builtins
    import errno

    real = builtins.open
    for code, part in ((errno.ENOSPC, "full disk"), (errno.EROFS, "cannot be written")):

        def full(path, *args, code=code, **kwargs):
            if str(path).endswith(".probe"):
                raise OSError(code, "No space left on device" if code == errno.ENOSPC else "Read-only file system")
            return real(path, *args, **kwargs)

        monkeypatch.setattr(builtins, "open", full)
        with pytest.raises(OSError, match=part) as error:
            create(tmp_path / str(code))
        assert "--out" in str(error.value)
