"""Metrics against closed forms."""

import itertools
import math
import tracemalloc
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from tinygan import data, metrics
from tinygan.metrics import (bootstrap, frechet_distance, memorization, mode_coverage, nearest,
                             prdc, sliced_wasserstein, wasserstein)

RING = data.ring()


@pytest.fixture
def rng():
    return np.random.default_rng(11)


# ------------------------------------------------------------------------------------ mode coverage


@pytest.mark.parametrize("toy", [RING, data.grid()])
@pytest.mark.parametrize("threshold, n", [(3.0, 2_500), (4.0, 10_000)])
def test_perfect_samples(toy, threshold, n, rng):
    score = mode_coverage(toy.draw(rng, n), toy.centers, toy.sigma, threshold)
    expected = 1 - math.exp(-threshold**2 / 2)  # the share of a 2-D Gaussian within this many sigma
    assert score.captured == len(toy.centers)
    assert score.high_quality == pytest.approx(expected,
                                               abs=5 * math.sqrt(expected * (1 - expected) / n))
    # 2 n KL is nearly chi-squared with modes - 1 degrees of freedom
    modes = len(toy.centers)
    assert 0 <= 2 * n * score.reverse_kl < modes - 1 + 6 * math.sqrt(2 * modes)


@pytest.mark.parametrize("modes", [1, 2, 4, 8])
def test_reverse_kl_of_samples_on_some_of_the_modes(modes):
    score = mode_coverage(np.repeat(RING.centers[:modes], 10, axis=0), RING.centers, RING.sigma)
    assert score.captured == modes and score.high_quality == 1
    assert score.reverse_kl == pytest.approx(math.log(8 / modes), abs=1e-12)


def test_rounding_makes_no_score_negative(rng):
    for modes in range(1, 60):  # for 49 the sum is rounded to less than 0
        centers = np.arange(modes)[:, None]
        assert mode_coverage(np.repeat(centers, 7, axis=0), centers, 0.1).reverse_kl >= 0
    assert min(frechet_distance(x, x) for x in rng.standard_normal((100, 30, 4))) == 0


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
    assert score.captured == 4 and score.high_quality == 0.5
    assert score.reverse_kl == pytest.approx(math.log(2))
    score = mode_coverage(bad, RING.centers, RING.sigma)
    assert score[:2] == (0, 0.0) and math.isnan(score.reverse_kl)


def test_chunks_change_nothing(rng, monkeypatch):
    samples, others = rng.standard_normal((101, 2)), rng.standard_normal((57, 2))

    def scores():
        return (mode_coverage(samples, RING.centers, 0.2),
                sliced_wasserstein(samples, others, np.random.default_rng(0)))

    whole = scores()
    monkeypatch.setattr(metrics, "_CHUNK", 100)
    parts = scores()
    assert parts[0] == whole[0] and parts[1] == pytest.approx(whole[1], rel=1e-12)


@given(npst.arrays(np.float32, st.tuples(st.integers(1, 30), st.just(2)),
                   elements=st.floats(width=32)))
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


# ------------------------------------------------------------------------------- sliced Wasserstein


@given(npst.arrays(np.float64, st.tuples(st.integers(1, 20), st.just(1)),
                   elements=st.floats(-1e3, 1e3)),
       st.floats(-1e3, 1e3))
def test_in_one_dimension_a_shift_costs_its_length(x, shift):
    cost = sliced_wasserstein(x, x + shift, np.random.default_rng(0))
    assert cost == pytest.approx(abs(shift), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("dim", [2, 3, 10])
def test_a_translation_costs_its_mean_projection(dim, rng):
    x, v, directions = rng.standard_normal((40, dim)), rng.standard_normal(dim), 20_000
    share = math.gamma(dim / 2) / (math.sqrt(math.pi) * math.gamma((dim + 1) / 2))
    mean = np.linalg.norm(v) * share  # E |u . v|
    deviation = math.sqrt(np.dot(v, v) / dim - mean**2)
    measured = sliced_wasserstein(x, x + v, rng, projections=directions)
    assert measured == pytest.approx(mean, abs=5 * deviation / math.sqrt(directions))


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=12),
       st.lists(st.integers(-50, 50), min_size=1, max_size=12))
