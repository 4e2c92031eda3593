"""Launching runs in three steps: a recipe, what to change in it, and what exactly will start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.containers import Container, Vertical
from textual.message import Message
from textual.widgets import ContentSwitcher, Footer, Input, Static

from trainctl.cli.common import printable
from trainctl.home import Home
from trainctl.launch import slots
from trainctl.tui import keys
from trainctl.tui.feed import plan
from trainctl.tui.feed.draft import SIDE, Draft
from trainctl.tui.feed.form import Form, form
from trainctl.tui.feed.launch import FIRST, Offers, OffersFeed
from trainctl.tui.feed.plan import Plan
from trainctl.tui.screens.live import LiveScreen
from trainctl.tui.widgets.candidates import CandidateList, Summary, counted
from trainctl.tui.widgets.fields import FieldPanel, Fields
from trainctl.tui.widgets.lines import Lines
from trainctl.tui.widgets.offers import OfferList, OfferPanel

RECIPE, SETTINGS, START = "recipe", "settings", "start"
STEPS = {RECIPE: "Recipe", SETTINGS: "Settings", START: "Start"}
ACTIONS = {
    RECIPE: ("choose", "filter", "pair", "review"), SETTINGS: ("edit", "next", "reset", "filter", "pair", "review"),
    START: ("start", "copy"),
}  # fmt: skip
PLACEHOLDERS = {
    RECIPE: "filter: words of its name, method, data set; or the path of a .toml file or its folder",
    SETTINGS: "filter: words of a key or its meaning",
}


class LaunchScreen(LiveScreen):
    """Nothing starts before the last step says what; esc leads back a step and forgets nothing that was typed."""

    place = keys.LAUNCH
    BINDINGS = keys.bindings(keys.LAUNCH)
    DEFAULT_CSS = """
    LaunchScreen {
        & #where { height: 1; background: $panel; text-wrap: nowrap; text-overflow: ellipsis; }
        & #steps { height: 1fr; }
        & #recipe { layout: vertical; }
        & #wrong { height: auto; max-height: 3; padding: 0 1; color: $text-error; display: none; }
        & #looked-for { height: 1; background: $boost; display: none; }
        &.-tall OfferPanel { height: 14; }
        &.-tall FieldPanel { height: 7; }
        &.-wide #recipe { layout: horizontal; }
        &.-wide OfferPanel { width: 64; height: 1fr; border-top: none; border-left: solid $panel-lighten-2; }
    }
    """

    @dataclass
    class Planned(Message):
        """What would start is known, or why nothing can."""

        draft: Draft
        plan: Plan | None
        error: Exception | None = None

    def __init__(self, home: Home) -> None:
        super().__init__()
        self.home = home
        self._step = RECIPE
        self._drafts: dict[str, Draft] = {}
        self._draft = Draft("")
        self._form: Form | None = None
        self._offers: OffersFeed | None = None
        self._looks_for = {RECIPE: "", SETTINGS: ""}
        self._gpus: list[str] | None = None
        self._plan: Plan | None = None
        self._planning = self._starting = self._seeking = False

    def compose(self) -> ComposeResult:
        """Title, the three steps in one place, filter, footer."""
        yield Static(id="where", markup=False)
        with ContentSwitcher(initial=RECIPE, id="steps"):
            with Container(id=RECIPE):
                yield OfferList(id="offers")
                yield OfferPanel(id="offer")
            with Vertical(id=SETTINGS):
                yield Fields()
                yield FieldPanel(id="field")
            with Vertical(id=START):
                yield CandidateList(id="candidates")
                yield Summary(id="summary")
        yield Static(id="wrong", markup=False)
        yield Input(id="looked-for", compact=True)
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """The list has the keys."""
        self._offers = OffersFeed(self.home, self.app.watcher)
        self.query_one(OfferList).focus()
        self._tell_where()

    # --- what is asked and shown -----------------------------------------------------------------------------------

    def question(self) -> Callable[[], Offers | Form | None]:
        """The recipes that fit, or the form of the draft if it is not the one that is shown."""
        feed, typed, draft, shown = self._offers, self._looks_for[RECIPE], self._draft, self._form
        if self._step == RECIPE and feed is not None:
            near = self.query_one(OfferList).selected
            return lambda: feed.offers(typed, near.recipe if near else "")
        if self._step == SETTINGS and (shown is None or shown.draft != draft):
            return lambda: form(draft, self._found_gpus())
        return lambda: None

    def show(self, answer: Offers | Form) -> None:
        """Show them."""
        if isinstance(answer, Offers):
            self._show_offers(answer)
        else:
            wrong = next((field.key for field in answer.fields if field.problems), "") if self._seeking else ""
            self._form, self._seeking = answer, False
            self.query_one(Fields).show(answer, wrong)
        self._tell_where()

    def _show_offers(self, answer: Offers) -> None:
        offers = self.query_one(OfferList)
        typed = self._looks_for[RECIPE]  # who types a whole name means that recipe, not one that begins so
        at = typed if isinstance(self.focused, Input) and any(offer.recipe == typed for offer in answer.shown) else ""
        offers.show(answer.shown, at if offers.selected else FIRST)
        self.query_one(OfferPanel).show(offers.selected)
        nothing = "" if answer.shown else answer.error or "no recipe fits; esc shows all of them"
        self._tell_wrong(nothing)
        if not answer.complete:
            self.load()

    def _found_gpus(self) -> list[str]:
        """On the thread: to ask for GPUs takes long. They stay the same."""
        if self._gpus is None:
            self._gpus = slots.gpus()
        return self._gpus

    def _tell_where(self) -> None:
        text = Text(" launch ", "bold", no_wrap=True, overflow="ellipsis")
        for step, word in STEPS.items():
            text.append("› " if step != RECIPE else "", "dim").append(
                f"{word} ", "bold" if step == self._step else "dim"
            )
        if self._step == SETTINGS and self._form is not None:
            text.append(f" · {printable(self._form.draft.recipe)}")
            text.append(f" · {counted(self._form.runs)}" if self._form.runs is not None else "")
            changed = len(self._form.draft.changes)
            text.append(f" · {changed} changed" if changed else "")
            text.append(f" · ✘ {counted(self._form.mistakes, 'mistake')}" if self._form.mistakes else "")
        elif self._step == START:
            text.append(f" · {printable(self._draft.recipe)}")
            text.append(" · working out the runs …" if self._planning else "")
        self.query_one("#where", Static).update(text, layout=False)

    def _tell_wrong(self, text: str) -> None:
        wrong = self.query_one("#wrong", Static)
        wrong.update(Text(printable(text)))
        wrong.display = bool(text)

    @on(Lines.Moved)
    def _moved(self, message: Lines.Moved) -> None:
        if isinstance(message.lines, OfferList):
            self.query_one(OfferPanel).show(message.lines.selected)
        elif self._step == SETTINGS:
            self.query_one(FieldPanel).show(self.query_one(Fields).field)

    @on(Lines.Chosen)
    def _clicked(self) -> None:
        if self._step == RECIPE:
            self.action_choose()
        elif self._step == SETTINGS:
            self.action_edit()

    # --- the filter ------------------------------------------------------------------------------------------------

    @on(Input.Changed, "#looked-for")
    def _looked(self, event: Input.Changed) -> None:
        self._looks_for[self._step] = event.value.strip()
        if self._step == SETTINGS:
            self.query_one(Fields).look_for(self._looks_for[SETTINGS])
        else:
            self.load()

    @on(Input.Submitted, "#looked-for")
    def _found(self) -> None:
        self._focus()

    def action_filter(self) -> None:
        """Show the filter and write in it."""
        line = self.query_one("#looked-for", Input)
        line.display = True
        self.set_focus(line)

    def _clear_filter(self) -> None:
        self.query_one("#looked-for", Input).value = ""
        self.query_one("#looked-for").display = False
        self._focus()

    # --- from step to step -----------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """A key of another step does nothing here, and the footer does not name it."""
        steps = [step for step, actions in ACTIONS.items() if action in actions]
        return not steps or self._step in steps

    def _go(self, step: str) -> None:
        self._step = step
        self.query_one(ContentSwitcher).current = step
        line = self.query_one("#looked-for", Input)
        with line.prevent(Input.Changed):
            line.value = self._looks_for.get(step, "")
        line.placeholder = PLACEHOLDERS.get(step, "")
        line.display = bool(line.value)
        self._tell_wrong("")
        self._tell_where()
        self._focus()
        self.refresh_bindings()
        self._shown = None
        self.load()

    def _focus(self) -> None:
        self.query_one({RECIPE: "#offers", SETTINGS: "#fields", START: "#candidates"}[self._step]).focus()

    def action_back(self) -> None:
        """Leave what is being typed, else go back a step; from the first one to the runs."""
        if self.query_one(Fields).editing:
            self.query_one(Fields).leave()
        elif self.focused is self.query_one("#looked-for") or self._looks_for.get(self._step):
            self._clear_filter()
        elif self._step == START:
            self._go(SETTINGS)
        elif self._step == SETTINGS:
            self._go(RECIPE)
        else:
            self.dismiss()

    def _begin(self) -> bool:
        """Take up the recipe under the cursor, with what was typed for it before."""
        offer = self.query_one(OfferList).selected
        if offer is None:
            self.notify("there is no recipe under the cursor", severity="warning", markup=False)
            return False
        self._draft = self._drafts.get(offer.recipe, Draft(offer.recipe))
        if self._form is not None and self._form.draft.recipe != offer.recipe:
            self._form = None
            self.query_one(Fields).show(None)
        return True

    def action_choose(self) -> None:
        """On with the recipe under the cursor."""
        if self._begin():
            self._go(SETTINGS)

    def action_pair(self) -> None:
        """The pair of the recipe, to be looked at and started; in the form: switch the twin on or off."""
        if self._step == SETTINGS:
            self._take(self._draft.typed(SIDE, "" if self._draft.side == "pair" else "pair"))
        elif self._begin():
            self._take(self._draft.typed(SIDE, "pair"))
            self._review()

    def action_review(self) -> None:
        """Work out what would start."""
        if self._step == SETTINGS or self._begin():
            self._review()

    # --- the form --------------------------------------------------------------------------------------------------

    def _take(self, draft: Draft) -> None:
        self._draft = self._drafts[draft.recipe] = draft
        self.load()

    def action_edit(self) -> None:
        """Type a value; of a switch, take the next."""
        field = self.query_one(Fields).field
        if field and field.key == SIDE:
            self.action_next()
        else:
            self.query_one(Fields).edit()

    def action_next(self) -> None:
        """The next of a field's choices."""
        field = self.query_one(Fields).field
        if field is None or not field.choices:
            self.action_edit() if field else None
            return
        at = field.choices.index(field.value) if field.value in field.choices else -1
        self._take(self._draft.typed(field.key, field.choices[(at + 1) % len(field.choices)], field.base))

    def action_reset(self) -> None:
        """Back to what the recipe has."""
        if field := self.query_one(Fields).field:
            self._take(self._draft.typed(field.key, field.base, field.base))

    @on(Fields.Typed)
    def _typed(self, message: Fields.Typed) -> None:
        field = next((field for field in self._form.fields if field.key == message.key), None) if self._form else None
        self._take(self._draft.typed(message.key, message.text, field.base if field else ""))

    # --- the last step ---------------------------------------------------------------------------------------------

    def _review(self) -> None:
        self._planning, self._plan = True, None
        self.query_one(CandidateList).show(())
        self.query_one(Summary).update("")
        self._go(START)
        self._work_out(self._draft)

    @work(thread=True, exit_on_error=False)
    def _work_out(self, draft: Draft) -> None:
        """Not a question of the screen: thousands of runs take long, and esc must lead back at once."""
        try:
            self.post_message(self.Planned(draft, plan.planned(self.home, self.app.watcher, draft)))
        except Exception as error:
            self.post_message(self.Planned(draft, None, error))

    def on_launch_screen_planned(self, message: Planned) -> None:
        """Show what would start; a mistake leads to its field."""
        if self._step != START or message.draft != self._draft:
            return  # it was left meanwhile
        self._planning, self._plan = False, message.plan
        if message.plan is not None:
            self.query_one(CandidateList).show(message.plan.runs)
            self.query_one(Summary).show(message.plan)
            self._tell_where()
            return
        self._form, self._seeking = None, True
        self._go(SETTINGS)
        self._last_error = ""
        self.post_message(self.Failed(message.error or RuntimeError("no plan")))

    def action_start(self) -> None:
        """Start them."""
        chosen = self._plan
        if chosen is None or self._starting:
            return
        self._starting, self._last_error = True, ""
        self.act(lambda: plan.begin(self.home, chosen))

    def action_copy(self) -> None:
        """The command into the clipboard of the terminal."""
        if self._plan is not None:
            self.app.copy_to_clipboard(self._plan.line)
            self.notify("the command is in the clipboard", markup=False)

    def on_live_screen_acted(self, message: LiveScreen.Acted) -> None:
        """They are queued: back to the runs."""
        self.app.watcher.wake()
        self._drafts.pop(self._draft.recipe, None)
        self._starting, self._plan = False, None
        if self.is_active:
            self.dismiss()
        else:  # a dialog stands over it; who comes back from there finds the recipes
            self.notify(message.said, markup=False)
            self._go(RECIPE)

    def on_live_screen_failed(self, message: LiveScreen.Failed) -> None:
        """What could not be started may be tried again."""
        self._starting = False
