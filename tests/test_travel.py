"""What is pickled or copied works where it arrives: every class of the package, in every protocol.

Files are another matter: the library reads checkpoints, which hold no pickles.
"""

import copy
import gc
import importlib
import inspect
import pickle
import pkgutil
import weakref
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from types import FunctionType, MethodType

import numpy as np
import pytest

import strict
import tinygan
import tinygan as tg
from tinygan import GAN, Tensor, backend, data, layers, losses, metrics, ops, optim, program
from tinygan.app.cli import CommandError
from tinygan.data import files
from tinygan.testing import (certificate, check, explain, orders, problem, report, samplers,
                             slopes)
from tinygan.training import (METHODS, CheckpointError, Config, Diverged, checkpoint, diagnosis,
                              distributed, estimator, evaluation, game, likelihood, methods,
                              networks, new_game, record, run)

X = np.random.default_rng(0).normal(size=(40, 2)) * [1, 50] + [0, 1000]
SMALL = dict(steps=8, batch=8, width=8, depth=1, seed=5)
PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)


def pickled(protocol):
    return lambda x: pickle.loads(pickle.dumps(x, protocol))


def out_of_band(x):
    """By buffers that stay where they are and cannot be written to, as between processes."""
    buffers = []
    stream = pickle.dumps(x, 5, buffer_callback=buffers.append)
    return pickle.loads(stream, buffers=[bytes(b.raw()) for b in buffers])


DEEP = {"deepcopy": copy.deepcopy, "out of band": out_of_band,
        **{f"pickle {n}": pickled(n) for n in PROTOCOLS}}
every_way = pytest.mark.parametrize("travel", DEEP.values(), ids=DEEP)


# -------------------------------------------------------------------------------- every class


def rng():
    return np.random.default_rng(3)


def dense():
    return layers.Dense(2, 3, rng=rng())


def conv():
    return layers.Conv2d(1, 2, 3, rng=rng())


def used(optimizer):
    """An optimizer after a step, so that its state is not zero."""
    optimizer.step([np.full(p.shape, 0.5, p.dtype) for p in optimizer.parameters])
    return optimizer


def plain_sgd(kind, **options):
    return used(kind(dense().parameters(), optim.linear(0.1, 9), **options))


def play(method="wgan-gp", **options):
    config = Config(method=method, **{**SMALL, "depth": None if method == "mixture" else 1,
                                      **options})
    return new_game(config, data.points(X))


def step(network, optimizer, x):
    """A function of a module: what a Program repeats."""
    loss = ops.sum(network(x))
    optimizer.step(tg.grad(loss, network.parameters()))
    return loss.data


def replayed():
    network = dense()
    optimizer = optim.Adam(network.parameters())
    made = program.Program(partial(step, network, optimizer), [network, optimizer])
    for _ in range(3):
        made(np.ones((4, 2), np.float32))
    return made


def recorded():
    made = record.Record(play())
    made.take(0)
    return made


def squares(x):
    return [x * x]


def rule(cotangents, x):
    return [2 * x * cotangents[0]]


def a_problem():
    return problem.Problem(squares, rule, [np.arange(3.0)])