def test_unequal_sizes_agree_with_the_distance_of_distribution_functions(a, b):
    x = np.arange(-50, 51)
    cdf_a, cdf_b = (np.mean(np.array(points)[:, None] <= x, axis=0) for points in (a, b))
    expected = np.abs(cdf_a - cdf_b).sum()  # W1 = integral |F_a - F_b|, the grid's step being 1
    measured = sliced_wasserstein(np.array(a)[:, None], np.array(b)[:, None],
                                  np.random.default_rng(0))
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


# ------------------------------------------------------------------------------- nearest neighbours


def all_distances(a, b):
    """Every distance, from differences."""
    return np.sqrt(np.square(a[:, None] - b).sum(axis=2))


CLOUDS = {"normal": lambda rng, shape: rng.standard_normal(shape),
          "lattice": lambda rng, shape: rng.integers(0, 3, shape).astype(float),  # copies and ties
          "far away": lambda rng, shape: 1e6 + 1e-6 * rng.standard_normal(shape),
          "two clusters": lambda rng, shape: (np.sign(rng.standard_normal(shape))
                                              + 1e-9 * rng.standard_normal(shape)),
          "all equal": lambda rng, shape: np.full(shape, 1.3),
          "large": lambda rng, shape: 1e140 * rng.standard_normal(shape)}


@pytest.mark.parametrize("cloud", CLOUDS.values(), ids=CLOUDS)
@pytest.mark.parametrize("n, m, d, k",
                         [(5, 7, 3, 1), (40, 60, 2, 5), (1, 1, 1, 1), (50, 60, 40, 60),
                          (30, 90, 1, 89)])
@pytest.mark.parametrize("chunk", [1 << 21, 100])
def test_nearest_finds_what_all_distances_say(cloud, n, m, d, k, chunk, rng, monkeypatch):
    monkeypatch.setattr(metrics, "_CHUNK", chunk)
    queries, references = cloud(rng, (n, d)), cloud(rng, (m, d))
    distances = all_distances(queries, references)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    found, at = nearest(queries, references, k)
    np.testing.assert_allclose(at, np.take_along_axis(distances, order, axis=1), rtol=1e-14)
    np.testing.assert_array_equal(found, order)


def test_equal_points_are_at_no_distance_and_close_ones_at_theirs():
    x = np.array([[1e8, 1.0], [1e8 + 1e-6, 1.0], [-1e8, 0.0]])
    found, at = nearest(x, x, 2)
    np.testing.assert_array_equal(found, [[0, 1], [1, 0], [2, 0]])
    gap = x[1, 0] - x[0, 0]
    np.testing.assert_array_equal(at[:2], [[0, gap], [0, gap]])
    found, at = nearest([[0.0, -0.0]], [[-0.0, 0.0], [0.0, 0.0]], 2)
    np.testing.assert_array_equal(found, [[0, 1]])
    np.testing.assert_array_equal(at, 0)


@pytest.mark.parametrize("queries, references, k, says", [
    (np.zeros((2, 2)), np.zeros((3, 1)), 1, "columns differ"),
    (np.zeros((2, 2)), np.zeros((3, 2)), 0, r"k must be 1 \.\.\. 3"),
    (np.zeros((2, 2)), np.zeros((3, 2)), 4, r"k must be 1 \.\.\. 3"),
    (np.full((2, 2), np.nan), np.zeros((3, 2)), 1, "not finite"),
    (np.zeros((2, 2)), np.full((3, 2), np.inf), 1, "not finite"),
    (np.zeros((2, 2)), np.full((3, 2), 1e200), 1, "beyond 1e150"),
])
def test_nearest_refuses(queries, references, k, says):
    with pytest.raises(ValueError, match=says):
        nearest(queries, references, k)


