"""Losses against closed forms: values, signs, extremes; the gradient penalty against the norm of a weight vector."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinygan import Tensor, grad, losses, ops
from tinygan.layers import BatchNorm, Dense, LayerNorm, Sequential, Tanh
from tinygan.optim import SGD

scores = hnp.arrays(np.float64, st.tuples(st.integers(1, 5), st.just(1)), elements=st.floats(-5, 5))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def probability(score):
    return 1 / (1 + np.exp(-score))


def close(a, b, tolerance=1e-12):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


# ----------------------------------------------------------------------------------- losses of the scores


@given(scores, scores, st.sampled_from([0.0, 0.1, 0.3]))
def test_the_cross_entropies_are_logarithms_of_probabilities(real, fake, smoothing):
    """In a range where the logarithm of the probability itself is accurate."""
    d, g = probability(real), probability(fake)
    expected = -np.mean((1 - smoothing) * np.log(d) + smoothing * np.log(1 - d)) - np.mean(np.log(1 - g))
    for loss in (losses.minimax_discriminator, losses.nonsaturating_discriminator):
        close(loss(real, fake, smoothing=smoothing), expected)
        close(loss(Tensor(real), Tensor(fake), smoothing=smoothing).data, expected)
    close(losses.minimax_generator(fake), np.mean(np.log(1 - g)))
    close(losses.nonsaturating_generator(fake), -np.mean(np.log(g)))


@given(scores, scores)
def test_the_wasserstein_losses_are_differences_of_means(real, fake):
    close(losses.wasserstein_critic(real, fake), fake.mean() - real.mean())
    close(losses.wasserstein_generator(fake), -fake.mean())


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
          "critic": lambda r, f: losses.wasserstein_critic(r, f),
          "generator": lambda r, f: losses.wasserstein_generator(f) + 0.0 * r.sum()}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("extreme", [1e4, -1e4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_losses_and_gradients_are_finite_at_extreme_scores(loss, extreme, dtype):
    """No probability is clipped anywhere: the loss stays linear in the score, in its dtype, without a warning."""
    real, fake = Tensor(np.full((3, 1), extreme, dtype)), Tensor(np.full((3, 1), -extreme, dtype))
    with np.errstate(all="raise", under="ignore"):
        y = LOSSES[loss](real, fake)
        gradients = grad(y, [real, fake], create_graph=True)
    assert y.shape == () and y.dtype == dtype and np.isfinite(y.data)
    assert all(np.isfinite(g.data).all() and g.dtype == dtype for g in gradients)


def test_a_lost_discriminator_pays_the_score_itself():
    """-log sigmoid(-10^4) is 10^4 exactly, where a clipped probability would say log of the clip."""
    assert float(losses.minimax_discriminator(np.full((1, 1), -1e4), np.full((1, 1), -1e4))) == 1e4
    assert float(losses.nonsaturating_generator(np.full((1, 1), -1e4))) == 1e4


def test_the_saturating_loss_has_no_gradient_while_the_discriminator_wins():
    fake = Tensor(np.full((1, 1), -30.0))
    assert abs(grad(losses.minimax_generator(fake), [fake])[0].item()) < 1e-12
    assert grad(losses.nonsaturating_generator(fake), [fake])[0].item() == pytest.approx(-1, abs=1e-12)


@pytest.mark.parametrize("loss", ["minimax_generator", "nonsaturating_generator", "wasserstein_generator"])
def test_one_generator_step_raises_the_mean_score_of_the_fakes(loss, rng):
    critic = Dense(2, 1, rng=rng, dtype=np.float64)
    generator, z = Dense(3, 2, rng=rng, dtype=np.float64), rng.normal(size=(16, 3))
    before = critic(generator(z)).data.mean()
    gradients = grad(getattr(losses, loss)(critic(generator(z))), generator.parameters())
    SGD(generator.parameters(), 1e-3).step(gradients)
    assert critic(generator(z)).data.mean() > before


@pytest.mark.parametrize("loss", ["minimax_discriminator", "nonsaturating_discriminator", "wasserstein_critic"])
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


# ------------------------------------------------------------------------------------ the gradient penalty


class Recorder:
    """A generator whose uniform draws are written down, through the backend's own function."""

    def __init__(self, monkeypatch):
        self.draws = []
        draw = losses.backend.uniform

        def uniform(rng, shape, *arguments, **options):
            self.draws.append(draw(rng, shape, *arguments, **options))
            return self.draws[-1]

        monkeypatch.setattr(losses.backend, "uniform", uniform)


SHAPES = [(5, 3), (4, 2, 3, 3)]