ARRAYS = np.arange(3.0), np.ones(3), np.zeros(3, bool), np.ones(3, bool)
MAKE = {
    Tensor: lambda: Tensor(np.arange(6.0).reshape(2, 3).T),
    type(ops.add): lambda: ops._concatenate,
    backend.DeviceError: lambda: backend.DeviceError("no GPU"),
    backend.DeviceRng: lambda: backend.DeviceRng(rng(), "cuda:0"),
    layers.Module: layers.Module, layers.Affine: layers.Affine, layers.Dense: dense,
    layers.Conv2d: conv, layers.ConvTranspose2d: lambda: layers.ConvTranspose2d(1, 2, 3, rng=rng()),
    layers.SpectralNorm: lambda: layers.SpectralNorm(conv(), rng=rng()),
    layers.Upsample: lambda: layers.Upsample(2), layers.Reshape: lambda: layers.Reshape((2, -1)),
    layers.Flatten: layers.Flatten, layers.BatchNorm: lambda: layers.BatchNorm(3).eval(),
    layers.LayerNorm: lambda: layers.LayerNorm(3),
    layers.Dropout: lambda: layers.Dropout(0.5, rng=rng()), layers.ReLU: layers.ReLU,
    layers.LeakyReLU: lambda: layers.LeakyReLU(0.3), layers.Tanh: layers.Tanh,
    layers.Sigmoid: layers.Sigmoid,
    layers.Sequential: lambda: layers.Sequential(dense(), ops.relu, losses.wasserstein_generator),
    optim.Optimizer: lambda: optim.Optimizer(dense().parameters(), 0.1),
    optim.SGD: lambda: plain_sgd(optim.SGD, momentum=0.9, nesterov=True),
    optim.RMSprop: lambda: plain_sgd(optim.RMSprop, alpha=0.5),
    optim.Adam: lambda: plain_sgd(optim.Adam, betas=(0.3, 0.8)),
    optim.linear: lambda: optim.linear(0.1, 9),
    optim.WeightClip: lambda: optim.WeightClip(dense().parameters(), 0.1),
    optim.ExponentialMovingAverage: lambda: optim.ExponentialMovingAverage(dense()),
    program.TraceError: lambda: program.TraceError("float() reads a value", "here.py:3"),
    program.Program: replayed,
    metrics.ModeCoverage: lambda: metrics.mode_coverage(X, X[:3], 1.0),
    metrics.PRDC: lambda: metrics.prdc(X, X + 0.1, k=3),
    metrics.Memorization: lambda: metrics.memorization(X[:5], X[5:20], X[20:]),
    metrics.Interval: lambda: metrics.bootstrap(np.mean, [X], rng()),
    data.Columns: lambda: data.points(np.eye(3), names=["a", "", 7]).table,
    data.DataSet: lambda: data.image_array(np.random.default_rng(0).random((24, 3, 8, 8))),
    data.DataError: lambda: data.DataError("no data"), files.Read: lambda: files.Read(np.eye(3)),
    record.Record: recorded, distributed.Ranks: distributed.Ranks,
    distributed.Draws: distributed.Draws,
    checkpoint.CheckpointError: lambda: CheckpointError("a.npz", "cut off"),
    estimator.GAN: lambda: GAN(**SMALL, device="cpu").fit(X),
    estimator.NotFitted: lambda: estimator.NotFitted("not fitted"),
    evaluation.Row: lambda: evaluation.Row("precision", 9, 0.5, 0.1, 0.9, 1.0, 0.0),
    game.PathLength: game.PathLength, game.Game: play, likelihood.JointGame: lambda: play("vae"),
    likelihood.Autoencoder: lambda: play("vae"), likelihood.VAEGAN: lambda: play("vae-gan"),
    likelihood.Mixture: lambda: play("mixture"),
    networks.Categories: lambda: networks.Categories(
        dense(), data.points(np.eye(3), categories={1: ["a", "b"]}).table, 2),
    networks.Concatenated: lambda: networks.Concatenated(dense()),
    networks.Projection: lambda: networks.Projection(layers.Sequential(dense()), 3, rng()),
    networks.Given: lambda: networks.Given(dense(), np.ones((2, 3))),
    likelihood.Decoder: lambda: play("vae").generator,
    likelihood.GaussianMixture: lambda: play("mixture").generator,
    methods.Method: lambda: METHODS["r1"], methods.Config: lambda: Config(steps=3),
    run.Run: lambda: run.Run(play(accumulate=2)),
    run.Diverged: lambda: Diverged(7, "penalty"),
    diagnosis.NotFinite: lambda: diagnosis.NotFinite("1 NaN", "  from x", "  from y"),
    report.GradcheckError: lambda: report.GradcheckError("wrong", analytic=2.0, numeric=1.0),
    report.Inconclusive: lambda: report.Inconclusive("drowns in noise"),
    report.GradReport: lambda: tg.testing.gradcheck(lambda x: x * x, [np.arange(3.0)]),
    certificate.Row: lambda: certificate.Row("tanh", 3, 4, 0, 0.1, 5, 5, "numpy", ""),
    problem.Problem: a_problem,
    check.Check: lambda: check.Check(a_problem(), rng(), 3, 1e-6, True),
    explain.Cell: lambda: explain.Cell(1.0, 2.0, 0.1, 0, 1),
    samplers.Case: lambda: samplers.SAMPLERS["tanh"](samplers.Picker(rng())),
    orders.Library: lambda: orders.TENSORS,
    samplers.Picker: lambda: samplers.Picker(rng()),
    slopes.Slope: lambda: slopes.Slope(*ARRAYS[:2], ARRAYS[3]),
    slopes.Sides: lambda: slopes.Sides(*ARRAYS),
    slopes.Values: lambda: slopes.Values(*ARRAYS[:3], 0.1),
    CommandError: lambda: CommandError(2, "wrong usage")}
