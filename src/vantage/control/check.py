"""What would break or spoil training in an environment, found by playing it with random actions."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

from vantage.control.images import picture
from vantage.control.masks import METHOD, one_mask
from vantage.control.observations import KEY
from vantage.control.spaces import actions, observations

Array = Any
LARGE, SMALL = 1e3, 1e-3
"""Rewards whose largest size is outside this range drown the critic, or are drowned by Adam's ε."""
WIDE, NARROW = 10.0, 0.1
"""Boxes of actions whose half-width is outside this range do not suit a policy that begins with σ = 1."""
FRAMES = "max_num_frames_per_episode"
"""How Atari games call their own time limit, an argument of the environment."""
ALIKE = 3
"""So many episodes of one length, all by termination, look like a time limit in disguise."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong, or likely so, and what to do about it."""

    rule: str
    problem: str
    remedy: str
    certain: bool = True
    """False for what may be meant, such as a large reward."""

    def __str__(self) -> str:
        return f"{'error' if self.certain else 'warning'}, {self.rule}: {self.problem}; {self.remedy}"


@dataclass(kw_only=True)
class Played:
    """What random actions brought about."""

    rewards: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    terminated: list[bool] = field(default_factory=list)
    largest: float = 0.0
    """Of all observed numbers."""
    steps: int = 0
    pictures: dict[str, tuple[float, float]] = field(default_factory=dict)
    """The least and the largest entry of each Box with more than one axis."""


def check(make: Callable[[], gym.Env], steps: int = 2000, seed: int = 0) -> list[Finding]:
    """The findings for a single environment, certain ones first; each rule is reported once.

    It is played for `steps` random steps, and twice more from one seed. Raises what `make` raises.
    """
    found: dict[str, Finding] = {}
    env = make()
    try:
        for finding in _spaces(env):
            found.setdefault(finding.rule, finding)
        played = Played()
        for finding in _play(env, played, steps, seed):
            found.setdefault(finding.rule, finding)
        if "api" not in found:
            for finding in (*_judge(env, played), *_pictures(env, played), *_seeds(make, seed)):
                found.setdefault(finding.rule, finding)
    finally:
        env.close()
    return sorted(found.values(), key=lambda finding: not finding.certain)


def _spaces(env: gym.Env) -> Iterator[Finding]:
    """Spaces that are not supported, and boxes of actions of an unsuitable size."""
    for kind, read, space in (
        ("observation", observations, env.observation_space),
        ("action", actions, env.action_space),
    ):
        try:
            read(space)
        except (TypeError, ValueError) as error:
            problem, _, remedy = str(error).partition(": ")
            yield Finding(rule=f"{kind}-space", problem=problem, remedy=remedy)
    box = env.action_space
    if isinstance(box, gym.spaces.Box):
        half = 0.5 * (np.asarray(box.high, np.float64) - np.asarray(box.low, np.float64))
        remedy = "wrap it in gymnasium.wrappers.RescaleAction(env, -1, 1)"
        if not np.isfinite(half).all():
            yield Finding(rule="action-scale", problem="the box of actions has no bounds", certain=False,
                          remedy="give it bounds that make sense, such as ±1")  # fmt: skip
        elif half.max() > WIDE or half.min() < NARROW:
            problem = f"actions reach to ±{half.max():g} and ±{half.min():g}, while the policy begins with σ = 1"
            yield Finding(rule="action-scale", problem=problem, remedy=remedy, certain=False)


