"""The backend: devices, the border to the host, random numbers; and that nothing bypasses it.

And the settings of the process, which only the command line changes.
"""

import ast
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import tinygan
from tinygan import backend
from tinygan.app import process

PACKAGE = Path(tinygan.__file__).parent
CORE = ["tensor", "ops", "conv", "backprop", "functional", "init", "layers", "losses", "optim"]


class FakeArray:
    """What tests can see of a CuPy array: where it is, ``get``, and where copies are put."""

    __module__ = "cupy._core.core"

    def __init__(self, host, number=0):
        self.host, self.device = np.array(host), SimpleNamespace(id=number)

    dtype = property(lambda self: self.host.dtype)

    def __array_function__(self, *arguments):
        raise NotImplementedError

    def __setitem__(self, index, value):
        self.host[index] = value

    def get(self):
        return self.host.copy()

    def astype(self, dtype, order):
        return FakeArray(self.host.astype(dtype), sys.modules["cupy"].current[-1])


def fake_cupy(gpus=0):
    """A cupy module that can be imported, on a machine with a number of GPUs."""
    cupy = ModuleType("cupy")
    cupy.__version__, cupy.current = "99.0", [0]

    @contextmanager
    def device(number):
        cupy.current.append(number)
        yield
        cupy.current.pop()

    cupy.asarray = lambda array: FakeArray(array, cupy.current[-1])
    cupy.empty = lambda shape, dtype: FakeArray(np.empty(shape, dtype), cupy.current[-1])
    runtime = SimpleNamespace(getDeviceCount=lambda: gpus,
                              getDeviceProperties=lambda n: {"name": b"Fake GPU %d" % n})
    cupy.cuda = SimpleNamespace(is_available=lambda: gpus > 0, Device=device, runtime=runtime)
    return cupy


@pytest.fixture
def machine(monkeypatch):
    """machine(n): a machine with n GPUs and CuPy installed; None: without CuPy."""
    monkeypatch.delenv("TINYGAN_DEVICE", raising=False)

    def install(gpus):
        monkeypatch.setitem(sys.modules, "cupy", None if gpus is None else fake_cupy(gpus))
    return install


def run_python(code, **environment):
    """What a fresh interpreter prints, as JSON."""
    path = os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONPATH": path, **environment})
    return json.loads(done.stdout)


# ------------------------------------------------------------------------------------------ devices


@pytest.mark.parametrize("gpus, name, device", [
    (None, "cpu", "cpu"), (None, "auto", "cpu"), (0, "auto", "cpu"), (0, "cpu", "cpu"),
    (1, "cpu", "cpu"), (1, "auto", "cuda:0"), (1, "cuda", "cuda:0"),
    (2, "cuda:1", "cuda:1"), (2, "cuda:0", "cuda:0")])
def test_a_name_is_resolved_on_a_machine(machine, gpus, name, device):
    machine(gpus)
    assert backend.resolve_device(name) == device


@pytest.mark.parametrize("name", ["gpu", "CPU", "cuda:", "cuda:x", "cuda:-1", "cuda:0:1", "cpu:0",
                                  "auto:0", " cpu"])
def test_an_unknown_name_is_a_value_error_that_lists_the_known(machine, name):
    machine(8)
    with pytest.raises(ValueError, match="unknown device .*; choose cpu, cuda, cuda:N or auto"):
        backend.resolve_device(name)


@pytest.mark.parametrize("gpus, name, message", [
    (None, "cuda", r"device cuda cannot be used: CuPy is not installed: pip install .*cuda12.*"
     " use --device cpu"),
    (None, "cuda:0", "CuPy is not installed"),
    (0, "cuda", "CuPy 99.0 is installed but no CUDA GPU is usable .*use --device cpu"),
    (2, "cuda:2", r"device cuda:2 cannot be used: this machine has 2 GPU\(s\), numbered from 0")])