# ------------------------------------------------------------- precision, recall, density, coverage


def test_prdc_by_hand():
    """k = 1. Radii of the real points 1, 1, 2, 7, of the fake points 4.5, 0.5, 0.5, 24.5."""
    real, fake = np.array([[0.0], [1], [3], [10]]), np.array([[0.5], [5], [5.5], [30]])
    score = prdc(real, fake, 1)
    # 0.5 in the balls of 0 and 1; 5 in those of 3 and 10; 5.5 in that of 10; 30 in none
    assert score.precision == 3 / 4
    assert score.density == 5 / 4
    assert score.coverage == 4 / 4
    # 0, 1 and 3 in the ball of 0.5; 10 in the ball of 30, which reaches down to 5.5
    assert score.recall == 4 / 4
    assert prdc(fake, real, 1)[:2] == (score.recall, score.precision)


def test_balls_are_closed():
    # 2 is on the edge of the ball of 1
    score = prdc([[0.0], [1.0], [9.0]], [[2.0], [3.0], [4.0]], 1)
    # Radii 1, 1, 8: 2 in two balls, 3 and 4 in one; radius 1 round 2 reaches 1
    assert score == (1.0, 1 / 3, 4 / 3, 2 / 3)


def test_a_ball_ends_where_it_ends():
    """One unit in the last place beyond the edge of the ball of 1 is outside it."""
    assert prdc([[0.0], [1.0], [9.0]], [[np.nextafter(2, 3)], [3.0], [4.0]], 1) == (1, 0, 1, 1 / 3)


def test_the_edge_of_a_ball_is_exact_where_the_other_balls_decide_nothing():
    few, far = [[0.0], [1.0], [-9.0]], [[np.nextafter(2, 3)], [50.0], [90.0]]
    assert prdc(few, far, 1)[:2] == (0, 1) and prdc(far, few, 1)[:2] == (1, 0)


def test_prdc_of_copies_and_of_collapsed_samples():
    point, other = np.zeros((6, 2)), np.ones((6, 2))
    # Radii are 0, closed balls hold their centres: 6 of them, / 3
    assert prdc(point, point, 3) == (1, 1, 2, 1)
    assert prdc(point, other, 3) == (0, 0, 0, 0)
    real = np.array([[0.0], [0.0], [0.0], [1.0], [2.0]])  # k = 2: radii 0, 0, 0, 1, 2
    assert prdc(real, np.full((4, 1), 0.0), 2) == (1, 3 / 5, 5 / 2, 1)
    assert prdc(real, np.full((4, 1), 0.5), 2) == (1, 0, 2 / 2, 2 / 5)


@pytest.mark.parametrize("n, m, d, k",
                         [(30, 40, 2, 3), (25, 20, 5, 1), (60, 60, 1, 10), (3, 4, 2, 2)])
@pytest.mark.parametrize("cloud", [CLOUDS[name] for name in ("normal", "lattice", "far away")])
@pytest.mark.parametrize("chunk", [1 << 21, 90])
def test_prdc_is_its_definition(cloud, n, m, d, k, chunk, rng, monkeypatch):
    monkeypatch.setattr(metrics, "_CHUNK", chunk)
    real, fake = cloud(rng, (n, d)), cloud(rng, (m, d))

    def radii(x):
        return np.array([np.sort(np.delete(row, i))[k - 1]
                         for i, row in enumerate(all_distances(x, x))])

    inside = all_distances(real, fake) <= radii(real)[:, None]
    expected = (inside.any(axis=0).mean(),
                (all_distances(fake, real) <= radii(fake)[:, None]).any(axis=0).mean(),
                inside.sum(axis=0).mean() / k, inside.any(axis=1).mean())
    assert prdc(real, fake, k) == pytest.approx(expected, abs=1e-12)


