"""What people do to runs, the same from every screen: each asks what must be asked, then acts on a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from engine.rundir import FINAL
from trainctl.home import Home
from trainctl.registry import labels
from trainctl.registry.query import RunRow
from trainctl.tui.feed import acts
from trainctl.tui.screens.confirm import ConfirmScreen
from trainctl.tui.screens.live import LiveScreen
from trainctl.tui.screens.prompt import PromptScreen
from trainctl.tui.text import file_size

Runs = Sequence[RunRow]
NAMED = 3
BREAK = " ⏎ "  # a line break of a note, in the one line where it is changed


def ask_to_stop(screen: LiveScreen, home: Home, runs: Runs) -> None:
    """Stop those of `runs` that have not ended, if the person says yes; those that are stopping already are killed."""
    if not _some(screen, runs):
        return
    open_runs = [run for run in runs if run.status not in FINAL]
    going = [run for run in open_runs if run.status != "stopping"]
    waiting = sum(run.status == "queued" for run in going)
    if not open_runs:
        ended = f"{runs[0].name} has ended already: {runs[0].status}" if len(runs) == 1 else "they have ended already"
        screen.notify(ended, severity="warning", markup=False)
    elif not going:
        lost = "What was done since the last checkpoint is lost."
        question = f"Kill {_named(open_runs)} at once?"
        _ask(screen, question, f"Asked to stop already. {lost}", lambda: acts.kill(home, _ids(open_runs)))
    elif waiting == len(going):
        _ask(screen, f"Cancel {_named(going)}?", "Not started yet.", lambda: acts.stop(home, _ids(going)))
    else:
        warning = "A checkpoint is written first; r goes on from there."
        if waiting:
            warning += f"\n{waiting} of them {'has' if waiting == 1 else 'have'} not started yet and will be cancelled."
        _ask(screen, f"Stop {_named(going)}?", warning, lambda: acts.stop(home, _ids(going)))


def resume(screen: LiveScreen, home: Home, runs: Runs) -> None:
    """Queue `runs` again; what forbids it is told."""
    if _some(screen, runs):
        _act(screen, lambda: acts.resume(home, _ids(runs)))


def retry(screen: LiveScreen, home: Home, runs: Runs) -> None:
    """Begin `runs` anew, if the person says yes."""
    ended = [run for run in runs if run.status in FINAL]
    if not ended:
        if _some(screen, runs):
            screen.notify(f"only what has ended can be retried: {_named(runs)}", severity="warning", markup=False)
        return
    done = sum(run.status == "done" for run in ended)
    warning = "What there is will be kept in attempts/ of the run folder. r goes on from the last checkpoint instead."
    if done:
        warning = f"{'It is done.' if len(ended) == 1 else f'{done} of {len(ended)} done already.'} {warning}"
    question = f"Train {_named(ended)} anew from epoch 0?"
    _ask(screen, question, warning, lambda: acts.retry(home, _ids(ended)))


def ask_tags(screen: LiveScreen, home: Home, runs: Runs) -> None:
    """Ask for tags to put on `runs` and to take off."""
    if not _some(screen, runs):
        return
    had = list(dict.fromkeys(tag for run in runs for tag in run.tags))
    hint = f"words are put on, -word takes off{'; now: ' + ' '.join(had) if had else ''}"

    def answered(line: str | None) -> None:
        add, remove = _tags(line or "")
        if add or remove:
            _act(screen, lambda: acts.tag(home, _ids(runs), add, remove))

    screen.app.push_screen(PromptScreen(f"Tags of {_named(runs)}", "", hint, _tags), answered)


def ask_note(screen: LiveScreen, home: Home, runs: Runs) -> None:
    """Ask for the note of `runs`; it is written if it was changed."""

    async def ask() -> None:
        # As it was written: the index has no control characters.
        notes = {found.note for found in await asyncio.to_thread(lambda: [labels.read(home.run(id)) for id in ids])}
        note, hint = "", "they have different notes; this one replaces them"
        if len(notes) == 1:
            note, hint = BREAK.join(notes.pop().splitlines()), "an empty line deletes it"
        prompt = PromptScreen(f"Note on {_named(runs)}", note, hint, labels.check_note)

        def answered(line: str | None) -> None:
            if line is not None and line != prompt.value:
                _act(screen, lambda: acts.note(home, ids, line.replace(BREAK, "\n")))

        screen.app.push_screen(prompt, answered)

    ids = _ids(runs)
    if _some(screen, runs):
        screen.run_worker(ask(), exit_on_error=False)


def archive(screen: LiveScreen, home: Home, runs: Runs) -> None:
    """Archive `runs`, or bring them back if all of them are archived."""
    if _some(screen, runs):
        undo = all(run.archived for run in runs)
        _act(screen, lambda: acts.archive(home, _ids(runs), undo))


def ask_to_delete(screen: LiveScreen, home: Home, runs: Runs) -> None:
    """Delete `runs` if the person says yes to what will be lost."""
    if not _some(screen, runs):
        return
    ids = _ids(runs)
    who = f"{runs[0].name} ({ids[0]})" if len(runs) == 1 else _named(runs)  # a name need not be the only one
    _ask(screen, f"Delete {who}?", lambda: _lost(acts.loss(home, ids)), lambda: acts.delete(home, ids))


def _lost(loss: acts.Loss) -> str:
    """What deleting would lose, in words."""
    counts = ((loss.epochs, "epoch"), (loss.checkpoints, "checkpoint"), (loss.evaluations, "evaluation"))
    parts = [(str(number), f"{word}{'s' * (number != 1)}") for number, word in counts]
    size, unit = file_size(loss.size).split()
    lines = [f"  {number:>6} {word}" for number, word in (*parts, (size, f"{unit} on disk"))]
    about = "There is no way back. This is lost" + ("" if loss.exact else ", and more that was not counted in time")
    said = "\n".join((f"{about}:", *lines))
    if loss.at_work:
        said += f"\n\n{loss.at_work} of {loss.runs} at work: stop {'it' if loss.at_work == 1 else 'them'} first, else "
        said += "it stays." if loss.at_work == 1 else "they stay."
    return said


def _tags(line: str) -> tuple[list[str], list[str]]:
    """The tags of a line such as `lr-test -old`: to put on, and to take off. UsageError for one that cannot be."""
    words = line.split()
    remove = [word[1:] for word in words if word.startswith("-")]
    return [labels.check_tag(word) for word in words if not word.startswith("-")], remove


def _named(runs: Runs) -> str:
    """The first few by name: some may be out of sight."""
    if len(runs) == 1:
        return runs[0].name
    more = f" and {len(runs) - NAMED} more" if len(runs) > NAMED else ""
    return f"{len(runs)} runs ({', '.join(run.name for run in runs[:NAMED])}{more})"


def _ids(runs: Runs) -> list[str]:
    return [run.id for run in runs]


def _some(screen: LiveScreen, runs: Runs) -> bool:
    if not runs:
        screen.notify("there is no run under the cursor", severity="warning", markup=False)
    return bool(runs)


def _ask(screen: LiveScreen, question: str, warning: str | Callable[[], str], deed: Callable[[], str]) -> None:
    screen.app.push_screen(ConfirmScreen(question, warning), lambda yes: _act(screen, deed) if yes else None)


def _act(screen: LiveScreen, deed: Callable[[], str]) -> None:
    """Do it, and have the index look at all runs again."""
    watcher = screen.app.watcher

    def done() -> str:
        try:
            return deed()
        finally:
            watcher.wake()

    screen.act(done)
