"""The code of a run is frozen when it is queued, so that it does what was looked at then, also after a kill.

    HOME/code/<12 hex>/engine/      the engine, its Python files only
                       plugins/N/   those of the Nth folder of TRAINCTL_PLUGINS
                       code.json    where they come from (see engine/source.py)

A copy is named by a hash over its names and contents. So a thousand runs share one, and it is known at any time
whether it is still what was frozen. What a plug-in reads beside Python files is not copied.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine import options, rundir, source
from engine.rundir import replace, sync_folder
from trainctl import __version__
from trainctl.errors import MachineError, refused
from trainctl.home import Home

NAME = re.compile(r"[0-9a-f]{12}")
UNFINISHED = ".new-"  # how the name of a copy begins that is still being written
SYNCED = 16  # files that are synced at a time: the disk takes them together, in a fifth of the time
KEPT = 3600.0  # seconds for which a copy is kept that no run names: one may be about to


def freeze(home: Home) -> str:
    """Copy the engine and the plug-ins as they are at this moment, unless they were copied already; the copy's name.

    MachineError if it cannot be written.
    """
    try:
        plugins = _plugins()
        return _keep(home, _read(options.PACKAGE, plugins), plugins)
    except OSError as error:
        raise refused(f"cannot freeze the code in {_folder(home)}", error) from None


def find(home: Home, name: Any) -> Path:
    """The copy called `name`, whole. MachineError if it has gone or was changed, and is not today's code either."""
    if isinstance(name, str) and NAME.fullmatch(name):
        copy = _folder(home) / name
        if _intact(copy):
            return copy
        with suppress(OSError):
            plugins = _plugins()
            files = _read(options.PACKAGE, plugins)
            if _digest(files) == name:
                _keep(home, files, plugins)
                return copy
    raise MachineError(
        f"the code that was frozen for it has gone or was changed: {_folder(home) / str(name)}",
        "`trainctl resume --new-code` goes on with today's, `trainctl retry` begins anew with today's",
    )


def check(home: Home, name: Any) -> None:
    """As `find`, but it only looks whether the copy is there: for many runs at a time."""
    if not (isinstance(name, str) and NAME.fullmatch(name) and (_folder(home) / name / source.NOTE).is_file()):
        find(home, name)


def environment(copy: Path) -> dict[str, str]:
    """The environment in which `python -m engine` is the engine of `copy`, with its plug-ins and no others."""
    path = [str(copy), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(path), "TRAINCTL_PLUGINS": os.pathsep.join(map(str, _plugins_of(copy)))}


def unused(home: Home) -> list[Path]:
    """Copies that no run names, and what was left of unfinished ones, if nobody froze anything there for an hour."""
    named = _named(home)
    if named is None:
        return []
    found = []
    with suppress(FileNotFoundError), os.scandir(_folder(home)) as entries:
        for entry in entries:
            ours = NAME.fullmatch(entry.name) or entry.name.startswith(UNFINISHED)
            with suppress(FileNotFoundError):
                old = time.time() - entry.stat(follow_symlinks=False).st_mtime > KEPT
                if ours and old and entry.name not in named and entry.is_dir(follow_symlinks=False):
                    found.append(Path(entry.path))
    return sorted(found)


def _named(home: Home) -> set[str] | None:
    """The copies that runs name; None if one cannot be read, or `runs` is a link to a disk that is away: who knows."""
    named = set()
    try:
        with os.scandir(home.runs) as entries:
            for entry in entries:
                with suppress(FileNotFoundError, NotADirectoryError):  # it is no run
                    named.add(str(json.loads(rundir.content(f"{entry.path}/run.json")).get("code")))
    except (OSError, ValueError, RecursionError, AttributeError):
        return None
    return named


def _folder(home: Home) -> Path:
    return home.path / "code"


def _plugins() -> list[Path]:
    """The plug-in folders that have anything in them."""
    return [folder for folder in options.plugin_folders() if _python(folder)]


