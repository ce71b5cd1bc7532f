"""Names under which users of other libraries know our metrics."""

FAMILIAR = {
    "train/approx_kl": "policy/approxkl_avg",
    "train/clip_fraction": "policy/clipfrac_avg",
    "train/policy_gradient_loss": "loss/policy_avg",
    "train/value_loss": "loss/value_avg",
    "train/value_clip_fraction": "val/clipfrac_avg",
    "train/learning_rate": "lr",
}
"""The same number under the name that TRL's PPO trainer gave it. Its value loss carried a ½; ours does not."""
