"""The dashboard of one browser tab: `python -m trainctl.serve HOME`, started by the server with its pipes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

from trainctl.home import Home

PATIENCE = 5.0  # seconds


def main() -> None:
    """Run the dashboard until the tab is closed or the server has gone."""
    os.setsid()  # Ctrl-C is for the server, which ends its dashboards itself
    from trainctl.tui.app import Dashboard

    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    Dashboard(Home(Path(sys.argv[1]))).run()


def _end_with(parent: int) -> None:
    """End this process once `parent` has gone without a word; at once if it does not listen."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE)
    os._exit(1)


if __name__ == "__main__":
    main()
