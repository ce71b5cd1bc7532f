"""`env_wrapper` of RL Baselines3 Zoo as settings: wrappers by name, or how an Atari game is shown.

Names are looked up in a list, never imported.
"""

from collections.abc import Mapping
from typing import Any

from vantage.control.atari import Atari
from vantage.control.wrappers import INSTEAD, NAMED, problem

PACKAGES = ("gymnasium.wrappers.", "gym.wrappers.")
"""Where Gymnasium's wrappers stand, now and before."""
RENAMED = {
    "GrayScaleObservation": "GrayscaleObservation",
    "FrameSkip": "RepeatAction",
    "YAMLCompatResizeObservation": "ResizeObservation",
    "TimeFeatureWrapper": "TimeAwareObservation",
}
"""What Gymnasium calls wrappers of its own past, and such of the zoo as do the same; the time feature is t/T there and
1 − t/T in the zoo.
"""
OF_THE_ZOO = ("rl_zoo3.wrappers.", "rl_zoo.wrappers.", "utils.wrappers.", "sb3_contrib.common.wrappers.")
ARGUMENTS = {("RepeatAction", "skip"): "num_repeats"}
ATARI = {
    "terminal_on_life_loss": "life_ends",
    "clip_reward": "clip_rewards",
    "noop_max": "noop_max",
    "frame_skip": "frame_skip",
    "screen_size": "size",
}
"""Arguments of Stable-Baselines3's AtariWrapper, and the fields of `Atari` that they set."""


def shown(value: Any, frame_stack: int) -> dict[str, Any]:
    """The settings that `env_wrapper`, a name, a dict or a list of these, and `frame_stack` stand for.

    Raises ValueError for a wrapper without a counterpart.
    """
    chosen = [_one(entry) for entry in (value if isinstance(value, list) else [value] if value else [])]
    games = [arguments for name, arguments in chosen if name == "AtariWrapper"]
    if games:
        if len(chosen) > 1:
            raise ValueError(
                "env_wrapper: AtariWrapper stands for atari=Atari(…), which has no other wrapper beside it"
            )
        return {"atari": _atari(games[0], frame_stack)}
    wrappers = dict(chosen)
    found = problem(wrappers)
    if found is not None or len(wrappers) < len(chosen):
        raise ValueError(f"env_wrapper: {found or 'each wrapper may stand there once'}")
    return ({"wrappers": wrappers} if wrappers else {}) | ({"frame_stack": frame_stack} if frame_stack > 1 else {})


def _one(entry: Any) -> tuple[str, dict[str, Any]]:
    """(name, arguments) of one entry."""
    dotted, given = next(iter(entry.items())) if isinstance(entry, Mapping) and len(entry) == 1 else (entry, {})
    if not isinstance(dotted, str):
        raise ValueError(f"env_wrapper = {entry!r} is not understood: write a name, or a name with its arguments")
    name = dotted.rsplit(".", 1)[-1]
    if dotted.startswith("stable_baselines3.") and name == "AtariWrapper":
        return name, dict(given or {})
    ours = RENAMED.get(name, name)
    known = dotted.startswith(PACKAGES) or (dotted.startswith(OF_THE_ZOO) and name in RENAMED)
    if not known or ours not in (*NAMED, *INSTEAD):
        raise ValueError(
            f"env_wrapper: {dotted} has no counterpart here, and is not imported: wrap the environment in a callable, "
            "Agent(lambda: Wrapper(gymnasium.make(…))), or leave it out"
        )
    return ours, _arguments(ours, given or {})


def _arguments(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments under Gymnasium's names; a list is a tuple, and one number for a picture's size both of them."""
    found = {ARGUMENTS.get((name, key), key): tuple(x) if isinstance(x, list) else x for key, x in given.items()}
    if name == "ResizeObservation" and isinstance(found.get("shape"), int):
        found["shape"] = (found["shape"],) * 2
    return found


def _atari(given: Mapping[str, Any], frames: int) -> Atari:
    strange = sorted(given.keys() - ATARI)
    if strange:
        raise ValueError(f"env_wrapper: AtariWrapper has no argument {strange[0]!r}; known are {', '.join(ATARI)}")
    return Atari(frames=frames, **{ATARI[name]: value for name, value in given.items()})
