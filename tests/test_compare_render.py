"""The comparison as text, against files that were read by a person: tests/golden/compare.*.

After an intended change: `UPDATE_GOLDEN=1 python -m pytest tests/test_compare_render.py`, and read the difference.
"""

from __future__ import annotations

import csv
import io
import os
import re
from pathlib import Path
from typing import Any

import pytest
from folders import THREATS, make_run
from rich.console import Console

from trainctl.compare.grid import build, legend
from trainctl.compare.marks import Marked, letters, mark
from trainctl.compare.render import FORMATS, render
from trainctl.compare.render.latex import escape
from trainctl.compare.render.table import table
from trainctl.compare.report import compare
from trainctl.compare.rows import Comparison
from trainctl.home import Home
from trainctl.registry import query
from trainctl.registry.threats import Threat

GOLDEN = Path(__file__).parent / "golden"
MEASURED = {**THREATS, **dict.fromkeys(("topo_natural", "topo_robust", "l_tp"), THREATS["pgd20"])}


def measured(natural: float, pgd20: float, seed: int) -> dict[str, float]:
    """Made-up numbers of all eight columns, with some spread."""
    shift = (0.0, 0.35, -0.2)[seed]
    return {
        "natural": natural + shift, "pgd20": pgd20 - shift, "cw20": pgd20 - 1 + shift / 2, "aa": pgd20 - 6 + 3 * shift,
        "topo_natural": natural - 1 + shift, "topo_robust": pgd20 + 1, "l_tp": 0.3 + shift / 10,
    }  # fmt: skip


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Three seeds of digits with everything that carries a mark, and one pair that has a published row."""
    home = Home(tmp_path_factory.mktemp("render") / "home")
    subset = {"aa": {**THREATS["aa"], "n": 100}}
    for seed in range(3):
        common: dict[str, Any] = {"seed": seed, "created": float(seed)}
        numbers = {"threats": {**MEASURED, **subset}, **common}
        make_run(home, f"st{seed}", method="standard", metrics=measured(98.5, 5.5, seed), **numbers)
        make_run(home, f"tb{seed}", metrics=measured(95.0, 53.0, seed), **numbers)
        make_run(
            home, f"tt{seed}", topology=True, metrics=measured(95.6, 59.5, 2 - seed), seconds=2.4 + seed / 10, **numbers
        )
        make_run(
            home, f"tw{seed}", topology=True, group="twenty", name=f"digits-trades+train topology.weight=20-s{seed}",
            recipe_table={"optim": {"lr": 0.05}}, metrics=measured(95.5, 58.0, seed), **numbers,
        )  # fmt: skip
        odd = {**MEASURED, **subset, "pgd20": {**THREATS["pgd20"], "eps": 0.2}}
        make_run(home, f"ab{seed}", method="at", metrics=measured(97.0, 61.0, seed), **{**numbers, "threats": odd})
        if seed < 2:
            make_run(home, f"at{seed}", method="at", topology=True, metrics=measured(97.2, 60.0, seed), **numbers)
    recipe_table = {
        "data": {"dataset": "cifar100"}, "model": {"arch": "wrn-34-10"}, "eval": {"eps": 0.0, "select": "test"},
        "topology": {"weight": 20.0, "ramp": True},
    }  # fmt: skip
    for name, topology in (("cb", False), ("ct", True)):
        make_run(
            home, name, topology=topology, recipe_table=recipe_table,
            metrics={"natural": 56.0 + topology, "pgd20": 30.0}, seconds=821.0, created=9.0, examples=10_000,
        )  # fmt: skip
    return compare(home)


def screen(comparison: Comparison, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=False, markup=False, highlight=False)
    for part in table(comparison, width):
        console.print(part)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert all(len(line) <= width for line in lines)
    return "".join(line.rstrip() + "\n" for line in lines)


def check(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [80, 160])
def test_table(comparison: Comparison, width: int) -> None:
    check(f"compare-{width}.txt", screen(comparison, width))


@pytest.mark.parametrize(("form", "ending"), [("markdown", "md"), ("latex", "tex"), ("csv", "csv")])
def test_text(comparison: Comparison, form: str, ending: str) -> None:
    text = render(comparison, form)
    text = re.sub(r'"\[\{.*?\}\]"', "THREAT", text) if form == "csv" else text  # shown once in the next test
    check(f"compare.{ending}", text)


def test_csv_holds_every_number_unrounded(comparison: Comparison) -> None:
    lines = list(csv.DictReader(io.StringIO(render(comparison, "csv"))))
    [line] = [
        one
        for one in lines
        if one["side"] == "train" and one["metric"] == "l_tp" and one["label"] == "digits-trades+train"
    ]
    [side, *_] = [pair.train for pair in comparison.pairs if pair.train.label == "digits-trades+train"]
    assert float(line["mean"]) == side.metrics["l_tp"].mean
    assert tuple(map(float, line["values"].split())) == side.metrics["l_tp"].values
    assert '"eps": 0.25' in line["threat"]
    deltas = [one for one in lines if one["side"] == "delta" and one["metric"] == "natural"]
    assert float(deltas[0]["low"]) == comparison.pairs[0].delta["natural"].low


def test_the_best_is_marked_among_equals_only(comparison: Comparison) -> None:
    [digits, _] = build(comparison).sections
    best = {
        metric: [row.label for row in digits.rows if row.cells[index].best]
        for index, metric in enumerate(digits.metrics)
    }
    assert best["natural"] == ["+ TRAIN"]  # AT + TRAIN; standard training, without a partner, does not compete
    assert [row.cells[0].value for row in digits.rows if row.cells[0].best] == ["97.38"]
    assert "digits-at" not in best["pgd20"]  # its 61 was measured at a smaller eps
    assert best["seconds_per_epoch"] == []
    assert best["l_tp"]  # the smallest
    assert [
        row.cells[digits.metrics.index("l_tp")].best for row in digits.rows if row.kind in ("alone", "delta")
    ].count(True) == 0


def test_every_mark_has_its_note_and_every_note_its_mark(comparison: Comparison) -> None:
    grid = build(comparison)
    used = set()
    for section in grid.sections:
        for cells in (section.heads, *(row.cells for row in section.rows)):
            used |= {mark for cell in cells for mark in cell.marks}
        used |= {mark for row in section.rows for mark in row.marks}
    assert used == set(range(len(grid.notes)))
    assert "on 100 of 360 test images" in grid.notes
    assert "`best` was chosen on the test set" in grid.notes
    assert "eps 0.2 instead of 0.25" in grid.notes
    assert any("optim.lr 0.1 → 0.05" in note for note in grid.notes)
    assert "Δ leaves out seed 2, which only one side has" in grid.notes
    assert "quoted there from the LBGAT paper" in grid.notes


def test_an_autoattack_that_is_not_standard_is_said(tmp_path: Path) -> None:
    aa = {**THREATS["aa"], "standard": False, "version": "not standard: apgd-ce with 3 classes"}
    make_run(Home(tmp_path), "aaaa", metrics={"aa": 40.0}, threats={"aa": aa})
    assert "AutoAttack is not standard: apgd-ce with 3 classes" in build(compare(Home(tmp_path))).notes


def test_a_name_cannot_steer_what_is_printed(tmp_path: Path) -> None:
    name = r"[red]a_b|c$&\x{}~^%#<`'\end{table}"
    make_run(Home(tmp_path), "aaaa", name=name, metrics={"natural": 40.0})
    found = compare(Home(tmp_path))
    assert name in screen(found, 200)
    assert r"\[red\]a\_b\|c$&\\x{}\~^%\#\<\`'\\end{table}" in render(found, "markdown")
    assert r"\end{table}" not in render(found, "latex").split(r"\bottomrule")[0]
    assert escape("50% & a_b") == r"50\% \& a\_b"


def test_bold_and_spread_are_explained_where_they_are(comparison: Comparison, tmp_path: Path) -> None:
    said = "best of the pairs; ± std over seeds (n), in rows Δ the 95 % interval of the paired difference"
    several, single = build(comparison).sections
    assert legend(several.rows, "*") == f"* {said}" and legend(single.rows, "bold:") == "bold: best of the pairs"
    assert screen(comparison, 160).endswith(f"* {said}\n")
    assert render(comparison, "markdown").endswith(f"\n\nbold: {said}\n")
    home = Home(tmp_path)
    for seed in range(2):  # without a pair there is neither a best nor an interval, and without other marks no note
        make_run(home, f"run{seed}", seed=seed, metrics={"natural": 90.0 + seed})
    assert render(compare(home), "markdown").endswith("|\n\n± std over seeds (n)\n")
    note = "\\begin{tablenotes}\\footnotesize\n\\item[] $\\pm$ std over seeds (n)\n\\end{tablenotes}"
    assert note in render(compare(home), "latex")
    single_run = compare(home, query.runs(home, ["run0"]))
    assert "±" not in render(single_run, "markdown") + screen(single_run, 80)
    assert "tablenotes" not in render(single_run, "latex")


def test_numbers_of_a_list_are_marked_where_most_are_measured_otherwise() -> None:
    usual = {"norm": "linf", "eps": 0.25, "n": 360, "of": 360, "checkpoint": "best", "protocol": "lbgat"}
    rows: list[tuple[dict[str, float | None], dict[str, Threat]]] = [
        ({"pgd20": 60.0, "aa": 1.0}, {"pgd20": {**usual, "eps": 0.05}, "aa": {**usual, "n": 100}}),
        ({"pgd20": 50.0, "aa": None}, {"pgd20": usual}),
        ({"pgd20": 51.0}, {"pgd20": {**usual, "checkpoint": "last", "protocol": "las"}}),  # the same attack
        ({"pgd20": 52.0}, {}),
    ]
    found = mark({"pgd20": "PGD-20", "aa": "AA"}, rows)
    assert found.marks == ({"pgd20": "ᵃ"}, {}, {}, {"pgd20": "ᵇ"})
    assert found.notes == ("ᵃ eps 0.05 instead of 0.25", "ᵇ measured under a threat model that is not known")
    assert found.caption == "PGD-20: linf, ε 0.25, 360 of 360 images; AA: linf, ε 0.25, 100 of 360 images"
    alike = mark(
        {"pgd20": "PGD-20", "cw20": "C&W-20"}, [({"pgd20": 1.0, "cw20": 1.0}, {"pgd20": usual, "cw20": usual})]
    )
    assert alike.caption == "PGD-20, C&W-20: linf, ε 0.25, 360 of 360 images"
    assert mark({}, [({}, {})]) == Marked(({},), (), "")


def test_letters() -> None:
    assert letters([0, 25, 26, 27, 701, 702]) == "a z aa ab zz aaa"


def test_formats(comparison: Comparison, tmp_path: Path) -> None:
    assert set(FORMATS) == {"table", "json", "csv", "markdown", "latex"}
    with pytest.raises(ValueError, match="none of csv, markdown, latex"):
        render(comparison, "html")
    empty = compare(Home(tmp_path))
    assert render(empty, "markdown") == "No runs to compare.\n"
    assert screen(empty, 80) == ""
