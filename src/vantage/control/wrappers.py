"""Gymnasium's wrappers by name: those that settings, and so files, may name.

A name is looked up in this list and nowhere else, so that a file from a stranger can neither import nor write anything.
"""

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym

NAMED = (
    "ClipAction", "ClipReward", "DelayObservation", "DiscretizeAction", "DiscretizeObservation", "DtypeObservation",
    "FilterObservation", "FlattenObservation", "GrayscaleObservation", "MaxAndSkipObservation", "RepeatAction",
    "RescaleAction", "RescaleObservation", "ReshapeObservation", "ResizeObservation", "StickyAction",
    "TimeAwareObservation",
)  # fmt: skip
"""Classes of `gymnasium.wrappers`."""
INSTEAD = {
    "FrameStackObservation": "set frame_stack",
    "TimeLimit": "set max_episode_steps",
    "NormalizeObservation": "set normalise_observation",
    "NormalizeReward": "set normalise_reward",
    "AtariPreprocessing": "set atari=Atari(…)",
    "RecordVideo": "use the callback RecordVideo",
    "RecordEpisodeStatistics": "episodes are counted always",
}
"""What has a setting of its own here."""


def problem(wrappers: Any) -> str | None:
    """Why these are no wrappers that settings may name, with the remedy; None if they are."""
    if not isinstance(wrappers, Mapping):
        return 'give names and arguments, such as {"FlattenObservation": {}}'
    for name, arguments in wrappers.items():
        if name in INSTEAD:
            return f"{name}: {INSTEAD[name]} instead"
        if name not in NAMED:
            return f"{name!r} is none of {', '.join(NAMED)}; wrap the environment in a callable, Agent(lambda: …)"
        if not isinstance(arguments, Mapping):
            return f"{name} = {arguments!r}: give its arguments by name, {{}} for none"
    return None


def around(make_one: Callable[[], gym.Env], wrappers: Mapping[str, Mapping[str, Any]]) -> Callable[[], gym.Env]:
    """What makes the environment with the wrappers around it, the first one innermost.

    Raises ValueError, when called, for arguments that a wrapper does not take.
    """

    def one() -> gym.Env:
        env = make_one()
        for name, arguments in wrappers.items():
            try:
                env = getattr(gym.wrappers, name)(env, **arguments)
            except (TypeError, ValueError, AssertionError, AttributeError) as error:
                raise ValueError(
                    f"wrappers: {name}({dict(arguments)}) does not fit this environment: {error}"
                ) from error
        return env

    return one