def test_an_unusable_device_is_a_device_error_with_a_remedy(machine, gpus, name, message):
    machine(gpus)
    with pytest.raises(backend.DeviceError, match=message):
        backend.resolve_device(name)


def test_the_import_of_cupy_does_not_count_as_a_gpu(machine):
    machine(0)
    import cupy
    assert cupy.__version__ == "99.0" and backend.gpu_count()[0] == 0


def test_the_environment_names_the_device_unless_code_does(machine, monkeypatch):
    machine(3)
    monkeypatch.setenv("TINYGAN_DEVICE", "cuda:2")
    assert backend.resolve_device() == "cuda:2" and backend.resolve_device("cpu") == "cpu"
    monkeypatch.setenv("TINYGAN_DEVICE", "toaster")
    with pytest.raises(ValueError, match="toaster"):
        backend.resolve_device()
    monkeypatch.setenv("TINYGAN_DEVICE", "")
    assert backend.resolve_device() == "cuda:0"


def test_gpus_are_counted_and_named(machine):
    machine(2)
    assert backend.gpu_count() == (2, "") and backend.gpu_name(1) == "Fake GPU 1"


# -------------------------------------------------------------------------------- across the border


def test_to_numpy_fetches_what_lives_elsewhere():
    near, fetched = np.ones(2), backend.to_numpy(FakeArray([1.0, 2.0]))
    assert type(fetched) is np.ndarray and np.array_equal(fetched, [1, 2])
    assert backend.to_numpy(near) is near


def test_arrays_say_where_they_are():
    assert backend.device_of(np.ones(1)) == "cpu"
    assert backend.device_of(FakeArray([1.0], 3)) == "cuda:3"


def test_arrays_move_only_if_they_must(machine):
    machine(2)
    near, far = np.ones(2), FakeArray([1.0], 1)
    assert backend.to_device(near, "cpu") is near and backend.to_device(far, "cuda:1") is far
    moved = backend.to_device(near, "cuda:1")
    assert backend.device_of(moved) == "cuda:1"
    assert np.array_equal(backend.to_device(moved, "cpu"), near)


def test_zeros_are_made_on_the_device(machine):
    machine(2)
    assert backend.device_of(backend.zeros((2,), device="cuda:1")) == "cuda:1"
    here = backend.zeros((2, 3), np.float64)
    assert here.shape == (2, 3) and here.dtype == np.float64 and not here.any()


def test_copies_and_state_lie_beside_an_array_on_a_gpu_that_is_not_current(machine):
    machine(2)
    far = FakeArray(np.ones(2, np.float32), 1)
    for made in (backend.asarray(far), backend.aligned_zeros((3,), np.float32, far),
                 backend.scalars([1.0], like=far)):
        assert backend.device_of(made) == "cuda:1" and made.dtype == np.float32
    assert sys.modules["cupy"].current == [0]
    assert backend.to_numpy(backend.scalars([1.0, 0.5], like=far)).tolist() == [1, 0.5]


def test_what_answers_numpys_protocol_is_an_array():
    class Stranger:
        def __array_function__(self, *arguments):
            raise NotImplementedError

    assert all(map(backend.is_array, (np.ones(1), np.float32(1), np.bool_(True), Stranger())))
    assert not any(map(backend.is_array, (1.0, 1, True, [1.0], "x", None, tinygan.Tensor(1.0))))


# ----------------------------------------------------------------------------------- random numbers


def test_a_generator_for_the_cpu_is_numpys():
    a, b = backend.rng(7), np.random.default_rng(7)
    assert np.array_equal(a.random(3), b.random(3))


def draws(rng):
    return [backend.uniform(rng, (3, 2)), backend.normal(rng, (4,))]


def test_a_gpu_sees_the_same_numbers_as_the_cpu(machine):
    machine(2)
    far = backend.rng(7, "cuda:1")
    assert isinstance(far, backend.DeviceRng) and backend.host_rng(far).bit_generator.state
    for here, there in zip(draws(backend.rng(7)), draws(far)):
        assert backend.device_of(there) == "cuda:1"
        assert np.array_equal(here, backend.to_numpy(there))


