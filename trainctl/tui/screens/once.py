"""The base of all screens."""

from __future__ import annotations

from textual.await_complete import AwaitComplete
from textual.message import Message
from textual.screen import Screen, ScreenResultType

from trainctl.tui.feed.errors import explain


class OnceScreen(Screen[ScreenResultType]):
    """A screen that is left once: a second key that leaves it may be on its way when the first is obeyed.

    A dialog is a ModalScreen first, since Textual takes the CSS of a class from the first of its bases alone.
    """

    _left = False

    def dismiss(self, result: ScreenResultType | None = None) -> AwaitComplete:
        """Leave with `result`, unless it is left already or a dialog stands over it."""
        if self._left or not self.is_active:
            return AwaitComplete()
        self._left = True
        return super().dismiss(result)

    async def _dispatch_message(self, message: Message) -> None:
        """Obey a message; a mistake of ours in that is told, where Textual would end the app."""
        try:
            await super()._dispatch_message(message)
        except Exception as error:
            home = getattr(self.app, "home", None)
            self.notify(explain(error, home), severity="error", markup=False)
