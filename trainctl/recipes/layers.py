"""A recipe file merged with the files it extends, and where each value came from. Nothing is checked yet.

Recipes may come from strangers, so reading one is bounded: in size, in keys, in depth, in files. What it may extend
is any .toml file that its reader can read; so no message quotes a line of a file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import tomli

from engine.recipe import dotted
from trainctl.errors import UsageError
from trainctl.recipes import locate
from trainctl.recipes.lines import MAX_DEPTH, Key, key_lines
from trainctl.recipes.problems import Located, Origin, RecipeProblems
from trainctl.recipes.settings import Setting

MAX_BYTES, MAX_KEYS = 64 * 1024, 1000  # of a recipe and all it extends together
MAX_BASES, MAX_CHAIN, MAX_FILES = 16, 32, 200
Table = dict[str, Any]


@dataclass(frozen=True)
class Layers:
    """The merged table of a recipe, the files it came from (the recipe itself first), and mistakes made so far."""

    name: str
    files: tuple[str, ...]
    table: Table
    origins: dict[Key, Origin]
    problems: tuple[Located, ...] = ()

    def set(self, settings: Iterable[Setting]) -> Layers:
        """The same with values of the command line laid over it."""
        table, origins = self.table, dict(self.origins)
        for setting in settings:
            origin = Origin(setting.label)
            inside: Any = table
            for end, part in enumerate(setting.key[:-1], start=1):
                inside = inside.get(part) if isinstance(inside, dict) else None
                if not isinstance(inside, dict):  # the setting makes this table, or puts it in place of a value
                    origins[setting.key[:end]] = origin
            origins |= {(*setting.key, *key): origin for key in ((), *_keys(setting.value))}
            nested: Any = setting.value
            for part in reversed(setting.key):
                nested = {part: nested}
            table = merge(table, nested)
        return replace(self, table=table, origins=origins)

    def origin(self, key: str) -> Origin:
        """Where `key` was set, else the table it belongs in, else the recipe's own file."""
        while key:
            if key in self._places:
                return self._places[key]
            key = key.rpartition(".")[0]
        return Origin(self.files[0])

    @cached_property
    def _places(self) -> dict[str, Origin]:
        return {dotted(path): origin for path, origin in self.origins.items()}


def read_layers(name_or_path: str) -> Layers:
    """Read a recipe and all it extends. RecipeProblems if there is no such recipe; what is wrong inside the files
    is kept in `problems`, so that it can be shown together with what `check` finds.
    """
    try:
        file = locate.find(name_or_path)
    except UsageError as error:
        raise RecipeProblems([Located("", None, "", str(error), error.hint)]) from None
    reader = _Reader()
    table, origins = reader.read(file, ())
    return Layers(locate.recipe_name(file), tuple(reader.files), table, origins, tuple(reader.problems))


def merge(below: Table, above: Table) -> Table:
    """A new table: tables are merged key by key, of anything else the one above wins."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


class _Reader:
    """Reads files that extend each other, each once."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.problems: list[Located] = []
        self.done: dict[str, tuple[Table, dict[Key, Origin]]] = {}
        self.bytes, self.keys = 0, 0

    def read(self, file: Path, chain: tuple[Path, ...]) -> tuple[Table, dict[Key, Origin]]:
        identity = os.path.realpath(file)
        if identity in self.done:
            return self.done[identity]
        self.files.append(locate.display(file))
        try:
            own, lines = self._parse(file)
        except RecipeProblems as error:
            self.problems += error.problems
            own, lines = {}, {}
        table: Table = {}
        origins: dict[Key, Origin] = {}
        where = Origin(locate.display(file), lines.pop(("extends",), None))
        for base in self._bases(own.pop("extends", []), file, where, (*chain, file)):
            base_table, base_origins = self.read(base, (*chain, file))
            table = merge(table, base_table)
            origins |= base_origins
        origins |= {key: Origin(where.file, line) for key, line in lines.items()}
        self.done[identity] = merge(table, own), origins
        return self.done[identity]

    def _bases(self, extends: object, file: Path, where: Origin, chain: tuple[Path, ...]) -> Iterator[Path]:
        """The files that `extends` names, each looked at before the next one is read."""
        names = [extends] if isinstance(extends, str) else extends
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            self._report(where, "expected the name of a recipe, or a list of names", 'as in extends = "_base"')
            return
        if len(names) > MAX_BASES:
            self._report(where, f"more than {MAX_BASES} recipes", "is this a recipe?")
            return
        for name in names:
            try:
                base = locate.find_base(name, file)
            except UsageError as error:
                self._report(where, str(error), error.hint)
                continue
            circle = [link for link in chain if os.path.realpath(link) == os.path.realpath(base)]
            if circle:
                links = [*chain[chain.index(circle[0]) :], base]
                names_of = " → ".join(link.name for link in links)
                self._report(where, f"the recipes extend each other in a circle: {names_of}", "take one `extends` away")
            elif len(chain) >= MAX_CHAIN or len(self.files) >= MAX_FILES:
                self._report(where, f"more than {MAX_CHAIN} recipes one above the other, or {MAX_FILES} in all", "")
            else:
                yield base

    def _parse(self, file: Path) -> tuple[Table, dict[Key, int]]:
        """The table of one file and the lines of its keys; RecipeProblems if it is not acceptable TOML."""
        name = locate.display(file)
        text = _decoded(self._content(file, name), name)
        table = _table(text, name)
        lines = key_lines(text)
        deepest = max(lines, key=len, default=())
        if len(deepest) > MAX_DEPTH:
            raise _bad(name, lines[deepest], f"tables nested deeper than {MAX_DEPTH} levels")
        self.keys += len(lines)
        if self.keys > MAX_KEYS:
            raise _bad(name, None, f"more than {MAX_KEYS} keys", "is this a recipe?")
        return table, lines

    def _content(self, file: Path, name: str) -> bytes:
        left = MAX_BYTES - self.bytes
        try:
            with open(file, "rb") as stream:
                data = stream.read(left + 1)  # what the folder says of the size need not be true
        except OSError as error:
            raise _bad(name, None, f"cannot be read: {error.strerror}") from None
        self.bytes += len(data)
        if len(data) > left:
            raise _bad(name, None, f"larger than {MAX_BYTES // 1024} KiB", "is this a recipe?")
        return data

    def _report(self, where: Origin, message: str, hint: str) -> None:
        self.problems.append(Located(where.file, where.line, "extends", message, hint))


def _table(text: str, name: str) -> Table:
    """The table that `text` holds; RecipeProblems if it is no TOML."""
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        message = error.msg[:1].lower() + error.msg[1:]
        raise _bad(name, error.lineno, f"not TOML: {message}", column=error.colno) from None
    except ValueError:  # Python's own limit on the digits of a number
        number = re.search(r"[0-9_]{4000,}", text)
        line = text.count("\n", 0, number.start()) + 1 if number else None
        raise _bad(name, line, "a number has too many digits") from None
    except RecursionError:
        raise _bad(name, None, "nested too deeply to be read") from None


def _decoded(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"not UTF-8: byte 0x{data[error.start]:02x}"
        raise _bad(name, line, message, "save the file as UTF-8") from None


def _bad(file: str, line: int | None, message: str, hint: str = "", column: int | None = None) -> RecipeProblems:
    return RecipeProblems([Located(file, line, "", message, hint, column)])


def _keys(value: object) -> Iterator[Key]:
    """The keys inside a table that an option gives."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield (key,)
            yield from ((key, *rest) for rest in _keys(part))
