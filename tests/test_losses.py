"""Losses against closed forms: values, signs, extremes;
penalties of linear and quadratic networks; likelihoods."""

import inspect
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinygan import Tensor, grad, losses, ops
from tinygan.layers import BatchNorm, Dense, LayerNorm, Sequential, Tanh
from tinygan.optim import SGD, Adam
from tinygan.program import Program

GENERATORS = [name for name in vars(losses) if name.endswith("_generator")]
CRITICS = [name for name in vars(losses) if name.endswith(("_discriminator", "_critic"))]
scores = hnp.arrays(np.float64, st.tuples(st.integers(1, 5), st.just(1)), elements=st.floats(-5, 5))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def probability(score):
    return 1 / (1 + np.exp(-score))


def close(a, b, tolerance=1e-12):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


# -------------------------- losses of the scores


@given(scores, scores, st.sampled_from([0.0, 0.1, 0.3]))
def test_the_cross_entropies_are_logarithms_of_probabilities(real, fake, smoothing):
    """In a range where the logarithm of the probability itself is accurate."""
    d, g = probability(real), probability(fake)
    expected = -np.mean((1 - smoothing) * np.log(d) + smoothing * np.log(1 - d))
    expected -= np.mean(np.log(1 - g))
    for loss in (losses.minimax_discriminator, losses.nonsaturating_discriminator):
        close(loss(real, fake, smoothing=smoothing), expected)
        close(loss(Tensor(real), Tensor(fake), smoothing=smoothing).data, expected)
    close(losses.minimax_generator(fake), np.mean(np.log(1 - g)))
    close(losses.nonsaturating_generator(fake), -np.mean(np.log(g)))


@given(scores, scores)
def test_the_wasserstein_losses_are_differences_of_means(real, fake):
    close(losses.wasserstein_critic(real, fake), fake.mean() - real.mean())
    close(losses.wasserstein_generator(fake), -fake.mean())


@given(scores, scores)
def test_the_least_squares_losses_have_their_halves_and_labels(real, fake):
    close(losses.least_squares_discriminator(real, fake),
          0.5 * np.mean((real - 1) ** 2) + 0.5 * np.mean(fake**2))
    close(losses.least_squares_generator(fake), 0.5 * np.mean((fake - 1) ** 2))
    r, f = Tensor(real), Tensor(fake)
    for share, expected in zip(grad(losses.least_squares_discriminator(r, f), [r, f]),
                               (real - 1, fake)):
        close(share, expected / len(share))
    close(grad(losses.least_squares_generator(f), [f])[0], (fake - 1) / len(fake))


@given(scores, scores)
def test_the_hinge_pushes_only_what_is_inside_the_margin(real, fake):
    # as the paper writes it
    expected = -np.mean(np.minimum(0, -1 + real)) - np.mean(np.minimum(0, -1 - fake))
    close(losses.hinge_discriminator(real, fake), expected)
    r, f = Tensor(real), Tensor(fake)
    shares = grad(losses.hinge_discriminator(r, f), [r, f])
    close(shares[0], -1.0 * (real < 1) / len(real))
    close(shares[1], (fake > -1) / len(fake))
    close(losses.hinge_generator(fake), -fake.mean())


@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_the_relativistic_losses_compare_pairs(n, seed):
    rng = np.random.default_rng(seed)
    real, fake = rng.normal(size=(2, n, 1)) * 2
    d = probability(real - fake)
    close(losses.relativistic_discriminator(real, fake), -np.mean(np.log(d)))
    close(losses.relativistic_generator(fake, real), -np.mean(np.log(1 - d)))
    r, f = Tensor(real), Tensor(fake)
    for share, expected in zip(grad(losses.relativistic_discriminator(r, f), [r, f]),
                               (d - 1, 1 - d)):
        close(share, expected / n)
    close(grad(losses.relativistic_generator(f, real), [f])[0], -d / n)
    close(losses.relativistic_discriminator(real + 3, fake + 3),
          losses.relativistic_discriminator(real, fake))


def test_scores_without_partners_are_refused():
    """(n, 1) against (n,) would be compared n^2 times."""
    for loss in (losses.relativistic_discriminator, losses.relativistic_generator):
        with pytest.raises(ValueError, match=r"\(4, 1\).*\(4,\).*in pairs"):
            loss(np.ones((4, 1)), np.ones(4))


