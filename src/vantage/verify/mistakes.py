"""Mistakes in the mathematics, each a few lines that replace one function of `vantage.theory`."""

from dataclasses import replace

import array_api_compat as compat

from vantage.theory.scan import reverse_scan, shift_back
from vantage.verify.planted import bug

GAE = "vantage.theory.psi:gae"
SCAN_CLAIMS = ("8.3.gae", "8.3.truncation")


def cut_not_end(last, discount):
    """Rows where the column is cut without the world having ended."""
    xp = compat.array_namespace(last)
    return xp.logical_and(last, discount > 0)


# ---- Ψ ----------------------------------------------------------------------------------------------------------


@bug("brax-advantage", GAE, "6.1.gae-0.5.wrong-v", "8.3.gae-bias", seen_in="Brax `compute_gae`")
def brax_advantage(right):
    """r_t + γ v_{t+1} − V(s_t) with the λ-return v of the next state: called GAE, and unbiased whenever V is right."""

    def gae(reward, value, next_value, discount, last, lam, mask=None):
        ahead = shift_back(right(reward, value, next_value, discount, last, lam, mask))
        xp = compat.array_namespace(reward)
        return reward + discount * (next_value + xp.where(last, 0.0, ahead)) - value

    return gae


@bug("bootstrap-here", GAE, "8.3.truncation", seen_in="RSL-RL, Sample Factory, skrl 1.4, rl_games")
def bootstrap_here(right):
    """At a truncation γV(s_t) stands in for γV(s_{t+1})."""

    def gae(reward, value, next_value, discount, last, lam, mask=None):
        xp = compat.array_namespace(reward)
        return right(reward, value, xp.where(cut_not_end(last, discount), value, next_value), discount, last, lam, mask)

    return gae


@bug("truncation-is-end", GAE, *SCAN_CLAIMS, seen_in="CleanRL, OpenAI Baselines' PPO2")
def truncation_is_end(right):
    """A time limit counts as an end of the world: nothing is expected after it."""

    def gae(reward, value, next_value, discount, last, lam, mask=None):
        xp = compat.array_namespace(reward)
        return right(reward, value, next_value, xp.where(last, 0.0, discount), last, lam, mask)

    return gae


@bug("reset-value", GAE, *SCAN_CLAIMS, seen_in="skrl 2.0, vector environments read naively")
def reset_value(right):
    """At a truncation V of the next episode's first observation stands in for V of the state that was reached."""

    def gae(reward, value, next_value, discount, last, lam, mask=None):
        xp = compat.array_namespace(reward)
        cut = cut_not_end(last, discount)
        return right(reward, value, xp.where(cut, shift_back(value), next_value), discount, last, lam, mask)

    return gae


@bug("not-cut", GAE, "8.3.gae", "8.3.gae-recursion", seen_in="skrl 2.0 `time_limit_bootstrap`")
def not_cut(right):
    """The recursion runs on through a truncation, into another episode."""

    def gae(reward, value, next_value, discount, last, lam, mask=None):
        return right(reward, value, next_value, discount, discount == 0, lam, mask)

    return gae


@bug("done-off-by-one", GAE, "8.3.gae", "8.3.gae-recursion", seen_in="AgileRL")
def done_off_by_one(right):
    """done after step t is stored and done[t+1] is read: each episode is cut one step early."""

    def gae(reward, value, next_value, discount, last, lam, mask=None):
        xp = compat.array_namespace(reward)
        early = [xp.concat([x[1:], x[-1:]]) for x in (discount, last)]
        return right(reward, value, next_value, *early, lam, mask)

    return gae


@bug("trace-without-gamma", GAE, "8.3.gae", "8.3.gae-bias", "8.3.chain")
def trace_without_gamma(right):
    """TD errors summed with λ^l in place of (γλ)^l."""

    def gae(reward, value, next_value, discount, last, lam, mask=None):
        xp = compat.array_namespace(reward)
        decay = xp.where(xp.logical_or(last, discount == 0), 0.0, lam + 0.0 * discount)
        return reverse_scan(reward + discount * next_value - value, decay, mask)

    return gae


@bug("reward-off-by-one", "vantage.theory.returns:reward_to_go", "6.2.return", "6.1.reward-to-go")
def reward_off_by_one(right):
    """The return of step t begins with r_{t+1}: rewards stored one row late (or a score one token early)."""
    return lambda reward, *rest, **named: right(shift_back(reward), *rest, **named)