def test_prdc_is_invariant_under_rotation_shift_scale_and_order(rng):
    real, fake = rng.standard_normal((80, 3)), rng.standard_normal((70, 3)) + 0.5
    q = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    score = prdc(real, fake)
    assert prdc(7 * real @ q + 20, 7 * fake @ q + 20) == score
    assert prdc(real[::-1], rng.permutation(fake)) == score
    # Each point is in its own ball and in those of 5, on average
    assert prdc(real, real) == (1, 1, pytest.approx(6 / 5), 1)


def test_prdc_sees_dropped_modes_and_bad_samples(rng):
    toy = data.ring()
    real = toy.draw(rng, 400)
    half = real[np.linalg.norm(real - toy.centers[0], axis=1) < 1.2]
    noisy = real + rng.standard_normal(real.shape)
    of_half, of_noisy = prdc(real, half), prdc(real, noisy)
    assert of_half.precision == 1
    assert abs(of_half.coverage - len(half) / 400) < 0.01 > abs(of_half.recall - len(half) / 400)
    assert of_noisy.precision < 0.5 and of_noisy.density < 0.5


def test_the_expected_coverage_of_equal_distributions(rng):
    """1 - prod (n - 1 - i) / (n + m - 1 - i).

    The product is the chance that of n - 1 + m points the k nearest to another are all real.
    """
    n, m, k, runs = 40, 30, 3, 400
    found = [prdc(rng.standard_normal((n, 2)), rng.standard_normal((m, 2)), k).coverage
             for _ in range(runs)]
    expected = 1 - math.prod((n - 1 - i) / (n + m - 1 - i) for i in range(k))
    assert np.mean(found) == pytest.approx(expected, abs=5 * np.std(found) / math.sqrt(runs))


@pytest.mark.thorough
def test_prdc_of_ten_thousand_gaussian_points_as_published():
    """Two samples of N(0, I_1000), k = 5: the example of Naeem et al.'s code.

    Six draws had standard deviations of 0.012, 0.006, 0.052 and 0.007; allowed are four of those of
    a difference between one draw (theirs) and a mean of three.
    """
    rng = np.random.default_rng(3)
    found = np.mean([prdc(*rng.standard_normal((2, 10_000, 1000))) for _ in range(3)], axis=0)
    allowed = 4 * math.sqrt(1 + 1 / 3) * np.array([0.012, 0.006, 0.052, 0.007])
    assert np.all(np.abs(found - [0.477, 0.471, 1.056, 0.974]) < allowed)


def test_prdc_of_gaussian_points_in_many_dimensions(rng):
    """Real against real: precision and recall far from 1, density near 1, coverage as expected."""
    score = prdc(*rng.standard_normal((2, 1000, 100)))
    assert 0.3 < score.precision < 0.9 and 0.3 < score.recall < 0.9
    assert score.density == pytest.approx(1, abs=0.15)
    assert score.coverage == pytest.approx(1 - 2**-5, abs=0.03)


def test_prdc_of_what_is_not_finite_or_of_other_numbers(rng):
    x = rng.standard_normal((20, 2))
    bad = x.copy()
    bad[3, 1] = np.inf
    assert all(map(math.isnan, prdc(x, bad))) and all(map(math.isnan, prdc(-bad, x)))
    single = x.astype(np.float32)
    assert prdc(single, single) == prdc(single.astype(float), single) and single.dtype == np.float32


@pytest.mark.parametrize("real, fake, k, says", [
    (np.zeros((6, 2)), np.zeros((6, 3)), 5, "columns differ"),
    (np.zeros((5, 2)), np.zeros((9, 2)), 5, r"1 \.\.\. 4"),
    (np.zeros((9, 2)), np.zeros((5, 2)), 5, r"1 \.\.\. 4"),
    (np.zeros((9, 2)), np.zeros((9, 2)), 0, "k must be"),
    (np.zeros(9), np.zeros((9, 2)), 1, "real: expected")])
