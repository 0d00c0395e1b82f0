"""What all tests share: hypothesis profiles, what the markers gpu, mpi, browser, thorough skip.

HYPOTHESIS_PROFILE=thorough takes many more examples: for a run overnight.
"""

import gc
import importlib.util
import os
import shutil

import pytest
from hypothesis import HealthCheck, settings

from tinygan import backend
from tinygan.app import process
from tinygan.training import samples
import browser
from ahead import Ahead

process.tune_process(1)  # one BLAS thread: on a busy machine two that wait for each other crawl
COMMON = dict(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", derandomize=True, database=None, max_examples=15, **COMMON)
settings.register_profile("thorough", derandomize=False, max_examples=1000, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    count, reason = backend.gpu_count()
    mpi = shutil.which("mpiexec") and importlib.util.find_spec("mpi4py")
    thorough = "thorough" in (config.option.markexpr or "")
    for item in items:
        if not count and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason=reason))
        if not mpi and item.get_closest_marker("mpi"):
            item.add_marker(pytest.mark.skip(reason="needs mpiexec and mpi4py"))
        if not (browser.CHROMIUM and browser.DRIVER) and item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.skip(reason="needs chromium and chromedriver"))
        if not thorough and item.get_closest_marker("thorough"):
            item.add_marker(pytest.mark.skip(reason="long form; run with -m thorough"))


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.freeze()  # else every full garbage collection walks through thousands of collected tests


@pytest.fixture
def few_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 samples, not 2,500: scores would take most of the time of runs as short as in tests."""
    monkeypatch.setattr(samples, "SCORED", 100)


@pytest.fixture(scope="session", autouse=True)
def processes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """Of all tests that will look at some; where tests are shared out, each test starts its own."""
    shared_out = "PYTEST_XDIST_WORKER" in os.environ
    items = [item for item in request.session.items if not shared_out
             and item.get_closest_marker("ahead") and not item.get_closest_marker("skip")
             and not any(mark.args[0] for mark in item.iter_markers("skipif"))]
    started = Ahead(items, tmp_path_factory)
    yield started
    started.end()


@pytest.fixture
def ahead(request: pytest.FixtureRequest, processes: Ahead,
          tmp_path_factory: pytest.TempPathFactory):
    """(folder, results) of the processes of this test."""
    if request.node.nodeid in processes.folders:
        yield processes.of(request.node.nodeid)
    else:
        own = Ahead([request.node], tmp_path_factory)
        yield own.of(request.node.nodeid)
        own.end()