STAY = {  # where a class has no use but in the place that made it
    "tinygan.app.cli.Parser": "a command line", "tinygan.app.demo.Options": "a command line",
    "tinygan.app.progress.Progress": "a line of this terminal",
    "tinygan.app.advice.Rule": "a row of a table", "tinygan.app.live.Growing": "of one server",
    "tinygan.program.Node": "of a recording", "tinygan.program.Call": "of a recording",
    "tinygan.program.Traced": "of a recording", "tinygan.program.Tracer": "of a recording",
    "tinygan.program.Entry": "of a recording", "tinygan.training.diagnosis.Watch": "of one step",
    "tinygan.testing.reproduction.Script": "of one text",
    "tinygan.testing.rounding.Noisy": "of one check",
    "tinygan.testing.strategies.DrawnPicker": "of one example of hypothesis"}


def classes():
    """All public classes of the package."""
    for found in pkgutil.walk_packages(tinygan.__path__, "tinygan."):
        if not found.name.endswith("__main__"):
            for name, kind in vars(importlib.import_module(found.name)).items():
                if inspect.isclass(kind) and kind.__module__ == found.name and name[0] != "_":
                    yield kind


def full_name(kind):
    return f"{kind.__module__}.{kind.__qualname__}"


CLASSES = [kind for kind in classes() if full_name(kind) not in STAY]
every_class = pytest.mark.parametrize("kind", CLASSES, ids=full_name)


class Walk:
    """What an object consists of, in comparable form, with all arrays met on the way.

    An object that is met again is known by its number: what is one object in the original has to be
    one in the copy.
    """

    def __init__(self, x):
        self.arrays, self.numbers, self.kept = [], {}, []
        self.content = self.of(x)

    def of(self, x):
        if isinstance(x, (type, FunctionType, type(len), type(np.take), type(ops.add), np.dtype,
                          np.generic, str, int, float, type(None), slice, Path)):
            return x if x == x else "nan"
        if id(x) in self.numbers:
            return "again", self.numbers[id(x)]
        self.numbers[id(x)] = len(self.kept)
        self.kept.append(x)
        if isinstance(x, np.ndarray):
            self.arrays.append(x)
            return "array", x.dtype.str, x.shape, x.tobytes()
        if isinstance(x, Tensor):
            return "Tensor", self.of(x.data)
        if isinstance(x, np.random.Generator):
            return "Generator", str(x.bit_generator.state)
        if isinstance(x, dict):
            return type(x), [(key, self.of(value)) for key, value in x.items()]
        if isinstance(x, (list, tuple)):
            return type(x), [self.of(item) for item in x]
        if isinstance(x, partial):
            return partial, self.of(x.func), self.of(list(x.args)), self.of(x.keywords)
        if isinstance(x, MethodType):
            return "method", x.__func__, self.of(x.__self__)
        if isinstance(x, BaseException):
            return type(x), self.of(list(x.args)), self.of(vars(x)), str(x)
        parts = dict(sorted(vars(x).items()))
        if isinstance(x, optim.Optimizer):  # whose gradient is room for the next one
            parts["gradient"] = np.zeros_like(x.gradient)
        if isinstance(x, program.Program):  # which records anew
            parts["entries"] = []
        return type(x), self.of(parts)


def test_every_public_class_is_walked_here_or_said_to_stay():
    assert {full_name(kind) for kind in MAKE} == {full_name(kind) for kind in CLASSES}
    assert STAY.keys() <= {full_name(kind) for kind in classes()}


@every_way
@every_class
def test_what_arrives_is_what_was_sent(kind, travel):
    sent = MAKE[kind]()
    assert isinstance(sent, kind)
    arrived = travel(sent)
    there, here = Walk(arrived), Walk(sent)
    assert type(arrived) is type(sent) and there.content == here.content
    assert not any(np.shares_memory(a, b) for a in there.arrays for b in here.arrays)


@every_class
def test_a_shallow_copy_has_all_attributes(kind):
    made = MAKE[kind]()
    copied = copy.copy(made)
    assert type(copied) is type(made) and str(copied) != ""
    assert getattr(copied, "__dict__", {}).keys() == getattr(made, "__dict__", {}).keys()


