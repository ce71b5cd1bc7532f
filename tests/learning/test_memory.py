"""A task that only a policy that remembers can solve."""

import pytest

from benchmarks.memory import STEPS, build

pytestmark = pytest.mark.learning


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("network", ["LSTM", "GRU"])
def test_what_remembers_names_the_cue_eight_steps_later(network, seed):
    agent = build(network, 8, seed)
    report = agent.learn(STEPS)
    assert max(report.column("train/act_mismatch")) < 1e-4
    assert max(report.column("train/first_ratio_deviation")) < 1e-4
    assert agent.evaluate(200, seed=1).mean >= 0.98


def test_without_memory_nothing_is_better_than_chance():
    """Half of the answers are right whatever it does: 200 episodes within 4 standard errors."""
    agent = build("MLP", 8, 0)
    agent.learn(STEPS)
    assert abs(agent.evaluate(200, seed=1).mean - 0.5) <= 4 * 0.5 / 200**0.5
