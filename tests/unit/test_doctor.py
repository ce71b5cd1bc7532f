"""The verdict: each rule fires on a run with its fault, and all are silent on a healthy one."""

import math

import numpy as np
import pytest

from vantage.lab.doctor import RULES, sentences, verdict

N = 60


def healthy(seed: int = 0) -> list[dict[str, float]]:
    """A run as PPO on CartPole-v1 makes it: the return rises, the critic learns, the policy gets more certain."""
    rng = np.random.default_rng(seed)
    x = np.linspace(0.0, 1.0, N)
    return [
        {
            "time/total_timesteps": 256.0 * (i + 1),
            "rollout/ep_rew_mean": 20.0 + 450.0 * x[i] + rng.normal(0, 5),
            "train/explained_variance": 0.8 * x[i] + rng.normal(0, 0.03),
            "train/approx_kl": 0.006 + rng.uniform(0, 0.004),
            "train/clip_fraction": 0.08 + rng.uniform(0, 0.05),
            "train/entropy_loss": -0.69 + 0.35 * x[i],
            "train/value_loss": 12.0 + rng.uniform(0, 3),
            "train/policy_gradient_loss": -0.01,
            "train/loss": 6.0,
            "train/learning_rate": 3e-4,
            "train/act_mismatch": 1e-7,
        }
        for i in range(N)
    ]


def with_fault(**series) -> list[dict[str, float]]:
    """A healthy run with some metrics replaced: a number, or a function of the share that is done."""
    rows = healthy()
    for name, value in series.items():
        name = ("rollout/" if name == "ep_rew_mean" else "train/") + name
        for i, row in enumerate(rows):
            row[name] = value(i / (N - 1)) if callable(value) else value
    return rows


FAULTS = {
    "not_finite": with_fault(loss=lambda x: math.nan if x > 0.5 else 6.0),
    "act_mismatch": with_fault(act_mismatch=0.02),
    "policy_jumps": with_fault(approx_kl=0.2),
    "policy_stands": with_fault(approx_kl=1e-7),
    "critic_explains_nothing": with_fault(explained_variance=-0.1),
    "entropy_collapsed": with_fault(
        entropy_loss=lambda x: -0.69 * max(1 - 3 * x, 0.001), ep_rew_mean=lambda x: 20.0 + 3 * x
    ),
    "entropy_at_ceiling": with_fault(entropy_loss=-0.692, ep_rew_mean=21.0),
    "reward_scale": with_fault(value_loss=3e6, ep_rew_mean=lambda x: -1000.0 + x),
    "fell_back": with_fault(ep_rew_mean=lambda x: 400.0 * math.sin(math.pi * x)),
}


def test_the_scale_of_rewards_is_judged_by_the_start_when_it_is_small():
    """A loss that vanishes at the end is a critic that has learned; one that was never there is another matter."""
    stuck = {"ep_rew_mean": lambda x: 100.0 + x}
    learned = verdict(with_fault(value_loss=lambda x: 10.0 * (1 - x) ** 8 + 1e-9, **stuck))
    assert "reward_scale" not in {finding.rule for finding in learned}
    small = {finding.rule: finding for finding in verdict(with_fault(value_loss=1e-9, **stuck))}
    assert "at the start" in small["reward_scale"].evidence


def test_every_rule_has_a_fault():
    assert {check.__name__ for check in RULES} == FAULTS.keys()


@pytest.mark.parametrize("name", FAULTS)
def test_a_rule_fires_on_its_fault_and_says_why(name):
    found = {finding.rule: finding for finding in verdict(FAULTS[name])}
    assert name in found
    assert any(letter.isdigit() or letter == "n" for letter in found[name].evidence)
    assert found[name].problem
    assert found[name].remedy


def test_also_many_clipped_ratios_alone():
    assert [f.rule for f in verdict(with_fault(clip_fraction=0.7))] == ["policy_jumps"]


@pytest.mark.parametrize("seed", range(20))
def test_silent_on_healthy_runs(seed):
    assert verdict(healthy(seed)) == []


def test_a_solved_task_may_be_certain_flat_and_unexplained():
    rows = with_fault(
        ep_rew_mean=lambda x: 20 + 480 * min(2 * x, 1.0),
        entropy_loss=lambda x: -0.69 * max(1 - 2 * x, 0.001),
        value_loss=lambda x: 12.0 if x < 0.5 else 1e-7,
        explained_variance=lambda x: 0.9 if x < 0.5 else -1.0,
    )
    assert verdict(rows) == []


def test_a_step_size_that_falls_to_zero_is_no_standing_policy():
    rows = with_fault(approx_kl=lambda x: 0.01 * (1 - x) ** 8, learning_rate=lambda x: 1e-3 * (1 - x))
    assert verdict(rows) == []


@pytest.mark.parametrize("rows", [[], healthy()[:3], [{"time/total_timesteps": 5.0}]])
def test_too_little_to_say(rows):
    assert verdict(rows) == []
    assert len(sentences(rows)) == 3


def test_three_sentences():
    outcome, health, way_on = sentences(healthy(), goal=400.0, next_step="Go on.")
    assert "goal of 400 is reached" in outcome
    assert "healthy" in health
    assert way_on == "Go on."
    _, health, way_on = sentences(FAULTS["policy_jumps"])
    assert "too far" in health
    assert "--target-kl" in way_on


def test_a_short_run_or_an_unchanged_return_is_said_to_be_one():
    row = {"rollout/ep_rew_mean": 15.86, "time/total_timesteps": 1024}
    outcome, health, _ = sentences([row])
    assert "one update has it" in outcome
    assert health == "1 update is too few to judge its health."
    assert "hardly changed from 15.86 in" in sentences([row, row])[0]


def test_reading_changes_nothing():
    rows = healthy()
    before = [dict(row) for row in rows]
    verdict(rows)
    assert rows == before