@every_class
def test_a_copy_does_not_hold_on_to_the_original(kind):
    sent = MAKE[kind]()
    held = [x for x in Walk(sent).kept if type(x) is Tensor or isinstance(x, layers.Module)]
    held = [weakref.ref(x) for x in held]
    arrived = copy.deepcopy(sent)
    del sent
    gc.collect()
    assert arrived is not None and not any(ref() for ref in held)


# --------------------------------------------------------------------------- what arrives works


def run_bits(gan):
    """All that a run has made, except for the time it took."""
    arrays, values = gan.run_.state_dict()
    arrays["history"] = np.delete(arrays["history"], run.COLUMNS.index("seconds"), axis=1)
    del values["seconds"]
    return {name: a.tobytes() for name, a in arrays.items()}, str(values)


def train(gan, until=None):
    """Train, up to a step if one is given."""
    for row in gan.run_.train():
        gan.run_.stop = row["step"] == until
    gan.run_.stop = False
    return gan


def half_trained(method="wgan-gp", **options):
    gan = GAN(method, **{**SMALL, "depth": None if method == "mixture" else 1, **options})
    gan.prepare(X)
    return train(gan, until=4)


@pytest.mark.parametrize("method, options", [
    *((method, {}) for method in METHODS),
    *((method, options) for method in ("wgan-gp", "path-length", "vae-gan")
      for options in ({"eager": True}, {"accumulate": 2}))], ids=str)
def test_a_copy_of_a_gan_goes_on_as_the_original_does(method, options, monkeypatch):
    monkeypatch.setattr(run, "EVALUATIONS", 1)  # in the last step
    gan = half_trained(method, **options)
    before = run_bits(gan)
    copies = [copy.deepcopy(gan), out_of_band(gan)]
    trained = [run_bits(train(copied)) for copied in copies]
    assert run_bits(gan) == before  # a copy that trains leaves the original alone
    assert trained == [run_bits(train(gan))] * 2
    for copied in copies:
        assert np.array_equal(copied.sample(9, seed=2), gan.sample(9, seed=2))


def test_the_original_may_go_on_first():
    gan = half_trained()
    copied = copy.deepcopy(gan)
    before = run_bits(copied)
    expected = run_bits(train(gan))
    assert run_bits(copied) == before and run_bits(train(copied)) == expected


@every_way
def test_a_program_that_was_replayed_is_recorded_anew_by_the_copy(travel):
    x = np.linspace(-1, 1, 8, dtype=np.float32).reshape(4, 2)
    sent = replayed()
    assert sent.entries[0].replay
    arrived = travel(sent)
    assert arrived.entries == []
    results = [[made(x).tobytes() for _ in range(4)] for made in (sent, arrived)]
    assert results[0] == results[1] and arrived.entries[0].replay
    assert arrived.state[0] is arrived.step.args[0] is not sent.state[0]


@every_way
@pytest.mark.parametrize("kind", [optim.SGD, optim.RMSprop, optim.Adam])
def test_a_network_and_its_optimizer_stay_tied(kind, travel):
    network = layers.Sequential(dense(), layers.BatchNorm(3), layers.Dropout(0.3, rng=rng()))
    optimizer = kind(network.parameters(), optim.linear(0.1, 9))
    average = optim.ExponentialMovingAverage(network)

    def trained(network, optimizer, average):
        for _ in range(3):
            step(network, optimizer, np.ones((4, 2), np.float32))
            average.update()
        return Walk([network, optimizer, average]).content

    trained(network, optimizer, average)
    arrived = travel((network, optimizer, average))
    assert all(map(lambda a, b: a is b, arrived[0].parameters(), arrived[1].parameters))
    assert arrived[2].source is arrived[0]
    assert trained(*arrived) == trained(network, optimizer, average)


def test_an_optimizer_that_arrives_has_state_of_its_own_in_place():
    """Of read-only memory, as workers may get it, nothing is kept; vectors start at cache lines."""
    arrived = out_of_band(plain_sgd(optim.Adam))
    for array in [arrived.gradient, *arrived.state.values(), *(p.data for p in arrived.parameters)]:
        assert array.flags.writeable and array.ctypes.data % 64 == 0


class Own(optim.SGD):
    """A user's optimizer, with an attribute of its own and its network."""

    def __init__(self, network, lr):
        super().__init__(network.parameters(), lr)
        self.network, self.seen = network, [1]
        network.optimizer = self  # and back


@every_way
def test_a_users_optimizer_in_a_circle_arrives_whole(travel):
    sent = used(Own(dense(), 0.1))
    arrived = travel(sent)
    assert arrived.seen == [1] and arrived.network.optimizer is arrived
    assert arrived.parameters[0] is arrived.network.weight
    assert Walk(arrived.parameters).content == Walk(sent.parameters).content


