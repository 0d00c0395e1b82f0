"""The networks of a run: shapes, parameters, replay and resume, accumulated gradients."""

import copy
import math
from itertools import product

import numpy as np
import pytest

from tinygan import GAN, data
from tinygan.app import report
from tinygan.layers import BatchNorm
from tinygan.optim import SGD, ExponentialMovingAverage, WeightClip
from tinygan.program import Program
from tinygan.tensor import Tensor
from tinygan.training import COLUMNS, METHODS, Config, Game, Run, networks, new_game, samples
from tinygan.training import run as runs
from tinygan.training.methods import WIDTHS
from strict import StrictArray

SMALL = dict(net="conv", steps=4, batch=4, width=2, latent=3, n_critic=2)
every_method = pytest.mark.parametrize("method", METHODS)
CONV = [name for name, method in METHODS.items() if "net" not in method.without]
every_conv = pytest.mark.parametrize("method", CONV)
GAMES = [name for name, method in METHODS.items() if method.game is Game]
every_game = pytest.mark.parametrize("method", GAMES)


def images(c=1, h=8, w=8, n=20):
    return data.image_array(np.random.default_rng(0).integers(0, 256, (n, c, h, w), np.uint8))


def run_of(method, source=None, device="cpu", eager=False, **options):
    config = Config(method=method, **(SMALL | options))
    return Run(new_game(config, source or images(), device), eager)


def run_bits(run):
    """All that a run has made, except for the time it took."""
    arrays, values = run.state_dict()
    arrays["history"] = np.delete(arrays["history"], COLUMNS.index("seconds"), axis=1)
    del values["seconds"]
    return {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in arrays.items()}, values


def norms(network):
    return [m for m in network.modules() if isinstance(m, BatchNorm)]


# ------------------------------------------------------------------------------ sizes and choices


@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("other", [lambda side: side, lambda side: 72 - side],
                         ids=["square", "oblong"])
