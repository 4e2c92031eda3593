"""An error in the words of a notice."""

from __future__ import annotations

import contextlib
import time
import traceback

from trainctl.cli.common import printable
from trainctl.errors import TrainctlError
from trainctl.home import Home

LOG = "dashboard.log"


def explain(error: Exception, home: Home | None = None) -> str:
    """An error as a notice. Of one that nobody foresaw the whole trace goes to dashboard.log of `home`."""
    if isinstance(error, TrainctlError):
        return printable(f"{error}\n{error.hint}" if error.hint else str(error))
    said = f"{type(error).__name__}: {error}"
    if home is not None:
        with contextlib.suppress(OSError), open(home.path / LOG, "a", encoding="utf-8") as log:
            log.write(time.strftime("%Y-%m-%d %H:%M:%S ") + "".join(traceback.format_exception(error)))
            said += f"\nThis should not have happened; {log.name} says where it did. Your runs are not touched."
    return printable(said)
