"""TRAINCTL_HOME: the folder of the index and of all runs."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from engine.rundir import RunDir
from trainctl.errors import MachineError, refused
from trainctl.filesystem import filesystem, is_network

OTHER = "set TRAINCTL_HOME or --home to another folder"


@dataclass(frozen=True)
class Home:
    """Paths inside a home folder."""

    path: Path

    @property
    def index(self) -> Path:
        """index.db: a cache over the run folders, safe to delete; see `index_place` and `index_in_memory`."""
        return _IN_MEMORY.get(self) or index_place(self)[0]

    @property
    def runs(self) -> Path:
        """runs/: one folder a run, the truth."""
        return self.path / "runs"

    def run(self, run_id: str) -> RunDir:
        """The folder of one run."""
        return RunDir(self.runs / run_id)

    def run_dirs(self) -> list[RunDir]:
        """All run folders that hold a run.json, in the order of their ids; MachineError if they cannot be listed."""
        try:
            names = sorted(entry.name for entry in os.scandir(self.runs) if not entry.name.startswith("."))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise refused(f"cannot list the runs in {self.runs}", error) from None
        # Unlike pathlib's, this is False, no error, for a folder into which one may not look.
        return [self.run(name) for name in names if os.path.exists(f"{self.runs}/{name}/run.json")]  # noqa: PTH110

    def create(self) -> Home:
        """Make the folders; MachineError if that is not allowed."""
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MachineError(
                f"cannot write the home folder {self.path}: {error.strerror}",
                "set TRAINCTL_HOME or --home to a folder that you may write",
            ) from None
        return self


@lru_cache(maxsize=64)
def index_place(home: Home) -> tuple[Path, str]:
    """Where the index of `home` lies, and why it does not lie in the home, "" if it does.

    SQLite's WAL shares memory between processes, which a network file system cannot. The index is a cache, so each
    machine then has its own, on its own disk: in the user's cache folder (which XDG_CACHE_HOME moves), else, if that
    lies on a network too, in the folder for temporary files. The runs stay where they are.
    """
    kind = filesystem(home.path)
    if not is_network(kind):
        return home.path / "index.db", ""
    import hashlib
    import tempfile

    import platformdirs

    name = hashlib.sha256(os.fsencode(os.path.realpath(home.path))).hexdigest()[:16]
    folders = (Path(platformdirs.user_cache_dir("trainctl")), Path(tempfile.gettempdir(), f"trainctl-{os.getuid()}"))
    for folder in folders:
        if not is_network(filesystem(folder)) and _ours(folder):
            return folder / "indexes" / name / "index.db", f"{home.path} is on {kind}, a network file system"
    return home.path / "index.db", ""


_IN_MEMORY: dict[Home, Path] = {}


def index_in_memory(home: Home) -> None:
    """From now on the index of `home` lies in memory, for this process alone and until it ends; OSError if it cannot.

    Where the machine has no file system in memory it lies in the folder for temporary files. A process holds a lock on
    its folder, so that what killed ones left can be told and is deleted.
    """
    import atexit
    import fcntl
    import shutil
    import tempfile

    if home in _IN_MEMORY:
        return
    memory = "/dev/shm"
    place = memory if os.access(memory, os.W_OK) else tempfile.gettempdir()
    for left in Path(place).glob("trainctl-memory-*"):
        with suppress(OSError), _opened(left) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left)
    while True:
        folder = tempfile.mkdtemp(prefix="trainctl-memory-", dir=place)
        with suppress(FileNotFoundError):
            held = os.open(folder, os.O_RDONLY)  # closed by the end of the process
            fcntl.flock(held, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(held), os.stat(folder)):  # noqa: PTH116
                break  # else another process took it for left, before it had its lock
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _IN_MEMORY[home] = Path(folder, "index.db")


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _ours(folder: Path) -> bool:
    """Not made by somebody else, who could do so in a folder for temporary files."""
    try:
        return folder.lstat().st_uid == os.getuid()
    except FileNotFoundError:
        return True
    except OSError:
        return False


def find_home(given: str | None = None) -> Home:
    """--home, else TRAINCTL_HOME, else the platform's user data folder.

    MachineError if that is there and no folder or a closed one, or if its path cannot be written in JSON or in
    PYTHONPATH.
    """
    chosen = given or os.environ.get("TRAINCTL_HOME")
    if not chosen:
        import platformdirs

        chosen = platformdirs.user_data_dir("trainctl")
    path = Path(chosen).expanduser().absolute()
    if os.pathsep in str(path):
        raise MachineError(
            f"no code can be run from the home {str(path)!r}: it has a {os.pathsep!r} in its path", OTHER
        )
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise MachineError(f"the path of the home {str(path)!r} is not UTF-8", OTHER) from None
    _check(path)
    return Home(path)


def _check(path: Path) -> None:
    """MachineError if `path` can be no home: a home into which one may not look must not be taken for an empty one."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise MachineError(f"the home {path} is a link to {path.readlink()}, which is not there", OTHER) from None
        return
    except OSError as error:
        raise refused(f"cannot look into the home {path}", error) from None
    if not stat.S_ISDIR(mode):
        raise MachineError(f"the home {path} is not a folder", OTHER)
    if not os.access(path, os.X_OK):
        raise refused(f"cannot look into the home {path}", OSError(errno.EACCES, os.strerror(errno.EACCES)))
