"""Which file a recipe's name stands for.

`recipes/cifar100/trades.toml` is called `cifar100-trades`. Files and folders that begin with `_` are bases, to
be extended and not to be run. Anything with a slash or ending in .toml is a path.
"""

# os.path answers "no" where Path raises: a name that is too long, an unknown ~user.
# ruff: noqa: PTH109, PTH111, PTH112, PTH113, PTH118

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

from trainctl.errors import UsageError

LONG = 100  # characters of a name that are compared with others
LIST_HINT = "`trainctl recipes` lists the shipped ones; a path to a .toml file works too"


def shipped_folder() -> Path:
    """The recipes inside an installed package, else those of the source tree beside it."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "recipes_shipped"
    return installed if installed.is_dir() else package.parent / "recipes"


def shipped() -> dict[str, Path]:
    """Every shipped recipe by name, in alphabetical order."""
    files = shipped_folder().glob("[!_.]*/[!_.]*.toml")
    return dict(sorted((f"{file.parent.name}-{file.stem}", file) for file in files))


def recipe_name(file: Path) -> str:
    """`FOLDER-FILE` for a shipped recipe, the name of the file for any other."""
    folder = Path(os.path.realpath(file)).parent
    return f"{folder.name}-{file.stem}" if folder.parent == Path(os.path.realpath(shipped_folder())) else file.stem


def find(name_or_path: str) -> Path:
    """The file of a shipped recipe or of a path; UsageError, with the nearest name, if there is none."""
    named = not name_or_path.endswith(".toml") and "/" not in name_or_path
    known = shipped() if named else {}
    if name_or_path in known:
        return known[name_or_path]
    path = Path(os.path.expanduser(name_or_path))
    if os.path.isfile(path):
        return path
    if named:
        beside = f"{name_or_path}.toml"
        hint = f"did you mean {beside!r}?" if os.path.isfile(beside) else nearest(name_or_path, known)
        raise UsageError(f"there is no recipe {name_or_path!r}", hint)
    if os.path.isdir(path):
        names = sorted(file.name for file in path.glob("*.toml") if os.path.isfile(file))
        held = f"it holds {', '.join(names[:10])}" if names else LIST_HINT
        raise UsageError(f"{name_or_path} is a folder, and a recipe is a file", held)
    if os.path.lexists(path):
        raise UsageError(f"{name_or_path} is no regular file", LIST_HINT)
    neighbours = (str(path.parent / file.name) for file in path.parent.glob("*.toml"))
    raise UsageError(f"there is no file {name_or_path}", nearest(str(path), neighbours))


def find_base(name: str, extending: Path) -> Path:
    """The file that `extends = name` means inside `extending`: a recipe beside it, a path from there, or a shipped one.

    A file may be called like the shipped recipe that it extends. UsageError, with the nearest name, if there is none.
    """
    beside = extending.parent / os.path.expanduser(name if name.endswith(".toml") else f"{name}.toml")
    found = os.path.isfile(beside)
    if found and not _same(beside, extending):
        return Path(os.path.normpath(beside))
    known = shipped()
    if name in known:
        return known[name]
    if found:
        return beside  # itself
    neighbours = [file.stem for file in sorted(extending.parent.glob("*.toml")) if not _same(file, extending)]
    raise UsageError(f"there is no recipe {name!r} to extend", nearest(name, [*neighbours, *known]))


def display(file: Path) -> str:
    """The path as a person at this working directory would write it."""
    absolute = os.path.normpath(os.path.join(os.getcwd(), file))
    relative = os.path.relpath(absolute)
    return absolute if relative.startswith("..") else relative


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint with the known name most like `word`, or where to find the names."""
    close = difflib.get_close_matches(word[:LONG], list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else LIST_HINT


def _same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
