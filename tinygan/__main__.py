"""``python -m tinygan`` and the command ``tinygan``: a process with the documented exit code whenever a signal comes."""

from __future__ import annotations

import os
import signal
from typing import Any


def main() -> int:
    """Run the command of ``sys.argv``. Ctrl-C makes the exit code 130, SIGTERM 143; a second signal ends it at once.

    While it trains, ``commands.stopping`` takes the signals instead. Before Python comes to this line (0.2 s), a signal
    kills the process, for which a shell shows the same codes.
    """
    caught: list[int] = []

    def stop(signum: int, frame: Any) -> None:
        if caught:
            os._exit(128 + signum)
        caught.append(signum)
        raise SystemExit(128 + signum)  # past ``except Exception``, and what is half written is removed on the way

    try:
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, stop)
        from .app.cli import main

        code = main()
    finally:
        for signum in (signal.SIGINT, signal.SIGTERM):  # for while Python puts itself away, where no handler can run
            signal.signal(signum, signal.SIG_IGN)
    return 128 + caught[0] if caught else code  # an exception raised while an object is deleted gets lost


if __name__ == "__main__":
    raise SystemExit(main())