def test_every_size_goes_out_and_in(c, other):
    """Rows of c h w numbers in [-1, 1], scores (n, 1), all in float32, in both modes."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((2, 3), np.float32)
    for h in range(8, 65):
        shape = c, h, other(h)
        generator = networks.conv_generator(3, shape, 1, rng)
        generator.layers[-3].bias.assign(np.full(c, 2.0))  # so that a missing tanh would show
        critics = [networks.conv_critic(shape, 1, normalized, rng) for normalized in (True, False)]
        for mode in (True, False):
            x = generator.train(mode)(z).data
            assert x.shape == (2, math.prod(shape)) and x.dtype == np.float32
            assert np.abs(x).max() <= 1
        for critic in critics:
            scores = critic(x).data
            assert scores.shape == (2, 1) and scores.dtype == np.float32
        for network in (generator, *critics):
            assert {tensor.dtype for _, tensor, _ in network.named_tensors()} == {z.dtype}


@pytest.mark.parametrize("shape, smallest", [
    ((1, 8, 8), (4, 4)), ((1, 15, 15), (7, 7)), ((3, 28, 28), (7, 7)),
    ((1, 64, 64), (4, 4)), ((1, 8, 64), (4, 32)), ((3, 63, 33), (7, 4))])
def test_images_are_halved_until_a_side_is_below_8(shape, smallest):
    halved, _ = networks.pyramid(shape, 2)
    assert halved[0] == shape[1:] and halved[-1] == smallest
    assert all((a // 2, b // 2) == small for (a, b), small in zip(halved, halved[1:]))


def test_parameters_of_the_dcgan_for_28_x_28():
    """Counted by hand: 7 x 7 x 128 to 14 x 14 x 64 to 28 x 28 x 1, kernels 4 x 4, and back."""
    def sizes(network):
        return [p.size for p in network.parameters()]

    game = run_of("gan", images(1, 28, 28), width=64, latent=100).game
    # batch norm has two: gamma and beta
    generator = [100 * 6272, 6272, 128, 128, 16 * 128 * 64, 64, 64, 64, 16 * 64 * 1, 1]
    critic = [16 * 1 * 64, 64, 16 * 64 * 128, 128, 128, 128, 6272, 1]
    assert sizes(game.generator) == generator and sum(generator) == 766_017
    assert sizes(game.critic) == critic and sum(critic) == 138_817
    penalized = run_of("wgan-gp", images(1, 28, 28), width=64, latent=100).game
    assert sizes(penalized.critic) == critic[:4] + critic[6:]


@every_game
def test_batch_norm_is_where_radford_put_it_and_in_no_penalized_critic(method):
    """In all the generator's layers but the last, in all the critic's but the first and last."""
    run = run_of(method, images(1, 33, 33))
    sizes, _ = networks.pyramid((1, 33, 33), 2)  # 33, 16, 8, 4: three convolutions each
    assert len(norms(run.game.generator)) == (0 if method == "path-length" else len(sizes) - 1)
    free = method in ("wgan-gp", "r1", "r3gan", "path-length", "sngan")
    assert len(norms(run.game.critic)) == (0 if free else len(sizes) - 2)
    assert run.game.critic.couples_examples == (not free)


@pytest.mark.parametrize("method, expected", [("gan", 0.02), ("wgan-gp", None)])
def test_weights_start_as_their_papers_say(method, expected):
    run = run_of(method, images(1, 28, 28), width=64, latent=100)

    def weights(network):  # with entries enough for a good estimate of their spread
        return [p.data for p in network.parameters() if p.ndim > 1 and p.size > 1e4]

    assert [w.std() for w in weights(run.game.generator)] == pytest.approx([0.02, 0.02], rel=0.02)
    for w in weights(run.game.critic):
        spread = expected or (2 / math.prod(w.shape[:-1])) ** 0.5
        assert w.std() == pytest.approx(spread, rel=0.02)


@pytest.mark.parametrize("shape, expected", [
    ((1, 8, 8), 64), ((1, 28, 28), 100), ((3, 64, 64), 100)])
def test_an_mlp_for_images_ends_in_a_tanh(shape, expected):
    run = run_of("wgan-gp", images(*shape), net="mlp", width=None, latent=None)
    config = run.game.config
    assert (config.width, config.depth, config.latent) == (128, 3, expected)
    x = run.game.generator(run.game.latents() * 50).data  # far out: a missing tanh would show
    assert x.shape == (4, math.prod(shape)) and 0.5 < np.abs(x).max() <= 1


@pytest.mark.parametrize("method, net", [
    *product(METHODS, ["mlp"]), *product(CONV, ["conv"])])
def test_images_and_convolutions_have_settings_of_their_own(method, net):
    points, pictures = METHODS[method], images()
    game = run_of(method, net=net, width=8).game
    chosen = Config(method, net=net).resolved(pictures)
    used = {"lr": game.config.lr, "penalty": game.config.penalty, "n_critic": chosen.n_critic,
            "steps": chosen.steps, "depth": chosen.depth, "width": chosen.width,
            "clip": game.clip and game.clip.limit,
            "betas": getattr(game.optimizers["generator"], "betas", None)}
    own = {name: getattr(points, name) for name in used if name not in points.without}
    expected = {"n_critic": None, "depth": None} | own | dict(points.images)
    if net == "conv":
        expected |= {"depth": None, **points.conv}
    assert used == expected | {"width": expected["width"] or WIDTHS[net]}
    assert run_of(method, net=net, width=8, lr=0.5).config.lr == 0.5
    assert points.of(data.ring(), net) == points
    assert points != points.of(pictures, net) or not (points.images or points.conv)


# ------------------------------------------------------------- replay, resume, the other backend

PLAIN = [("gan", 1), ("gan", 2), ("sngan", 1), ("wgan", 1), ("wgan-gp", 1), ("r1", 2), ("r3gan", 1),
         ("vae", 1), ("vae-gan", 1)]
THOROUGH = [case for case in product(CONV, [1, 2]) if case not in PLAIN]


@pytest.mark.parametrize("method, accumulate", [
    *PLAIN, *(pytest.param(*case, marks=pytest.mark.thorough) for case in THOROUGH)])
def test_a_replayed_run_of_convolutions_is_the_eager_run(method, accumulate, monkeypatch):
    """To the bit, batch norm's running statistics included; also stopped, loaded and continued."""
    def made(eager, until):
        run = run_of(method, images(1, 9, 10), eager=eager, accumulate=accumulate)
        for row in run.train():
            run.stop = row["step"] == until
        return run

    # scores take most of the time of runs as short as these
    monkeypatch.setattr(runs, "EVALUATIONS", 1)
    eager, replayed, half = made(True, None), made(False, None), made(False, 3)
    replays = replayed.play if accumulate == 1 else next(iter(replayed.game.gradients.values()))
    assert isinstance(replays, Program) and replays.entries[0].replay and half.step == 3
    start = run_of(method, images(1, 9, 10))
    for now, first in zip(norms(replayed.game.generator), norms(start.game.generator)):
        assert (now.running_mean.data != first.running_mean.data).all()
    rest = run_of(method, images(1, 9, 10), accumulate=accumulate)
    rest.load_state_dict(*copy.deepcopy(half.state_dict()))
    for _ in rest.train():
        pass
    assert run_bits(eager) == run_bits(replayed) == run_bits(rest)


