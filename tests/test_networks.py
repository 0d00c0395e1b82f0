"""The networks of a run: their shapes at every size, their parameters, replay and resume, and accumulated gradients."""

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
    """All that a run has made, but for the time it took."""
    arrays, values = run.state_dict()
    arrays["history"] = np.delete(arrays["history"], COLUMNS.index("seconds"), axis=1)
    return ({name: (value.dtype.str, value.shape, value.tobytes()) for name,
             value in arrays.items()},
            {name: value for name, value in values.items() if name != "seconds"})


def norms(network):
    return [m for m in network.modules() if isinstance(m, BatchNorm)]


# ------------------------------------------------------------------------------------------- sizes and choices


@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("other", [lambda side: side, lambda side: 72 - side],
                         ids=["square", "oblong"])
def test_every_size_goes_out_and_in(c, other):
    """Rows of c h w numbers in [-1, 1], scores (n, 1), all in float32, in training and in evaluation."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((2, 3), np.float32)
    for h in range(8, 65):
        shape = c, h, other(h)
        generator = networks.conv_generator(3, shape, 1, rng)
        generator.layers[-3].bias.assign(np.full(c, 2.0))  # so that a missing tanh would show
        critics = [networks.conv_critic(shape, 1, normalized, rng) for normalized in (True, False)]
        for mode in (True, False):
            x = generator.train(mode)(z).data
            assert x.shape == (2, math.prod(shape)) and x.dtype == np.float32 and np.abs(x).max() <= 1
        for critic in critics:
            scores = critic(x).data
            assert scores.shape == (2, 1) and scores.dtype == np.float32
        assert {t.dtype for network in (generator, *critics) for _, t,
                _ in network.named_tensors()} == {z.dtype}


@pytest.mark.parametrize("shape, smallest",
                         [((1, 8, 8), (4, 4)), ((1, 15, 15), (7, 7)), ((3, 28, 28), (7, 7)),
                          ((1, 64, 64), (4, 4)), ((1, 8, 64), (4, 32)), ((3, 63, 33), (7, 4))])
def test_images_are_halved_until_a_side_is_below_8(shape, smallest):
    halved, _ = networks.pyramid(shape, 2)
    assert halved[0] == shape[1:] and halved[-1] == smallest
    assert all((a // 2, b // 2) == small for (a, b), small in zip(halved, halved[1:]))


def test_parameters_of_the_dcgan_for_28_x_28():
    """Counted by hand: 7 x 7 x 128 to 14 x 14 x 64 to 28 x 28 x 1, kernels 4 x 4, and back."""
    run = run_of("gan", images(1, 28, 28), width=64, latent=100)
    # BatchNorm: gamma and beta
    generator = [100 * 6272, 6272, 128, 128, 16 * 128 * 64, 64, 64, 64, 16 * 64 * 1, 1]
    critic = [16 * 1 * 64, 64, 16 * 64 * 128, 128, 128, 128, 6272, 1]
    assert [p.size for p in run.game.generator.parameters()] == generator and sum(generator) == 766_017
    assert [p.size for p in run.game.critic.parameters()] == critic and sum(critic) == 138_817
    penalized = run_of("wgan-gp", images(1, 28, 28), width=64, latent=100).game.critic
    assert [p.size for p in penalized.parameters()] == critic[:4] + critic[6:]


@every_game
def test_batch_norm_is_where_radford_put_it_and_in_no_penalized_critic(method):
    """In all of the generator's layers but the last, in all of the critic's but the first and the last."""
    run = run_of(method, images(1, 33, 33))
    sizes, _ = networks.pyramid((1, 33, 33), 2)  # 33, 16, 8, 4: three convolutions each
    assert len(norms(run.game.generator)) == (0 if method == "path-length" else len(sizes) - 1)
    free = method in ("wgan-gp", "r1", "r3gan", "path-length", "sngan")
    assert len(norms(run.game.critic)) == (0 if free else len(sizes) - 2)
    assert run.game.critic.couples_examples == (not free)


@pytest.mark.parametrize("method, expected", [("gan", 0.02), ("wgan-gp", None)])
def test_weights_start_as_their_papers_say(method, expected):
    run = run_of(method, images(1, 28, 28), width=64, latent=100)

    def spread(network, least):  # of weights that are many enough to tell
        return [(p.data.std(), p.shape) for p in network.parameters()
                if p.ndim > 1 and p.size > least]

    assert [s for s, _ in spread(run.game.generator, 1e4)] == pytest.approx([0.02, 0.02], rel=0.02)
    for found, shape in spread(run.game.critic, 1e4):
        assert found == pytest.approx(expected or (2 / math.prod(shape[:-1])) ** 0.5, rel=0.02)


@pytest.mark.parametrize("shape, expected",
                         [((1, 8, 8), 64), ((1, 28, 28), 100), ((3, 64, 64), 100)])
def test_an_mlp_for_images_ends_in_a_tanh_and_is_wider(shape, expected):
    run = run_of("wgan-gp", images(*shape), net="mlp", width=None, latent=None)
    config = run.game.config
    assert (config.width, config.depth, config.latent) == (512, 3, expected)
    x = run.game.generator(run.game.latents() * 50).data  # far out: a missing tanh would show
    assert x.shape == (4, math.prod(shape)) and 0.5 < np.abs(x).max() <= 1


@pytest.mark.parametrize("method", METHODS)
def test_images_have_settings_of_their_own(method):
    points, pictures = METHODS[method], images()
    run = run_of(method, net="mlp", width=8)
    used = {"lr": run.game.config.lr, "penalty": run.game.config.penalty,
            "clip": run.game.clip and run.game.clip.limit}
    assert used == {"lr": points.lr, "penalty": points.penalty,
                    "clip": points.clip} | dict(points.images)
    assert run_of(method, net="mlp", width=8, lr=0.5).config.lr == 0.5
    assert points.of(data.ring()) == points != points.of(pictures) or not points.images


# ------------------------------------------------------------------------- replay, resume, the other backend

PLAIN_CASES = [("gan", 1), ("gan", 2), ("sngan", 1), ("wgan", 1), ("wgan-gp", 1), ("r1", 2),
               ("r3gan", 1), ("vae", 1),
               ("vae-gan", 1)]  # of the plain tests; the long ones run all


@pytest.mark.parametrize("method, accumulate", [
    pytest.param(*case, marks=[pytest.mark.thorough] * (case not in PLAIN_CASES))
    for case in product(CONV, [1, 2])])
def test_a_replayed_run_of_convolutions_is_the_eager_run(method, accumulate, monkeypatch):
    """To the bit, the running statistics of BatchNorm included; also where it is stopped, loaded and gone on with."""
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
def test_a_step_of_convolutions_is_bit_equal_on_the_stand_in_of_a_gpu(method):
    here, there = (run_of(method, images(3, 9, 8), device) for device in ("cpu", "strict"))
    assert here.iterate() == there.iterate()
    for name, network in here.game.networks.items():
        tensors = zip(network.named_tensors(), there.game.networks[name].named_tensors())
        for (path, a, _), (_, b, _) in tensors:
            assert type(b.data) is StrictArray and a.data.tobytes() == b.data.get().tobytes(), path
    np.testing.assert_array_equal(*(samples.sample(run.game, 3) for run in (here, there)))


@pytest.mark.parametrize("name", ["ring", "pictures"])
def test_a_saved_gan_of_images_samples_and_goes_on(name, tmp_path):
    """Also one whose file has the name of a toy."""
    np.save(tmp_path / f"{name}.npy", images(3, 8, 9).pixels)
    gan = GAN("gan", **SMALL).fit(str(tmp_path / f"{name}.npy"))
    gan.save(tmp_path / "gan.npz")
    drawn = gan.sample(5, seed=1)
    assert drawn.shape == (5, 3, 8, 9) and drawn.dtype == np.uint8
    for X in (None, str(tmp_path / f"{name}.npy")):
        again = GAN.load(tmp_path / "gan.npz", X=X)
        np.testing.assert_array_equal(again.sample(5, seed=1), drawn)
        assert run_bits(again.run_) == run_bits(gan.run_)


# ------------------------------------------------------------------------------------------ accumulated gradients


def plain(run, dtype):
    """The run with networks of a dtype and steps of plain gradient descent, in which rounding stays rounding.

    (Adam divides a gradient by its size: one that is all rounding moves its weight as far as any other.)
    """
    game = run.game
    for name, network in game.networks.items():
        for module in network.modules():
            for attribute, value in list(vars(module).items()):
                if isinstance(value, Tensor):
                    setattr(module, attribute, Tensor(value.data.astype(dtype)))
        game.optimizers[name] = SGD(network.parameters(), 0.02)
    real = game.real
    game.real = lambda: real().astype(dtype)  # else slopes at the data are rounded to float32
    game.average = ExponentialMovingAverage(game.generator)
    if game.clip:
        game.clip = WeightClip(game.critic.parameters(), game.clip.limit)
        game.clip.step()  # so that clipping is not the longest way that a weight goes
    return run


def change(run, reference):
    """How far two runs are apart, in units of the longest way that a weight has gone from the start."""
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


# But where every pass moves something beside the weights: the vectors of spectral normalization, the mean path length.
exact = pytest.mark.parametrize("method",
                                [name for name in METHODS if name not in ("sngan", "path-length")])


@exact
@pytest.mark.parametrize("source", ["points", "images"])
@pytest.mark.parametrize("batch, accumulate", [(8, 3), (1, 24), (5, 2)])
def test_accumulated_batches_are_the_large_batch(method, source, batch, accumulate):
    """In float64 to 1e-12, after three iterations, where a difference in the algorithm would be of order 1.

    The draws are the same bits in the same order, those of the penalty's interpolates included.
    """
    points = data.grid() if source == "points" else images()
    parts, whole = (trained(b, k, method=method, source=points, **MLP)
                    for b, k in ((batch, accumulate), (batch * accumulate, 1)))
    assert parts.game.rng.bit_generator.state == whole.game.rng.bit_generator.state
    assert change(parts, whole) < 1e-12
    for a, b in zip(parts.losses, whole.losses):
        assert a == pytest.approx(b, rel=1e-12, abs=1e-12)


@exact
def test_accumulated_batches_are_the_large_batch_to_float32s_rounding(method):
    """A gradient is a sum of 24 examples' terms, each the end of six products of rows of at most 64 numbers.

    Rounding errors of 2^-24 at each of n operations in a row add up like a random walk, to about n^(1/2) 2^-24 of the
    terms' size: some 20 x 6e-8. Where terms cancel, what is left is smaller than they are; 2e-5 leaves room for that.
    """
    parts, whole = (trained(b, k, np.float32, method, source=images(), **MLP) for b,
                    k in ((8, 3), (24, 1)))
    assert change(parts, whole) < 2e-5
    assert {p.dtype for p in parts.weights} == {np.dtype(np.float32)}


@pytest.mark.parametrize("method", ["gan", "wgan-gp"])
def test_where_batch_norm_couples_examples_they_are_not(method):
    """Of the same size as the step itself, and no rounding: in the critic for gan, in the generator for both."""
    parts, whole = (trained(b, k, method=method, steps=1) for b, k in ((4, 3), (12, 1)))
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
    assert {k: float(v) for k,
            v in ours[1].items()} == pytest.approx({k: float(v) for k, v in theirs[1].items()},
                                                   rel=1e-12)


@pytest.mark.parametrize("net, accumulate, said", [
    ("mlp", 1, []), ("mlp", 3, ["x 3 accumulated"]), ("conv", 1, []),
    ("conv", 3, ["x 3 accumulated", "batch norm sees a part at a time"])])
def test_the_header_says_where_accumulated_batches_are_not_the_large_batch(net, accumulate, said,
                                                                           tmp_path):
    gan = GAN(**(SMALL | {"net": net, "accumulate": accumulate}))
    gan.prepare(images())
    header = report.header(gan, tmp_path, "speed")
    assert [text for text in ("x 3 accumulated", "batch norm sees a part at a time")
            if text in header] == said


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