@bug("forgotten-time-weight", "vantage.theory.returns:discount_weight", "6.1.time-weighting")
def forgotten_time_weight(right):
    """γ^t is left out although the gradient of the discounted objective was asked for."""
    return lambda time, gamma: 0.0 * right(time, gamma) + 1.0


@bug("self-in-baseline", "vantage.theory.psi:mean_baseline", "6.1.leave-one-out-baseline", "6.1.group-baseline")
def self_in_baseline(right):
    """The leave-one-out mean contains the sample itself, which shrinks the gradient by 1 − 1/n."""
    return lambda x, key, mask=None, weight=None, leave_out=None: right(x, key, mask, weight)


@bug("n-for-n-minus-1", "vantage.theory.psi:mean_baseline", "6.1.leave-one-out-baseline")
def n_for_n_minus_1(right):
    """The leave-one-out sum is divided by n: unbiased all the same, and a worse baseline."""

    def mean_baseline(x, key, mask=None, weight=None, leave_out=None):
        mean = right(x, key, mask, weight, leave_out)
        if leave_out is None:
            return mean
        flat = key.reshape(-1)
        n = (flat[:, None] == flat[None, :]).sum(-1).reshape(x.shape)
        return mean * (n - 1) / n

    return mean_baseline


@bug("best-for-mean", "vantage.theory.psi:expected_value", "6.5.v-from-q", "6.4.expected-sarsa", "6.5.gae-by-q")
def best_for_mean(right):
    """V(s) is taken as the best Q(s, a), as in Q-learning: the values of another policy than the one that acts."""
    return lambda q, probabilities: compat.array_namespace(q).max(q, axis=-1)


# ---- from rows to numbers -----------------------------------------------------------------------------------------


@bug("sample-variance", "vantage.theory.reduce:variance", "6.1.sample-variance")
def swapped_ddof(right):
    """n − 1 where n was asked for, and n where n − 1 was."""
    return lambda x, mask=None, weight=None, ddof=0: right(x, mask, weight, 1 - ddof)


@bug("whitening-over-padding", "vantage.theory.reduce:whiten", "6.1.whitening", seen_in="early RLHF code")
def whitening_over_padding(right):
    """Mean and variance are taken over padding too."""

    def whiten(x, mask=None, weight=None, **options):
        xp = compat.array_namespace(x)
        white = right(x, None, weight, **options)
        return white if mask is None else xp.where(mask, white, 0.0)

    return whiten


@bug("mean-of-products", "vantage.theory.reduce:reduce", "5.2.denominator", seen_in="rlax `mean(l·w)`")
def mean_of_products(right):
    """Weights multiply the terms but do not enter the denominator: mean(w·x) in place of Σwx/Σw."""

    def reduce(x, mask=None, weight=None, total=None):
        return right(x, mask, weight, float(x.shape[0] * x.shape[-1]))

    return reduce


@bug("mean-of-means", "vantage.theory.reduce:reduce", "5.2.split", seen_in="verl, OpenRLHF before they were mended")
def mean_of_means(right):
    """Each part of a batch is averaged over itself, so the result depends on how the batch was split."""
    return lambda x, mask=None, weight=None, total=None: right(x, mask, weight)


@bug("filler-rows-kept", "vantage.recipe.core:Recipe.prepare", "5.2.mask", seen_in="buffers older than Gymnasium 1.0")
def filler_rows_kept(right):
    """Rows that are no decisions, the autoreset's filler or padding, are trained on."""
    return lambda self, rollout: replace(right(self, rollout), mask=None)


@bug("kl-over-padding", "vantage.theory.reduce:mean", "8.6.kl-mean", seen_in="TRL `ppo_trainer`")
def kl_over_padding(right):
    """The mean KL counts padding as decisions, and so looks smaller than it is."""
    return lambda x, mask=None, weight=None: right(x, None, weight)


# ---- critics ------------------------------------------------------------------------------------------------------


@bug("gradient-through-target", "vantage.theory.critics:stop_gradient", "7.2.semi-gradient")
def gradient_through_target(right):
    """The TD target is differentiated too; in a stochastic world that critic does not converge to V."""
    return lambda x: x


@bug(
    "half-twice",
    "vantage.theory.critics:squared",
    "8.7.critic-loss",
    seen_in="ports from libraries with a ½",
)
def half_twice(right):
    """A ½ inside the loss, and another in its coefficient."""
    return lambda value, target: 0.5 * right(value, target)


@bug("clamped-error", "vantage.theory.critics:squared", "8.7.critic-loss", seen_in="RLlib `vf_clip_param`")
def clamped_error(right):
    """The squared error is clamped at 10: where the critic is most wrong it learns nothing."""

    def squared(value, target):
        error = right(value, target)
        return compat.array_namespace(error).clip(error, 0.0, 10.0)

    return squared


