"""What would break or spoil training in an environment, found by playing it with random actions."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

from vantage.control.spaces import actions, observations

Array = Any
LARGE, SMALL = 1e3, 1e-3
"""Rewards whose largest size is outside this range drown the critic, or are drowned by Adam's ε."""
WIDE, NARROW = 10.0, 0.1
"""Boxes of actions whose half-width is outside this range do not suit a policy that begins with σ = 1."""
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
            for finding in (*_judge(env, played), *_seeds(make, seed)):
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
        observation = yield from _began(env, env.reset(seed=seed), played)
        length = 0
        for _ in range(steps):
            back = env.step(env.action_space.sample())
            if not isinstance(back, tuple) or len(back) != 5:
                yield _api(
                    f"step() returned {_count(back)}", "return (observation, reward, terminated, truncated, info)"
                )
                return
            observation, reward, terminated, truncated, _ = back
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
                observation = yield from _began(env, env.reset(), played)
    except Exception as error:  # whatever it raises would end a run
        remedy = "make reset and step work for every action of the action space"
        yield _api(f"it raised {type(error).__name__}: {error}", remedy)


def _began(env: gym.Env, back: Any, played: Played) -> Any:
    if not isinstance(back, tuple) or len(back) != 2:
        yield _api(f"reset() returned {_count(back)}", "return (observation, info)")
        return back
    yield from _observation(env, back[0], played, "reset()")
    return back[0]


def _api(problem: str, remedy: str) -> Finding:
    return Finding(rule="api", problem=problem, remedy=remedy)


def _count(back: Any) -> str:
    return f"{len(back)} values" if isinstance(back, tuple) else f"a {type(back).__name__}"


def _observation(env: gym.Env, observation: Any, played: Played, where: str) -> Iterator[Finding]:
    space = env.observation_space
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
    size = max(map(abs, played.rewards), default=0.0)
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
    if not played.lengths and limit is None:
        problem = f"no episode ended in {played.steps} random steps, and there is no time limit"
        yield Finding(rule="endless", problem=problem, remedy="set max_episode_steps", certain=False)
    yield from _hidden_truncation(played, limit)


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
        seen: list[Any] = [[x.copy() for x in _leaves(env.reset(seed=seed)[0])]]
        for _ in range(steps):
            observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            seen.append([*(x.copy() for x in _leaves(observation)), np.asarray(reward), np.asarray(terminated)])
            if terminated or truncated:
                seen.append([x.copy() for x in _leaves(env.reset()[0])])
        return seen
    finally:
        env.close()


def _same(x: Any, y: Any) -> bool:
    if isinstance(x, list):
        return len(x) == len(y) and all(map(_same, x, y))
    return np.array_equal(x, y)


def _leaves(observation: Any) -> list[Array]:
    """The arrays of a nested observation."""
    if isinstance(observation, dict):
        return [leaf for key in sorted(observation) for leaf in _leaves(observation[key])]
    if isinstance(observation, tuple):
        return [leaf for part in observation for leaf in _leaves(part)]
    array = np.asarray(observation)
    return [array] if np.issubdtype(array.dtype, np.number) or array.dtype == bool else []
