"""CuPy against NumPy: derivatives, optimizers, training, the command line, one GPU and two.

All tests need CuPy and a device: a GPU, or the stand-in for one in tests/cuda_on_cpu.
"""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure

import tinygan as tg
from tinygan import backend, data, layers, ops, optim
from tinygan.app import plots
from tinygan.app.cli import main
from tinygan.program import Program
from tinygan.testing import GradcheckError, gradcheck
from tinygan.testing.certificate import certify, placed_case
from tinygan.testing.compositions import COMPOSITIONS
from tinygan.testing.mutants import cases_of, gradients
from tinygan.testing.samplers import SAMPLERS, Picker
from tinygan.training import METHODS, Config, Method, Run, new_game, samples

pytestmark = pytest.mark.gpu
GPU = "cuda:0"
needs_two = pytest.mark.skipif(backend.gpu_count()[0] < 2, reason="needs two GPUs")
IMAGES = data.image_array(np.random.default_rng(0).random((20, 8, 8)))
X = np.random.default_rng(1).standard_normal((3, 4))


def on_gpu(x, device=GPU):
    """A copy of a host array on the device."""
    return backend.to_device(np.array(x), device)


def host(x):
    """The values of an array or Tensor of the device; fails for one that is not there."""
    array = x.data if isinstance(x, tg.Tensor) else x
    assert backend.device_of(array) == GPU
    return backend.to_numpy(array)


def with_gaps(x):
    """An array of the device with the same values whose memory has gaps, or is in reverse."""
    if not x.ndim:
        return x
    return np.repeat(x, 2, axis=-1)[..., ::2] if x.size % 2 else x[::-1].copy()[::-1]


# ------------------------------------------------------------------------------- derivatives


