"""Tests on two processes, for a second core: each takes the next file of tests when it is free.

The second one is forked after the tests were collected; the first shows its reports as its own.
(pytest-xdist does much more, but the tests are to need no package beside pytest and hypothesis.)
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import groupby
from typing import Any, TextIO

import pytest


def worth_it(session: pytest.Session) -> bool:
    """Whether there are two cores and files, and nobody looks on or shares out the tests."""
    option = session.config.option
    alone = option.capture == "no" or option.usepdb or option.collectonly or session.testsfailed
    shared_out = "PYTEST_XDIST_WORKER" in os.environ or getattr(option, "numprocesses", None)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    several = len({item.path for item in session.items}) > 1
    return cores > 1 and several and not alone and not shared_out


def run(session: pytest.Session) -> None:
    """Run all tests of a session."""
    files = [[*group] for _, group in groupby(session.items, key=lambda item: item.path)]
    files.sort(key=lambda items: -items[0].path.stat().st_size)  # the last ones are short
    taken = multiprocessing.get_context("fork").Value("i", 0)
    session.config._tmp_path_factory.getbasetemp()  # now, so that it is that of both
    with tempfile.NamedTemporaryFile("r") as reports, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: BLAS has one
        second = os.fork()
        if second == 0:
            code = 1
            try:
                be_second(session, files, taken, reports.name)
                code = 0
            finally:
                os._exit(code)
        try:
            run_files(session, files, taken, lambda: show(session, reports))
            _, status = os.waitpid(second, 0)
            second = 0
            show(session, reports)
        finally:
            if second:
                os.kill(second, signal.SIGKILL)
                os.waitpid(second, 0)
    if status:
        raise session.Interrupted(f"the second process broke off (status {status})")


def run_files(session: pytest.Session, files: list[list[pytest.Item]], taken: Any,
              after_each: Callable[[], None]) -> None:
    """Run tests of files that nobody else has taken, as long as there are some."""
    def items() -> Iterator[pytest.Item]:
        while True:
            with taken.get_lock():
                number, taken.value = taken.value, taken.value + 1
            if number >= len(files):
                return
            yield from files[number]

    left = items()
    item = next(left, None)
    while item:
        following = next(left, None)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        after_each()
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        item = following


def be_second(session: pytest.Session, files: list[list[pytest.Item]], taken: Any,
              path: str) -> None:
    """Run tests, silently, and write their reports to a file, while the first process lives."""
    plugins, hook, first = session.config.pluginmanager, session.config.hook, os.getppid()
    capture = plugins.getplugin("capturemanager")
    capture.stop_global_capturing()  # the first process goes on with those files
    capture.start_global_capturing()
    plugins.unregister(plugins.getplugin("terminalreporter"))
    with open(path, "a") as out:
        class Reporter:
            def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
                data = hook.pytest_report_to_serializable(config=session.config, report=report)
                out.write(json.dumps(data) + "\n")
                out.flush()

        plugins.register(Reporter())
        with suppress(session.Failed):  # the first process is to say so
            run_files(session, files, taken, lambda: os.getppid() == first or os._exit(1))


def show(session: pytest.Session, reports: TextIO) -> None:
    """Report what the second process has written since the last time."""
    hook, place = session.config.hook, reports.tell()
    while (line := reports.readline()).endswith("\n"):
        place = reports.tell()
        data = json.loads(line)
        if isinstance(data["longrepr"], list):
            data["longrepr"] = tuple(data["longrepr"])  # of a skipped test
        report = hook.pytest_report_from_serializable(config=session.config, data=data)
        hook.pytest_runtest_logreport(report=report)
    reports.seek(place)  # of a line that is not whole yet
