"""Stop and resume, the same from every screen."""

from __future__ import annotations

from engine.rundir import FINAL
from trainctl.home import Home
from trainctl.registry.query import RunRow
from trainctl.tui.feed import acts
from trainctl.tui.screens.confirm import ConfirmScreen
from trainctl.tui.screens.live import LiveScreen


def ask_to_stop(screen: LiveScreen, home: Home, run: RunRow) -> None:
    """Stop `run` if the person says yes."""
    if run.status in FINAL:
        screen.notify(f"{run.name} has ended already: {run.status}", severity="warning", markup=False)
        return
    question, warning = f"Stop {run.name}?", "It writes a checkpoint first; r goes on from there."
    if run.status == "stopping":
        question, warning = (
            f"Kill {run.name} at once?",
            "It was asked to stop. What it did since its last checkpoint is lost.",
        )
    elif run.status == "queued":
        question, warning = f"Cancel {run.name}?", "It has not started yet."
    folder = home.run(run.id)

    def answered(yes: bool | None) -> None:
        if yes:
            screen.act(lambda: acts.stop(folder))

    screen.app.push_screen(ConfirmScreen(question, warning), answered)


def resume(screen: LiveScreen, home: Home, run: RunRow) -> None:
    """Queue `run` again; what forbids it is told."""
    folder = home.run(run.id)
    screen.act(lambda: acts.resume(home, folder))
