"""Spectral normalization against the singular value decomposition, the paper's gradient,
and what it promises."""

import numpy as np
import pytest

from tinygan import Tensor, grad, losses
from tinygan.layers import Conv2d, ConvTranspose2d, Dense, LeakyReLU, ReLU, Sequential, SpectralNorm
from tinygan.optim import Adam, ExponentialMovingAverage
from tinygan.program import Program

F64 = np.float64
LAYERS = {  # layer, shape of its inputs, the paper's matrix of a weight
    "Dense": (lambda rng: Dense(5, 4, rng=rng, dtype=F64), (5,), lambda w: w.T),
    "Conv2d": (lambda rng: Conv2d(2, 4, (2, 3), stride=2, padding=1, rng=rng, dtype=F64), (2, 5, 6),
               # (kh, kw, c_in, c_out) -> (c_out, c_in kh kw)
               lambda w: w.transpose(3, 2, 0, 1).reshape(4, 12)),
    "ConvTranspose2d": (
        lambda rng: ConvTranspose2d(2, 4, (2, 3), stride=2, padding=1, rng=rng, dtype=F64),
        (2, 3, 4), lambda w: w.transpose(2, 3, 0, 1).reshape(4, 12))}  # (kh, kw, c_out, c_in)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def made(name, rng):
    make, shape, matrix = LAYERS[name]
    return SpectralNorm(make(rng), rng=rng), rng.normal(size=(3, *shape)), matrix


def settled(module, x):
    """With u at the singular vector: a hundred iterations at least, until nothing changes."""
    for k in range(100_000):
        before = module.u.data.copy()
        module(x)
        if k >= 100 and abs(module.u.data - before).max() < 1e-15:
            return module
    raise AssertionError("the power iteration does not settle")


@pytest.mark.parametrize("name", LAYERS)
def test_in_the_end_the_weight_is_divided_by_its_largest_singular_value(name, rng):
    module, x, matrix = made(name, rng)
    weight = module.layer.weight.data.copy()
    sigma = np.linalg.svd(matrix(weight), compute_uv=False)[0]
    np.testing.assert_allclose(settled(module, x)(x).data,
                               module.layer.affine(x, weight / sigma).data, rtol=1e-12,
                               atol=1e-13)
    assert np.array_equal(module.layer.weight.data, weight)  # the parameter itself is left alone


