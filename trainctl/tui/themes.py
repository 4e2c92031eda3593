"""The themes: dark, light, and one whose colours stay apart for colour-blind eyes.

`series` are the colours of lines in a chart, in order. Those of the colour-blind theme are Okabe and Ito's
(https://jfly.uni-koeln.de/color/), the usual choice where hue alone must not carry meaning.
"""

from __future__ import annotations

from textual.theme import Theme

DARK = Theme(
    name="trainctl-dark", dark=True, primary="#5B9BD5", secondary="#8CA6C0", accent="#E0A458", foreground="#D8DEE4",
    background="#12161C", surface="#1A2028", panel="#232B35", success="#6BBF73", warning="#E0B04C", error="#E06C6C",
)  # fmt: skip
LIGHT = Theme(
    name="trainctl-light", dark=False, primary="#1F5F9E", secondary="#4A6274", accent="#A85B00", foreground="#1B1F24",
    background="#FCFCFA", surface="#F2F2EE", panel="#E4E5E0", success="#1E7B34", warning="#8A5A00", error="#B3261E",
)  # fmt: skip
COLOR_BLIND = Theme(
    name="trainctl-colour-blind", dark=True, primary="#56B4E9", secondary="#999999", accent="#E69F00",
    foreground="#E6E6E6", background="#101010", surface="#1A1A1A", panel="#262626", success="#56B4E9",
    warning="#F0E442", error="#D55E00",
)  # fmt: skip
THEMES = (DARK, LIGHT, COLOR_BLIND)

SERIES = {
    DARK.name: ("#4FA3E3", "#F08A24", "#6BBF73", "#C678DD", "#E06C6C", "#56C7C7"),
    LIGHT.name: ("#1F6FB5", "#B85C00", "#1E7B34", "#8B3FA0", "#B3261E", "#0B7A7A"),
    COLOR_BLIND.name: ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00"),
}
STATUS = {
    DARK.name: {"good": "#6BBF73", "active": "#56C7C7", "warn": "#E0B04C", "bad": "#E06C6C", "idle": "#8CA6C0"},
    LIGHT.name: {"good": "#1E7B34", "active": "#0B7A7A", "warn": "#8A5A00", "bad": "#B3261E", "idle": "#4A6274"},
    COLOR_BLIND.name: {"good": "#009E73", "active": "#56B4E9", "warn": "#F0E442", "bad": "#D55E00", "idle": "#999999"},
}


def series(theme: str) -> tuple[str, ...]:
    """Colours of the lines of a chart under `theme`; of one that is not ours, those of the dark one."""
    return SERIES.get(theme, SERIES[DARK.name])