def test_draws_land_beside_an_array(machine):
    machine(2)
    rng = np.random.default_rng(0)
    for draw in (backend.uniform, backend.normal):
        assert backend.device_of(draw(rng, (2,), like=FakeArray([1.0], 1))) == "cuda:1"
        assert backend.device_of(draw(backend.rng(0, "cuda:1"), (2,), like=np.ones(1))) == "cpu"


@pytest.mark.parametrize("draw", [backend.uniform, backend.normal])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_draws_have_the_dtype_asked_for(draw, dtype):
    array = draw(np.random.default_rng(0), (50,), dtype)
    assert array.dtype == dtype and array.shape == (50,) and np.isfinite(array).all()
    assert len(set(array.tolist())) > 40


def test_draws_follow_their_distributions():
    """Means and second moments within five standard errors."""
    n = 20_000
    u, z = (draw(np.random.default_rng(0), (n,), np.float64)
            for draw in (backend.uniform, backend.normal))
    assert 0 <= u.min() and u.max() < 1
    for found, mean, spread in ((u, 1 / 2, (1 / 12) ** 0.5), (u**2, 1 / 3, (4 / 45) ** 0.5),
                                (z, 0, 1), (z**2, 1, 2**0.5)):
        assert abs(found.mean() - mean) < 5 * spread / n**0.5


@pytest.mark.parametrize("wrong", [None, 0, np.random, np.random.RandomState(0), "rng"])
def test_what_is_not_a_generator_is_a_type_error(wrong):
    for draw in (backend.uniform, backend.normal):
        with pytest.raises(TypeError, match="rng: expected a generator"):
            draw(wrong, (1,))


def test_nothing_draws_from_the_global_generator():
    before = np.random.get_state()
    draws(np.random.default_rng(0))
    tinygan.layers.Dense(2, 2, rng=np.random.default_rng(0))
    after = np.random.get_state()
    assert all(np.array_equal(a, b) for a, b in zip(before, after))


# --------------------------------------------------------------------- nothing bypasses the backend

CREATORS = {"zeros", "ones", "empty", "full", "array", "asarray", "ascontiguousarray", "asanyarray",
            "arange", "linspace", "eye", "identity", "fromiter", "frombuffer", "tri", "meshgrid",
            "indices", "random", "copy", "asnumpy"}
METHODS = {"get", "tolist", "item"}  # without arguments they bring an array's values to the host


def bypasses(source):
    """(line, call) where a file makes arrays, draws random numbers or fetches values by itself.

    An array made ``like=`` another follows it to its device; ``reference`` is for NumPy alone.
    """
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if getattr(node, "name", None) != "reference"]
    followers = [id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)
                 and any(keyword.arg == "like" for keyword in node.keywords)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("np", "numpy"):
            if node.attr in CREATORS and id(node) not in followers:
                yield node.lineno, f"np.{node.attr}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not node.args:
            if node.func.attr in METHODS:
                yield node.lineno, f".{node.func.attr}()"


@pytest.mark.parametrize("name", CORE)
def test_arrays_are_made_drawn_and_fetched_in_the_backend_alone(name):
    assert list(bypasses((PACKAGE / f"{name}.py").read_text())) == []


@pytest.mark.parametrize("line", ["x = np.zeros(3)", "rng = np.random.default_rng()",
                                  "f(np.asarray(x))", "y = x.get()", "y = x.sum().item()"])
def test_the_search_for_bypasses_finds_them(line):
    assert len(list(bypasses(line))) == 1
    assert not list(bypasses("y = np.zeros_like(x, shape=(2,)); d.get(k); np.arange(3, like=x)"))


# ---------------------------------------------------------------------- side effects of the process