@every_conv
def test_a_step_of_convolutions_is_bit_equal_on_the_stand_in_for_a_gpu(method):
    here, there = (run_of(method, images(3, 9, 8), device) for device in ("cpu", "strict"))
    assert here.iterate() == there.iterate()
    for name, network in here.game.networks.items():
        tensors = zip(network.named_tensors(), there.game.networks[name].named_tensors())
        for (path, a, _), (_, b, _) in tensors:
            assert type(b.data) is StrictArray and a.data.tobytes() == b.data.get().tobytes(), path
    np.testing.assert_array_equal(*(samples.sample(run.game, 3) for run in (here, there)))


@pytest.mark.parametrize("name", ["ring", "pictures"])
def test_a_saved_gan_of_images_is_loaded_with_its_data_or_without(name, tmp_path):
    """Also where the file of the data has the name of a toy."""
    path = str(tmp_path / f"{name}.npy")
    np.save(path, images(3, 8, 9).pixels)
    gan = GAN("gan", **SMALL).fit(path)
    gan.save(tmp_path / "gan.npz")
    drawn = gan.sample(5, seed=1)
    assert drawn.shape == (5, 3, 8, 9) and drawn.dtype == np.uint8
    for X in (None, path):
        again = GAN.load(tmp_path / "gan.npz", X=X)
        np.testing.assert_array_equal(again.sample(5, seed=1), drawn)
        assert run_bits(again.run_) == run_bits(gan.run_)


# -------------------------------------------------------------------------- accumulated gradients


def plain(run, dtype):
    """The run with networks of a dtype and plain gradient descent, in which rounding stays small.

    (Adam divides a gradient by its size: one that is all rounding error moves its weight as far as
    any other.)
    """
    game = run.game
    for name, network in game.networks.items():
        for module in network.modules():
            for attribute, value in list(vars(module).items()):
                if isinstance(value, Tensor):
                    setattr(module, attribute, Tensor(value.data.astype(dtype)))
        game.optimizers[name] = SGD(network.parameters(), 0.02)
    real, latents = game.real, game.latents  # else gradients at them are rounded to float32
    game.real = lambda: real().astype(dtype)
    game.latents = lambda steps=1: latents(steps).astype(dtype)
    game.average = ExponentialMovingAverage(game.generator)
    if game.path_length:
        game.path_length.mean = Tensor(np.zeros((), dtype))
    if game.clip:
        game.clip = WeightClip(game.critic.parameters(), game.clip.limit)
        game.clip.step()  # so that clipping is not a weight's longest move
    return run


def change(run, reference):
    """The largest difference of two runs' weights, relative to the longest move from the start."""
    moved = [np.abs(a.data - s.data).max() for a, s in zip(reference.weights, reference.start)]
    apart = [np.abs(a.data - b.data).max() for a, b in zip(run.weights, reference.weights)]
    return max(apart) / max(moved)


def trained(batch, accumulate, dtype=np.float64, method="wgan-gp", steps=3, **options):
    run = plain(run_of(method, batch=batch, accumulate=accumulate, eager=True, **options), dtype)
    run.weights = [p for network in run.game.networks.values() for p in network.parameters()]
    run.start = copy.deepcopy(run.weights)
    run.losses = [run.iterate() for _ in range(steps)]
    return run


