"""Watch a run's agent: in a window, or as a GIF"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vantage.cli import UsageError
from vantage.cli.eval_ import agent_of
from vantage.cli.options import Parser, of_fields
from vantage.runs.folder import RunFolder, reason


@dataclass(frozen=True, kw_only=True)
class Play:
    """The options of `vantage play`."""

    gif: str | None = None
    """File to write; by default agent.gif in the run folder."""
    human: bool = False
    """Show it in a window instead."""
    stochastic: bool = False
    """Sample the actions as in training, instead of taking the most likely one."""
    seed: int = 0
    """Seed of the environment."""
    max_frames: int = 500
    """Stop after this many steps."""


def main(argv: Sequence[str]) -> None:
    """`vantage play RUN`."""
    given = Parser("play", of_fields(Play, "what to show"), {"RUN": "a run folder, or the file of an agent"}).read(argv)
    chosen = Play(**{name: value for name, value in given.items() if name != "RUN"})
    source = Path(given["RUN"])
    agent = agent_of(source)
    if chosen.human:
        total, _, _ = episode(agent, "human", chosen)
        print(f"{agent.name}: return {total:g}")
        return
    target = Path(chosen.gif) if chosen.gif else RunFolder(source if source.is_dir() else source.parent).gif
    total, frames = record(agent, target, chosen)
    print(f"{agent.name}: return {total:g}, {frames} frames in {target}")


def record(agent: Any, target: Path, chosen: Play | None = None) -> tuple[float, int]:
    """Play one episode and write it as a GIF; returns the return and the number of frames."""
    from vantage.runs.gif import write_gif

    total, frames, fps = episode(agent, "rgb_array", chosen or Play())
    try:
        write_gif(frames, target, fps=fps)
    except OSError as error:
        raise OSError(reason(error, target).replace("--out", "--gif")) from error
    return total, len(frames)


def episode(agent: Any, render_mode: str, chosen: Play) -> tuple[float, list[Any], float]:
    """One episode on an environment of its own: return, frames, frames per second."""
    import gymnasium as gym

    if not isinstance(agent.env, str):
        raise UsageError("this agent was trained on an environment made by a callable: play it from Python")
    if render_mode != "human":  # drawing into memory needs no screen, and must not complain that there is none
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    env = gym.make(agent.env, render_mode=render_mode, **agent.settings.env_kwargs)
    try:
        total, frames, done = 0.0, [], False
        observation, _ = env.reset(seed=chosen.seed)
        while not done and len(frames) < chosen.max_frames:
            frames.append(env.render())
            action = agent.act(observation, deterministic=not chosen.stochastic)
            observation, reward, terminated, truncated, _ = env.step(action)
            total, done = total + float(reward), terminated or truncated
        return total, frames, float(env.metadata.get("render_fps", 30))
    finally:
        env.close()
