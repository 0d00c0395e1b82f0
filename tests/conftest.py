"""What all tests share: hypothesis profiles, what the markers gpu, mpi, browser, thorough skip.

HYPOTHESIS_PROFILE=thorough takes many more examples: for a run overnight.
"""

import gc
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tinygan import backend
from tinygan.app import process
from tinygan.training import samples
import browser
import two_processes

process.tune_process(1)  # one BLAS thread: on a busy machine two that wait for each other crawl
ROOT = Path(__file__).resolve().parent.parent
COMMON = dict(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", derandomize=True, database=None, max_examples=15, **COMMON)
settings.register_profile("thorough", derandomize=False, max_examples=1000, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    count, reason = backend.gpu_count()
    mpi = shutil.which("mpiexec") and importlib.util.find_spec("mpi4py")
    asked = config.option.markexpr or ""
    for item in items:
        if not count and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason=reason))
        if not mpi and item.get_closest_marker("mpi"):
            item.add_marker(pytest.mark.skip(reason="needs mpiexec and mpi4py"))
        if not (browser.CHROMIUM and browser.DRIVER) and item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.skip(reason="needs chromium and chromedriver"))
        if "browser" not in asked and item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.skip(reason="in a browser; run with -m browser"))
        if "thorough" not in asked and item.get_closest_marker("thorough"):
            item.add_marker(pytest.mark.skip(reason="long form; run with -m thorough"))


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.freeze()  # else every full garbage collection walks through thousands of collected tests


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    if backend.gpu_count()[0] or not two_processes.worth_it(session):
        return None  # as pytest does it; CUDA does not survive a fork
    two_processes.run(session)
    return True


@pytest.fixture
def few_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 samples, not 2,500: scores would take most of the time of runs as short as in tests."""
    monkeypatch.setattr(samples, "SCORED", 100)


@pytest.fixture
def ran(request: pytest.FixtureRequest, tmp_path: Path):
    """(folder, results) of the processes that a test looks at.

    ``@pytest.mark.processes(commands=commands)`` marks it: ``commands(folder, **parameters)``, of
    the test, may put files into the empty folder and returns what is to be run in it, one after
    another: a list of (arguments, changes of the environment).
    """
    commands = request.node.get_closest_marker("processes").kwargs["commands"]
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(
        filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "OPENBLAS_NUM_THREADS": "1", "TINYGAN_DEVICE": "", "TINYGAN_CACHE": str(tmp_path / "cache")}
    folder = tmp_path / "folder"
    folder.mkdir()
    results = []
    for arguments, changes in commands(folder, **parameters):
        done = subprocess.run(arguments, cwd=folder, env=environment | changes,
                              stdin=subprocess.DEVNULL, capture_output=True)
        done.stdout, done.stderr = (out.decode("utf-8", "surrogateescape")
                                    for out in (done.stdout, done.stderr))
        results.append(done)
    return folder, results
