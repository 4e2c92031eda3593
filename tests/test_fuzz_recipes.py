# ruff: noqa: E501 - a case stands on one line
"""Recipes of strangers: any file is a recipe or a list of mistakes with their places, in little time.

The shipped recipes are damaged at random, each damage a function of its number, and taken the whole way: read with what
they extend, checked, and planned if there is nothing wrong with them. TRAINCTL_FUZZ says how many.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import tomli
from conftest import within

from engine.recipe import check
from trainctl.errors import UsageError
from trainctl.recipes import locate
from trainctl.recipes.load import RecipeProblems, dump
from trainctl.recipes.plan import Planned, group_of, parse_seeds, plan
from trainctl.registry import filters

FUZZED = int(os.environ.get("TRAINCTL_FUZZ", "10000"))
LONGEST = 0.050
"""Seconds of the processor for one recipe."""
CHUNKS = 10
OPTIONS = FUZZED // 5

VALUES = (
    "1", "-1", "0", "true", "false", "nan", "inf", "-inf", "1e309", "-0.0", "1e-320", "9" * 30, "9" * 5000, "-" + "9" * 18,
    "0x7fffffffffffffff", "0xffffffffffffffffffff", "0o17", "0b11", "1_000", '""', "''", '"trades"', '"8/255"', '"1/0"',
    '"nan/1"', '"1e308/1e-308"', '"\\u0000"', '"\\ud800"', '"\\U0010ffff"', '"\\u202e\\u001b[31m"', '"""\n\n"""', "[]", "{}",
    "[[]]", "[1, 'a', {}]", "{a = 1}", "{a.b.c = {}}", "1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", "[1, 2", "{", "'",
    "[" + "1," * 3000 + "]", "[" * 300 + "]" * 300, "{a=" * 200 + "1" + "}" * 200, '"' + "x" * 20_000 + '"', "[nan, inf]",
    "[[[1]], {a = [2]}]", '["pgd20", "pgd20"]', '"../../../../etc/passwd"', '"/dev/zero"', '"~root/x"', "[75, 90]", "[90, 75]",
    '"wrn-994-999"', '"wrn-34-10"', '"cuda:999"', '"' + "\N{PILE OF POO}" * 50 + '"', "2", "1000000000000", "9223372036854775807",
)  # fmt: skip
KEYS = (
    "title", "extends", "data", "data.dataset", "method", "method.name", "model.arch", "attack.eps", "topology.enabled",
    "terms.rkd.weight", "terms", "schedule.milestones", "schedule.factors", "eval.attacks", "run.seed", "run.gpus", '""', "''",
    '"a.b"', '"\\n"', "é", "a.b.c.d.e.f.g", ".".join("z" * 40), "x" * 3000, "__class__", "model_config", "model_fields",
    "optim.lr", "[optim]", "[[optim]]", "[a.b]", "[]", "standard.weights", "model.mean", "model.std", "run.device",
)  # fmt: skip
BYTES = (
    b"\x00",
    b"\xff",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"\x1b[31m",
    b"\r",
    b"\x7f",
    b"\xe2\x80\xae",
    b"\xef\xbb\xbf",
    b"\x85",
)


def lines_of(draw: random.Random, text: str) -> tuple[list[str], int]:
    lines = text.split("\n")
    return lines, draw.randrange(len(lines))


def flip(draw: random.Random, data: bytes) -> bytes:
    if not data:
        return draw.choice(BYTES)
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]


def insert(draw: random.Random, data: bytes) -> bytes:
    at = draw.randrange(len(data) + 1)
    return data[:at] + draw.choice(BYTES) + data[at:]


def cut(draw: random.Random, data: bytes) -> bytes:
    start, end = sorted(draw.randrange(len(data) + 1) for _ in range(2))
    return draw.choice((data[:start], data[end:], data[:start] + data[end:]))


def value(draw: random.Random, text: str) -> str:
    """A value is another one."""
    lines, at = lines_of(draw, text)
    key, equals, _ = lines[at].partition("=")
    if equals:
        lines[at] = f"{key}= {draw.choice(VALUES)}"
    return "\n".join(lines)


def key(draw: random.Random, text: str) -> str:
    """A key is misspelt, or another one."""
    lines, at = lines_of(draw, text)
    name, equals, rest = lines[at].partition("=")
    if equals:
        name = draw.choice((name.strip()[:-1], name.strip() * 2, draw.choice(KEYS), name.upper()))
        lines[at] = f"{name} ={rest}"
    return "\n".join(lines)


def added(draw: random.Random, text: str) -> str:
    lines, at = lines_of(draw, text)
    return "\n".join([*lines[:at], f"{draw.choice(KEYS)} = {draw.choice(VALUES)}", *lines[at:]])


def swapped(draw: random.Random, text: str) -> str:
    lines, at = lines_of(draw, text)
    other = draw.randrange(len(lines))
    lines[at], lines[other] = lines[other], lines[at]
    return "\n".join(lines)


def deleted(draw: random.Random, text: str) -> str:
    lines, at = lines_of(draw, text)
    return "\n".join(lines[:at] + lines[at + 1 :])


def repeated(draw: random.Random, text: str) -> str:
    lines, at = lines_of(draw, text)
    return "\n".join(lines[:at] + [lines[at]] * draw.choice((2, 2, 50)) + lines[at:])


def tokens(draw: random.Random, text: str) -> str:
    """Two words, signs or quotes change places."""
    parts = re.findall(r"\w+|\s+|.", text)
    if len(parts) < 2:
        return text
    one, other = draw.randrange(len(parts)), draw.randrange(len(parts))
    parts[one], parts[other] = parts[other], parts[one]
    return "".join(parts)


def many(draw: random.Random, text: str) -> str:
    """Hundreds of keys that nobody knows, each another."""
    return text + f"\n[{draw.choice(('optim', 'wrong', 'run'))}{draw.choice(('', 's'))}]\n" + "".join(
        f"wrong{draw.randrange(10**6)} = {number}\n" for number in range(draw.choice((20, 100)))
    )  # fmt: skip


TEXTUAL: tuple[Callable[[random.Random, str], str], ...] = (
    value, value, value, key, key, added, swapped, deleted, repeated, tokens, many,
)  # fmt: skip
BINARY: tuple[Callable[[random.Random, bytes], bytes], ...] = (flip, insert, cut)


def damaged(draw: random.Random, files: list[Path]) -> tuple[Path, bytes]:
    """The folder of a recipe, and a recipe for it with one to four damages; now and then half of another one."""
    file = draw.choice(files)
    data = file.read_bytes()
    if draw.random() < 0.1:
        other = draw.choice(files).read_bytes()
        data = data[: draw.randrange(len(data))] + other[draw.randrange(len(other)) :]
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        if draw.random() < 0.2:
            data = draw.choice(BINARY)(draw, data)
        else:
            text = data.decode("utf-8", "surrogateescape")
            data = draw.choice(TEXTUAL)(draw, text).encode("utf-8", "surrogateescape")
    return file.parent, data


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The shipped recipes, copied to where they may be damaged; also the bases are, and may be run here."""
    monkeypatch.delenv("TRAINCTL_PLUGINS", raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(locate.shipped_folder(), "recipes", ignore=shutil.ignore_patterns(".*"))
    return sorted(Path("recipes").glob("*/*.toml"))


PLACE = re.compile(r"recipes/[\w-]+/[\w-]+\.toml(:\d+){0,2}: ")
OF_A_FILE = (
    "not TOML",
    "not UTF-8",
    "a number has too many digits",
    "nested too deeply",
    "tables nested",
    "more than",
    "larger",
)


def attempt(file: Path) -> str:
    """Plan the recipe in `file`: "planned", or the first mistake; AssertionError where a mistake lacks its place."""
    try:
        runs = plan([str(file)])
    except RecipeProblems as error:
        for line in str(error).split("\n"):
            assert PLACE.match(line) or re.fullmatch(r"and \d+ more mistakes", line), line
            assert line.isprintable() and len(line) < 3000, line
        for problem in error.problems:
            assert problem.key or problem.message.startswith(OF_A_FILE), problem
        return error.problems[0].message.split(":")[0]
    except UsageError as error:  # a recipe that is fine, in a file whose name is not
        return str(error)
    again = check(tomli.loads(dump(runs[0].recipe)))
    assert group_of(again, runs[0].recipe_name) == runs[0].group
    return "planned"


def longest(shipped: list[Path]) -> float:
    """Seconds that a damaged recipe may take: LONGEST, or more where sound ones take longer than they usually do."""
    attempt(shipped[0])  # the first one also imports
    seconds = []
    for file in shipped[:15]:
        started = time.process_time()
        attempt(file)
        seconds.append(time.process_time() - started)
    return max(LONGEST, 15 * statistics.median(seconds))


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_a_damaged_recipe_is_planned_or_its_mistakes_are_named(shipped: list[Path], chunk: int) -> None:
    allowed = longest(shipped)
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    for number in range(chunk, FUZZED, CHUNKS):
        folder, data = damaged(random.Random(f"recipe {number}"), shipped)
        file = folder / "fuzzed.toml"
        file.write_bytes(data)
        seconds: list[float] = []
        while not seconds or (seconds[-1] > allowed and len(seconds) < 4):  # garbage may be collected meanwhile
            started = time.process_time()
            try:
                outcome = attempt(file)
            except Exception as error:
                raise AssertionError(f"recipe {number}: {error!r}\n{data!r}") from error
            seconds.append(time.process_time() - started)
        outcomes[outcome] += 1
        slowest = max(slowest, min(seconds))
        assert min(seconds) < allowed, f"recipe {number} took {min(seconds):.3f} s\n{data[:3000]!r}"
    print(
        f"slowest {slowest * 1000:.1f} ms of {allowed * 1000:.0f}; {[(words[:60], count) for words, count in outcomes.most_common(12)]}"
    )
    assert len(outcomes) > FUZZED / CHUNKS / 100 and 0.02 < outcomes["planned"] / (FUZZED / CHUNKS) < 0.5


# ---- what is typed: --set, --grid, --seeds, --name, and filters


PIECES = (
    "model.arch", "attack.eps", "optim", "run.seed", "topology.enabled", "title", "=", "=", ",", ".", "1", "0-4", "-1", "8/255", "[", "]",
    "{", "}", "{a=", '"', "'", "\\", "\n", "\x00", "\x1b[2J", "\udcff", "\u202e", "é", " ", "../", "/", "@", "-", "nan", "inf", "9" * 25,
    "9" * 5000, "true", "a." * 30, "x" * 200, "x" * 20_000, "[1, 2]", "wrn-10-1", "{a=" * 200 + "1" + "}" * 200,
)  # fmt: skip


def typed(draw: random.Random, pieces: tuple[str, ...], most: int) -> str:
    return "".join(draw.choice(pieces) for _ in range(draw.randrange(1, most)))


def option(draw: random.Random) -> str:
    """Mostly of the form a.b=v."""
    key = draw.choice(("model.arch", "attack.eps", "optim", "run.seed", "title", "data.root", typed(draw, PIECES, 3)))
    return f"{key}={draw.choice((typed(draw, PIECES, 4), draw.choice(VALUES)))}"


@pytest.mark.usefixtures("shipped")
def test_any_option_is_obeyed_or_refused() -> None:
    plan(["digits-trades"])
    obeyed = 0
    for number in range(OPTIONS):
        draw = random.Random(f"options {number}")
        given = {
            "overrides": [option(draw) for _ in range(draw.choice((0, 1, 1, 2)))],
            "grid": [option(draw) for _ in range(draw.choice((0, 0, 1)))],
            "seeds": draw.choice((None, None, "0-2", typed(draw, ("0", "7", "-", ",", " ", "9" * 30, "x", "²"), 6))),
            "name": draw.choice((None, None, "mine", typed(draw, PIECES, 4))),
        }
        seconds: list[float] = []
        runs: list[Planned] = []
        while not seconds or (seconds[-1] > LONGEST and len(seconds) < 3):
            started = time.process_time()
            try:
                runs = plan(["digits-trades"], **given)
            except UsageError as error:
                assert len(str(error)) < 30_000, given
            except Exception as error:
                raise AssertionError(f"options {number}: {error!r}\n{given}") from error
            else:
                obeyed += not seconds
                for run in runs[:3]:
                    assert run.name.isprintable() and "/" not in run.name and len(run.name) <= 120
                    assert dump(run.recipe).encode()
            seconds.append(time.process_time() - started)
        took, allowed = min(seconds), 4 * LONGEST + 0.005 * len(runs)  # options may mean thousands of runs
        assert within(took, allowed), f"options {number} took {took:.3f} s\n{given}"
    assert 0.02 < obeyed / OPTIONS < 0.9


def filter_of(draw: random.Random) -> str:
    """Comparisons that mostly are some, with words and brackets between them that mostly fit."""
    fields = (
        "natural",
        "method",
        "optim.lr",
        "created",
        "tags",
        "note",
        "pgd20",
        "schedule.milestones",
        "x" * 5000,
        '"',
        "é",
    )
    signs = (">", "<=", "=", "==", "!=", "~", "<>", "")
    values = (
        "80", "8/255", "1/0", "nan", "9" * 400, "2026-03-01", "9999-12-31T23:59:59", "0001-01-01", '"a b"', "'", "\\", "\x00",
        "\udcff", "true", "1e999", "-inf", "(", "((((", "trades",
    )  # fmt: skip
    parts = []
    for _ in range(draw.choice((1, 1, 2, 3, 9))):
        opening = draw.choice(("", "", "", "not ", "(", "not " * 60, "(" * 60))
        parts.append(
            f"{opening}{draw.choice(fields)} {draw.choice(signs)} {draw.choice(values)}{draw.choice(('', '', ')'))}"
        )
    return draw.choice((" and ", " or ", " ")).join(parts)


def test_any_filter_is_read_or_refused() -> None:
    table = filters.Fields(
        {"natural": 81.0, "method": "trades", "created": 1.0, "tags": ["a"], "note": "x", "pgd20": float("nan"), "epoch": 3},
        {"optim.lr": 0.1, "attack.eps": 8 / 255, "schedule.milestones": [1, 2], "run.seed": 2**63 - 1},
    )  # fmt: skip
    read = 0
    for number in range(2 * OPTIONS):
        draw = random.Random(f"filter {number}")
        text = filter_of(draw)
        started = time.process_time()
        try:
            condition = filters.parse(text)
            assert condition.holds(table) in (True, False)
            filters.check_fields(condition, [table])
            read += 1
        except UsageError:
            pass
        except Exception as error:
            raise AssertionError(f"filter {number}: {error!r}\n{text!r}") from error
        assert within(time.process_time() - started, 1.0), text
    assert 0.02 < read / (2 * OPTIONS) < 0.9


@pytest.mark.parametrize("text", ["0-" + "9" * 18, "1," * 50_000, "9" * 5000, "-", "0--1", "\udcff", "0-9999,5-10004"])
def test_seeds_without_end(text: str) -> None:
    started = time.process_time()
    try:
        assert len(parse_seeds(text)) <= 20_000
    except UsageError as error:
        assert len(str(error)) < 2000
    assert within(time.process_time() - started, 1.0)
