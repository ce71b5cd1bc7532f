"""Acting: the host loop over a vector environment.

It runs the actor and nothing else; scoring comes afterwards, in one batch.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from jaxtyping import Bool, Float, Int

from vantage.control.environments import autoreset, successes
from vantage.control.masks import recorded
from vantage.control.model import Actor
from vantage.control.normalise import Moments
from vantage.control.observations import standardised
from vantage.control.spaces import Actions, FlatObservations, Observations
from vantage.control.streams import Stream, generator, reset_seed

Array = Any
MAX_ROWS = 1 << 17
"""A whole-episode collection longer than this has met an episode that does not end."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What acting saw, before scoring. `[T, B]`."""

    raw: Array
    """Observations before normalisation, `[T, B, …]`."""
    observation: Array
    """s_t as the policy saw it."""
    reached: Array
    """s_{t+1} as it was reached: at the end of an episode its true final observation."""
    action: Array
    reward: Float[Array, "T B"]
    terminated: Bool[Array, "T B"]
    done: Bool[Array, "T B"]
    mask: Bool[Array, "T B"]
    time: Int[Array, "T B"]
    actor_log_prob: Float[Array, "T B"]
    carry: Float[Array, "B C"]
    """The state of networks that remember before row 0."""


class Collector:
    """The environments and where they stand: everything about acting that outlives a rollout."""

    life_ends = False
    """Whether V is 0 where a life is lost, though the episode goes on; for games that tell lives in their info."""

    def __init__(
        self,
        env: VectorEnv,
        name: str,
        observations: Observations,
        actions: Actions,
        seed: int,
        check_every: int,
        carry: int = 0,
    ) -> None:
        self.env, self._name, self._mode = env, name, autoreset(env)
        self.step = env.step  # an attribute, so that who listens to steps can stand before it
        self._observations, self._actions = observations, actions
        self._seed, self._check_every, self._slots, self._width = seed, check_every, env.num_envs, carry
        self.episodes: deque[tuple[float, int]] = deque(maxlen=100)
        self.successes: deque[float] = deque(maxlen=100)
        self.finished = self.truncated = 0
        self.reset(0)

    def reset(self, update: int) -> None:
        """Begin all slots anew, from seeds of (seed, update, slot); running episodes are dropped."""
        first, info = self.env.reset(seed=reset_seed(self._seed, update))
        self.observation = recorded(self._observations, self.env, first, info)
        self._must_be_finite(self.observation[None], np.zeros((1, self._slots)), update)
        self.filler = np.zeros(self._slots, bool)
        self._over = np.zeros(self._slots, bool)
        self.carry = np.zeros((self._slots, self._width), np.float32)
        self.returns, self.lengths = np.zeros(self._slots), np.zeros(self._slots, np.int64)
        self.lives = info.get("lives", np.zeros(self._slots, int)).copy()

    def rollout(self, actor: Actor, moments: Moments | None, rows: int, update: int, whole: bool) -> Columns:
        """`rows` rows of every slot.

        `whole`: episodes from their first to their last step instead; at least `rows`, masked after that.
        """
        if whole:
            self.reset(update)
        rng, carry = generator(self._seed, Stream.NOISE, update), self.carry.copy()
        chunks = [self._act(actor, moments, rows, rng, update)]
        while whole and (len(chunks) & (len(chunks) - 1) or not _closed(chunks, rows).any(axis=0).all()):
            if len(chunks) * rows > MAX_ROWS:
                raise ValueError(f"{self._name}: an episode did not end within {MAX_ROWS} steps; set max_episode_steps")
            chunks.append(self._act(actor, moments, rows, rng, update))
        parts = {key: np.concatenate([c[key] for c in chunks]) if whole else chunks[0][key] for key in chunks[0]}
        if whole:
            parts["mask"] &= np.cumsum(_closed(chunks, rows), axis=0) - _closed(chunks, rows) == 0
        succeeded = parts.pop("succeeded", None)
        if succeeded is not None:
            told = succeeded[parts["done"] & parts["mask"]]
            self.successes.extend(told[~np.isnan(told)].tolist())
        time = self._count(parts["reward"], parts["done"], parts["mask"], parts["terminated"])
        return Columns(**parts, time=time, carry=carry)

    def _act(self, actor: Actor, moments: Moments | None, rows: int, rng: Any, update: int) -> dict[str, Array]:
        """One block of rows. Only what each step needs happens inside the loop."""
        slots, env, actions = self._slots, self.env, self._actions
        frame = None if moments is None else moments.frame
        raw = np.empty((rows + 1, slots, *self._observations.shape), self._observations.dtype)
        seen = raw if moments is None else np.empty_like(raw)
        action = np.empty((rows, slots, *actions.shape), actions.dtype)
        reward = np.empty((rows, slots))
        terminated, done = np.empty((2, rows, slots), bool)
        mask, has_filler = np.ones((rows, slots), bool), self._mode is AutoresetMode.NEXT_STEP
        succeeded = np.full((rows, slots), np.nan)
        noise, checked = actions.noise(rng, (rows, slots)), self._checked(rows, update)
        outputs, finals, t = {}, [], 0
        raw[0] = self.observation
        try:
            for t in range(rows):
                if moments is not None:
                    seen[t] = standardised(self._observations, frame, raw[t])
                out = self._remember(actor, seen[t]) if self._width else actor.outputs(seen[t])
                chosen = actor.sample(out, noise[t])
                if t in checked:
                    outputs[t] = out
                action[t] = chosen
                if has_filler:
                    mask[t] = ~self.filler
                after, reward[t], terminated[t], truncated, info = self.step(actions.to_env(chosen))
                over = np.logical_or(terminated[t], truncated, out=done[t])
                if self.life_ends:
                    terminated[t] |= self._lost_a_life(info)
                raw[t + 1] = recorded(self._observations, env, after, info)
                if np.count_nonzero(over):
                    self.carry[over], succeeded[t] = 0.0, successes(info, slots)
                    finals += self._begin_anew(raw, t, over, info)
                elif has_filler:
                    self.filler[:] = False
        except Exception as error:
            self._must_be_finite(raw[1 : t + 1], reward[:t], update, error)
            self._must_leave_a_choice(raw[: t + 1], mask[: t + 1], update, error)
            raise
        self.observation, self._over = raw[-1].copy(), done[-1]
        reached = raw[1:].copy() if finals else raw[1:]
        for row, slot, final in finals:
            reached[row, slot] = final
        self._must_be_finite(raw[1:], reward, update)
        self._must_be_finite(reached, reward, update)
        self._must_leave_a_choice(raw[:-1], mask, update)
        return {
            "raw": raw[:-1], "observation": seen[:-1], "action": action,
            "reached": standardised(self._observations, frame, reached),
            "reward": reward, "terminated": terminated, "done": done, "mask": mask,
            "succeeded": succeeded, "actor_log_prob": self._recorded(actor, outputs, action),
        }  # fmt: skip

    def _lost_a_life(self, info: Mapping[str, Any]) -> Bool[Array, " B"]:
        """Which slots have fewer lives than before."""
        before, self.lives = self.lives, info["lives"].copy()
        return self.lives < before

    def _remember(self, actor: Actor, seen: Array) -> Array:
        """What the actor says; its state, the first part of `carry`, moves on, but for slots where nobody decides."""
        n = actor.carry
        outputs, state = actor.advance(seen, self.carry[:, :n])
        self.carry[:, :n] = np.where(self.filler[:, None], self.carry[:, :n], state)
        return outputs

    def _begin_anew(self, raw: Array, t: int, over: Array, info: Mapping[str, Any]) -> list[tuple[int, Any, Array]]:
        """After a step that ended episodes: the final observations that `raw` does not hold, and the first ones of
        the next.
        """
        if self._mode is AutoresetMode.NEXT_STEP:
            self.filler = over.copy()
            return []
        slots = np.flatnonzero(over)
        if self._mode is AutoresetMode.SAME_STEP:
            return [(t, b, self._observations.record(info["final_obs"][b])) for b in slots]
        finals = [(t, b, raw[t + 1, b].copy()) for b in slots]
        fresh, info = self.env.reset(options={"reset_mask": over.copy()})
        raw[t + 1, over] = recorded(self._observations, self.env, fresh, info)[over]
        return finals

    def carry_on(self, carry: Float[Array, "B C"], acting: int) -> None:
        """Take over the critic's part of the state, behind the `acting` first numbers, from who scored the rollout."""
        self.carry[:, acting:] = np.where(self._over[:, None], 0.0, carry[:, acting:])

    def _checked(self, rows: int, update: int) -> range:
        """The rows at which the actor's own outputs are kept: one in `check_every`, at least one."""
        period = min(self._check_every, rows)
        return range(37 * update % period, rows, period)

    def _recorded(self, actor: Actor, outputs: dict[int, Array], action: Array) -> Float[Array, "T B"]:
        log_prob = np.full(action.shape[:2], np.nan, np.float32)
        if outputs:
            rows = np.fromiter(outputs, int)
            log_prob[rows] = actor.log_prob(np.stack(list(outputs.values())), action[rows])
        return log_prob

    def _count(self, reward: Array, done: Array, mask: Array, terminated: Array) -> Int[Array, "T B"]:
        """Enter finished episodes into the statistics; t since the episode began, for each row."""
        rows = np.arange(len(reward))[:, None]
        over = done & mask
        ended = np.maximum.accumulate(np.where(over, rows, -1), axis=0)
        before = np.concatenate([np.full((1, self._slots), -1), ended[:-1]])
        total, count = np.cumsum(np.where(mask, reward, 0.0), axis=0), np.cumsum(mask, axis=0)
        total, count = _since(total, before, self.returns), _since(count, before, self.lengths)
        where = np.nonzero(over)
        self.episodes.extend(zip(total[where].tolist(), count[where].tolist(), strict=True))
        self.finished, self.truncated = len(where[0]), int((over & ~terminated).sum())
        self.returns, self.lengths = np.where(over[-1], 0.0, total[-1]), np.where(over[-1], 0, count[-1])
        return (count - mask).astype(np.int32)

    def _must_be_finite(self, observation: Array, reward: Array, update: int, cause: Exception | None = None) -> None:
        numbers = self._observations.numbers(observation)
        for name, values in (("observation", numbers), ("reward", reward)):
            if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
                t, slot = np.argwhere(~np.isfinite(values))[0][:2]
                raise FloatingPointError(
                    f"{self._name}: slot {slot} gave a {name} that is not finite at step {t} of rollout {update}: mend "
                    "the environment, or wrap it so that it terminates there; no parameter was changed by this rollout"
                ) from cause

    def _must_leave_a_choice(self, raw: Array, mask: Array, update: int, cause: Exception | None = None) -> None:
        if not isinstance(self._observations, FlatObservations) or self._observations.mask is None:
            return
        stuck = self._observations.stuck(raw) & mask
        if stuck.any():
            t, slot = np.argwhere(stuck)[0]
            raise ValueError(
                f"{self._name}: slot {slot} allows no action at step {t} of rollout {update}: its mask "
                f"({self._observations.mask}) must be given at every step and leave an option, or the episode must end"
            ) from cause

    @property
    def _standing(self) -> tuple[str, ...]:
        return (
            "observation",
            "filler",
            "returns",
            "lengths",
            *(("carry",) if self._width else ()),
            *(("lives",) if self.life_ends else ()),
        )

    def state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Where acting stands, besides the environments themselves."""
        arrays = {name: np.array(getattr(self, name)) for name in self._standing}
        told = {"successes": list(self.successes)} if self.successes else {}
        return arrays, {"episodes": [list(episode) for episode in self.episodes], **told}

    def restore(self, arrays: dict[str, Array]) -> None:
        """Stand where `state` was read; the environments must stand there too."""
        for name, value in arrays.items():
            setattr(self, name, value.copy())


def _since(running: Array, before: Array, carry: Array) -> Array:
    """Running sums made to begin anew after each row where an episode ended."""
    base = np.where(before >= 0, np.take_along_axis(running, np.maximum(before, 0), axis=0), -carry)
    return running - base


def _closed(chunks: list[dict[str, Array]], rows: int) -> Bool[Array, "T B"]:
    """The ends of episodes at or after row `rows` − 1: where a whole-episode collection may stop."""
    ends = np.concatenate([chunk["done"] & chunk["mask"] for chunk in chunks])
    ends[: rows - 1] = False
    return ends
