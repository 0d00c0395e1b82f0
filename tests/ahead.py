"""Processes that tests look at, run ahead of them: work for a second core.

``@pytest.mark.ahead(commands=commands)`` marks a test whose fixture ``ahead`` is (folder, results).
``commands(folder, **parameters of the test)`` may put files into the empty folder and returns what
is to be run in it, one after another: a list of (arguments, changes of the environment). With the
session a process beside pytest starts on them, in the order of the tests. Not a thread of pytest's
own: tests here count objects, files and memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class Ahead:
    """The processes of some tests."""

    def __init__(self, items: list[Any], factory: Any) -> None:
        self.folders = {item.nodeid: factory.mktemp("ahead") for item in items}
        self.results: dict[str, list[subprocess.CompletedProcess[str]]] = {}
        jobs = []
        for item in items:
            commands = item.get_closest_marker("ahead").kwargs["commands"]
            folder = self.folders[item.nodeid]
            parameters = item.callspec.params if hasattr(item, "callspec") else {}
            jobs.append([item.nodeid, str(folder), commands(folder, **parameters)])
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1",
                       "TINYGAN_DEVICE": "", "TINYGAN_CACHE": str(factory.getbasetemp() / "cache")}
        self.process = subprocess.Popen([sys.executable, __file__], env=environment, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        json.dump(jobs, self.process.stdin)
        self.process.stdin.close()

    def of(self, test: str) -> tuple[Path, list[subprocess.CompletedProcess[str]]]:
        """The folder and the results of a test, as soon as they are there."""
        while test not in self.results:
            done, results = json.loads(self.process.stdout.readline())
            self.results[done] = [subprocess.CompletedProcess(*result) for result in results]
        return self.folders[test], self.results[test]

    def end(self) -> None:
        """Begin nothing that nobody waits for any more."""
        with self.process:
            self.process.terminate()


def main() -> None:
    for test, folder, commands in json.load(sys.stdin):
        results = []
        for arguments, changes in commands:
            done = subprocess.run(arguments, cwd=folder, env={**os.environ, **changes},
                                  stdin=subprocess.DEVNULL, capture_output=True)
            results.append([arguments, done.returncode,
                            *(out.decode("utf-8", "surrogateescape")
                              for out in (done.stdout, done.stderr))])
        print(json.dumps([test, results]), flush=True)


if __name__ == "__main__":
    main()
