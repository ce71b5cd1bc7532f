"""Mistakes in the training loop for environments. Claims do not run it; the tests named as guards do."""

from dataclasses import replace

import numpy as np

from vantage.verify.planted import bug

COLLECT = "vantage.control.collect:Collector"
WORLD = "vantage.control.training:ControlWorld"


@bug("reset-observation", f"{COLLECT}._begin_anew", "test_reached_is_the_final_observation", seen_in="skrl 2.0")
def reset_observation(right):
    """What vector environments return after an end is the next episode's first observation; V is asked about that."""

    def begin_anew(self, *args):
        right(self, *args)
        return []

    return begin_anew


@bug(
    "collector-keeps-filler",
    f"{COLLECT}.rollout",
    "test_filler_is_masked",
    seen_in="any buffer older than Gymnasium 1.0",
)
def collector_keeps_filler(right):
    """NEXT_STEP autoreset makes a row that is no decision after each end; it is trained on."""

    def rollout(self, *args):
        columns = right(self, *args)
        return replace(columns, mask=np.ones_like(columns.mask))

    return rollout


@bug(
    "done-one-row-late",
    f"{COLLECT}.rollout",
    "test_episodes_end_where_they_end",
    seen_in="copies of CleanRL",
)
def done_one_row_late(right):
    """The flag of a row that begins an episode is read as the flag of one that ends it."""

    def rollout(self, *args):
        columns = right(self, *args)
        late = {name: np.roll(getattr(columns, name), 1, axis=0) for name in ("done", "terminated")}
        return replace(columns, **late)

    return rollout


@bug("time-limit-ends-world", f"{COLLECT}.rollout", "test_a_time_limit_keeps_its_discount", seen_in="CleanRL, PPO2")
def time_limit_ends_world(right):
    """terminated or truncated: one flag for both, so a time limit gets discount 0."""

    def rollout(self, *args):
        columns = right(self, *args)
        return replace(columns, terminated=columns.done)

    return rollout


@bug("elementwise-clip", "vantage.control.update:_clip", "test_the_norm_is_clipped", seen_in="rejax `max_grad_norm`")
def elementwise_clip(right):
    """Each entry of the gradient is clipped in place of its norm, which changes its direction."""

    def clip(gradient, bound):
        return gradient if bound is None else gradient.clip(-bound, bound)

    return clip


@bug("beta-each-minibatch", f"{WORLD}._move_beta", "test_beta_moves_once", seen_in="PPO-penalty ports")
def beta_each_minibatch(right):
    """β is moved after every minibatch: 40 doublings where one was meant."""

    def move_beta(self, recipe, rollout, kl):
        told = {}
        for _ in range(recipe.n_epochs * recipe.n_minibatches):
            told = right(self, recipe.at(0.0, self.beta), rollout, kl)
        return told

    return move_beta


@bug(
    "statistics-move-first",
    f"{WORLD}.collect",
    "test_statistics_wait_for_the_rollout",
    seen_in="wrappers",
)
def statistics_move_first(right):
    """The normaliser has seen the rollout before the networks are asked about it."""

    def collect(self, recipe):
        from vantage.control.normalise import observe

        rollout = right(self, recipe)
        return replace(rollout, observation=observe(self._observed, rollout.observation))

    return collect


@bug(
    "step-not-taken-back",
    "vantage.control.trust_region:search",
    "test_a_refused_step_is_taken_back",
    seen_in="Tianshou until 2.0.1, modular_rl",
)
def step_not_taken_back(right):
    """Where the line search accepts no length, the last one tried stays in the parameters."""

    def search(actor, step, region, kl, gain):
        found = right(actor, step, region, kl, gain)
        tried = actor + region.shrink ** (region.backtracks - 1) * step
        return found._replace(actor=found.actor if bool(found.accepted) else tried)

    return search