def test_the_import_has_no_side_effects():
    """No environment variable, thread, signal handler or memory setting; no optional module."""
    report = run_python("""
import json, os, signal, sys, threading, warnings
import numpy
environment, handlers = dict(os.environ), [signal.getsignal(s) for s in signal.valid_signals()]
errors, filters = numpy.geterr(), list(warnings.filters)
state = numpy.random.get_state()[1].tolist()
import ctypes
loaded = []
ctypes.CDLL = lambda *a, **k: loaded.append(a)
import tinygan
optional = ["matplotlib", "cupy", "hypothesis", "pytest", "threadpoolctl", "tinygan.training.game",
            "tinygan.app.plots", "tinygan.app.cli", "tinygan.testing"]
print(json.dumps({
    "environment": environment == dict(os.environ), "threads": threading.active_count(),
    "handlers": handlers == [signal.getsignal(s) for s in signal.valid_signals()],
    "numpy": errors == numpy.geterr() and state == numpy.random.get_state()[1].tolist(),
    "warnings": filters == list(warnings.filters), "libraries": loaded,
    "modules": [m for m in optional if m in sys.modules]}))
""")
    assert report == {"environment": True, "threads": 1, "libraries": [], "handlers": True,
                      "numpy": True, "warnings": True, "modules": []}


def test_everything_public_can_be_reached_from_the_package():
    for name in tinygan.__all__:
        assert getattr(tinygan, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        tinygan.nonsense


def test_glibc_is_told_to_keep_its_memory(monkeypatch):
    told = []
    libc = SimpleNamespace(gnu_get_libc_version=lambda: b"2.36",
                           mallopt=lambda *a: told.append(a) or 1)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(process.ctypes, "CDLL", lambda name: libc)
    assert process.keep_memory() is True
    # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD
    assert {parameter for parameter, _ in told} == {-1, -2, -3}
    libc.mallopt = lambda *a: 0
    assert process.keep_memory() is False


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_elsewhere_keep_memory_does_nothing(monkeypatch, platform):
    """Another C library under Linux, or another system."""
    def load(name):
        assert platform == "linux"
        return SimpleNamespace()

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(process.ctypes, "CDLL", load)
    assert process.keep_memory() is False


def limits(width, **environment):
    clean = {name: "" for name in process.THREAD_VARIABLES} | environment
    return run_python(f"""
import json, os
for name in {list(process.THREAD_VARIABLES)}:
    if not os.environ[name]:
        del os.environ[name]
import numpy, threadpoolctl
from tinygan import backend
from tinygan.app import process
said = process.tune_process({width})
blas = [p["num_threads"] for p in threadpoolctl.threadpool_info() if p["user_api"] == "blas"]
print(json.dumps([said, blas]))
""", **clean)


def test_small_nets_get_one_blas_thread():
    said, threads = limits(128)
    assert said.startswith("1 BLAS thread") and set(threads) <= {1}


def test_large_nets_and_the_users_own_choice_are_left_alone():
    assert limits(1024)[0].startswith("BLAS threads by default")
    said, threads = limits(128, OMP_NUM_THREADS="2")
    assert said.startswith("OMP_NUM_THREADS=2") and set(threads) <= {min(2, os.cpu_count())}


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 5), (300, 300)])
def test_parameters_and_optimizer_state_start_at_cache_lines(shape):
    for dtype in (np.float32, np.float64):
        values = np.ones(shape, dtype)
        if shape:  # every second column of a wider array
            values = np.ones((*shape[:-1], 2 * shape[-1]), dtype)[..., ::2]
        t = tinygan.Tensor(values)
        adam = tinygan.optim.Adam([t])
        for a in (t.data, adam.gradient, *adam.state.values()):
            assert a.ctypes.data % 64 == 0 and a.dtype == dtype
            assert a.flags.c_contiguous and a.flags.writeable
        assert np.array_equal(t.data, values) and t.shape == shape and not adam.gradient.any()