# --------------------------------------------------------------------------- graphs and staleness


@every_way
@pytest.mark.parametrize("make", [lambda t: t * 2, lambda t: t[0], lambda t: ops.matmul(t, t),
                                  lambda t: [t, {"loss": ops.sum(t)}]])
def test_the_result_of_an_operation_says_detach(make, travel):
    with pytest.raises(TypeError, match=r"result of \w+, part of a graph.*detach it: Tensor\(t.da"):
        travel(make(Tensor(np.eye(2))))
    detached = Tensor((Tensor(np.eye(2)) * 2).data)
    assert np.array_equal(travel(detached).data, 2 * np.eye(2))


@every_way
def test_graphs_of_either_side_are_stale_when_their_own_tensors_change(travel):
    t = Tensor(np.ones(3))
    y = ops.sum(t * t)
    arrived = travel(t)
    arrived.assign(np.zeros(3))
    assert tg.grad(y, [t])[0].tolist() == [2, 2, 2]  # the original did not change
    z = ops.sum(arrived * arrived)
    t.assign(np.zeros(3))
    assert tg.grad(z, [arrived])[0].tolist() == [0, 0, 0]
    with pytest.raises(RuntimeError, match="stale"):
        tg.grad(y, [t])
    arrived.assign(np.ones(3))
    with pytest.raises(RuntimeError, match="stale"):
        tg.grad(z, [arrived])


def test_what_arrives_is_younger_than_all_that_is_there():
    """A serial of another process would be in the past or future of this one's graphs."""
    old = Tensor(np.ones(2))
    newest = Tensor(np.ones(2))
    arrived = pickle.loads(pickle.dumps(old))
    assert old._serial < newest._serial < arrived._serial < (arrived * 2)._serial


# ------------------------------------------------------------------- other processes and devices


def trained_elsewhere(gan):
    """A process that has made few Tensors gets those of one that has made many."""
    other = pickle.loads(pickle.dumps(gan))
    return train(gan), run_bits(train(other))


def test_a_gan_trains_on_in_another_process_and_comes_back():
    gan = half_trained()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        returned, bits = pool.submit(trained_elsewhere, gan).result()
        error = pool.submit(GAN("vea").fit, "ring").exception()
    assert run_bits(returned) == bits == run_bits(train(gan))
    assert np.array_equal(returned.sample(5), gan.sample(5))
    assert type(error) is ValueError and "unknown method 'vea'" in str(error)


ERRORS = {kind: make for kind, make in MAKE.items() if issubclass(kind, Exception)}


@every_way
@pytest.mark.parametrize("kind", ERRORS, ids=full_name)
def test_an_error_says_the_same_after_travelling(kind, travel):
    error = MAKE[kind]()
    assert str(travel(error)) == str(error) != "" and len(ERRORS) > 8


def test_a_tensor_arrives_on_its_device_or_names_the_device_that_is_missing(monkeypatch):
    there = Tensor(strict.strict(np.arange(3.0)))
    for travel in DEEP.values():
        arrived = travel(there)
        assert backend.device_of(arrived.data) == "strict"
        assert backend.to_numpy(arrived.data).tolist() == [0, 1, 2]
    monkeypatch.setattr(backend, "device_of", lambda array: "cuda:0")
    sent = pickle.dumps(Tensor([1.0]))
    monkeypatch.undo()
    monkeypatch.setattr(backend, "gpu_count", lambda: (0, "no driver."))
    with pytest.raises(backend.DeviceError, match="device cuda:0 cannot be used: no driver"):
        pickle.loads(sent)


@pytest.mark.gpu
@every_way
def test_a_gan_on_a_gpu_arrives_there(travel):
    gan = GAN(**SMALL, device="cuda:0")
    gan.prepare(X)
    arrived = travel(train(gan, until=4))
    assert all(backend.device_of(p.data) == "cuda:0" for p in arrived.generator_.parameters())
    assert run_bits(train(arrived)) == run_bits(train(gan))


# ----------------------------------------------------------------------- a value of a recording


def test_a_value_that_is_being_recorded_is_not_copied():
    for travel in [copy.copy, *DEEP.values()]:
        with pytest.raises(program.TraceError, match="copying or pickling reads a value"):
            program.Program(lambda x: travel(x), [])(np.ones(2))