def agree(ours, theirs, tolerance):
    """The same shapes and dtypes, and values that differ by little beside the largest of all."""
    finite = [np.abs(a[np.isfinite(a)]) for a in ours]
    size = max((float(a.max()) for a in finite if a.size), default=0.0)
    for a, b in zip(ours, map(host, theirs), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert np.allclose(a, b, rtol=tolerance, atol=tolerance * size, equal_nan=True)


@pytest.mark.parametrize("name", SAMPLERS)
def test_derivatives_of_primitives_agree_to_order_3(name):
    for case in cases_of(name, 8, seed=100):
        there = placed_case(case, GPU)
        there = there._replace(inputs=[with_gaps(x) for x in there.inputs])
        tolerance = 1e-12 if name != "astype" else 1e-6  # which rounds to float32
        agree(gradients(case, case.order), gradients(there, case.order), tolerance)


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_derivatives_of_functions_layers_and_losses_agree(name):
    for seed in range(2):
        case, there = (COMPOSITIONS[name](Picker(np.random.default_rng(seed), device))
                       for device in ("cpu", GPU))
        agree(gradients(case, case.order), gradients(placed_case(there, GPU), case.order), 1e-11)


@pytest.mark.parametrize("name", SAMPLERS)
def test_float32_stays_float32_and_is_as_accurate_as_on_the_cpu(name):
    """Both are compared with float64, at inputs that float32 holds exactly."""
    for case in cases_of(name, 8, seed=200):
        inputs = [x.astype(np.float32) if x.dtype == np.float64 else x for x in case.inputs]
        wide = [x.astype(np.float64) if x.dtype == np.float32 else x for x in inputs]
        truth = gradients(case._replace(inputs=wide), case.order)
        ours = gradients(case._replace(inputs=inputs), case.order)
        theirs = gradients(placed_case(case._replace(inputs=inputs), GPU), case.order)
        for t, a, b in zip(truth, ours, map(host, theirs), strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            known = np.isfinite(t) & np.isfinite(a)
            t, a, b = t[known], a[known].astype(np.float64), b[known].astype(np.float64)
            size = np.abs(t).max(initial=0)
            error = np.abs(a - t).max(initial=0)
            assert np.abs(b - t).max(initial=0) <= 4 * error + 1e-5 * size


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_checker_runs_there_in_memory_with_gaps_too(name):
    for seed, case in enumerate(cases_of(name, 2, seed=3)):
        case = placed_case(case, GPU)
        gradcheck(case.f, [with_gaps(x) for x in case.inputs], order=2, seed=seed, probes=1)


@pytest.mark.parametrize("name", ["add", "max", "convolve", "getitem", "layers.BatchNorm"])
def test_the_certificate_runs_there(name):
    row = certify(name, order=2, device=GPU, mutants=False)
    assert not row.fault and row.backend == GPU


def test_a_wrong_rule_is_found_there():
    op = tg.tensor.Primitive(lambda x: np.exp(x), broadcasts=False)
    op.rules = (lambda g, y, x: g * y * 1.000001,)
    with pytest.raises(GradcheckError):
        gradcheck(op, [on_gpu(X)])


# ---------------------------------------------------------------------- what CuPy is strict about


@pytest.mark.parametrize("idiom", [
    lambda x: 2.0 ** x, lambda x: 1 - x, lambda x: 1 / x, lambda x: x ** 3, lambda x: x ** 0.5,
    lambda x: np.float64(2) * x, lambda x: x * np.float64(2),
    lambda x: x * np.array(2.0), lambda x: np.array(2.0) * x,
    lambda x: ops.where(True, x, 0.0), lambda x: ops.where(False, x, x * x),
    lambda x: ops.where(x > 1, 0, x), lambda x: ops.maximum(x, 1), lambda x: x[..., 0],
    lambda x: x[:, None], lambda x: x[[0, 0]],
    lambda x: x[np.array([0, 1]), np.array([1, 1])], lambda x: x[x > 1], lambda x: ops.max(x),
    lambda x: ops.logsumexp(x, axis=1), lambda x: ops.concatenate([x] * 12),
    lambda x: ops.sum(x, axis=())])
def test_operations_beside_constants_of_the_host(idiom):
    a, b = tg.Tensor(np.abs(X)), tg.Tensor(on_gpu(np.abs(X)))
    ours, theirs = idiom(a), idiom(b)
    assert np.allclose(ours.data, host(theirs), rtol=1e-12)
    ours, theirs = (tg.grad(ops.sum(y * y), [x])[0] for y, x in ((ours, a), (theirs, b)))
    assert np.allclose(ours, host(theirs), rtol=1e-12)


@pytest.mark.parametrize("value", [X.tolist(), X, X.astype(np.float32), X[::-1]])
def test_assign_takes_values_of_the_host(value):
    t = tg.Tensor(on_gpu(np.zeros((3, 4))))
    t.assign(value)
    assert np.allclose(host(t), value)


@pytest.mark.parametrize("cotangent", [[1.0, 10.0], np.array([1.0, 10.0])])
def test_a_cotangent_may_be_a_list_or_an_array_of_the_host(cotangent):
    x = tg.Tensor(on_gpu([1.0, 2.0]))
    assert np.allclose(host(tg.grad(x * x, [x], cotangent=cotangent)[0]), [2, 40])


def test_new_arrays_have_the_shape_they_are_given():
    assert host(np.zeros_like(on_gpu(X), shape=(2,))).shape == (2,)
    assert host(ops.scatter(on_gpu(1.5), (1,), (3,))).tolist() == [0, 1.5, 0]
    assert backend.aligned_zeros((), np.float32, on_gpu(X)).shape == ()


@pytest.mark.parametrize("index", [7, (0, 9), [0, 5], np.array([3]), ([0, 1], [0, -5])])
def test_an_index_out_of_range_raises_as_on_the_cpu(index):
    for x in (tg.Tensor(X), tg.Tensor(on_gpu(X))):
        with pytest.raises(IndexError):
            x[index]


# -------------------------------------------------------------------------------- optimizers

OPTIMIZERS = {
    "SGD": lambda p: optim.SGD(p, 0.1), "momentum": lambda p: optim.SGD(p, 0.1, momentum=0.9),
    "nesterov": lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "RMSprop": lambda p: optim.RMSprop(p, 0.1),
    "Adam": lambda p: optim.Adam(p, optim.linear(0.1, 9), betas=(0.5, 0.9)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_agree(name):
    players = []
    for device in ("cpu", GPU):
        parameters = [tg.Tensor(on_gpu(value, device)) for value in (X, X[0])]
        optimizer = OPTIMIZERS[name](parameters)
        for step in range(3):
            rng = np.random.default_rng(step)
            optimizer.step([on_gpu(rng.standard_normal(p.shape), device) for p in parameters])
        players.append((parameters, optimizer.state_dict()))
    (ours, state), (theirs, state_there) = players
    for a, b in zip(ours, theirs):
        assert np.allclose(a.data, host(b), rtol=1e-12)
    for key, value in state.items():
        assert np.allclose(value, state_there[key], rtol=1e-12)


def test_moving_averages_and_clipped_weights_agree():
    nets = [layers.Dense(3, 2, rng=backend.rng(0, device)) for device in ("cpu", GPU)]
    for net in nets:
        average = optim.ExponentialMovingAverage(net, decay=0.75)
        optim.WeightClip(net.parameters(), 0.3).step()
        average.update()
        net.averaged = average.network
    for ours, theirs in ((nets[0], nets[1]), (nets[0].averaged, nets[1].averaged)):
        for a, b in zip(ours.parameters(), theirs.parameters()):
            assert np.allclose(a.data, host(b), rtol=1e-6)


# ---------------------------------------------------------------------------------- training


def game(method, device, points=None, **settings):
    """A small game; ``net`` is conv where the data are images."""
    small = dict(steps=3, batch=4, width=4, latent=3, n_critic=2, seed=5) | settings
    without = METHODS[method].without
    chosen = {name: value for name, value in small.items() if name not in without}
    return new_game(Config(method=method, **chosen), points or data.ring(), device)


def changes(game):
    """What one iteration does to the weights, network by network, and what it logs."""
    tensors = {name: network.parameters() for name, network in game.networks.items()}
    before = {name: [backend.to_numpy(t.data).copy() for t in tensors[name]] for name in tensors}
    columns = game.iteration()
    after = {name: [backend.to_numpy(t.data) for t in tensors[name]] for name in tensors}
    for owned in tensors.values():
        assert all(backend.device_of(t.data) == game.device for t in owned)
    moved = {name: [b - a for a, b in zip(before[name], after[name])] for name in before}
    return moved, {name: float(value) for name, value in columns.items()}


@pytest.fixture
def plain_steps(monkeypatch):
    """Steps that are the gradients: Adam's are whole ones where a gradient is but rounding."""
    monkeypatch.setattr(Method, "optimizer", lambda self, weights, lr: optim.SGD(weights, 1.0))


def compare_iterations(*games):
    (ours, columns), (theirs, columns_there) = map(changes, games)
    for name, arrays in ours.items():
        size = max(float(np.abs(a).max()) for a in arrays)
        for a, b in zip(arrays, theirs[name]):
            assert a.dtype == b.dtype == np.float32
            assert np.allclose(a, b, rtol=1e-4, atol=1e-4 * size + 1e-6), name
    assert columns.keys() == columns_there.keys()
    for name, value in columns.items():
        assert np.isclose(value, columns_there[name], rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_an_iteration_on_points_agrees(method, accumulate, plain_steps):
    compare_iterations(*(game(method, device, accumulate=accumulate, depth=2)
                         for device in ("cpu", GPU)))


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("method", [m for m in METHODS if "net" not in METHODS[m].without])
def test_an_iteration_of_convolutions_agrees(method, accumulate, plain_steps):
    compare_iterations(*(game(method, device, IMAGES, net="conv", accumulate=accumulate)
                         for device in ("cpu", GPU)))


@pytest.mark.parametrize("method", METHODS)
def test_a_run_stays_on_the_device_and_is_finite(method):
    """With the method's own optimizer, whose steps are not compared: see ``plain_steps``."""
    run = Run(game(method, GPU, depth=1))
    rows = list(run.train())
    assert run.step == 3 and all(np.isfinite(row["generator_loss"]) for row in rows)
    assert samples.sample(run.game, 5).shape == (5, 2)


def test_both_devices_in_one_process_do_not_disturb_each_other():
    alone = Run(game("wgan-gp", "cpu", depth=1))
    beside = [Run(game("wgan-gp", device, depth=1)) for device in ("cpu", GPU)]
    for _ in range(3):
        expected = alone.iterate()
        here, there = (run.iterate() for run in beside)
        assert here == expected
        assert np.isclose(here["critic_loss"], there["critic_loss"], rtol=1e-2, atol=1e-4)


def test_a_gan_trained_there_is_used_here(tmp_path):
    gan = tg.GAN(method="gan", steps=2, batch=4, width=4, device=GPU).fit("ring")
    gan.save(tmp_path / "gan.npz")
    here = tg.GAN.load(tmp_path / "gan.npz", device="cpu").sample(20, seed=1)
    assert np.allclose(here, gan.sample(20, seed=1), rtol=1e-4, atol=1e-5)


# ----------------------------------------------------------------------------- command line

SMALL = ["--width", "8", "--depth", "1", "--batch", "8", "--n-critic", "1", "--device", "cuda"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to work in; no pictures, which look the same from both devices."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TINYGAN_DEVICE", raising=False)
    for panel in ("panel", "image_panel"):
        monkeypatch.setattr(plots, panel, lambda *arguments: Figure())
    return tmp_path


def test_train_resume_sample_walk_and_evaluate(folder, capsys):
    assert main(["train", *SMALL, "--steps", "4", "--out", "run"]) == 0
    assert main(["train", "--resume", "run", "--steps", "6", "--device", "cuda"]) == 0
    assert json.loads((folder / "run/run.json").read_text())["device"].startswith(GPU)
    for device in ("cuda", "cpu"):
        made = ["sample", "run", "-n", "9", "-o", f"{device}.npy", "--device", device]
        assert main(made) == 0
    assert np.allclose(np.load("cuda.npy"), np.load("cpu.npy"), rtol=1e-4, atol=1e-5)
    assert main(["walk", "run", "-o", "walk.gif", "--device", "cuda"]) == 0
    assert (folder / "walk.gif").stat().st_size > 1000
    capsys.readouterr()
    assert main(["evaluate", "run", "--device", "cuda"]) == 0
    assert "sliced" in capsys.readouterr().out


def test_a_run_with_images(folder):
    np.save("images.npy", np.random.default_rng(0).random((40, 8, 8)))
    arguments = ["images.npy", "--net", "conv", "--width", "4", "--batch", "4", "--n-critic", "1"]
    assert main(["train", *arguments, "--steps", "3", "--device", "cuda", "--out", "run"]) == 0
    assert main(["sample", "run", "-n", "3", "-o", "new.npy", "--device", "cuda"]) == 0
    assert np.load("new.npy").shape[0] == 3


def test_a_resumed_run_is_the_uninterrupted_one(folder):
    assert main(["train", *SMALL, "--steps", "6", "--out", "whole"]) == 0
    gan = tg.GAN.load("whole/checkpoint.npz", device=GPU)
    part = Run(new_game(gan.run_.config, data.ring(), GPU))
    for row in part.train():
        part.stop = row["step"] == 3
    rest = Run(new_game(gan.run_.config, data.ring(), GPU))
    rest.load_state_dict(*part.state_dict())
    list(rest.train())
    for a, b in zip(gan.run_.game.generator.parameters(), rest.game.generator.parameters()):
        assert host(a).tobytes() == host(b).tobytes()


def test_a_run_that_diverges_says_so_and_is_explained(folder, capsys):
    assert main(["train", *SMALL, "--steps", "9", "--lr", "1e30", "--out", "run"]) == 7
    assert "training diverged" in capsys.readouterr().err
    assert main(["explain", "run", "--device", "cuda"]) == 0
    assert "among" in capsys.readouterr().out


def test_check_and_devices(capsys):
    names = ["exp", "convolve", "broadcast_to"]
    assert main(["check", *names, "--order", "2", "--device", "cuda"]) == 0
    assert "3 of 3 passed" in capsys.readouterr().out
    assert main(["devices"]) == 0
    assert "cuda:0  usable" in capsys.readouterr().out


# -------------------------------------------------------------------------------- replay


def everything(game):
    """All state of a game, and where it lies."""
    tensors = [t.data for network in game.networks.values() for _, t, _ in network.named_tensors()]
    vectors = [v for optimizer in game.optimizers.values() for v in optimizer.state.values()]
    return [(backend.to_numpy(x), backend.device_of(x)) for x in tensors + vectors]


@pytest.mark.parametrize("method, net", [*((method, "mlp") for method in METHODS),
                                         ("wgan-gp", "conv"), ("path-length", "conv")])
def test_a_program_replays_the_eager_iteration_to_the_bit(method, net):
    images = {"points": IMAGES, "net": net} if net == "conv" else {"depth": 1}
    eager, other = (game(method, GPU, steps=9, **images) for _ in range(2))
    replayed = Program(other.iteration, other.state())
    for _ in range(6):
        ours, theirs = eager.iteration(), replayed()
        assert {k: float(v) for k, v in ours.items()} == {k: float(v) for k, v in theirs.items()}
    assert all(entry.replay for entry in replayed.entries)
    for (a, _), (b, _) in zip(everything(eager), everything(other), strict=True):
        assert a.tobytes() == b.tobytes()


# ------------------------------------------------------------------------------- two GPUs


@needs_two
@pytest.mark.parametrize("method", METHODS)
def test_the_second_gpu_does_what_the_first_does(method):
    first, second = (game(method, device, depth=1) for device in (GPU, "cuda:1"))
    for one in (first, second):
        with backend.on(one.device):
            one.iteration()
    for (a, here), (b, there) in zip(everything(first), everything(second), strict=True):
        assert (here, there) == (GPU, "cuda:1") and a.tobytes() == b.tobytes()


@needs_two
def test_a_whole_run_on_the_second_gpu(folder):
    second = [*SMALL[:-1], "cuda:1"]
    assert main(["train", *second, "--steps", "3", "--out", "run"]) == 0
    assert main(["train", "--resume", "run", "--steps", "5", "--device", "cuda:1"]) == 0
    assert main(["sample", "run", "-n", "5", "-o", "new.npy", "--device", "cuda:1"]) == 0
    assert main(["train", *second, "--steps", "9", "--lr", "1e30", "--out", "wild"]) == 7
    assert main(["explain", "wild", "--device", "cuda:1"]) == 0


@needs_two
def test_arrays_of_two_gpus_do_not_mix():
    with pytest.raises(Exception, match="(?i)device|peer"):
        tg.Tensor(on_gpu(X)) + tg.Tensor(on_gpu(X, "cuda:1"))
