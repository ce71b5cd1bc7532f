"""Statistics of comparisons: hand numbers, closed forms, and the coverage that the docstring states."""

import numpy as np
import pytest
from scipy import stats

from vantage.lab import statistics
from vantage.lab.statistics import Estimate, band, iqm, mean, probability_of_improvement, stratified_bootstrap


def test_iqm_by_hand():
    assert iqm(np.array([1.0, 2.0, 3.0, 4.0])) == 2.5
    assert iqm(np.array([-1000.0, 2.0, 3.0, 4.0, 1000.0])) == 3.0  # ⌊5/4⌋ = 1 left out at each end
    assert iqm(np.array([7.0])) == 7.0
    assert iqm(np.array([[0.0, 10.0, 4.0, 6.0], [1.0, 1.0, 1.0, 9.0]])).tolist() == [5.0, 1.0]


def test_mean_pools_strata_of_unequal_size():
    assert stratified_bootstrap([[1.0, 2.0, 3.0], [10.0]], mean).value == 4.0
    assert stratified_bootstrap([[0.0, 10.0], [4.0, 6.0]], iqm).value == 5.0


def test_bootstrap_of_two_runs_is_binomial():
    """Of {0, 1}: the resampled mean is 0, ½, 1 with probability ¼, ½, ¼, so the central 40 % is the point ½."""
    assert stratified_bootstrap([[0.0, 1.0]], mean) == Estimate(value=0.5, low=0.0, high=1.0)
    assert stratified_bootstrap([[0.0, 1.0]], mean, confidence=0.4) == Estimate(value=0.5, low=0.5, high=0.5)


def test_bootstrap_resamples_within_strata():
    """Constant strata leave nothing to chance, whatever lies between them; pooled resampling would vary."""
    found = stratified_bootstrap([[0.0, 0.0], [100.0, 100.0]], mean)
    assert found == Estimate(value=50.0, low=50.0, high=50.0)


def test_bootstrap_width_has_its_closed_form():
    """For a mean, the bootstrap variance is (n − 1)/n · s²/n; with n = 400 it is normal."""
    x = np.random.default_rng(1).standard_normal(400)
    found = stratified_bootstrap([x], mean)
    half = stats.norm.ppf(0.975) * x.std() / np.sqrt(400)
    assert found.value == pytest.approx(x.mean())
    assert found.high - found.low == pytest.approx(2 * half, rel=0.04)


@pytest.mark.parametrize(("n", "stated"), [(5, 0.83), (10, 0.90), (20, 0.925)])
def test_coverage_is_as_stated(n, stated):
    rng, trials = np.random.default_rng(n), 500
    hits = 0
    for trial in range(trials):
        found = stratified_bootstrap([rng.standard_normal(n)], mean, resamples=1000, seed=trial)
        hits += found.low <= 0.0 <= found.high
    assert abs(hits / trials - stated) < 4 * np.sqrt(stated * (1 - stated) / trials)


def test_bootstrap_is_reproducible_and_a_single_run_has_no_interval():
    x = [[1.0, 5.0, 2.0]]
    assert stratified_bootstrap(x) == stratified_bootstrap(x)
    alone = stratified_bootstrap([[3.0]])
    assert alone.value == 3.0
    assert np.isnan([alone.low, alone.high]).all()
    assert str(alone) == "3.0"
    with pytest.raises(ValueError, match="at least one run"):
        stratified_bootstrap([[]])


def test_probability_of_improvement():
    assert probability_of_improvement([[2.0, 3.0]], [[0.0, 1.0]]) == 1.0
    assert probability_of_improvement([[1.0, 1.0]], [[1.0]]) == 0.5
    x, y = [1.0, 4.0, 6.0], [2.0, 4.0, 5.0, 5.0]
    by_hand = np.mean([(a > b) + 0.5 * (a == b) for a in x for b in y])
    assert probability_of_improvement([x], [y]) == pytest.approx(by_hand)
    u = stats.mannwhitneyu(x, y).statistic
    assert probability_of_improvement([x], [y]) == pytest.approx(u / 12)
    assert probability_of_improvement([[1.0], [0.0]], [[0.0], [1.0]]) == 0.5  # won one environment, lost the other
    with pytest.raises(ValueError, match="same environments"):
        probability_of_improvement([[1.0]], [[1.0], [2.0]])


def test_band_by_hand():
    """Two lines, t_{0.975, 1} = 12.706: half width 12.706 · √2/√2 for values 0 and 2."""
    flat, high = np.array([[0, 0.0], [10, 0.0]]), np.array([[0, 2.0], [20, 2.0]])
    found = band([flat, high], points=3)
    assert np.allclose(found.x, [0, 5, 10])  # up to where the shorter one ends
    assert np.allclose(found.mean, 1.0)
    assert np.allclose(found.high - 1.0, stats.t.ppf(0.975, 1))
    assert np.allclose(found.mean - found.low, found.high - found.mean)


def test_band_of_one_curve_and_of_none():
    one = band([np.array([[1, 5.0], [2, 6.0]])])
    assert one.x.tolist() == [1, 2]
    assert one.mean.tolist() == [5.0, 6.0]
    assert np.isnan(one.low).all()
    with pytest.raises(ValueError, match="recorded"):
        band([np.empty((0, 2))])
    with pytest.raises(ValueError, match="no step in common"):
        band([np.array([[0, 1.0], [1, 1.0]]), np.array([[2, 1.0], [3, 1.0]])])


def test_intervals_are_those_of_rliable(rng, monkeypatch):
    """Where it imports it draws the samples; without it our own agree, and nobody else's random numbers move."""
    if statistics.rliable() is None:
        pytest.skip("rliable does not import here")
    runs = list(rng.normal(size=(2, 12)))
    np.random.seed(5)  # noqa: NPY002
    theirs, after = stratified_bootstrap(runs), np.random.random()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    assert after == np.random.random()  # noqa: NPY002
    assert theirs == stratified_bootstrap(runs)
    monkeypatch.setattr(statistics, "rliable", lambda: None)
    ours = stratified_bootstrap(runs)
    assert theirs != ours
    assert theirs.value == ours.value
    np.testing.assert_allclose([theirs.low, theirs.high], [ours.low, ours.high], atol=0.05)


def test_rliable_is_asked_where_it_imports(monkeypatch):
    class Library:
        @staticmethod
        def get_interval_estimates(scores, statistic, reps, confidence_interval_size):
            (runs,) = scores.values()
            assert (runs.shape, reps, confidence_interval_size) == ((2, 2), 7, 0.5)
            return {"": statistic(runs)}, {"": np.array([[-1.0], [2.0]])}

    monkeypatch.setattr(statistics, "rliable", lambda: Library)
    found = stratified_bootstrap([[0.0, 1.0], [2.0, 3.0]], mean, confidence=0.5, resamples=7)
    assert found == Estimate(value=1.5, low=-1.0, high=2.0)
    assert stratified_bootstrap([[0.0, 1.0], [2.0]], mean).low > -1.0, "strata of unlike sizes are ours to draw"
