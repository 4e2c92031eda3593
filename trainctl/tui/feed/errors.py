"""An error in the words of a notice."""

from __future__ import annotations

from trainctl.cli.common import printable
from trainctl.errors import TrainctlError


def explain(error: Exception) -> str:
    """An error as a notice."""
    if isinstance(error, TrainctlError):
        return printable(f"{error}\n{error.hint}" if error.hint else str(error))
    return printable(f"{type(error).__name__}: {error}")