MLP = dict(net="mlp", width=16, depth=2)


@every_method
@pytest.mark.parametrize("source", ["points", "images"])
@pytest.mark.parametrize("batch, accumulate", [(8, 3), (1, 24), (5, 2)])
def test_accumulated_batches_are_the_large_batch(method, source, batch, accumulate):
    """To 1e-12 after three iterations in float64; another algorithm would differ by order 1.

    The draws are the same bits in the same order, those of the penalty's interpolates included.
    """
    how = dict(MLP, method=method, source=data.grid() if source == "points" else images())
    parts, whole = trained(batch, accumulate, **how), trained(batch * accumulate, 1, **how)
    assert parts.game.rng.bit_generator.state == whole.game.rng.bit_generator.state
    assert change(parts, whole) < 1e-12
    for a, b in zip(parts.losses, whole.losses):
        assert a == pytest.approx(b, rel=1e-12, abs=1e-12)


@every_method
def test_accumulated_batches_are_the_large_batch_to_float32s_rounding(method):
    """A gradient sums the terms of 24 examples, each from six products of rows of up to 64 numbers.

    Rounding errors of 2^-24 in n successive operations add up like a random walk, to about
    n^(1/2) 2^-24 of the terms' size: some 20 x 6e-8. Where terms cancel, their sum is smaller than
    they are; 2e-5 leaves room for that.
    """
    how = dict(MLP, dtype=np.float32, method=method, source=images())
    parts, whole = trained(8, 3, **how), trained(24, 1, **how)
    assert change(parts, whole) < 2e-5
    assert {p.dtype for p in parts.weights} == {np.dtype(np.float32)}


@pytest.mark.parametrize("method", ["gan", "wgan-gp"])
def test_where_batch_norm_couples_examples_they_are_not(method):
    """By the size of the step itself: norm in the critic for gan, in the generator for both."""
    parts, whole = trained(4, 3, method=method, steps=1), trained(12, 1, method=method, steps=1)
    assert parts.game.rng.bit_generator.state == whole.game.rng.bit_generator.state
    assert change(parts, whole) > 1e-2


def test_a_critic_without_batch_norm_gets_the_large_batchs_gradient_from_any_fakes():
    parts, whole = (plain(run_of("wgan-gp", batch=b, accumulate=k, eager=True), np.float64)
                    for b, k in ((4, 3), (12, 1)))
    real, fake = whole.game.real(), np.tanh(whole.game.latents() @ np.ones((3, 64)))
    parts.game.rng.bit_generator.state = whole.game.rng.bit_generator.state
    ours, theirs = (run.game.accumulated("critic", real, fake) for run in (parts, whole))
    largest = max(np.abs(b).max() for b in theirs[0])
    for a, b in zip(ours[0], theirs[0]):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * largest)
    (_, mine), (_, other) = ours, theirs
    assert list(mine) == list(other)
    for name in mine:
        assert float(mine[name]) == pytest.approx(float(other[name]), rel=1e-12)


@pytest.mark.parametrize("net, accumulate, said", [
    ("mlp", 1, []), ("mlp", 3, ["x 3 accumulated"]), ("conv", 1, []),
    ("conv", 3, ["x 3 accumulated", "batch norm sees a part at a time"])])
def test_the_header_warns_of_accumulated_batches_under_batch_norm(net, accumulate, said, tmp_path):
    gan = GAN(**(SMALL | {"net": net, "accumulate": accumulate}))
    gan.prepare(images())
    header = report.header(gan, tmp_path, "speed")
    warnings = "x 3 accumulated", "batch norm sees a part at a time"
    assert [text for text in warnings if text in header] == said


def test_a_batch_of_no_parts_is_refused():
    with pytest.raises(ValueError, match="accumulate must be a whole number of at least 1, got 0"):
        run_of("gan", accumulate=0)


def test_data_without_images_have_no_convolutions():
    with pytest.raises(ValueError, match="net conv is for images, and ring has none; use net mlp"):
        run_of("gan", data.ring())
    with pytest.raises(ValueError, match="depth of net conv follows from the size"):
        run_of("gan", depth=3)
    with pytest.raises(ValueError, match="unknown net 'cnn'; choose mlp, conv"):
        run_of("gan", net="cnn")
