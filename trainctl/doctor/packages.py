"""Python and the packages that the engine needs."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib import metadata

from trainctl.doctor.finding import MISSING, OK, WARNING, Finding
from trainctl.doctor.view import View


def check(view: View) -> Iterator[Finding]:
    """Their versions. Nothing is imported: torch alone would take seconds."""
    yield Finding("python", OK, f"{platform.python_version()} ({sys.executable})")
    for package in ("torch", "torchvision", "scikit-learn", "pyautoattack"):
        try:
            yield Finding(package, OK, metadata.version(package))
        except metadata.PackageNotFoundError:
            status = MISSING if package == "torch" else WARNING
            yield Finding(package, status, "not installed", f"pip install {package}")
