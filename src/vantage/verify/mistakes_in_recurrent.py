"""Mistakes in training policies that remember. Claims do not run it; the tests named as guards do."""

from dataclasses import replace

from vantage.verify.planted import bug


@bug(
    "carry-of-the-end",
    "vantage.control.collect:Collector.rollout",
    "test_the_carry_is_the_state_before_the_rollout",
    seen_in="buffers that store the state after acting",
)
def carry_of_the_end(right):
    """The rollout is scored from the state in which acting left it, not from the one in which it began."""

    def rollout(self, *args):
        columns = right(self, *args)
        return replace(columns, carry=self.carry.copy())

    return rollout


@bug("state-runs-on", "vantage.control.recurrent:_scan", "test_the_state_begins_anew_with_each_episode")
def state_runs_on(right):
    """Learning lets the hidden state run on from one episode into the next."""

    def scan(layer, z, memory):
        return right(layer, z, memory._replace(begins=memory.begins & False))

    return scan


@bug("value-without-its-past", "vantage.control.model:Model.value", "test_the_value_reached_follows_upon_its_state")
def value_without_its_past(right):
    """V of the observation reached is asked upon an empty state, as if an episode began there."""

    def value(self, vector, observation, states=None):
        return right(self, vector, observation, None if states is None else 0 * states)

    return value
