"""Metrics against closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from tinygan import data, metrics
from tinygan.metrics import mode_coverage, sliced_wasserstein

RING = data.ring()


@pytest.fixture
def rng():
    return np.random.default_rng(11)


# ------------------------------------------------------------------------------------------ mode coverage


@pytest.mark.parametrize("toy", [RING, data.grid()])
@pytest.mark.parametrize("threshold, n", [(3.0, 2_500), (4.0, 10_000)])
def test_perfect_samples(toy, threshold, n, rng):
    score = mode_coverage(toy.draw(rng, n), toy.centers, toy.sigma, threshold)
    expected = 1 - math.exp(-threshold**2 / 2)  # the share of a 2-D Gaussian within this many sigma
    assert score.captured == len(toy.centers)
    assert score.high_quality == pytest.approx(expected, abs=5 * math.sqrt(expected * (1 - expected) / n))
    # 2 n KL is nearly chi-squared with modes - 1 degrees of freedom
    assert 0 <= 2 * n * score.reverse_kl < len(toy.centers) - 1 + 6 * math.sqrt(2 * len(toy.centers))


@pytest.mark.parametrize("modes", [1, 2, 4, 8])
def test_reverse_kl_of_samples_on_some_of_the_modes(modes):
    score = mode_coverage(np.repeat(RING.centers[:modes], 10, axis=0), RING.centers, RING.sigma)
    assert score.captured == modes and score.high_quality == 1
    assert score.reverse_kl == pytest.approx(math.log(8 / modes), abs=1e-12)


def test_the_edge_of_high_quality():
    samples = np.array([[2.999, 0], [3.0, 0], [3.001, 0], [0, 4.0]])
    assert mode_coverage(samples, [[0, 0]], 1.0).high_quality == 0.5
    assert mode_coverage(samples, [[0, 0]], 1.0, threshold=4.0).high_quality == 1


def test_a_mode_counts_with_one_good_sample_and_not_with_bad_ones():
    samples = np.concatenate([np.zeros((9, 2)), [[10, 0.5]], np.full((5, 2), 100.0)])
    score = mode_coverage(samples, [[0, 0], [10, 0], [60, 60]], 1.0)
    assert score.captured == 2 and score.high_quality == pytest.approx(10 / 15)
    p = np.array([9, 1, 5]) / 15  # poor samples count in the histogram
    assert score.reverse_kl == pytest.approx(np.sum(p * np.log(3 * p)))


def test_samples_that_are_not_finite_are_of_no_quality_and_in_no_mode():
    bad = np.array([[np.nan, 0], [np.inf, 0], [-np.inf, np.nan], [1e300, -1e300]])
    good = RING.centers[:4]
    score = mode_coverage(np.concatenate([bad, good]), RING.centers, RING.sigma)
    assert score.captured == 4 and score.high_quality == 0.5 and score.reverse_kl == pytest.approx(math.log(2))
    score = mode_coverage(bad, RING.centers, RING.sigma)
    assert score[:2] == (0, 0.0) and math.isnan(score.reverse_kl)


def test_chunks_change_nothing(rng, monkeypatch):
    samples, others = rng.standard_normal((101, 2)), rng.standard_normal((57, 2))
    whole = mode_coverage(samples, RING.centers, 0.2), sliced_wasserstein(samples, others, np.random.default_rng(0))
    monkeypatch.setattr(metrics, "_CHUNK", 100)
    parts = mode_coverage(samples, RING.centers, 0.2), sliced_wasserstein(samples, others, np.random.default_rng(0))
    assert parts[0] == whole[0] and parts[1] == pytest.approx(whole[1], rel=1e-12)


@given(npst.arrays(np.float32, st.tuples(st.integers(1, 30), st.just(2)), elements=st.floats(width=32)))
def test_ranges_hold_for_any_samples(samples):
    before = samples.copy()
    score = mode_coverage(samples, RING.centers, RING.sigma)
    np.testing.assert_array_equal(samples, before)
    assert 0 <= score.captured <= 8 and 0 <= score.high_quality <= 1
    assert math.isnan(score.reverse_kl) or 0 <= score.reverse_kl <= math.log(8) + 1e-12


@pytest.mark.parametrize("samples, centers, sigma, threshold, says", [
    (np.zeros(3), np.zeros((1, 2)), 1, 3, r"samples: expected shape \(n, d\)"),
    (np.zeros((0, 2)), np.zeros((1, 2)), 1, 3, r"samples: .* \(0, 2\)"),
    (np.zeros((3, 2)), np.zeros(2), 1, 3, "centers: expected"),
    (np.zeros((3, 2)), np.zeros((1, 3)), 1, 3, "columns differ"),
    (np.zeros((3, 2)), np.zeros((1, 2)), 0, 3, "must be positive"),
    (np.zeros((3, 2)), np.zeros((1, 2)), 1, math.nan, "must be positive"),
])
def test_mode_coverage_refuses(samples, centers, sigma, threshold, says):
    with pytest.raises(ValueError, match=says):
        mode_coverage(samples, centers, sigma, threshold)


# ------------------------------------------------------------------------------------- sliced Wasserstein


@given(npst.arrays(np.float64, st.tuples(st.integers(1, 20), st.just(1)), elements=st.floats(-1e3, 1e3)),
       st.floats(-1e3, 1e3))
def test_in_one_dimension_a_shift_costs_its_length(x, shift):
    assert sliced_wasserstein(x, x + shift, np.random.default_rng(0)) == pytest.approx(abs(shift), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("dim", [2, 3, 10])
def test_a_translation_costs_its_mean_projection(dim, rng):
    x, v, directions = rng.standard_normal((40, dim)), rng.standard_normal(dim), 20_000
    mean = np.linalg.norm(v) * math.gamma(dim / 2) / (math.sqrt(math.pi) * math.gamma((dim + 1) / 2))  # E |u . v|
    deviation = math.sqrt(np.dot(v, v) / dim - mean**2)
    measured = sliced_wasserstein(x, x + v, rng, projections=directions)
    assert measured == pytest.approx(mean, abs=5 * deviation / math.sqrt(directions))


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=12), st.lists(st.integers(-50, 50), min_size=1, max_size=12))
def test_unequal_sizes_agree_with_the_distance_of_distribution_functions(a, b):
    x = np.arange(-50, 51)
    cdf_a, cdf_b = (np.mean(np.array(points)[:, None] <= x, axis=0) for points in (a, b))
    expected = np.abs(cdf_a - cdf_b).sum()  # W1 = integral |F_a - F_b|, the grid's step being 1
    measured = sliced_wasserstein(np.array(a)[:, None], np.array(b)[:, None], np.random.default_rng(0))
    assert measured == pytest.approx(expected, abs=1e-9)


def test_it_is_a_distance_of_distributions(rng):
    a, b = rng.standard_normal((30, 3)), rng.standard_normal((40, 3)) + 1

    def distance(x, y):
        return sliced_wasserstein(x, y, np.random.default_rng(5))

    assert distance(a, a[::-1]) < 1e-15  # the projections may be rounded in another order
    assert distance(a, np.repeat(a, 3, axis=0)) == pytest.approx(0, abs=1e-12)
    assert distance(a, b) == pytest.approx(distance(b, a), rel=1e-12)
    assert distance(3 * a, 3 * b) == pytest.approx(3 * distance(a, b), rel=1e-12)
    assert distance(a.astype(np.float32), b) == pytest.approx(distance(a, b), rel=1e-5)


def test_samples_that_are_not_finite_have_no_distance(rng):
    x = np.array([[1.0, np.nan]])
    assert math.isnan(sliced_wasserstein(x, np.zeros((3, 2)), rng))
    assert math.isnan(sliced_wasserstein(np.zeros((3, 2)), np.array([[np.inf, 0]]), rng))


@pytest.mark.parametrize("a, b, projections, says", [
    (np.zeros(3), np.zeros((3, 1)), 8, "a: expected shape"),
    (np.zeros((3, 1)), np.zeros((0, 1)), 8, "b: expected shape"),
    (np.zeros((3, 1)), np.zeros((3, 2)), 8, "columns differ"),
    (np.zeros((3, 2)), np.zeros((3, 2)), 0, "at least 1"),
])
def test_sliced_wasserstein_refuses(a, b, projections, says, rng):
    with pytest.raises(ValueError, match=says):
        sliced_wasserstein(a, b, rng, projections)


def test_a_forgotten_generator_is_a_type_error():
    with pytest.raises(TypeError, match="generator"):
        sliced_wasserstein(np.zeros((3, 2)), np.zeros((3, 2)), 0)