def _play(env: gym.Env, played: Played, steps: int, seed: int) -> Iterator[Finding]:
    """Random actions: what comes back must have the form, lie in the space, and be finite."""
    env.action_space.seed(seed)
    try:
        observation, told = yield from _began(env, env.reset(seed=seed), played)
        length = 0
        for _ in range(steps):
            back = env.step((yield from _action(env, observation, told)))
            if not isinstance(back, tuple) or len(back) != 5:
                yield _api(
                    f"step() returned {_count(back)}", "return (observation, reward, terminated, truncated, info)"
                )
                return
            observation, reward, terminated, truncated, told = back
            length, played.steps = length + 1, played.steps + 1
            yield from _observation(env, observation, played, "step()")
            yield from _reward(reward, played)
            for name, x in (("terminated", terminated), ("truncated", truncated)):
                if not isinstance(x, bool | np.bool_):
                    yield Finding(rule=name, problem=f"{name} is {x!r}, no bool", remedy=f"return bool({name})")
            if terminated or truncated:
                played.lengths.append(length)
                played.terminated.append(bool(terminated) and not truncated)
                length = 0
                observation, told = yield from _began(env, env.reset(), played)
    except Exception as error:  # whatever it raises would end a run
        remedy = "make reset and step work for every action of the action space"
        yield _api(f"it raised {type(error).__name__}: {error}", remedy)


def _began(env: gym.Env, back: Any, played: Played) -> Generator[Finding, None, tuple[Any, Any]]:
    if not isinstance(back, tuple) or len(back) != 2:
        yield _api(f"reset() returned {_count(back)}", "return (observation, info)")
        return back, {}
    yield from _observation(env, back[0], played, "reset()")
    return back


def _mask(env: gym.Env, observation: Any, told: Any) -> Any:
    """The action mask, looked for where training does; None without one."""
    if isinstance(env.observation_space, gym.spaces.Dict) and KEY in env.observation_space.spaces:
        return observation[KEY]
    if env.has_wrapper_attr(METHOD):
        return env.get_wrapper_attr(METHOD)()
    return told.get(KEY) if isinstance(told, dict) else None


def _action(env: gym.Env, observation: Any, told: Any) -> Generator[Finding, None, Any]:
    """A random action that the mask, if there is one, allows."""
    mask = _mask(env, observation, told)
    if mask is None or not isinstance(env.action_space, gym.spaces.Discrete | gym.spaces.MultiDiscrete):
        return env.action_space.sample()
    sizes, flat = np.ravel(actions(env.action_space).choices), np.ravel(one_mask(mask)) != 0
    if len(flat) != sizes.sum():
        problem = f"the action mask has {len(flat)} entries for {sizes.sum()} options"
        yield Finding(rule="action-mask", problem=problem, remedy="give one entry for each option of each choice")
        return env.action_space.sample()
    parts = np.split(flat.astype(np.int8), np.cumsum(sizes)[:-1])
    if not all(part.any() for part in parts):
        problem = "an action mask leaves no option before the episode is over"
        yield Finding(rule="action-mask", problem=problem, remedy="allow one, or end the episode there")
        return env.action_space.sample()
    if isinstance(env.action_space, gym.spaces.Discrete):
        return env.action_space.sample(mask=parts[0])
    drawn = [env.action_space.np_random.choice(np.flatnonzero(part)) for part in parts]
    return np.reshape(drawn, env.action_space.shape) + env.action_space.start


def _api(problem: str, remedy: str) -> Finding:
    return Finding(rule="api", problem=problem, remedy=remedy)


def _count(back: Any) -> str:
    return f"{len(back)} values" if isinstance(back, tuple) else f"a {type(back).__name__}"


def _observation(env: gym.Env, observation: Any, played: Played, where: str) -> Iterator[Finding]:
    space = env.observation_space
    for name, box, entry in _boxes(space, observation, "observation"):
        low, high = played.pictures.get(name, (np.inf, -np.inf))
        if box.shape == np.shape(entry) and np.size(entry):
            played.pictures[name] = (min(low, float(np.min(entry))), max(high, float(np.max(entry))))
    for part in _leaves(observation):
        if not np.isfinite(part).all():
            problem = f"an observation of {where} holds {part.flat[np.argmin(np.isfinite(part))]}"
            yield Finding(rule="finite-observation", problem=problem, remedy="find the division or root behind it")
        elif part.size and part.dtype != np.uint8 and not isinstance(space, gym.spaces.Discrete):
            played.largest = max(played.largest, float(np.abs(part.astype(np.float64)).max()))
    if not space.contains(observation):
        got = f"shape {np.shape(observation)}, {getattr(observation, 'dtype', type(observation).__name__)}"
        problem = f"an observation of {where} ({got}) does not lie in {str(space)[:60]}"
        yield Finding(rule="observation", problem=problem, remedy="correct its shape, type or bounds, or the space")