def _plugins_of(copy: Path) -> list[Path]:
    try:
        numbers = sorted(int(entry.name) for entry in (copy / "plugins").iterdir() if entry.name.isdecimal())
    except FileNotFoundError:
        return []
    return [copy / "plugins" / str(number) for number in numbers]


def _python(folder: Path) -> dict[str, Path]:
    """The Python files of `folder` and of packages in it, by their names below it; no links to folders."""
    found = {}
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.name.endswith(".py") and entry.is_file():
                found[entry.name] = Path(entry.path)
            elif entry.is_dir(follow_symlinks=False) and Path(entry.path, "__init__.py").is_file():
                inner = _python(Path(entry.path))
                found |= {f"{entry.name}/{name}": path for name, path in inner.items()}
    return found


def _read(engine: Path, plugins: Sequence[Path]) -> dict[str, bytes]:
    """Contents of all Python files, by their names in a copy."""
    folders = {"engine": engine} | {f"plugins/{number}": folder for number, folder in enumerate(plugins)}
    return {
        f"{place}/{name}": path.read_bytes()
        for place, folder in folders.items()
        for name, path in _python(folder).items()
    }


def _digest(files: dict[str, bytes]) -> str:
    sums = hashlib.sha256()
    for name, content in sorted(files.items()):
        sums.update(f"{len(os.fsencode(name))} {len(content)} ".encode() + os.fsencode(name) + content)
    return sums.hexdigest()[:12]


def _intact(copy: Path) -> bool:
    try:
        return _digest(_read(copy / "engine", _plugins_of(copy))) == copy.name and (copy / source.NOTE).is_file()
    except OSError:
        return False


def _keep(home: Home, files: dict[str, bytes], plugins: Sequence[Path]) -> str:
    """See to it that there is a whole copy of `files`; its name."""
    copy = _folder(home) / _digest(files)
    if _intact(copy):
        with suppress(OSError):  # it is another user's
            os.utime(copy)  # so that it is not `unused` before the run is written that names it
    elif copy.exists():
        _mend(copy, files, plugins)
    else:
        copy.parent.mkdir(exist_ok=True)
        _write(copy, files, plugins)
    return copy.name


def _write(copy: Path, files: dict[str, bytes], plugins: Sequence[Path]) -> None:
    """Write a copy under another name and rename it, so that it is there whole or not at all."""
    from concurrent.futures import ThreadPoolExecutor

    unfinished = copy.with_name(f"{UNFINISHED}{secrets.token_hex(6)}")

    def write(name: str, content: bytes) -> None:
        with (unfinished / name).open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    files = {**files, source.NOTE: _note(plugins)}
    places = {(unfinished / name).parent for name in files}
    try:
        for folder in places:
            folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(SYNCED) as pool:
            list(pool.map(write, *zip(*files.items(), strict=True)))
        for folder in places:
            sync_folder(folder)
        unfinished.rename(copy)
        sync_folder(copy.parent)
    except OSError:
        if not _intact(copy):  # else somebody was faster
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _mend(copy: Path, files: dict[str, bytes], plugins: Sequence[Path]) -> None:
    """Make a damaged copy what its name says, file by file, for runs may be at work with it."""
    for place in (copy / "engine", *_plugins_of(copy)):
        for path in _python(place).values():
            if str(path.relative_to(copy)) not in files:
                path.unlink()
    lacking = {} if (copy / source.NOTE).is_file() else {source.NOTE: _note(plugins)}
    for name, content in {**files, **lacking}.items():
        path = copy / name
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, content)


def _note(plugins: Sequence[Path]) -> bytes:
    """Content of code.json."""
    note = {
        "trainctl": __version__,
        "t": time.time(),
        "git": source.commit(options.PACKAGE.parent),
        "plugins": [str(folder.absolute()) for folder in plugins],
    }
    return json.dumps(note, indent=1).encode() + b"\n"