def test_prdc_refuses(real, fake, k, says):
    with pytest.raises(ValueError, match=says):
        prdc(real, fake, k)


# --------------------------------------------------------------------------------- Fréchet distance


def whitened(rng, n, d):
    """A sample whose mean is 0 and whose covariance is the unit matrix."""
    x = rng.standard_normal((n, d))
    x -= x.mean(axis=0)
    return np.linalg.solve(np.linalg.cholesky(np.atleast_2d(np.cov(x.T))), x.T).T


def test_frechet_distance_of_gaussians_with_covariances_that_commute(rng):
    """|mu_a - mu_b|^2 + sum_i (s_i - t_i)^2, s and t the standard deviations along common axes."""
    s, t, shift = np.array([1.0, 2, 0.5, 0]), np.array([3.0, 2, 0, 0]), np.array([1.0, -2, 0, 4])
    q = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    a, b = whitened(rng, 50, 4) * s @ q, whitened(rng, 80, 4) * t @ q + shift
    assert frechet_distance(a, b) == pytest.approx(shift @ shift + np.sum((s - t)**2), rel=1e-12)


def test_frechet_distance_of_covariances_that_do_not_commute(rng):
    """For 2 x 2 matrices tr (AB)^(1/2) = (tr AB + 2 (det AB)^(1/2))^(1/2) (Cayley, Hamilton)."""
    p, q = rng.standard_normal((2, 2, 2))
    a, b = p.T @ p, q.T @ q
    root = math.sqrt(np.trace(a @ b) + 2 * math.sqrt(np.linalg.det(a) * np.linalg.det(b)))
    found = frechet_distance(whitened(rng, 20, 2) @ p, whitened(rng, 30, 2) @ q)
    assert found == pytest.approx(np.trace(a) + np.trace(b) - 2 * root, rel=1e-10)


@pytest.mark.parametrize("d", [1, 3, 200])
def test_frechet_distance_of_points_on_lines(d, rng):
    """Covariances x x^T and y y^T, most eigenvalues 0: |x|^2 + |y|^2 - 2 |x . y|, even if n < d."""
    x, y = rng.standard_normal((2, d))
    line = whitened(rng, 12, 1)
    found = frechet_distance(line * x, line[::-1] * y)
    assert found == pytest.approx(x @ x + y @ y - 2 * abs(x @ y), rel=1e-10, abs=1e-12)


def test_frechet_distance_of_fewer_points_than_columns(rng):
    """Two samples in columns of their own have C_a C_b = 0 and the distance tr C_a + tr C_b."""
    a, b = np.zeros((10, 60)), np.zeros((15, 60))
    a[:, :30], b[:, 30:] = rng.standard_normal((10, 30)), rng.standard_normal((15, 30))
    shift, of_a, of_b = a.mean(0) - b.mean(0), a.var(0, ddof=1).sum(), b.var(0, ddof=1).sum()
    assert frechet_distance(a, b) == pytest.approx(shift @ shift + of_a + of_b, rel=1e-12)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(a, a + 2) == pytest.approx(4 * 60, rel=1e-12)  # 10 points in 60 columns
    assert frechet_distance(a, 3 * a) == pytest.approx(4 * (np.square(a.mean(axis=0)).sum() + of_a))


def test_frechet_distance_is_symmetric_and_invariant(rng, monkeypatch):
    a = rng.standard_normal((90, 5))
    b = rng.standard_normal((70, 5)) @ rng.standard_normal((5, 5)) + 1
    q, distance = np.linalg.qr(rng.standard_normal((5, 5)))[0], frechet_distance(a, b)
    monkeypatch.setattr(metrics, "_CHUNK", 40)
    for x, y in ((b, a), (a @ q, b @ q), (a + 50, b + 50), (a[::-1], rng.permutation(b)), (-a, -b)):
        assert frechet_distance(x, y) == pytest.approx(distance, rel=1e-10)
    assert frechet_distance(3 * a, 3 * b) == pytest.approx(9 * distance, rel=1e-12)
    assert frechet_distance(np.ones((2, 3)), np.ones((4, 3))) == 0
    assert math.isnan(frechet_distance(a, np.full((3, 5), np.nan)))