@bug("clip-only-value", "vantage.theory.critics:clipped_value", "8.7.clipped-value-region", seen_in="SB3, skrl")
def clip_only_value(right):
    """The error of the clipped value alone, without the maximum: flat on both sides of the band."""

    def clipped_value(value, value_old, target, width):
        xp = compat.array_namespace(value)
        return (value_old + xp.clip(value - value_old, -width, width) - target) ** 2

    return clipped_value


@bug("value-min-for-max", "vantage.theory.critics:clipped_value", "8.7.clipped-value", "8.7.clipped-value-region")
def value_min_for_max(right):
    """The smaller of the two errors: an optimist where a pessimist was meant."""

    def clipped_value(value, value_old, target, width):
        xp = compat.array_namespace(value)
        inside = value_old + xp.clip(value - value_old, -width, width)
        return xp.minimum((value - target) ** 2, (inside - target) ** 2)

    return clipped_value


# ---- objectives ---------------------------------------------------------------------------------------------------


@bug("max-for-min", "vantage.theory.objectives:clipped", "8.5.clip", "8.5.clip-region", "8.5.clip-bound")
def max_for_min(right):
    """The larger of the clipped and the unclipped gain: the bound bounds nothing."""

    def clipped(ratio, psi, low, high=None, dual=None):
        xp = compat.array_namespace(ratio)
        inside = xp.clip(ratio, 1.0 - low, 1.0 + (low if high is None else high))
        return xp.maximum(ratio * psi, inside * psi)

    return clipped


@bug("dual-clip-everywhere", "vantage.theory.objectives:clipped", "8.5.dual-clip")
def dual_clip_everywhere(right):
    """The dual clip is applied where Ψ > 0 too, and pays for standing still."""

    def clipped(ratio, psi, low, high=None, dual=None):
        xp = compat.array_namespace(ratio)
        gain = right(ratio, psi, low, high)
        return gain if dual is None else xp.maximum(gain, dual * psi)

    return clipped


@bug("entropy-penalty", "vantage.theory.objectives:with_entropy", "8.7.joint-loss")
def entropy_penalty(right):
    """The bonus for entropy has the wrong sign."""
    return lambda gain, entropy, coefficient: right(gain, entropy, -coefficient)


@bug("ratio-upside-down", "vantage.theory.importance:ratio", "8.2.importance-sampling", "8.5.ratio")
def ratio_upside_down(right):
    """π_old/π_θ in place of π_θ/π_old."""
    return lambda log_prob, log_prob_old: right(log_prob_old, log_prob)


@bug("step-ratio-for-product", "vantage.theory.importance:step_weight", "8.2.step-weight", "8.2.weight-growth")
def step_ratio_for_product(right):
    """The ratio of the step alone, as if what came before did not matter."""
    return lambda new, old, last, mask=None: compat.array_namespace(new).exp(new - old)


# ---- KL -----------------------------------------------------------------------------------------------------------


@bug(
    "swapped-kl",
    "vantage.theory.divergences:categorical_kl",
    "8.6.kl",
    "8.6.kl-direction",
    seen_in="Spinning Up",
)
def swapped_kl(right):
    """KL(q‖p) under the name of KL(p‖q)."""
    return lambda p, q: right(q, p)


@bug("swapped-k3", "vantage.theory.divergences:k3", "8.6.k3", "8.6.kl-gradients-constraint")
def swapped_k3(right):
    """k3 of the samples' ratio upside down: no longer an estimate of this KL."""
    return lambda log_p, log_q: right(log_q, log_p)


@bug("kl-of-executed-action", "vantage.theory.loss:_terms", "8.6.penalty", seen_in="PPO-penalty ports")
def kl_of_executed_action(right):
    """log π_old − log π_θ of the action taken stands in for the KL of the whole distribution: right on average only."""

    def terms(recipe, batch, outputs):
        return right(recipe, batch, replace(outputs, kl=batch.log_prob - outputs.log_prob))

    return terms


@bug("thresholds-strict", "vantage.theory.kl_control:threshold_beta", "8.6.threshold-beta")
def thresholds_strict(right):
    """KL > KL_max in place of ≥: at the threshold itself β stands still."""

    def threshold_beta(beta, kl, kl_min, kl_max, *rest, **named):
        return beta if kl in (kl_min, kl_max) else right(beta, kl, kl_min, kl_max, *rest, **named)

    return threshold_beta