@pytest.mark.parametrize("name", LAYERS)
def test_each_forward_is_one_power_iteration(name, rng):
    """With u = sum c_i u_i at the start,
    sigma is (sum c_i^2 s_i^(4 k) / sum c_i^2 s_i^(4 k - 2))^(1/2) at forward k."""
    module, x, matrix = made(name, rng)
    left, s, _ = np.linalg.svd(matrix(module.layer.weight.data))
    c = left.T @ module.u.data
    for k in range(1, 6):
        sigma = np.sqrt((c**2 * s ** (4 * k)).sum() / (c**2 * s ** (4 * k - 2)).sum())
        expected = module.layer.affine(x, module.layer.weight.data / sigma).data
        np.testing.assert_allclose(module(x).data, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_the_gradient_is_the_papers(name, rng):
    """(G - <G, W_bar> u v^T) / sigma with G the gradient at W_bar = W / sigma (eq.
    eq. 12 in matrices."""
    module, x, matrix = made(name, rng)
    settled(module, x)
    weight, cotangent = module.layer.weight, rng.normal(size=module(x).shape)
    left, s, right = np.linalg.svd(matrix(weight.data))
    normalized = Tensor(weight.data / s[0])
    (g,) = grad(module.layer.affine(x, normalized), [normalized], cotangent=cotangent)
    along = (g * normalized.data).sum()
    expected = (matrix(g) - along * np.outer(left[:, 0], right[0])) / s[0]
    (found,) = grad(module(x), [weight], cotangent=cotangent)
    np.testing.assert_allclose(matrix(found), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_the_gradient_is_the_slope_of_dividing_by_the_singular_value(name, rng):
    """u and v move with W too, but sigma is stationary in them:
    central differences of the decomposition agree."""
    module, x, matrix = made(name, rng)
    settled(module, x)
    weight, cotangent = module.layer.weight.data, rng.normal(size=module(x).shape)
    direction, h = rng.normal(size=weight.shape), 1e-5

    def value(w):
        return (module.layer.affine(x, w / np.linalg.svd(matrix(w), compute_uv=False)[0]).data
                * cotangent).sum()

    measured = (value(weight + h * direction) - value(weight - h * direction)) / (2 * h)
    (found,) = grad(module(x), [module.layer.weight], cotangent=cotangent)
    assert (found * direction).sum() == pytest.approx(measured, rel=1e-7)


@pytest.mark.parametrize("name", LAYERS)
def test_the_weights_size_does_not_matter(name, rng):
    module, x, _ = made(name, rng)
    module.eval()
    (g,) = grad(y := module(x), [module.layer.weight], cotangent=np.ones(y.shape))
    along = g * module.layer.weight.data
    assert abs(along.sum()) < 1e-12 * abs(along).sum()
    module.layer.weight.assign(module.layer.weight.data * 1000)
    np.testing.assert_allclose(module(x).data, y.data, rtol=1e-12, atol=1e-13)


def critic_of(rng, dtype=np.float32, norm=SpectralNorm):
    sizes = (2, 16, 16, 1)
    layers = []
    for a, b in zip(sizes, sizes[1:]):
        layers += [norm(Dense(a, b, rng=rng, dtype=dtype), rng=rng), LeakyReLU()]
    return Sequential(*layers[:-1])


def test_a_normalized_perceptron_lengthens_no_distance(rng):
    critic = critic_of(rng, F64)
    for layer in critic.layers[::2]:
        layer.layer.weight.assign(layer.layer.weight.data * 3)
    a, b = rng.normal(size=(2, 500, 2)) * 3
    for _ in range(400):
        critic(a[:1])

    def slopes(network):
        return abs(network(a).data - network(b).data)[:, 0] / np.sqrt(((a - b) ** 2).sum(axis=1))

    assert slopes(critic).max() <= 1 + 1e-9
    assert losses.gradient_norms(critic, a).max() <= 1 + 1e-9
    plain = Sequential(*(getattr(layer, "layer", layer) for layer in critic.layers))
    assert slopes(plain).max() > 1  # which the weights alone do not give


@pytest.mark.parametrize("name", ["Conv2d", "ConvTranspose2d"])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_normalized_convolution_lengthens_up_to_the_root_of_its_window(name, stride, rng):
    """The map itself, as a matrix, at weights of equal numbers:
    the worst case for a window of 2 x 3."""
    make, shape, _ = LAYERS[name]
    module = SpectralNorm(make(rng), rng=rng)
    module.layer.stride = (stride, stride)
    module.layer.weight.assign(np.ones_like(module.layer.weight.data))
    shape = (shape[0], 8, 8)
    unit = np.eye(np.prod(shape)).reshape(-1, *shape)
    settled(module, unit[:1])
    size = np.linalg.norm((module(unit).data - module(0 * unit[:1]).data).reshape(len(unit), -1), 2)
    assert 1 - 1e-9 <= size <= 6**0.5 + 1e-9
    assert stride == 2 or size > 2  # far beyond 1, so the bound is not that of a dense layer


def test_a_single_output_has_a_slope_of_one_at_once(rng):
    """A row is divided by its length after one iteration:
    R1 is 1 / 2, and neither has a slope to train."""
    critic = SpectralNorm(Dense(3, 1, rng=rng, dtype=F64), rng=rng)
    real, fake = rng.normal(size=(2, 4, 3))
    r1 = losses.r1_penalty(critic, real)
    wgan_gp = losses.gradient_penalty(critic, real, fake, rng=rng)
    assert float(r1) == pytest.approx(0.5, rel=1e-14) and float(wgan_gp) < 1e-28
    assert all(abs(grad(penalty, [critic.layer.weight])[0]).max() < 1e-14
               for penalty in (r1, wgan_gp))


def test_training_moves_u_and_evaluation_leaves_it(rng):
    module, x, _ = made("Dense", rng)
    start = module.u.data.copy()
    module(x)
    moved = module.u.data.copy()
    assert not np.allclose(moved, start) and np.linalg.norm(moved) == pytest.approx(1, rel=1e-14)
    first, second = module.eval()(x).data, module(x).data
    assert np.array_equal(first, second) and np.array_equal(module.u.data, moved)
    # what the next training forward gives
    np.testing.assert_allclose(module.train()(x).data, first, rtol=0)


def test_graphs_live_on_when_u_moves_on(rng):
    """A discriminator is called on real and on fake examples before one backward pass."""
    module, x, _ = made("Dense", rng)
    y = module(x)
    (before,) = grad(y.sum(), [module.layer.weight])
    module(x)
    assert np.array_equal(grad(y.sum(), [module.layer.weight])[0], before)


def test_no_example_depends_on_the_others(rng):
    module, x, _ = made("Dense", rng)
    assert not module.couples_examples
    together = module.eval()(x).data
    np.testing.assert_allclose([module(x[i:i + 1]).data[0] for i in range(3)], together,
                               rtol=1e-13, atol=1e-14)


def test_u_is_state_and_no_parameter(rng):
    module, x, _ = made("Conv2d", rng)
    module(x)
    assert list(module.state_dict()) == ["u", "layer.weight", "layer.bias"]
    assert [id(p) for p in module.parameters()] == [id(module.layer.weight), id(module.layer.bias)]
    other, _, _ = made("Conv2d", np.random.default_rng(1))
    other.load_state_dict(module.state_dict())
    assert np.array_equal(other(x).data, module(x).data)


def test_a_moving_average_of_u_serves_as_well(rng):
    """An average of unit vectors is shorter than one; only its direction is used."""
    critic = critic_of(rng, F64)
    average, x = ExponentialMovingAverage(critic, decay=0.9), rng.normal(size=(32, 2))
    for _ in range(300):
        critic(x[:1])
        average.update()
    np.testing.assert_allclose(average.network(x).data, critic.eval()(x).data, rtol=1e-9)
    for layer in average.network.layers[::2]:
        layer.u.assign(layer.u.data / 4)
    np.testing.assert_allclose(average.network(x).data, critic(x).data, rtol=1e-9)


def test_float32_stays_float32(rng):
    critic, x = critic_of(rng), rng.normal(size=(4, 2)).astype(np.float32)
    penalty = losses.r1_penalty(critic, x)
    assert penalty.dtype == critic(x).dtype == np.float32
    assert {v.dtype for v in critic.state_dict().values()} == {np.dtype(np.float32)}
    assert {g.dtype for g in grad(penalty, critic.parameters())} == {np.dtype(np.float32)}


def test_what_has_no_weight_is_refused(rng):
    with pytest.raises(TypeError, match="ReLU is not linear in a weight; wrap a Dense, Conv2d or"):
        SpectralNorm(ReLU(), rng=rng)
    with pytest.raises(TypeError, match="rng"):
        SpectralNorm(Dense(2, 2, rng=rng), rng=0)


class Player:
    """A discriminator's step: relativistic pairing, R1 and R2, an average behind it."""

    def __init__(self, replayed):
        rng = np.random.default_rng(0)
        self.critic = critic_of(rng)
        self.optimizer = Adam(self.critic.parameters(), 1e-2)
        self.average = ExponentialMovingAverage(self.critic)
        if replayed:
            self.step = Program(self.step, [self.critic, self.optimizer, self.average])

    def step(self, real, fake):
        loss = losses.relativistic_discriminator(self.critic(real), self.critic(fake))
        penalty = losses.r1_penalty(self.critic, real) + losses.r2_penalty(self.critic, fake)
        total = loss + 0.1 * penalty
        self.optimizer.step(grad(total, self.critic.parameters()))
        self.average.update()
        return total.data


def test_a_step_is_replayed_to_the_bit():
    eager, replayed = Player(False), Player(True)
    for k in range(10):
        real, fake = np.random.default_rng(k).normal(size=(2, 16, 2)).astype(np.float32)
        assert eager.step(real, fake).tobytes() == replayed.step(real, fake).tobytes(), k
        if k == 6:
            for player in (eager, replayed):
                player.critic.eval()
    assert len(replayed.step.entries) == 2 and all(entry.replay for entry in replayed.step.entries)
    for mine, theirs in ((eager.critic, replayed.critic),
                         (eager.average.network, replayed.average.network)):
        a, b = mine.state_dict(), theirs.state_dict()
        assert all(a[name].tobytes() == b[name].tobytes() for name in a) and "layers.0.u" in a