@pytest.mark.parametrize("a, b, says", [(np.zeros((1, 2)), np.zeros((3, 2)), "at least 2"),
                                        (np.zeros((3, 2)), np.zeros((3, 1)), "columns differ")])
def test_frechet_distance_refuses(a, b, says):
    with pytest.raises(ValueError, match=says):
        frechet_distance(a, b)


# -------------------------------------------------------------------------------- exact Wasserstein


@given(st.integers(1, 6), st.integers(1, 3), st.integers(0, 10**6),
       st.sampled_from(list(CLOUDS)[:3]))
def test_wasserstein_is_the_best_permutation(n, d, seed, cloud):
    rng = np.random.default_rng(seed)
    a, b = CLOUDS[cloud](rng, (n, d)), CLOUDS[cloud](rng, (n, d))
    cost = all_distances(a, b)
    best = min(cost[range(n), list(p)].mean() for p in itertools.permutations(range(n)))
    assert wasserstein(a, b) == pytest.approx(best, rel=1e-12)


def test_the_assignment_of_many_equal_and_of_unequal_costs(rng):
    """The sum of costs x_i y_j is least with x rising and y falling (rearrangement inequality)."""
    for values in (rng.random((2, 150)), rng.integers(0, 4, (2, 150))):
        cost = np.multiply.outer(*values.astype(float))
        row_of = metrics._assignment(cost)
        assert sorted(row_of) == list(range(150))
        best = np.sort(values[0]) @ -np.sort(-values[1])
        assert cost[row_of, range(150)].sum() == pytest.approx(best, rel=1e-12)


def test_an_assignment_is_proved_by_its_dual(rng):
    """Points moved by one vector are at its length, as x -> u . x is 1-Lipschitz (duality)."""
    for d in (2, 20):
        a, v = rng.standard_normal((300, d)), 0.3 * rng.standard_normal(d)
        assert wasserstein(a, rng.permutation(a + v)) == pytest.approx(np.linalg.norm(v), rel=1e-12)
    assert wasserstein(np.zeros((9, 2)), np.full((9, 2), [3.0, 4.0])) == 5
    assert wasserstein(a, a[::-1]) == 0


def test_wasserstein_in_one_dimension_and_in_a_line_of_the_plane(rng):
    a, b = rng.standard_normal((120, 1)), rng.exponential(size=(120, 1))
    expected = sliced_wasserstein(a, b, rng)
    assert wasserstein(a, b) == pytest.approx(expected, rel=1e-12)
    line = np.array([[0.6, 0.8]])
    assert wasserstein(a @ line, b @ line) == pytest.approx(expected, rel=1e-10)
    assert sliced_wasserstein(a * line, b + line, rng) <= wasserstein(a * line, b + line)
    assert wasserstein(np.zeros((5000, 1)), np.ones((5000, 1))) == 1


@pytest.mark.parametrize("a, b, says", [
    (np.zeros((3, 2)), np.zeros((4, 2)), "equally many"),
    (np.zeros((3, 2)), np.zeros((3, 1)), "columns differ"),
    (np.zeros((2001, 2)), np.zeros((2001, 2)), "too many")])
def test_wasserstein_refuses(a, b, says):
    with pytest.raises(ValueError, match=says):
        wasserstein(a, b)
    assert math.isnan(wasserstein([[math.nan, 0]], [[0, 0]]))


# ------------------------------------------------------------------------------------- memorization


