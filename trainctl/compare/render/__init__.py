"""A comparison as text: `render(comparison, format)`; the table for a terminal is in `table`."""

from __future__ import annotations

from trainctl.compare.rows import Comparison

FORMATS = ("table", "json", "csv", "markdown", "latex")


def render(comparison: Comparison, form: str) -> str:
    """The text of a comparison as csv, markdown or latex, with a line break at its end."""
    if form == "csv":
        from trainctl.compare.render.csv import csv as text
    elif form == "markdown":
        from trainctl.compare.render.markdown import markdown as text
    elif form == "latex":
        from trainctl.compare.render.latex import latex as text
    else:
        raise ValueError(f"{form!r} is none of csv, markdown, latex")
    return text(comparison)
