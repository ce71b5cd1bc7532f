"""Mistakes in TRPO's move of the actor, where no claim looks; the tests named as guards do."""

from dataclasses import replace

from vantage.verify.planted import bug

MODULE = "vantage.control.trust_region"
REFUSED, OUTSIDE = "test_a_refused_step_is_taken_back", "test_a_step_out_of_the_region_is_refused"


@bug("region-half-as-wide-again", f"{MODULE}:search", OUTSIDE, seen_in="OpenAI baselines `trpo_mpi`")
def region_half_as_wide_again(right):
    """The line search accepts a KL of up to 1.5 δ, so δ is not what was chosen."""

    def search(actor, step, region, kl, gain):
        return right(actor, step, replace(region, delta=1.5 * region.delta), kl, gain)

    return search


@bug("kl-not-checked", f"{MODULE}:search", OUTSIDE, seen_in="natural-gradient codes called TRPO")
def kl_not_checked(right):
    """The quadratic model's word is taken for the KL: the step is shortened until the objective grows, no more."""

    def search(actor, step, region, kl, gain):
        return right(actor, step, region, lambda part: 0.0 * kl(part), gain)

    return search


@bug("gain-not-checked", f"{MODULE}:search", REFUSED)
def gain_not_checked(right):
    """A step within the region is accepted although it lowers the objective."""

    def search(actor, step, region, kl, gain):
        return right(actor, step, region, kl, lambda part: 1.0 + abs(gain(part)))

    return search


@bug("length-without-the-two", f"{MODULE}:natural_step", "test_the_whole_step_uses_up_the_region")
def length_without_the_two(right):
    """√(δ / sᵀFs): the ½ of the KL's quadratic model is forgotten, and half the region is given away."""

    def natural_step(gradient, curvature, region):
        return right(gradient, curvature, region) / 2.0**0.5

    return natural_step


@bug("optimiser-moves-the-actor", "vantage.control.update:_held", "test_the_epochs_leave_the_actor_alone")
def optimiser_moves_the_actor(right):
    """The epochs meant for the critic move the actor too, out of the region that the line search has kept to."""

    def held(model, recipe, vector):
        return vector

    return held