@pytest.mark.parametrize("target", [1.0, 0.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_penalty_of_a_linear_critic_is_that_of_its_weights_length(shape, target, rng):
    """D(x) = <w, x> + c: the penalty is (|w| - 1)^2, its gradient 2 (|w| - 1) w / |w|, whatever the data."""
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
    """D(x) = a |x|^2 / 2: the gradient at x_hat is a x_hat, so the penalty is E (a |x_hat| - 1)^2."""
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
    assert e.shape == (shape[0],) + (1,) * (len(shape) - 1) and len(set(e.ravel().tolist())) == shape[0]
    close(points, e * real + (1 - e) * fake)


def test_interpolates_are_spread_evenly_between_the_ends():
    n = 20_000
    e = losses.interpolate(np.ones((n, 1)), np.zeros((n, 1)), rng=np.random.default_rng(0))
    assert 0 <= e.min() and e.max() <= 1
    assert abs(e.mean() - 1 / 2) < 5 * (1 / 12 / n) ** 0.5 and abs((e**2).mean() - 1 / 3) < 5 * (4 / 45 / n) ** 0.5


@pytest.mark.parametrize("shape", SHAPES)
def test_the_norm_is_taken_over_all_axes_but_the_first(shape, rng):
    norms = losses.gradient_norms(lambda x: (x * x * 0.5).reshape(len(x), -1).sum(axis=1), x := rng.normal(size=shape))
    assert norms.shape == shape[:1]
    close(norms, np.sqrt((x.reshape(len(x), -1) ** 2).sum(axis=1)))


def mlp(rng, dtype=np.float64, norm=None):
    return Sequential(Dense(2, 8, rng=rng, dtype=dtype), *([norm(8, dtype=dtype)] if norm else []), Tanh(),
                      Dense(8, 1, rng=rng, dtype=dtype))


def penalty_of(critic, real, fake):
    return losses.gradient_penalty(critic, real, fake, rng=np.random.default_rng(1))


def test_a_constant_added_to_the_critic_changes_nothing(rng):
    critic, (real, fake) = mlp(rng), rng.normal(size=(2, 6, 2))
    plain = penalty_of(critic, real, fake)
    shifted = penalty_of(lambda x: critic(x) + 100.0, real, fake)
    assert float(plain) == float(shifted)
    parameters = critic.parameters()[:-1]  # neither depends on the last bias, which is such a constant
    for a, b in zip(grad(plain, parameters), grad(shifted, parameters)):
        assert np.array_equal(a, b)
    difference = losses.wasserstein_critic(critic(real) + 100.0, critic(fake) + 100.0)
    close(difference.data, losses.wasserstein_critic(critic(real), critic(fake)).data)


def test_the_gradient_of_the_penalty_is_its_slope(rng):
    """Double backpropagation against central differences (error O(h^4) + eps / h after one Richardson step)."""
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
        assert (g * u).sum() == pytest.approx((4 * quotient[1] - quotient[0]) / 3, rel=1e-7, abs=1e-9)


def test_the_penalty_and_its_gradient_are_finite_where_the_gradient_is_zero(rng):
    """D = (w . x)^4 is flat at 0: the norm there has no slope of its own, and must not give NaN at any order."""
    w = Tensor(rng.normal(size=(3, 1)))
    zero = np.zeros((2, 3))
    penalty = losses.gradient_penalty(lambda x: (x @ w) ** 4, zero, zero, rng=rng)
    assert float(penalty) == 1
    (g,) = grad(penalty, [w], create_graph=True)
    assert np.array_equal(g.data, np.zeros((3, 1)))
    dead = Tensor(np.zeros((3, 1)))
    penalty = losses.gradient_penalty(lambda x: ops.relu(x @ dead), *rng.normal(size=(2, 4, 3)), rng=rng)
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


def test_the_penalty_refuses_a_critic_that_couples_its_examples(rng):
    critic, (real, fake) = mlp(rng, norm=BatchNorm), rng.normal(size=(2, 6, 2))
    before = {k: v.tobytes() for k, v in critic.state_dict().items()}, rng.bit_generator.state
    with pytest.raises(ValueError, match="couples the examples of a batch.*its own example.*LayerNorm.*eval mode"):
        losses.gradient_penalty(critic, real, fake, rng=rng)
    assert before == ({k: v.tobytes() for k, v in critic.state_dict().items()}, rng.bit_generator.state)
    assert np.isfinite(losses.gradient_penalty(critic.eval(), real, fake, rng=rng).data)


def test_the_penalty_keeps_float32(rng):
    critic = mlp(rng, np.float32)
    penalty = losses.gradient_penalty(critic, *rng.normal(size=(2, 6, 2)).astype(np.float32), rng=rng)
    assert penalty.dtype == np.float32
    assert all(g.dtype == np.float32 for g in grad(penalty, critic.parameters()))


def test_real_and_fake_must_have_one_shape(rng):
    with pytest.raises(ValueError, match=r"real has shape \(4, 2\), fake \(3, 2\); they must be equal"):
        losses.gradient_penalty(mlp(rng), np.ones((4, 2)), np.ones((3, 2)), rng=rng)


@pytest.mark.parametrize("options", [{}, {"rng": None}, {"rng": 0}])
def test_a_forgotten_generator_is_a_type_error(options, rng):
    with pytest.raises(TypeError, match="rng"):
        losses.gradient_penalty(mlp(rng), np.ones((4, 2)), np.ones((4, 2)), **options)