def test_copies_are_found_and_fresh_points_are_not(rng):
    train, held_out, fresh = (rng.standard_normal((n, 3)) for n in (900, 300, 600))
    for fake, share in ((fresh, 0.75), (held_out, 0.0), (train[:300] + 1e-3, 1.0)):
        score = memorization(fake, train, held_out)
        assert score.expected == 0.75
        allowed = 4 * math.sqrt(0.75 * 0.25 / 600) if fake is fresh else 0.02
        assert score.share == pytest.approx(share, abs=allowed)
    assert score.fake_distance == pytest.approx(1e-3 * math.sqrt(3), rel=1e-9)
    assert score.held_out_distance > 0.1
    score = memorization(fresh, train, held_out)
    assert score.fake_distance == pytest.approx(score.held_out_distance, rel=0.15)


def test_memorization_by_hand():
    train, held_out = [[0.0], [10.0]], [[2.0], [10.0], [30.0]]
    # Tie, train, tie, held out, tie
    score = memorization([[1.0], [0.5], [10.0], [1.5], [9.0]], train, held_out)
    # Distances to train 1, 0.5, 0, 1.5, 1; of the held out 2, 0, 20
    assert score == (0.5, 0.4, 1.0, 2.0)
    score = memorization([[math.nan]], train, held_out)
    assert math.isnan(score.share) and score.expected == 0.4 and math.isnan(score.fake_distance)
    with pytest.raises(ValueError, match="held_out of shape .* columns differ"):
        memorization([[1.0]], train, [[1.0, 2.0]])


# ---------------------------------------------------------------------------------------- intervals


def test_the_interval_of_a_mean_is_that_of_the_textbook(rng):
    """In the limit of many halves s is the standard error of the mean: exactly for even n."""
    x = rng.standard_normal((60, 1))
    value, low, high = bootstrap(np.mean, [x], rng, repeats=4000, level=0.9)
    half = 1.6448536 * x.std(ddof=1) / math.sqrt(60)
    assert value == x.mean() and high - value == pytest.approx(value - low)
    assert high - value == pytest.approx(half, rel=5 / math.sqrt(2 * 4000))


def test_the_variance_of_two_halves_is_unbiased(rng):
    x = rng.standard_normal((20, 1))
    squares = [((i.high - i.low) / 2)**2
               for i in (bootstrap(np.mean, [x], rng, repeats=2) for _ in range(2000))]
    expected = 1.959964**2 * x.var(ddof=1) / 20
    # Chi-squared of one degree: variance 2
    assert np.mean(squares) == pytest.approx(expected, rel=5 * math.sqrt(2 / 2000))


@pytest.mark.parametrize("name", ["prdc", "frechet"])
def test_intervals_hold_the_mean_score_as_often_as_they_say(name):
    """The truth is the mean of many fresh samples' scores."""
    score = {"prdc": prdc, "frechet": frechet_distance}[name]
    rng, trials = np.random.default_rng(5), 60

    def draw():
        return rng.standard_normal((80, 2)), 0.8 * rng.standard_normal((80, 2)) + 0.5

    truth = np.mean([score(*draw()) for _ in range(400)], axis=0)
    intervals = [bootstrap(score, draw(), rng, repeats=20) for _ in range(trials)]
    holds = np.mean([(i.low <= truth) & (truth <= i.high) for i in intervals], axis=0)
    assert np.all(holds >= 0.95 - 4 * math.sqrt(0.95 * 0.05 / trials))
    values = np.std([i.value for i in intervals], axis=0)
    widths = np.mean([i.high - i.low for i in intervals], axis=0) / (2 * 1.96)
    assert np.all(widths < 2 * values), "intervals that hold the truth because they are too wide"


