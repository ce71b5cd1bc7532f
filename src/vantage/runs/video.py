"""An agent at work, as frames, as a GIF or as a film."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vantage.runs.gif import write_gif


@dataclass(frozen=True, kw_only=True)
class Film:
    """One episode as it was seen."""

    total: float
    """Its return."""
    frames: list[Any]
    """RGB, each `[height, width, 3]` of uint8."""
    fps: float


def record(
    agent: Any, target: Path, *, deterministic: bool = True, seed: int = 0, max_frames: int = 500
) -> tuple[float, int]:
    """Play one episode and write it as the suffix says; returns the return and the number of frames.

    Raises ValueError for a suffix other than .gif and .mp4, before anything is played.
    """
    if target.suffix not in (".gif", ".mp4"):
        raise ValueError(f"{target}: a film is written as .gif or as .mp4")
    if target.suffix == ".mp4":
        _imageio()
    film = episode(agent, "rgb_array", deterministic=deterministic, seed=seed, max_frames=max_frames)
    write = write_gif if target.suffix == ".gif" else write_mp4
    write(film.frames, target, fps=film.fps)
    return film.total, len(film.frames)


def episode(agent: Any, render_mode: str, *, deterministic: bool = True, seed: int = 0, max_frames: int = 500) -> Film:
    """One episode on an environment of its own, which is shown in a window if `render_mode` is "human"."""
    if render_mode != "human":  # drawing into memory needs no screen, and must not complain that there is none
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    env = _visible(agent, render_mode)
    try:
        total, frames, state, start, done = 0.0, [], None, True, False
        observation, info = env.reset(seed=seed)
        while not done and len(frames) < max_frames:
            frames.append(env.render())
            action, state = agent.predict(
                observation, state=state, episode_start=start, deterministic=deterministic,
                action_masks=_mask(agent, env, info),
            )  # fmt: skip
            observation, reward, terminated, truncated, info = env.step(action)
            total, start, done = total + float(reward), False, terminated or truncated
        return Film(total=total, frames=frames, fps=float(env.metadata.get("render_fps", 30)))
    finally:
        env.close()


def _visible(agent: Any, render_mode: str) -> Any:
    """One environment that can be seen. Raises ValueError, with the remedy, for one that cannot."""
    env = agent.one(render_mode)
    if env.render_mode == render_mode:
        return env
    env.close()
    raise ValueError(f"{agent.name} is not drawn: let it make its environment with render_mode={render_mode!r}")


def _mask(agent: Any, env: Any, info: dict[str, Any]) -> Any:
    """The action mask that `predict` wants, from where the agent found it in training."""
    if agent.mask_source == "method":
        return env.get_wrapper_attr("action_masks")()
    return info["action_mask"] if agent.mask_source == "info" else None


def write_mp4(frames: Sequence[Any], path: Path, *, fps: float = 30.0) -> None:
    """Write RGB frames, each `[height, width, 3]` of uint8, as MPEG-4. Raises ValueError without frames."""
    if not frames:
        raise ValueError("there is no frame to write: the environment must be made with render_mode='rgb_array'")
    height, width = frames[0].shape[:2]
    writer = _imageio().write_frames(str(path), (width, height), fps=fps, macro_block_size=2)
    writer.send(None)
    for frame in frames:
        writer.send(np.ascontiguousarray(frame))
    writer.close()


def _imageio() -> Any:
    try:
        import imageio_ffmpeg
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("an .mp4 film needs imageio-ffmpeg: pip install 'vantage[video]'") from error
    return imageio_ffmpeg