@given(scores, st.sampled_from([0.0, 0.1]))
def test_the_gradients_of_the_cross_entropies_are_errors_of_probabilities(value, smoothing):
    s = Tensor(value)
    n, d = len(value), probability(value)
    for loss, expected in (
            (losses.minimax_discriminator(s, np.zeros((1, 1)), smoothing), d - (1 - smoothing)),
            (losses.minimax_discriminator(np.zeros((1, 1)), s, smoothing), d),
            (losses.minimax_generator(s), -d), (losses.nonsaturating_generator(s), d - 1)):
        close(grad(loss, [s])[0], expected / n)


LOSSES = {"minimax discriminator": lambda r, f: losses.minimax_discriminator(r, f),
          "smoothed discriminator": lambda r, f: losses.minimax_discriminator(r, f, smoothing=0.1),
          "minimax generator": lambda r, f: losses.minimax_generator(f) + 0.0 * r.sum(),
          "nonsaturating discriminator": lambda r, f: losses.nonsaturating_discriminator(r, f),
          "nonsaturating generator": lambda r, f: losses.nonsaturating_generator(f) + 0.0 * r.sum(),
          "least squares discriminator": lambda r, f: losses.least_squares_discriminator(r, f),
          "least squares generator": lambda r, f: losses.least_squares_generator(f) + 0.0 * r.sum(),
          "hinge discriminator": lambda r, f: losses.hinge_discriminator(r, f),
          "hinge generator": lambda r, f: losses.hinge_generator(f) + 0.0 * r.sum(),
          "relativistic discriminator": lambda r, f: losses.relativistic_discriminator(r, f),
          "relativistic generator": lambda r, f: losses.relativistic_generator(f, r),
          "critic": lambda r, f: losses.wasserstein_critic(r, f),
          "generator": lambda r, f: losses.wasserstein_generator(f) + 0.0 * r.sum()}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("extreme", [1e4, -1e4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_losses_and_gradients_are_finite_at_extreme_scores(loss, extreme, dtype):
    """No probability is clipped anywhere:
    the loss stays linear in the score, in its dtype, without a warning."""
    real, fake = Tensor(np.full((3, 1), extreme, dtype)), Tensor(np.full((3, 1), -extreme, dtype))
    with np.errstate(all="raise", under="ignore"):
        y = LOSSES[loss](real, fake)
        gradients = grad(y, [real, fake], create_graph=True)
    assert y.shape == () and y.dtype == dtype and np.isfinite(y.data)
    assert all(np.isfinite(g.data).all() and g.dtype == dtype for g in gradients)


@pytest.mark.parametrize("loss", [losses.minimax_discriminator, losses.nonsaturating_discriminator])
@pytest.mark.parametrize("smoothing", [-0.1, 1.1, float("nan")])
def test_a_smoothing_that_is_no_share_is_refused(loss, smoothing):
    with pytest.raises(ValueError, match="expected 0 <= smoothing <= 1, got"):
        loss(np.ones((4, 1)), np.ones((4, 1)), smoothing)


@pytest.mark.parametrize("loss", GENERATORS + CRITICS)
@pytest.mark.parametrize("wrong", [np.ones((4, 1), np.uint8), [[1.0]], 1.0, None, "score"],
                         ids=["unsigned", "list", "number", "None", "text"])
def test_scores_are_tensors_or_floating_arrays(loss, wrong):
    function = getattr(losses, loss)
    count = sum(name.endswith("scores") for name in inspect.signature(function).parameters)
    for place in range(count):
        scores = [np.ones((4, 1))] * count
        scores[place] = wrong
        with pytest.raises(TypeError, match="expected a Tensor or a floating array, got"):
            function(*scores)


def test_a_lost_discriminator_pays_the_score_itself():
    """-log sigmoid(-10^4) is 10^4 exactly,
    where a clipped probability would say log of the clip."""
    assert float(losses.minimax_discriminator(np.full((1, 1), -1e4), np.full((1, 1), -1e4))) == 1e4
    assert float(losses.nonsaturating_generator(np.full((1, 1), -1e4))) == 1e4


def test_the_saturating_loss_has_no_gradient_while_the_discriminator_wins():
    fake = Tensor(np.full((1, 1), -30.0))
    assert abs(grad(losses.minimax_generator(fake), [fake])[0].item()) < 1e-12
    (other,) = grad(losses.nonsaturating_generator(fake), [fake])
    assert other.item() == pytest.approx(-1, abs=1e-12)


@pytest.mark.parametrize("loss", GENERATORS)
def test_one_generator_step_raises_the_mean_score_of_the_fakes(loss, rng):
    critic = Dense(2, 1, rng=rng, dtype=np.float64)
    critic.bias.assign([-5.0])  # below 1, where least squares pull the scores to
    generator, z = Dense(3, 2, rng=rng, dtype=np.float64), rng.normal(size=(16, 3))
    before = critic(generator(z)).data.mean()
    scores = {"fake_scores": critic(generator(z)), "real_scores": critic(rng.normal(size=(16, 2)))}
    function = getattr(losses, loss)
    value = function(**{name: scores[name] for name in inspect.signature(function).parameters})
    SGD(generator.parameters(), 1e-3).step(grad(value, generator.parameters()))
    assert critic(generator(z)).data.mean() > before


@pytest.mark.parametrize("loss", CRITICS)
def test_one_critic_step_parts_the_real_from_the_fake(loss, rng):
    critic = Dense(2, 1, rng=rng, dtype=np.float64)
    real, fake = rng.normal(size=(2, 16, 2)) + [[[2]], [[0]]]

    def gap():
        return critic(real).data.mean() - critic(fake).data.mean()

    before = gap()
    gradients = grad(getattr(losses, loss)(critic(real), critic(fake)), critic.parameters())
    SGD(critic.parameters(), 1e-3).step(gradients)
    assert gap() > before


def test_at_the_optimum_the_discriminators_loss_is_log_4():
    zero = np.zeros((4, 1))
    assert float(losses.minimax_discriminator(zero, zero)) == pytest.approx(np.log(4), rel=1e-15)


# -------------------------- the gradient penalty


class Recorder:
    """A generator whose draws are written down, through the backend's own function."""

    def __init__(self, monkeypatch, kind="uniform"):
        self.draws = []
        draw = getattr(losses.backend, kind)

        def drawn(rng, shape, *arguments, **options):
            self.draws.append(draw(rng, shape, *arguments, **options))
            return self.draws[-1]

        monkeypatch.setattr(losses.backend, kind, drawn)


SHAPES = [(5, 3), (4, 2, 3, 3)]


@pytest.mark.parametrize("target", [1.0, 0.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_penalty_of_a_linear_critic_is_that_of_its_weights_length(shape, target, rng):
    """D(x) = <w, x> + c: the penalty is (|w| - 1)^2, its gradient 2 (|w| - 1) w / |w|,
    whatever the data."""
    w = Tensor(rng.normal(size=shape[1:]))
    real, fake = rng.normal(size=(2, *shape))

    def critic(x):
        return (x * w).reshape(len(x), -1).sum(axis=1, keepdims=True) + 7.0

    penalty = losses.gradient_penalty(critic, real, fake, rng=rng, target=target)
    length = np.sqrt((w.data**2).sum())
    assert penalty.shape == ()
    close(penalty.data, (length - target) ** 2)
    close(grad(penalty, [w])[0], 2 * (length - target) * w.data / length)


def test_the_penalty_of_a_quadratic_critic_is_measured_at_the_interpolates(monkeypatch, rng):
    """D(x) = a |x|^2 / 2: the gradient at x_hat is a x_hat,
    so the penalty is E (a |x_hat| - 1)^2."""
    recorder, a = Recorder(monkeypatch), Tensor(np.array(0.7))
    real, fake = rng.normal(size=(2, 6, 3))
    penalty = losses.gradient_penalty(lambda x: (x * x).sum(axis=1) * a * 0.5, real, fake, rng=rng)
    (e,) = recorder.draws
    lengths = np.sqrt(((e * real + (1 - e) * fake) ** 2).sum(axis=1))
    close(penalty.data, np.mean((0.7 * lengths - 1) ** 2))
    close(grad(penalty, [a])[0], np.mean(2 * (0.7 * lengths - 1) * lengths))


@pytest.mark.parametrize("shape", SHAPES)
def test_each_example_has_one_uniform_draw(shape, monkeypatch, rng):
    recorder = Recorder(monkeypatch)
    real, fake = rng.normal(size=(2, *shape))
    points = losses.interpolate(real, fake, rng=rng)
    (e,) = recorder.draws
    assert e.shape == (shape[0],) + (1,) * (len(shape) - 1)
    assert len(set(e.ravel().tolist())) == shape[0]
    close(points, e * real + (1 - e) * fake)


def test_interpolates_are_spread_evenly_between_the_ends():
    n = 20_000
    e = losses.interpolate(np.ones((n, 1)), np.zeros((n, 1)), rng=np.random.default_rng(0))
    assert 0 <= e.min() and e.max() <= 1
    assert abs(e.mean() - 1 / 2) < 5 * (1 / 12 / n) ** 0.5
    assert abs((e**2).mean() - 1 / 3) < 5 * (4 / 45 / n) ** 0.5


@pytest.mark.parametrize("shape", SHAPES)
def test_the_norm_is_taken_over_all_axes_but_the_first(shape, rng):
    norms = losses.gradient_norms(lambda x: (x * x * 0.5).reshape(len(x), -1).sum(axis=1),
                                  x := rng.normal(size=shape))
    assert norms.shape == shape[:1]
    close(norms, np.sqrt((x.reshape(len(x), -1) ** 2).sum(axis=1)))


def mlp(rng, dtype=np.float64, norm=None):
    return Sequential(Dense(2, 8, rng=rng, dtype=dtype), *([norm(8, dtype=dtype)] if norm else []),
                      Tanh(), Dense(8, 1, rng=rng, dtype=dtype))


def penalty_of(critic, real, fake):
    return losses.gradient_penalty(critic, real, fake, rng=np.random.default_rng(1))


def test_a_constant_added_to_the_critic_changes_nothing(rng):
    critic, (real, fake) = mlp(rng), rng.normal(size=(2, 6, 2))
    plain = penalty_of(critic, real, fake)
    shifted = penalty_of(lambda x: critic(x) + 100.0, real, fake)
    assert float(plain) == float(shifted)
    # neither depends on the last bias, which is such a constant
    parameters = critic.parameters()[:-1]
    for a, b in zip(grad(plain, parameters), grad(shifted, parameters)):
        assert np.array_equal(a, b)
    difference = losses.wasserstein_critic(critic(real) + 100.0, critic(fake) + 100.0)
    close(difference.data, losses.wasserstein_critic(critic(real), critic(fake)).data)


def test_the_gradient_of_the_penalty_is_its_slope(rng):
    """Double backpropagation against central differences, of error O(h^4) + eps / h."""
    critic, (real, fake) = mlp(rng, norm=LayerNorm), rng.normal(size=(2, 6, 2))
    parameters = critic.parameters()
    gradients = grad(penalty_of(critic, real, fake), parameters)
    for p, g in zip(parameters, gradients):
        u, start, h = rng.normal(size=p.shape), p.data.copy(), 1e-4
        quotient = []
        for step in (h, h / 2):
            p.assign(start + step * u)
            above = float(penalty_of(critic, real, fake))
            p.assign(start - step * u)
            quotient.append((above - float(penalty_of(critic, real, fake))) / (2 * step))
        p.assign(start)
        assert (g * u).sum() == pytest.approx((4 * quotient[1] - quotient[0]) / 3, rel=1e-7,
                                              abs=1e-9)


def test_the_penalty_and_its_gradient_are_finite_where_the_gradient_is_zero(rng):
    """D = (w . x)^4 is flat at 0: the norm there has no slope of its own,
    and must not give NaN at any order."""
    w = Tensor(rng.normal(size=(3, 1)))
    zero = np.zeros((2, 3))
    penalty = losses.gradient_penalty(lambda x: (x @ w) ** 4, zero, zero, rng=rng)
    assert float(penalty) == 1
    (g,) = grad(penalty, [w], create_graph=True)
    assert np.array_equal(g.data, np.zeros((3, 1)))
    dead = Tensor(np.zeros((3, 1)))
    penalty = losses.gradient_penalty(lambda x: ops.relu(x @ dead), *rng.normal(size=(2, 4, 3)),
                                      rng=rng)
    assert float(penalty) == 1 and np.isfinite(grad(penalty, [dead])[0]).all()


def test_each_examples_gradient_is_its_own(rng):
    """The penalty of a batch is the mean of those of its examples, the draws being the same."""
    critic, points = mlp(rng), rng.normal(size=(4, 2))
    together = losses.gradient_norms(critic, points)
    alone = [losses.gradient_norms(critic, points[i:i + 1])[0] for i in range(4)]
    close(together, alone)


def test_the_penalty_reads_real_and_fake_as_constants(rng):
    """Tensors are taken by value: the generator's graph is not entered."""
    generator, critic = Dense(2, 2, rng=rng, dtype=np.float64), mlp(rng)
    z, real = rng.normal(size=(2, 6, 2))
    penalty = penalty_of(critic, Tensor(real), generator(z))
    assert float(penalty) == float(penalty_of(critic, real, generator(z).data))
    with pytest.raises(ValueError, match="does not depend on any"):
        grad(penalty, generator.parameters())


PENALTIES = {  # of a network at two batches
    "gradient_penalty": lambda net, x, y, rng: losses.gradient_penalty(net, x, y, rng=rng),
    "r1_penalty": lambda net, x, y, rng: losses.r1_penalty(net, x),
    "r2_penalty": lambda net, x, y, rng: losses.r2_penalty(net, y),
    "path_length_penalty":
        lambda net, x, y, rng: losses.path_length_penalty(net, x, 0.5, rng=rng)[0]}


@pytest.mark.parametrize("name", PENALTIES)
def test_the_penalties_refuse_a_network_that_couples_its_examples(name, rng):
    network, (x, y) = mlp(rng, norm=BatchNorm), rng.normal(size=(2, 6, 2))
    before = {k: v.tobytes() for k, v in network.state_dict().items()}, rng.bit_generator.state
    message = f"{name}:.*couples the examples of a batch.*own example.*LayerNorm.*eval mode"
    with pytest.raises(ValueError, match=message):
        PENALTIES[name](network, x, y, rng)
    assert before == ({k: v.tobytes() for k, v in network.state_dict().items()},
                      rng.bit_generator.state)
    assert np.isfinite(PENALTIES[name](network.eval(), x, y, rng).data)


@pytest.mark.parametrize("name", PENALTIES)
def test_the_penalties_keep_float32(name, rng):
    network = mlp(rng, np.float32)
    penalty = PENALTIES[name](network, *rng.normal(size=(2, 6, 2)).astype(np.float32), rng)
    assert penalty.dtype == np.float32
    assert all(g.dtype == np.float32 for g in grad(penalty, network.parameters()))


def test_real_and_fake_must_have_one_shape(rng):
    message = r"real has shape \(4, 2\), fake \(3, 2\); expected batches of one shape"
    with pytest.raises(ValueError, match=message):
        losses.gradient_penalty(mlp(rng), np.ones((4, 2)), np.ones((3, 2)), rng=rng)


@pytest.mark.parametrize("options", [{}, {"rng": None}, {"rng": 0}])
def test_a_forgotten_generator_is_a_type_error(options, rng):
    with pytest.raises(TypeError, match="rng"):
        losses.gradient_penalty(mlp(rng), np.ones((4, 2)), np.ones((4, 2)), **options)


# -------------------------- R1 and R2


@pytest.mark.parametrize("penalty", [losses.r1_penalty, losses.r2_penalty])
@pytest.mark.parametrize("shape", SHAPES)
def test_half_the_squared_slope_of_linear_and_quadratic_critics(shape, penalty, rng):
    """D = <w, x>: |w|^2 / 2, its gradient w. D = a |x|^2 / 2:
    E |a x|^2 / 2, its gradient a E |x|^2."""
    w, a, x = Tensor(rng.normal(size=shape[1:])), Tensor(np.array(0.7)), rng.normal(size=shape)
    linear = penalty(lambda x: (x * w).reshape(len(x), -1).sum(axis=1, keepdims=True) + 7.0, x)
    close(linear.data, (w.data**2).sum() / 2)
    close(grad(linear, [w])[0], w.data)
    quadratic = penalty(lambda x: (x * x).reshape(len(x), -1).sum(axis=1) * a * 0.5, x)
    square = (x**2).sum() / len(x)
    assert quadratic.shape == ()
    close(quadratic.data, 0.49 * square / 2)
    close(grad(quadratic, [a])[0], 0.7 * square)


def test_r1_is_0_and_its_gradient_finite_where_the_critic_is_flat(rng):
    dead = Tensor(np.zeros((3, 1)))
    penalty = losses.r1_penalty(lambda x: ops.relu(x @ dead), rng.normal(size=(4, 3)))
    assert float(penalty) == 0 and not grad(penalty, [dead])[0].any()


# -------------------------- path lengths


def test_path_lengths_of_a_linear_generator(monkeypatch, rng):
    """G = z A: J^T y = A y, so the penalty's gradient is E 2 (|A y| - a) A y y^T / |A y|."""
    recorder, a = Recorder(monkeypatch, "normal"), Tensor(rng.normal(size=(3, 5)))
    z = rng.normal(size=(4, 3))
    penalty, mean_length = losses.path_length_penalty(lambda z: z @ a, z, 1.5, rng=rng)
    (y,) = recorder.draws
    assert y.shape == (4, 5)
    moved = y @ a.data.T
    lengths = np.sqrt((moved**2).sum(axis=1))
    close(mean_length, lengths.mean())
    close(penalty.data, np.mean((lengths - 1.5) ** 2))
    close(grad(penalty, [a])[0], (2 * (lengths - 1.5) / lengths * moved.T) @ y / 4)
    assert not isinstance(mean_length, Tensor) and penalty.shape == ()


def test_the_expected_path_length_of_a_scaled_rotation_is_that_of_a_normal_vector():
    """|c Q^T y| = c chi_d,
    of mean c m = c 2^(1/2) Gamma((d + 1) / 2) / Gamma(d / 2) and mean square c^2 d."""
    n, d, c, a = 20_000, 4, 1.7, 2.0
    rng = np.random.default_rng(0)
    q = np.linalg.qr(rng.normal(size=(d, d)))[0] * c
    z = rng.normal(size=(n, d))
    penalty, mean_length = losses.path_length_penalty(lambda z: z @ q, z, a, rng=rng)
    m = c * math.sqrt(2) * math.gamma((d + 1) / 2) / math.gamma(d / 2)
    lengths = c * np.sqrt(np.random.default_rng(1).chisquare(d, n))  # for the standard errors
    assert abs(mean_length - m) < 5 * lengths.std() / n**0.5
    expected = c**2 * d - 2 * a * m + a**2
    assert abs(penalty.data - expected) < 5 * ((lengths - a) ** 2).std() / n**0.5


def test_path_lengths_are_those_at_each_latent_and_per_pixel(monkeypatch, rng):
    """G = a z^2, elementwise: J = diag(2 a z). Images of h w pixels divide y by (h w)^(1/2)."""
    recorder = Recorder(monkeypatch, "normal")
    a, z = Tensor(np.array(0.7)), rng.normal(size=(4, 12))
    for shape, pixels in (((4, 12), 1), ((4, 2, 2, 3), 6)):
        penalty, _ = losses.path_length_penalty(lambda z: (z * z * a).reshape(*shape), z, 1.0,
                                                rng=rng)
        y = recorder.draws.pop()
        assert y.shape == shape
        lengths = np.sqrt(((2 * z * y.reshape(4, 12)) ** 2).sum(axis=1) / pixels)
        close(penalty.data, np.mean((0.7 * lengths - 1) ** 2))
        close(grad(penalty, [a])[0], np.mean(2 * (0.7 * lengths - 1) * lengths))


def test_the_target_of_the_path_lengths_can_be_an_array(rng):
    """As the running average is, and then a float64 one leaves a float32 network alone."""
    net, z = mlp(rng, np.float32), rng.normal(size=(6, 2)).astype(np.float32)
    by_number, by_array = (losses.path_length_penalty(net, z, target, rng=np.random.default_rng(1))
                           for target in (0.25, np.array(0.25)))
    assert by_array[0].dtype == by_array[1].dtype == np.float32
    assert float(by_number[0]) == float(by_array[0])


# -------------------------- likelihoods: autoencoders


def log_normal(x, mean, sigma):
    return -((x - mean) ** 2) / (2 * sigma**2) - np.log(sigma * np.sqrt(2 * np.pi))


def test_the_kl_is_the_integral_of_its_definition(rng):
    """The trapezoidal rule for p log(p / q) of analytic functions that vanish at both ends:
    exact to rounding."""
    mean, log_var = rng.normal(size=(2, 4, 3))
    t = np.linspace(-30, 30, 6001)
    log_p = log_normal(t, mean[..., None], np.exp(log_var / 2)[..., None])
    kl = (np.exp(log_p) * (log_p - log_normal(t, 0, 1))).sum(axis=-1) * (t[1] - t[0])
    close(losses.gaussian_kl(mean, log_var), kl.sum(axis=1).mean(), 1e-10)
    close(losses.gaussian_kl(mean.reshape(4, 1, 3, 1), log_var.reshape(4, 1, 3, 1)),
          kl.sum(axis=1).mean(), 1e-10)


def test_the_kl_is_smallest_at_the_prior():
    mean, log_var = Tensor(np.zeros((4, 3))), Tensor(np.zeros((4, 3)))
    kl = losses.gaussian_kl(mean, log_var)
    assert float(kl) == 0 and not any(g.any() for g in grad(kl, [mean, log_var]))


def test_reparameterized_draws_have_the_variance_and_not_its_square():
    """Variance e^log_var, within five standard errors, and the slopes 1 and (z - mean) / 2."""
    n = 50_000
    log_var = np.array([-2.0, 0.0, 1.5])
    mean, spread = Tensor(np.tile([1.0, 0.0, -2.0], (n, 1))), Tensor(np.tile(log_var, (n, 1)))
    z = losses.reparameterize(mean, spread, rng=np.random.default_rng(0))
    assert (abs(z.data.var(axis=0) / np.exp(log_var) - 1) < 5 * (2 / n) ** 0.5).all()
    assert (abs(z.data.mean(axis=0) - [1, 0, -2]) < 5 * np.exp(log_var / 2) / n**0.5).all()
    to_mean, to_spread = grad(z.sum(), [mean, spread])
    assert (to_mean == 1).all()
    close(to_spread, (z.data - mean.data) / 2)


@pytest.mark.parametrize("log_sigma", [0.3, np.array(-0.4), np.array([[0.1], [-0.2], [0.5]]),
                                       np.array([0.1, -1.0])],
                         ids=["number", "array", "per example", "per column"])
def test_the_gaussian_likelihood_is_that_of_its_density(log_sigma, rng):
    x, mean = rng.normal(size=(2, 3, 2))
    expected = -log_normal(x, mean, np.exp(log_sigma) + np.zeros((3, 2))).sum(axis=1).mean()
    close(losses.gaussian_nll(x, mean, log_sigma), expected)
    close(losses.gaussian_nll(x, Tensor(mean), log_sigma).data, expected)
    images = losses.gaussian_nll(x.reshape(3, 1, 2, 1), mean.reshape(3, 1, 2, 1), 0.0)
    close(images, -log_normal(x, mean, 1.0).sum(axis=1).mean())


def test_the_most_likely_sigma_is_the_root_mean_square_error(rng):
    x, mean = rng.normal(size=(2, 6, 3))
    log_sigma = Tensor(np.log(np.sqrt(((x - mean) ** 2).mean())))
    assert abs(grad(losses.gaussian_nll(x, mean, log_sigma), [log_sigma])[0]) < 1e-12


def test_the_bernoulli_likelihood_is_that_of_its_probabilities(rng):
    x, logits = rng.uniform(size=(4, 3)), Tensor(rng.normal(size=(4, 3)))
    p = probability(logits.data)
    nll = losses.bernoulli_nll(x, logits)
    close(nll.data, -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum(axis=1).mean())
    close(grad(nll, [logits])[0], (p - x) / 4)
    certain = np.array([[1e4, -1e4]])
    assert float(losses.bernoulli_nll(np.array([[1.0, 0.0]]), certain)) == 0
    assert float(losses.bernoulli_nll(np.array([[0.0, 1.0]]), certain)) == 2e4


@given(st.floats(-3, 3), st.floats(0.2, 3), st.floats(0.2, 3))
def test_the_elbo_of_the_exact_posterior_is_the_evidence(x, w, sigma):
    """p(z) = N(0, 1), p(x | z) = N(w z, sigma^2): p(x) = N(0, w^2 + sigma^2). The expectation over
    eps of a quadratic function is its mean over eps = -1 and 1."""
    variance = 1 / (1 + (w / sigma) ** 2)
    mean, log_var = np.array([[variance * w * x / sigma**2]]), np.array([[np.log(variance)]])
    nll = [losses.gaussian_nll(np.array([[x]]), w * (mean + eps * np.exp(log_var / 2)),
                               math.log(sigma)) for eps in (-1, 1)]
    close(np.mean(nll) + losses.gaussian_kl(mean, log_var), -log_normal(x, 0, np.hypot(w, sigma)),
          1e-9)


# -------------------------- likelihoods: mixtures


@pytest.mark.parametrize("isotropic", [False, True])
def test_the_mixture_is_the_sum_of_its_densities(isotropic, rng):
    """And the slope at a mean is that of the EM algorithm:
    -E[r_k (x - mu_k) / sigma_k^2], r the responsibilities."""
    x, logits = rng.normal(size=(5, 2)), Tensor(rng.normal(size=3))
    means = Tensor(rng.normal(size=(3, 2)))
    log_sigmas = Tensor(rng.normal(size=(3, 1 if isotropic else 2)) / 2)
    pi = np.exp(logits.data) / np.exp(logits.data).sum()
    sigma = np.exp(log_sigmas.data) + np.zeros((3, 2))
    logs = log_normal(x[:, None], means.data, sigma).sum(axis=2)
    densities = pi * np.exp(logs)
    nll = losses.gaussian_mixture_nll(x, logits, means, log_sigmas)
    close(nll.data, -np.log(densities.sum(axis=1)).mean())
    r = densities / densities.sum(axis=1, keepdims=True)
    to_logits, to_means = grad(nll, [logits, means])
    close(to_means, -np.einsum("ik,ikd->kd", r, (x[:, None] - means.data) / sigma**2) / 5)
    close(to_logits, pi - r.mean(axis=0))
    close(losses.gaussian_mixture_nll(x, logits.data + 100, means.data, log_sigmas.data), nll.data)


def test_a_mixture_of_one_is_a_gaussian(rng):
    x, mean, log_sigma = rng.normal(size=(5, 2)), rng.normal(size=(1, 2)), rng.normal(size=(1, 2))
    close(losses.gaussian_mixture_nll(x, np.array([7.0]), mean, log_sigma),
          losses.gaussian_nll(x, mean, log_sigma))


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-6), (np.float64, 1e-14)])
def test_a_mixture_is_finite_where_every_density_is_0(dtype, tolerance):
    """1,000 and 3,000 sigmas away, e^-500000 and less: the nearer component decides."""
    x, means = np.array([[0.0, 0.0]], dtype), Tensor(np.array([[10.0, 0.0], [0.0, 30.0]], dtype))
    log_sigmas = Tensor(np.full((2, 1), math.log(0.01), dtype))
    nll = losses.gaussian_mixture_nll(x, np.zeros(2, dtype), means, log_sigmas)
    expected = 500_000 + 2 * math.log(0.01 * math.sqrt(2 * math.pi)) + math.log(2)
    assert nll.dtype == dtype and float(nll) == pytest.approx(expected, rel=tolerance * 10)
    np.testing.assert_allclose(grad(nll, [means])[0], [[1e5, 0], [0, 0]], rtol=tolerance * 10)


@pytest.mark.parametrize("shapes", [[(4,), (3,), (3, 2), (3, 2)], [(4, 1), (3,), (3, 2), (3, 2)],
                                    [(4, 2), (1,), (3, 2), (3, 1)], [(4, 2), (3,), (3, 2), (3,)],
                                    [(4, 2), (3,), (3, 2), (1, 2)], [(4, 2), (3,), (3,), (3, 2)]])
def test_a_mixture_names_the_shapes_it_wants(shapes):
    with pytest.raises(ValueError, match=r"gaussian_mixture_nll: expected .* \(k, 1\), got"):
        losses.gaussian_mixture_nll(*map(np.ones, shapes))


def test_the_likelihoods_keep_float32(rng):
    x, other = rng.uniform(size=(2, 4, 3)).astype(np.float32)
    t = Tensor(other)
    for a in (other, t):
        values = [losses.gaussian_kl(x, a), losses.gaussian_nll(x, a, 0.5),
                  losses.gaussian_nll(x, a, np.float64(0.5)),
                  losses.bernoulli_nll(x, a), losses.reparameterize(a, a, rng=rng),
                  losses.gaussian_mixture_nll(x, other[0], other[:3], a[:3])]
        assert {v.dtype for v in values} == {np.dtype(np.float32)}
    assert {g.dtype for v in values
            for g in grad(v if v.size == 1 else v.sum(), [t])} == {np.dtype(np.float32)}


# -------------------------- programs


def step_of(replayed):
    """A step on an autoencoder, a mixture and the path lengths,
    with the running average of these."""
    rng = np.random.default_rng(0)
    encoder, decoder = (Sequential(Dense(a, 8, rng=rng), Tanh(), Dense(8, b, rng=rng))
                        for a, b in ((2, 4), (2, 2)))
    mixture = [Tensor(rng.normal(size=shape).astype(np.float32))
               for shape in ((3,), (3, 2), (3, 1))]
    parameters = encoder.parameters() + decoder.parameters() + mixture
    average = Tensor(np.float32(1))
    optimizer = Adam(parameters, 1e-2)

    def step(x):
        code = encoder(x)
        mean, log_var = code[:, :2], code[:, 2:]
        z = losses.reparameterize(mean, log_var, rng=rng)
        penalty, length = losses.path_length_penalty(decoder, z, average.data, rng=rng)
        average.assign(average.data + 0.1 * (length - average.data))
        total = (losses.gaussian_kl(mean, log_var) + losses.gaussian_nll(x, decoder(z), -1.0)
                 + 0.1 * penalty + losses.gaussian_mixture_nll(x, *mixture)
                 + losses.bernoulli_nll(probability(x), decoder(z)))
        optimizer.step(grad(total, parameters))
        return total.data

    state = [encoder, decoder, mixture, average, optimizer, rng]
    return (Program(step, state) if replayed else step), [*parameters, average]


def test_the_new_losses_are_replayed_to_the_bit():
    (eager, mine), (replayed, theirs) = step_of(False), step_of(True)
    for k in range(8):
        x = np.random.default_rng(k).normal(size=(16, 2)).astype(np.float32)
        assert eager(x).tobytes() == replayed(x).tobytes(), k
    assert replayed.entries[0].replay
    assert [t.data.tobytes() for t in mine] == [t.data.tobytes() for t in theirs]
