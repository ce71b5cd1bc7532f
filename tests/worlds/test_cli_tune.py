"""`vantage tune`: trials, pruning, going on, and a file that trains."""

import pytest

from vantage.cli import main, tune
from vantage.cli.tune import CHOICES, NUMBERS, suggest

optuna = pytest.importorskip("optuna")
SMALL = ["--steps", "64", "--episodes", "2", "--hidden", "8", "--n-envs", "2", "--n-steps", "16", "--n-epochs", "1",
         "--n-minibatches", "2"]  # fmt: skip


class Trial:
    """Answers every suggestion with its first value, and notes what was asked."""

    def __init__(self):
        self.asked = []

    def suggest_float(self, name, low, high, log):
        self.asked.append(name)
        return low

    def suggest_categorical(self, name, values):
        self.asked.append(name)
        return values[0]


def trials(folder):
    return optuna.load_study(study_name="CartPole-v1", storage=f"sqlite:///{folder / 'study.db'}").trials


def test_three_trials_then_two_more(tmp_path, capsys):
    argv = ["tune", "CartPole-v1", *SMALL, "--out", str(tmp_path)]
    assert main([*argv, "--trials", "3"]) == 0
    assert len(trials(tmp_path)) == 3
    assert main([*argv, "--trials", "5"]) == 0
    found = trials(tmp_path)
    assert len(found) == 5
    assert len({str(trial.params) for trial in found}) == 5  # a resumed study proposes new settings
    assert "n_epochs" not in found[0].params  # given, hence fixed
    capsys.readouterr()
    assert main(["train", "--config", str(tmp_path / "best.toml"), "--dry-run", "--json"]) == 0
    assert '"n_epochs": 1' in capsys.readouterr().out
    assert main([*argv, "--trials", "5", "--gamma", "0.5"]) == 2
    assert "other settings" in capsys.readouterr().err


def test_a_trial_that_is_interrupted_is_tried_again(tmp_path, monkeypatch, capsys):
    real = tune.run

    def interrupted(*args):
        raise KeyboardInterrupt

    argv = ["tune", "CartPole-v1", *SMALL, "--trials", "1", "--out", str(tmp_path)]
    monkeypatch.setattr(tune, "run", interrupted)
    assert main(argv) == 130
    monkeypatch.setattr(tune, "run", real)
    assert main(argv) == 0
    assert [trial.state.name for trial in trials(tmp_path)].count("FAIL") == 1
    assert (tmp_path / "best.toml").exists()


@pytest.mark.slow
def test_trials_at_the_same_time(tmp_path):
    argv = ["tune", "CartPole-v1", *SMALL, "--out", str(tmp_path), "--jobs", "2"]
    assert main([*argv, "--trials", "4"]) == 0
    found = trials(tmp_path)
    assert len(found) == 4
    assert {trial.state.name for trial in found} <= {"COMPLETE", "PRUNED"}
    assert len({str(trial.params) for trial in found}) == 4
    assert (tmp_path / "best.toml").exists()


def test_pruned_where_it_is_hopeless(monkeypatch):
    class Hopeless(Trial):
        def report(self, value, step):
            self.reported = step

        def should_prune(self):
            return True

    trial = Hopeless()
    fixed = {"recipe": "ppo", "n_envs": 2, "n_steps": 16, "steps": 320}
    value, state = tune.run(trial, "CartPole-v1", fixed, tune.Tune(episodes=1), optuna)
    assert (value, state.name, trial.reported) == (None, "PRUNED", 1)


def test_settings_that_do_not_go_together_are_pruned():
    fixed = {"recipe": "ppo", "n_envs": 1, "n_steps": 1, "n_minibatches": 64, "steps": 8}
    assert tune.run(Trial(), "CartPole-v1", fixed, tune.Tune(), optuna)[1].name == "PRUNED"


@pytest.mark.parametrize(
    ("fixed", "left_out"),
    [
        ({"recipe": "ppo"}, {"critic_lr"}),
        ({"recipe": "ppo", "critic_lr": 1e-3}, {"critic_lr", "lr", "vf_coef"}),
        ({"recipe": "ppo-penalty", "gamma": 0.9}, {"critic_lr", "clip_range", "gamma"}),
        ({"recipe": "a2c"}, {"critic_lr", "clip_range", "gae_lambda", "n_epochs", "n_minibatches"}),
    ],
)
def test_only_what_the_recipe_has_and_nobody_fixed_is_searched(fixed, left_out):
    trial = Trial()
    suggest(trial, fixed)
    assert {*NUMBERS, *CHOICES} - set(trial.asked) == left_out


def test_without_optuna(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    assert main(["tune", "CartPole-v1", "--out", str(tmp_path)]) == 1
    assert "pip install 'vantage[tune]'" in capsys.readouterr().err