def _reward(reward: Any, played: Played) -> Iterator[Finding]:
    if np.shape(reward) != () or not np.issubdtype(np.asarray(reward).dtype, np.number):
        yield Finding(rule="reward", problem=f"a reward is {reward!r}, no number", remedy="return float(reward)")
    elif not np.isfinite(reward):
        yield Finding(
            rule="finite-reward", problem=f"a reward is {reward}", remedy="find the division or root behind it"
        )
    else:
        played.rewards.append(float(reward))


def _judge(env: gym.Env, played: Played) -> Iterator[Finding]:
    """What the statistics of random play say."""
    size = max(map(abs, played.rewards), default=1.0)  # none that is a number: said by another rule
    if size == 0.0:
        problem = f"every reward of {played.steps} random steps was 0"
        yield Finding(rule="reward-sparse", problem=problem, certain=False, remedy="expect slow learning, or shape it")
    elif not SMALL <= size <= LARGE:
        problem = f"the largest reward is {size:g} in size"
        yield Finding(rule="reward-scale", problem=problem, remedy="set normalise_reward", certain=False)
    if played.largest > LARGE:
        problem = f"observations reach {played.largest:g}"
        yield Finding(rule="observation-scale", problem=problem, remedy="set normalise_observation", certain=False)
    limit = env.spec.max_episode_steps if env.spec is not None else None
    limited = limit is not None or (env.spec is not None and bool(env.spec.kwargs.get(FRAMES)))
    if not played.lengths and not limited:
        problem = f"no episode ended in {played.steps} random steps, and there is no time limit"
        yield Finding(rule="endless", problem=problem, remedy="set max_episode_steps", certain=False)
    yield from _hidden_truncation(played, limit)


def _pictures(env: gym.Env, played: Played) -> Iterator[Finding]:
    """Boxes that look like pictures and will not be read as they are meant."""
    for name, box, _ in _boxes(env.observation_space, None, "observation"):
        shown, (low, high) = picture(box), played.pictures.get(name, (0.0, 0.0))
        if shown is None:
            if len(box.shape) == 3 and min(box.shape[:2]) > 3:
                problem = f"{name} has the shape of a picture, {box.shape}, and is read as a vector: {_why(box)}"
                remedy = "make it a Box(0, 255, …, np.uint8) if it is one"
                yield Finding(rule="image-type", problem=problem, remedy=remedy, certain=False)
            continue
        if shown.high > 1 and high <= 1 and low >= 0:
            problem = f"the pixels of {name} lie in [{low:g}, {high:g}] while its Box reaches to {shown.high:g}"
            remedy = "the networks divide them by it: give pixels from 0 to 255, or a Box from 0 to 1"
            yield Finding(rule="image-range", problem=problem, remedy=remedy, certain=False)
        frame = box.shape[-3:]
        if len(box.shape) > 2 and (frame[0] == frame[-1] or frame[1] < min(frame[0], frame[-1])):
            problem = f"{name} of shape {box.shape} may have its channels first or last; {shown.shape} is assumed"
            yield Finding(rule="image-channels", problem=problem, remedy="set image_channels", certain=False)


def _why(box: gym.spaces.Box) -> str:
    """Why a Box is no picture."""
    if np.issubdtype(box.dtype, np.integer) and box.dtype != np.uint8:
        return f"its type is {box.dtype}"
    return "its bounds are not one pair of finite numbers"


