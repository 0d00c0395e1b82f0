"""``python -m tinygan`` and ``tinygan``: the documented exit code, whenever a signal comes."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any


def main() -> int:
    """Run the command of ``sys.argv``; exit code 130 after Ctrl-C, 143 after SIGTERM.

    A second signal ends the process at once. While it trains, ``commands.stopping`` takes the
    signals instead. Before Python reaches this line (0.2 s), a signal kills the process, for which
    a shell shows the same codes.
    """
    for stream in (sys.stdout, sys.stderr):  # names of files that the console cannot encode
        if stream:
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    caught: list[int] = []

    def stop(signum: int, frame: Any) -> None:
        if caught:
            os._exit(128 + signum)
        caught.append(signum)
        raise SystemExit(128 + signum)  # not an Exception; what is half written is cleaned up

    try:
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, stop)
        from .app.cli import main

        code = main()
    finally:
        for signum in (signal.SIGINT, signal.SIGTERM):  # while Python exits, no handler can run
            signal.signal(signum, signal.SIG_IGN)
    return 128 + caught[0] if caught else code  # an exception in a destructor gets lost


if __name__ == "__main__":
    raise SystemExit(main())