def test_intervals_do_not_change_the_data_and_repeat_with_the_generator(rng):
    x, y = rng.standard_normal((30, 2)), rng.standard_normal((41, 2))
    before = x.copy()
    once, again = (bootstrap(frechet_distance, [x, y], np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(x, before)
    assert once == again and isinstance(once.low, float) and once.low < once.value < once.high
    seen = []
    bootstrap(lambda a, b: seen.append((len(a), len(b), len(np.unique(a[:, 0])))) or 0.0, [x, y],
              rng, repeats=3)
    assert seen == [(30, 41, 30)] + 3 * [(15, 20, 15)]  # no point twice
    assert bootstrap(prdc, [x, y], rng, repeats=2).low.shape == (4,)


@pytest.mark.parametrize("arrays, repeats, level",
                         [([], 9, 0.9), ([np.zeros((1, 2))], 9, 0.9), ([np.zeros((4, 2))], 1, 0.9),
                          ([np.zeros((4, 2))], 9, 1.0), ([np.zeros((4, 2))], 9, 0.0)])
def test_bootstrap_refuses(arrays, repeats, level, rng):
    with pytest.raises(ValueError, match="expected repeats"):
        bootstrap(np.mean, arrays, rng, repeats, level)
    with pytest.raises(TypeError, match="generator"):
        bootstrap(np.mean, [np.zeros((4, 2))], 0)


def test_a_share_has_wilsons_interval():
    """Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29 by the score method."""
    for count, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605),
                                (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718)):
        ends = metrics.share_interval(count / n, n)
        assert ends == pytest.approx((low, high), abs=5e-5)
        opposite = metrics.share_interval(1 - count / n, n)
        assert (1 - opposite[1], 1 - opposite[0]) == pytest.approx(ends)


@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, 2 * n), st.just(n))),
       st.floats(0.5, 0.999))
def test_the_interval_of_a_share_is_within_its_range_and_has_a_width(halves_and_n, level):
    share, n = halves_and_n[0] / 2 / halves_and_n[1], halves_and_n[1]
    low, high = metrics.share_interval(share, n, level)
    assert 0 <= low <= share <= high <= 1 and high - low > 0.4 / (n + 1)
    narrower = metrics.share_interval(share, 4 * n, level)
    assert narrower[1] - narrower[0] < high - low
    z = NormalDist().inv_cdf((1 + level) / 2)
    for p in (low, high):  # its definition: the ends are just z standard deviations away
        if 0 < p < 1:
            assert abs(share - p) == pytest.approx(z * math.sqrt(p * (1 - p) / n), rel=1e-6,
                                                   abs=1e-9)


def test_the_interval_of_a_share_holds_the_truth_as_often_as_it_says(rng):
    for p, n in ((0.5, 17), (0.9, 50), (0.02, 200)):
        found = rng.binomial(n, p, 2000) / n
        intervals = np.array([metrics.share_interval(share, n) for share in found])
        holds = np.mean((intervals[:, 0] <= p) & (p <= intervals[:, 1]))
        assert holds > 0.92


def test_a_share_that_is_none_has_no_interval():
    assert all(map(math.isnan, metrics.share_interval(math.nan, 5)))
    for share, n, level in ((-0.1, 5, 0.9), (1.1, 5, 0.9), (0.5, 0, 0.9), (0.5, 5, 1), (0.5, 5, 0)):
        with pytest.raises(ValueError, match="share_interval: expected"):
            metrics.share_interval(share, n, level)


# ------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("score", [lambda a, b: nearest(a, b, 5), prdc, frechet_distance,
                                   lambda a, b: memorization(a, b, b)],
                         ids=["nearest", "prdc", "frechet", "memorization"])
@pytest.mark.parametrize("collapsed", [False, True])
def test_temporaries_stay_small(score, collapsed, rng, monkeypatch):
    """With blocks of 0.5 MiB, the 17 MiB of distances of 1,500 points take less than 8 MiB."""
    monkeypatch.setattr(metrics, "_CHUNK", 1 << 16)
    a, b = rng.standard_normal((2, 1500, 10))
    if collapsed:
        a = np.zeros_like(a)
    tracemalloc.start()
    score(a, b)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20