def _boxes(space: gym.Space, observation: Any, name: str) -> Iterator[tuple[str, gym.spaces.Box, Any]]:
    """The Boxes of a space with more than one axis, their names, and their entries in an observation."""
    if isinstance(space, gym.spaces.Dict | gym.spaces.Tuple):
        each = space.spaces.items() if isinstance(space, gym.spaces.Dict) else enumerate(space.spaces)
        for key, part in each:
            try:
                entry = None if observation is None else observation[key]
            except (KeyError, IndexError, TypeError):
                entry = None  # said by the rule on observations
            yield from _boxes(part, entry, f"{name}[{key!r}]")
    elif isinstance(space, gym.spaces.Box) and len(space.shape) > 1:
        yield name, space, observation


def _hidden_truncation(played: Played, limit: int | None) -> Iterator[Finding]:
    """Time limits that are reported as termination, which makes the critic believe that the world ends there."""
    remedy = "report the time limit as truncated, not terminated: V of the state reached would be taken for 0"
    at_limit = [ended for n, ended in zip(played.lengths, played.terminated, strict=True) if n == limit]
    if len(at_limit) > 1 and all(at_limit):
        problem = f"all {len(at_limit)} episodes that reached the time limit of {limit} steps said terminated"
        yield Finding(rule="hidden-truncation", problem=problem, remedy=remedy)
    elif len(played.lengths) >= ALIKE and len(set(played.lengths)) == 1 and all(played.terminated):
        problem = f"all {len(played.lengths)} episodes ended after {played.lengths[0]} steps, as terminated"
        if played.lengths[0] > 1:
            yield Finding(rule="hidden-truncation", problem=problem, remedy=remedy, certain=False)


def _seeds(make: Callable[[], gym.Env], seed: int) -> Iterator[Finding]:
    """Two environments with one seed and the same actions must do the same."""
    first, second = _transcript(make, seed), _transcript(make, seed)
    remedy = "draw every random number from self.np_random, and call super().reset(seed=seed) first"
    if not _same(first[0], second[0]):
        yield Finding(rule="seed", problem="reset(seed=…) gave two different first observations", remedy=remedy)
    elif not _same(first, second):
        yield Finding(rule="seed", problem="with one seed and the same actions two plays differed", remedy=remedy)


def _transcript(make: Callable[[], gym.Env], seed: int, steps: int = 100) -> list[Any]:
    env = make()
    try:
        env.action_space.seed(seed)
        observation, told = env.reset(seed=seed)
        seen: list[Any] = [[x.copy() for x in _leaves(observation)]]
        for _ in range(steps):
            observation, reward, terminated, truncated, told = env.step(_drawn(env, observation, told))
            seen.append([*(x.copy() for x in _leaves(observation)), np.asarray(reward), np.asarray(terminated)])
            if terminated or truncated:
                observation, told = env.reset()
                seen.append([x.copy() for x in _leaves(observation)])
        return seen
    finally:
        env.close()


def _drawn(env: gym.Env, observation: Any, told: Any) -> Any:
    """`_action` without findings, which were told already."""
    drawing = _action(env, observation, told)
    while True:
        try:
            next(drawing)
        except StopIteration as drawn:
            return drawn.value


def _same(x: Any, y: Any) -> bool:
    if isinstance(x, list):
        return len(x) == len(y) and all(map(_same, x, y))
    return np.array_equal(x, y, equal_nan=x.dtype.kind == "f")


def _leaves(observation: Any) -> list[Array]:
    """The arrays of a nested observation."""
    if isinstance(observation, dict):
        return [leaf for key in sorted(observation) for leaf in _leaves(observation[key])]
    if isinstance(observation, tuple):
        return [leaf for part in observation for leaf in _leaves(part)]
    array = np.asarray(observation)
    return [array] if np.issubdtype(array.dtype, np.number) or array.dtype == bool else []
