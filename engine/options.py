"""What a method, a term or a data set can be told, read from its source without importing it.

A method (or term, or data set) is one file with one class, and its options are that class's annotated fields::

    @dataclass(frozen=True)
    class Trades(Method):
        beta: float = option(6.0, ge=0.0, help="weight of the KL term")

The command line must know them to check a recipe, but it must not import torch, which such a file needs.
So `catalog` parses the files instead of importing them. The price is that defaults and bounds are literals.

Files are looked for in the package's own folder and in the folders named by TRAINCTL_PLUGINS (separated as
in PATH). It is an environment variable and no recipe key because a recipe may come from a stranger, and a
plug-in runs code.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = Path(__file__).parent
KINDS = {"Method": "methods", "Term": "regularizers", "DataSource": "data"}  # base class -> folder of the package
TYPES: dict[str, type] = {"float": float, "int": int, "bool": bool, "str": str}


@dataclass(frozen=True)
class Option:
    """One setting: its type, default and bounds (`ge`, `gt`, `le`, `lt`, `choices`)."""

    type: type
    default: Any
    bounds: dict[str, Any]
    help: str = ""


@dataclass(frozen=True)
class Entry:
    """A method, term or data set: where it stands, what its docstring says, its options and literal class constants."""

    name: str
    path: Path
    summary: str
    options: dict[str, Option]
    constants: dict[str, Any]


def option(default: Any, *, help: str = "", **bounds: Any) -> Any:
    """Declare a dataclass field as an option. Bounds: ge, gt, le, lt (numbers) or choices (a tuple of strings)."""
    return dataclasses.field(default=default, metadata={"help": help, **bounds})


def plugin_folders() -> list[Path]:
    """The folders named by TRAINCTL_PLUGINS, in order."""
    return [Path(part).expanduser() for part in os.environ.get("TRAINCTL_PLUGINS", "").split(os.pathsep) if part]


def catalog(kind: str) -> dict[str, Entry]:
    """Every method (`kind="Method"`), term (`"Term"`) or data set (`"DataSource"`) by name.

    Plug-ins come last, so they may replace one. Raises SyntaxError or ValueError (naming the file) for a file that
    cannot be read this way.
    """
    folders = [PACKAGE / KINDS[kind], *plugin_folders()]
    entries: dict[str, Entry] = {}
    for folder in folders:
        for path, stat in _sources(folder):
            for entry in _read(path, kind, stat.st_mtime_ns, stat.st_size):
                entries[entry.name] = entry
    return entries


def _sources(folder: Path) -> list[tuple[str, os.stat_result]]:
    """The Python files of `folder` by name. As strings, since every recipe asks, and paths take five times as long."""
    try:
        with os.scandir(folder) as found:
            files = [file for file in found if file.name.endswith(".py") and file.name[0] not in "._"]
            return sorted((file.path, file.stat()) for file in files)
    except (FileNotFoundError, NotADirectoryError):
        return []


def readable(kind: str) -> dict[str, Entry]:
    """As `catalog`, but empty where a file cannot be read: a broken plug-in must not hide the runs there are."""
    try:
        return catalog(kind)
    except (SyntaxError, ValueError, OSError):
        return {}


def constants(method: str, terms: Iterable[str], name: str) -> list[Any]:
    """The class constant `name` of a method and of terms, of each that has it; unknown ones have none."""
    known = readable("Term")
    entries = [readable("Method").get(method), *map(known.get, terms)]
    return [entry.constants[name] for entry in entries if entry is not None and entry.constants.get(name)]


def load_class(entry: Entry) -> type:
    """Import the file of `entry` and return its class."""
    module = _import(entry.path)
    for value in vars(module).values():
        if isinstance(value, type) and value.__module__ == module.__name__ and _name(value.__name__) == entry.name:
            return value
    raise ValueError(f"{entry.path}: no class for {entry.name!r} after import")


@cache
def _read(path: str, kind: str, mtime: int, size: int) -> tuple[Entry, ...]:
    file = Path(path)
    tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    return tuple(
        _entry(node, file)
        for node in tree.body
        if isinstance(node, ast.ClassDef) and any(isinstance(b, ast.Name) and b.id == kind for b in node.bases)
    )


def _entry(node: ast.ClassDef, file: Path) -> Entry:
    options: dict[str, Option] = {}
    constants: dict[str, Any] = {}
    for item in node.body:
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name) or item.value is None:
            continue
        where = f"{file}:{item.lineno}"
        if isinstance(item.value, ast.Call) and getattr(item.value.func, "id", "") == "option":
            options[item.target.id] = _option(item, item.value, where)
        else:
            try:
                constants[item.target.id] = ast.literal_eval(item.value)
            except ValueError:
                continue  # a computed constant is the class's own business
    summary = (ast.get_docstring(node) or "").split("\n")[0]
    return Entry(_name(node.name), file, summary, options, constants)


def _option(item: ast.AnnAssign, call: ast.Call, where: str) -> Option:
    kind = TYPES.get(ast.unparse(item.annotation))
    if kind is None:
        raise ValueError(f"{where}: an option is one of {', '.join(TYPES)}, not {ast.unparse(item.annotation)}")
    try:
        default = ast.literal_eval(call.args[0])
        words = {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg}
    except (ValueError, IndexError):
        raise ValueError(f"{where}: an option's default and bounds are written as literals") from None
    text = str(words.pop("help", ""))
    return Option(kind, default, words, text)


def _name(class_name: str) -> str:
    """CamelCase to the name used in recipes: FashionMnist -> fashion-mnist, Cifar10 -> cifar10."""
    spaced = "".join("-" + c.lower() if c.isupper() else c for c in class_name)
    return spaced.lstrip("-")


def _import(path: Path) -> ModuleType:
    if path.is_relative_to(PACKAGE):
        return importlib.import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
    name = f"trainctl_plugin_{path.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ValueError(f"{path}: not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]
