"""What the comparison shows, written to a file or as text to be copied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainctl.compare.histories import histories
from trainctl.compare.render import csv, latex, markdown
from trainctl.errors import MachineError, UsageError
from trainctl.home import Home
from trainctl.registry import query
from trainctl.tui.feed.comparison import PRICE, Compared, Key

FIGURES = 12  # pairs whose curves can still be told apart in one figure


@dataclass(frozen=True)
class Form:
    """A format of the export: the ending of its files, and what it is."""

    name: str
    ending: str
    said: str


FORMS = (
    Form("markdown", ".md", "Markdown (.md)"),
    Form("latex", ".tex", "LaTeX (.tex), with booktabs"),
    Form("csv", ".csv", "CSV (.csv), every number by itself"),
    Form("curves", ".png", "PNG (.png), the curves of the pair under the cursor"),
    Form("all curves", ".png", "PNG (.png), the curves of all pairs shown"),
)


@dataclass(frozen=True)
class Shown:
    """What is on the screen: the answer, the tab, and the entry under the cursor."""

    compared: Compared
    tab: str
    chosen: Key = ()

    def text(self, form: str) -> str:
        """The table that is seen as markdown, latex or csv; beside the curves it is that of the numbers."""
        if self.tab == PRICE:
            if form == "csv":
                return csv.prices(self.compared.priced)
            return (markdown.write if form == "markdown" else latex.write)(self.compared.prices)
        if form == "csv":
            return csv.csv(self.compared.comparison)
        return (markdown.write if form == "markdown" else latex.write)(self.compared.grid)


def form_of(path: Path) -> Form | None:
    """The first format whose files end as `path` does."""
    return next((form for form in FORMS if path.suffix.lower() == form.ending), None)


def check(path: Path, form: Form) -> None:
    """UsageError unless `path` is named as files of `form` are."""
    if path.suffix.lower() != form.ending or not path.stem:
        endings = ", ".join(dict.fromkeys(form.ending for form in FORMS))
        raise UsageError(f"{path.name or 'the name'} must end in {form.ending}", f"formats: {endings}")


def export(home: Home, shown: Shown, path: Path, form: Form, *, replace: bool) -> str:
    """Write what is shown; what to say of it.

    UsageError for another ending, or if the file stands already and is not to be replaced; MachineError if it cannot
    be written.
    """
    check(path, form)
    try:
        path = path.expanduser()
    except RuntimeError:
        raise UsageError(f"there is no home folder for {path}") from None
    if path.is_dir():
        raise UsageError(f"{path} is a folder", "add the name of a file")
    if path.exists() and not replace:
        raise UsageError(f"{path} stands already; enter once more replaces it")
    if form.ending == ".png":
        _figure(home, shown, path, every=form.name == "all curves")
    else:
        try:
            path.write_text(shown.text(form.name), encoding="utf-8")
        except OSError as error:
            raise MachineError(f"cannot write {path}: {error.strerror or error}") from None
    return f"written: {path.resolve()}"


def _figure(home: Home, shown: Shown, path: Path, *, every: bool) -> None:
    from trainctl.plot import curves, looks  # matplotlib takes a second to import

    ids: Sequence[str] = shown.chosen
    if every:
        pairs = shown.compared.comparison.pairs
        if len(pairs) > FIGURES:
            raise UsageError(
                f"{len(pairs)} pairs are too many for one figure, {FIGURES} are the most", "filter them first, with /"
            )
        ids = [run for pair in pairs for run in (*pair.baseline.runs, *pair.train.runs)] or shown.chosen
    looks.save(curves.draw(histories(home, query.runs(home, ids))), path)
