"""The report of a run while it trains, on a page of this machine that renews itself.

It is read from the run's folder by a process of its own, so that the training does not wait for it.
The server answers one address, to which nothing can be sent, and only by the names of this machine:
another site's name that leads here (DNS rebinding) is refused, and no other site may read or frame
the page.
"""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ..training import GAN
from . import folder as files
from . import page, report
from .cli import say

LINGER = 5.0  # seconds in which a browser comes again for the page of a run that has ended


class Growing:
    """The page of the run in a folder, made anew when its checkpoint or run.json is."""

    def __init__(self, folder: Path, data: Any, bands: page.Bands) -> None:
        self.folder, self.data, self.bands = folder, data, bands
        self.lock, self.seen = threading.Lock(), [0, 0]  # when the files were written
        self.text, self.done, self.asked = "", False, -LINGER

    def __call__(self) -> str:
        with self.lock:
            self.asked = time.monotonic()
            seen = [(self.folder / name).stat().st_mtime_ns
                    for name in ("checkpoint.npz", "run.json")]
            if seen != self.seen:
                about = files.read_json(self.folder)
                gan = GAN.load(self.folder / "checkpoint.npz", device="cpu", X=self.data)
                self.done = about.get("exit") is not None
                about["written"] = datetime.fromtimestamp(seen[0] / 1e9, timezone.utc).isoformat(
                    timespec="seconds")
                self.text = page.page(gan, about, self.bands, live=not self.done)
                self.seen = seen
            return self.text


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # an answer is sent to its end

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # the browser has gone: nothing to say
            super().handle_error(request, client_address)


def server(render: Callable[[], str]) -> ThreadingHTTPServer:
    """A server of one page, on a free port of this machine alone. ``serve_forever`` starts it."""

    class Handler(BaseHTTPRequestHandler):
        timeout = LINGER  # for a request to arrive

        def do_GET(self) -> None:
            port = made.server_port
            if self.headers.get("Host") not in (f"127.0.0.1:{port}", f"localhost:{port}"):
                self.answer(403, "this page is for its own machine")
            elif self.path != "/":
                self.answer(404, "there is one page: /")
            else:
                try:
                    code, text, kind = 200, render(), "text/html"
                except Exception as error:  # of whatever kind: there is no page now
                    code, text, kind = 503, str(error) or type(error).__name__, "text/plain"
                self.answer(code, text, kind)

        def answer(self, code: int, text: str, kind: str = "text/plain") -> None:
            content = text.encode(errors="backslashreplace")
            self.send_response(code)
            for name, value in (("Content-Type", f"{kind}; charset=utf-8"),
                                ("Content-Length", str(len(content))),
                                ("Cache-Control", "no-store"),
                                ("X-Content-Type-Options", "nosniff"),
                                ("Cross-Origin-Resource-Policy", "same-origin"),
                                ("Content-Security-Policy", "frame-ancestors 'none'")):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            """Nothing: the terminal is the run's."""

    made = _Server(("127.0.0.1", 0), Handler)
    return made


def serve(growing: Growing, shown: bool) -> None:
    """Serve the page until the process is ended, or what writes to its standard input, if a pipe.

    The page of a run that has ended stays until a browser that has been watching has fetched it.
    """
    with server(growing) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{made.server_port}/"
        say(f"live     {address}   (only from this machine)")
        if shown:
            report.show(address)
        if sys.stdin and stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
            sys.stdin.read()
            while not growing.done and time.monotonic() - growing.asked < LINGER:
                time.sleep(0.1)
            made.shutdown()
        else:
            threading.Event().wait()


@contextlib.contextmanager
def watched(folder: Path, shown: bool) -> Iterator[None]:
    """Have ``tinygan watch`` serve the folder, in a process that Ctrl-C does not reach."""
    command = [sys.executable, "-m", "tinygan", "watch", os.path.abspath(folder)]
    child = subprocess.Popen(command + ["--show"] * shown, stdin=subprocess.PIPE,
                             start_new_session=True)
    try:
        yield
    finally:
        child.communicate()
