"""The line of every key: by hand for each form TOML has, and against generated documents whose lines are known."""

import json
import re

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from trainctl.recipes.lines import key_lines


def lines(text):
    tomli.loads(text)  # the scan is only promised for valid TOML
    return {".".join(key): line for key, line in key_lines(text).items()}


def test_tables_and_keys():
    text = 'title = "a"\n\n[data]\ndataset = "digits"\n# crop = 4\nflip = true\n[a.b]\nc = 1\n'
    assert lines(text) == {"title": 1, "data": 3, "data.dataset": 4, "data.flip": 6, "a": 7, "a.b": 7, "a.b.c": 8}


def test_dotted_and_quoted_keys():
    text = '\na . b.\'c d\' = 1\n"x.y"."z\\u0041" = 2\n["q#"."]"]\n3 = 4\n'
    assert key_lines(text) == {
        ("a",): 2,
        ("a", "b"): 2,
        ("a", "b", "c d"): 2,
        ("x.y",): 3,
        ("x.y", "zA"): 3,
        ("q#",): 4,
        ("q#", "]"): 4,
        ("q#", "]", "3"): 5,
    }


def test_inline_tables():
    text = 'a = { b = 1, c.d = { e = "}" }, f = {} }\ng = 2\n'
    assert lines(text) == {"a": 1, "a.b": 1, "a.c": 1, "a.c.d": 1, "a.c.d.e": 1, "a.f": 1, "g": 2}


def test_inline_tables_over_several_lines():
    text = "a = {\n  b = 1, # one\n  c = [\n 1,\n],\n}\nd = 2\n"
    try:
        tomli.loads(text)
    except tomli.TOMLDecodeError:
        pytest.skip("this tomli reads TOML 1.0, which has no such tables")
    assert lines(text) == {"a": 1, "a.b": 2, "a.c": 3, "d": 7}


def test_arrays_hold_no_keys_of_their_own():
    text = 'a = [\n  "b = 1", # c = 2\n  [3, 4],\n]\nd = 5\n'
    assert lines(text) == {"a": 1, "d": 5}


def test_arrays_of_tables_name_the_first():
    text = "[[a]]\nb = 1\n[[a]]\nb = 2\nc = 3\n[[a.d]]\ne = [{f = 1}, {f = 2}]\n"
    assert lines(text) == {"a": 1, "a.b": 2, "a.c": 5, "a.d": 6, "a.d.e": 7, "a.d.e.f": 7}


@pytest.mark.parametrize(
    "value",
    [
        '"""\nx = 1\n[y]\n"""',
        '"""a\\\n  ""b"" \\"""\n"""""',
        "'''\nx = '1'\n'''''",
        '"# = [ { \\" "',
        "'# = [ {'",
        "1979-05-27T07:32:00Z",
        "-1.5e-3",
    ],
)
def test_values_are_skipped_whole(value):
    text = f"a = {value} # b = 1\nc = 2\n"
    assert lines(text) == {"a": 1, "c": 2 + value.count("\n")}


def test_windows_line_ends():
    assert lines("a = 1\r\n[b]\r\nc = 2\r\n") == {"a": 1, "b": 2, "b.c": 3}


LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\x7f")
SCALARS = st.one_of(
    st.integers(-(2**63), 2**63 - 1).map(str),
    st.booleans().map(lambda b: str(b).lower()),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.text(LETTERS, max_size=8).map(lambda s: json.dumps(s, ensure_ascii=False)),
    st.sampled_from(["'''\n[x]\ny = 1'''", '"""\n\\""" \n"""', "2024-01-01", "'a = [#'", '"""{"a"}"""""']),
)
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3).map(lambda parts: "[ # ]\n" + ",\n".join(parts) + "\n]"),
)
NAMES = st.one_of(st.sampled_from(["a", "b", "lr", "x-1", "1"]), st.text(LETTERS, max_size=4))
TREES = st.recursive(
    st.dictionaries(NAMES, VALUES, max_size=4),
    lambda inner: st.dictionaries(NAMES, st.one_of(VALUES, inner), max_size=4),
    max_leaves=12,
)


class Document:
    """Writes a tree as TOML, choosing among the forms by `draw`, and notes on which line each key is first named."""

    def __init__(self, draw):
        self.draw, self.text, self.expected = draw, "", {}

    def name(self, path):
        for end in range(1, len(path) + 1):
            self.expected.setdefault(path[:end], self.text.count("\n") + 1)

    def key(self, part):
        if re.fullmatch(r"[A-Za-z0-9_-]+", part) and self.draw(st.booleans()):
            return part
        if re.fullmatch(r"[^'\x00-\x08\x0a-\x1f]*", part) and self.draw(st.booleans()):
            return f"'{part}'"
        return json.dumps(part, ensure_ascii=False)

    def table(self, tree, path):
        later = {}
        for key, value in tree.items():
            if isinstance(value, dict) and self.draw(st.booleans()):
                later[key] = value
            else:
                self.statement((key,), value, path)
        for key, value in later.items():
            self.noise()
            self.name((*path, key))
            self.text += f"[ {' . '.join(self.key(part) for part in (*path, key))} ] # [no.table]\n"
            self.table(value, (*path, key))

    def statement(self, keys, value, path):
        if isinstance(value, dict) and value and self.draw(st.booleans()):
            for key, inner in value.items():
                self.statement((*keys, key), inner, path)
            return
        self.noise()
        self.name((*path, *keys))
        self.text += " . ".join(map(self.key, keys)) + " = "
        self.value(value, (*path, *keys))
        self.text += " # k = v\n"

    def value(self, value, path):
        if not isinstance(value, dict):
            self.text += value
            return
        self.text += "{"
        for number, (key, inner) in enumerate(value.items()):
            self.text += ", " if number else " "
            self.name((*path, key))
            self.text += f"{self.key(key)} = "
            self.value(inner, (*path, key))
        self.text += " }"

    def noise(self):
        self.text += self.draw(st.sampled_from(["", "", "\n", "# [x]\n", "\t# a = '\n \n"]))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_generated_documents(data):
    tree = data.draw(TREES)
    document = Document(data.draw)
    document.table(tree, ())
    parsed = tomli.loads(document.text)
    assert set(parsed) == set(tree)
    assert key_lines(document.text) == document.expected
