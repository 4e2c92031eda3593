"""`trainctl doctor`: what this machine has, what it lacks, and what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from trainctl.cli.common import HomeOption, JsonOption, emit_json, printable
from trainctl.errors import MACHINE, TrainctlError
from trainctl.home import Home, find_home

OK, WARNING, MISSING = "ok", "warning", "missing"
LOW_DISK = 2 << 30  # bytes
SQLITE_FIXED = (3, 51, 3)
NETWORK_FILESYSTEMS = ("nfs", "cifs", "smb", "fuse.sshfs", "lustre", "beegfs", "gpfs", "ceph", "glusterfs", "afs", "9p")


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `missing` means that trainctl cannot work without it."""

    check: str
    status: str
    detail: str
    hint: str = ""


def doctor(
    fix: Annotated[
        bool, typer.Option("--fix", help="Write down how lost runs ended, and serve the queue again.")
    ] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Check this machine: programs, GPUs, data sets, the home folder and its runs."""
    place = find_home(home)
    if fix:
        _fix(place)
    found = list(findings(place))
    if as_json:
        emit_json([asdict(finding) for finding in found])
    else:
        _table(found)
    if any(finding.status == MISSING for finding in found):
        raise typer.Exit(MACHINE)


def findings(home: Home) -> Iterator[Finding]:
    """All findings, the essential ones first."""
    checks: tuple[Callable[[Home], Iterator[Finding]], ...] = (
        _python, _home, _disk, _network, _sqlite, _gpus, _data, _runs, _logout,
    )  # fmt: skip
    for check in checks:
        yield from check(home)


def _python(home: Home) -> Iterator[Finding]:
    from importlib import metadata

    yield Finding("python", OK, f"{platform.python_version()} ({sys.executable})")
    for package in ("torch", "torchvision", "scikit-learn", "pyautoattack"):
        try:
            yield Finding(package, OK, metadata.version(package))
        except metadata.PackageNotFoundError:
            essential = package == "torch"
            status = MISSING if essential else WARNING
            yield Finding(package, status, "not installed", f"pip install {package}")


def _home(home: Home) -> Iterator[Finding]:
    try:
        home.create()
        probe = home.path / f".doctor.{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
        yield Finding("home", OK, str(home.path))
    except TrainctlError as error:
        yield Finding("home", MISSING, str(error), error.hint)
    except OSError as error:
        hint = "set TRAINCTL_HOME or --home to a folder that you may write"
        yield Finding("home", MISSING, f"{home.path} cannot be written: {error.strerror}", hint)


def _disk(home: Home) -> Iterator[Finding]:
    if not home.path.exists():
        return
    free = shutil.disk_usage(home.path).free
    shown = f"{free / (1 << 30):.1f} GiB free"
    enough = free >= LOW_DISK
    yield Finding("disk", OK if enough else WARNING, shown, "" if enough else "delete runs with `trainctl rm`")


def _network(home: Home) -> Iterator[Finding]:
    kind = filesystem(home.path)
    if kind.startswith(NETWORK_FILESYSTEMS):
        hint = "locks are weak there: use one machine at a time, or set TRAINCTL_HOME to a local disk"
        yield Finding("file system", WARNING, f"{kind} (network)", hint)
    else:
        yield Finding("file system", OK, kind or "unknown")


def filesystem(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """Type of the file system under `path`, "" if unknown."""
    best, kind = "", ""
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        parts = line.split()
        if len(parts) < 3:
            continue
        point = parts[1].replace("\\040", " ")
        # The later of two mounts on the same point is the one in use.
        if len(point) >= len(best) and path.resolve().is_relative_to(point):
            best, kind = point, parts[2]
    return kind


def _sqlite(home: Home) -> Iterator[Finding]:
    import sqlite3

    version = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info >= SQLITE_FIXED:
        yield Finding("sqlite", OK, version)
    else:
        detail = f"{version}: before 3.51.3 a rare race can damage an index that two processes write at once"
        yield Finding(
            "sqlite", WARNING, detail, "only one process writes here at a time; `trainctl reindex` rebuilds it"
        )


def _gpus(home: Home) -> Iterator[Finding]:
    from trainctl.launch import slots

    numbers = slots.gpus()
    shown = f"{len(numbers)}: {', '.join(numbers)}" if numbers else "none; runs share the cores"
    yield Finding("gpus", OK, shown)
    yield Finding("cores", OK, str(slots.cores()))


def _data(home: Home) -> Iterator[Finding]:
    import platformdirs

    from engine import options

    root = Path(os.environ.get("TRAINCTL_DATA") or platformdirs.user_cache_dir("trainctl")).expanduser().absolute()
    for name, entry in options.catalog("DataSource").items():
        places = [root / place for place in entry.constants.get("found_at", ())]
        found = [place for place in places if place.exists()]
        if found or not places:
            yield Finding(f"data: {name}", OK, str(found[0]) if found else entry.summary)
        else:
            hint = "it is downloaded when a run needs it, or put it there; TRAINCTL_DATA names another folder"
            yield Finding(f"data: {name}", WARNING, f"not at {places[0]}", hint)


def _runs(home: Home) -> Iterator[Finding]:
    from collections import Counter

    from trainctl.launch import scheduler

    try:
        status = {run.id: run.status() for run in home.run_dirs()}
        serves = scheduler.alive(home) if home.path.exists() else False
    except (OSError, TrainctlError) as error:
        yield Finding("runs", WARNING, str(error))
        return
    counts = Counter(status.values())
    yield Finding("runs", OK, ", ".join(f"{n} {name}" for name, n in sorted(counts.items())) or "none")
    if counts["queued"] and not serves:
        yield Finding("scheduler", WARNING, f"none, but {counts['queued']} run(s) are queued", "trainctl doctor --fix")
    else:
        yield Finding("scheduler", OK, "at work" if serves else "not needed now")
    lost = [run_id for run_id, now in status.items() if now == "lost"]
    if lost:
        hint = f"trainctl resume {' '.join(lost[:5])}; or `trainctl doctor --fix` writes them down as killed"
        yield Finding("lost runs", WARNING, f"{len(lost)}: their process vanished without a word", hint)


def _logout(home: Home, configuration: Path = Path("/etc/systemd/logind.conf")) -> Iterator[Finding]:
    """Whether a log-out would kill runs that go on without a terminal."""
    try:
        lines = [line.strip().lower().replace(" ", "") for line in configuration.read_text().splitlines()]
    except OSError:
        return
    if "killuserprocesses=yes" in lines:
        hint = "`loginctl enable-linger`, or start trainctl with `systemd-run --user --scope`"
        yield Finding("log-out", WARNING, "systemd kills what is left at log-out (KillUserProcesses=yes)", hint)


def _fix(home: Home) -> None:
    from trainctl.launch import processes, scheduler

    home.create()
    for run in home.run_dirs():
        try:
            with processes.claim(run):
                if run.status() == "lost":
                    processes.record_end(run, "killed", reason="its process vanished without a word")
        except processes.Busy:
            continue
    if any(run.status() == "queued" for run in home.run_dirs()):
        scheduler.ensure(home)


def _table(found: list[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    from trainctl.cli.common import console

    styles = {OK: "green", WARNING: "yellow", MISSING: "bold red"}
    table = Table.grid(padding=(0, 2))
    for finding in found:
        about = Text(printable(finding.detail), overflow="fold")
        if finding.hint:
            about.append(f"\n{finding.hint}", style="dim")
        table.add_row(finding.check, Text(finding.status, style=styles[finding.status]), about)
    console().print(table)
