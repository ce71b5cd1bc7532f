"""Atari games as they are usually learned from: few, small, grey frames, stacked; rewards by their sign; V is 0 where a
life is lost.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import gymnasium as gym

from vantage.recipe import check
from vantage.recipe.schedule import check_whole
from vantage.runs.config import known


@known
@dataclass(frozen=True, kw_only=True)
class Atari:
    """How a game is shown. Source: Mnih et al. (2015), Machado et al. (2018).

    Scores, in the statistics and in evaluation, are those of whole games with their own rewards.
    """

    frame_skip: int = 4
    """Frames for which an action is repeated; the picture is the larger of the last two, pixel by pixel."""
    size: int = 84
    """Height and width of the picture."""
    grayscale: bool = True
    """Grey instead of colours."""
    frames: int = 4
    """Pictures that are seen together."""
    noop_max: int = 30
    """A game begins with so many idle frames at most, drawn anew each time."""
    fire: bool = True
    """Whether FIRE is pressed once at the beginning, in games that wait for it."""
    life_ends: bool = True
    """Whether V is 0 where a life is lost (the discount is 0 there; the game goes on)."""
    clip_rewards: bool = True
    """Whether Ψ sees the sign of each reward."""

    def __post_init__(self) -> None:
        check_whole(self, "frame_skip", "size", "frames", "noop_max")
        for name, least in (("frame_skip", 1), ("size", 1), ("frames", 1), ("noop_max", 0)):
            check(getattr(self, name) >= least, self, name, f"at least {least}")

    def __str__(self) -> str:
        colour = "grey" if self.grayscale else "coloured"
        told = [f"{self.frames} {colour} pictures of {self.size} × {self.size}, one each {self.frame_skip} frames"]
        told += ["a lost life ends the return"] * self.life_ends + ["Ψ sees signs of rewards"] * self.clip_rewards
        return "; ".join(told)

    def one(self, env_id: str, max_episode_steps: int | None, **env_kwargs: Any) -> gym.Env:
        """A single game of Gymnasium's, with frames stacked first."""
        env: gym.Env = gym.make(env_id, **{**env_kwargs, "frameskip": 1})
        if self.fire and "FIRE" in env.unwrapped.get_action_meanings():  # type: ignore[attr-defined]
            env = Fire(env)
        env = gym.wrappers.AtariPreprocessing(
            env,
            noop_max=self.noop_max,
            frame_skip=self.frame_skip,
            screen_size=self.size,
            grayscale_obs=self.grayscale,
        )
        env = gym.wrappers.FrameStackObservation(env, self.frames, padding_type="zero")
        return env if max_episode_steps is None else gym.wrappers.TimeLimit(env, max_episode_steps)

    def several(self, env_id: str, slots: int, max_episode_steps: int | None, **env_kwargs: Any) -> Any:
        """Games stepped together, by ale-py's own vector implementation."""
        limit = {} if max_episode_steps is None else {"max_num_frames_per_episode": max_episode_steps * self.frame_skip}
        return gym.make_vec(
            env_id, slots, vectorization_mode="vector_entry_point", frameskip=self.frame_skip, stack_num=self.frames,
            img_height=self.size, img_width=self.size, grayscale=self.grayscale, noop_max=self.noop_max,
            use_fire_reset=self.fire, episodic_life=False, reward_clipping=False, **limit, **env_kwargs,
        )  # fmt: skip

    @property
    def of_envpool(self) -> dict[str, Any]:
        """The same in EnvPool's options."""
        return {
            "frame_skip": self.frame_skip, "stack_num": self.frames, "img_height": self.size, "img_width": self.size,
            "gray_scale": self.grayscale, "noop_max": self.noop_max, "use_fire_reset": self.fire,
            "episodic_life": False, "reward_clip": False,
        }  # fmt: skip


class Fire(gym.Wrapper):
    """Presses FIRE once when a game begins."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """The picture after it."""
        self.env.reset(seed=seed, options=options)
        fire = self.env.unwrapped.get_action_meanings().index("FIRE")  # type: ignore[attr-defined]
        observation, _, terminated, truncated, info = self.env.step(fire)
        return self.env.reset(options=options) if terminated or truncated else (observation, info)


def is_game(spec: Any, env_kwargs: dict[str, Any]) -> bool:
    """Whether a registration is that of a game whose pictures are seen."""
    return str(spec.entry_point).startswith("ale_py") and env_kwargs.get("obs_type", "rgb") != "ram"


def is_game_of_envpool(name: str) -> bool:
    """Whether EnvPool is installed and has a game of that name."""
    if find_spec("envpool") is None:
        return False
    from envpool.registration import registry

    return str(registry.specs.get(name, ("",))[0]).startswith("envpool.atari")
