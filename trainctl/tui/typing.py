"""Keys one after the other, so that what is typed fast means what it says."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from textual import events
from textual.app import App
from textual.dom import DOMNode

PASSES = 2  # behind the key, and behind what it made its receiver say, as "this line was entered"
PATIENCE = 0.3  # seconds after which a key is given up whose receiver went away with it
AT_MOST = 2.0  # seconds that keys are held back for an answer: if it never comes, one must still be able to leave


class OneKeyAtATime(App[None]):
    """An app that gives a key to what has the focus once the keys before it were obeyed.

    Textual forwards each at once. Of `/status` typed in one go it would take the s for "stop", as long as the slash
    has not yet opened the filter: dangerous where one types over a slow line, or pastes.
    """

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self._typed: deque[events.Key] = deque()
        self._under_way = 0
        self._count = 0
        self._held: set[int] = set()

    def hold_keys(self) -> Callable[[], object]:
        """Hold keys back until what is returned is called, from any thread: what they mean is still being found out.

        As `c` behind `a`, which marks runs that a thread has to look for first.
        """
        self._count += 1
        self._held.add(self._count)
        release = partial(self.call_later, self._let_go, self._count)
        self.set_timer(AT_MOST, release)
        return release

    async def _let_go(self, number: int) -> None:
        self._held.discard(number)
        await self._give_next()

    def push_screen(self, screen: Any, *given: Any, **named: Any) -> Any:
        """Open a screen; keys wait until it is drawn, since what it does when it is made would undo what they did."""
        release = self.hold_keys()
        mounted = super().push_screen(screen, *given, **named)
        self.screen.call_after_refresh(release)
        return mounted

    async def on_event(self, event: events.Event) -> None:
        """Hold a key back while another is under way."""
        if not isinstance(event, events.Key) or event.is_forwarded:
            await super().on_event(event)
            return
        self._typed.append(event)
        await self._give_next()

    async def _give_next(self) -> None:
        if not self._typed or self._under_way or self._held:
            return
        self._count += 1
        self._under_way = number = self._count
        receiver = self.focused or self.screen
        await super().on_event(self._typed.popleft())
        self._follow(receiver, receiver, PASSES, number)
        self._look_after(receiver, number)

    def _follow(self, receiver: DOMNode, node: DOMNode, passes: int, number: int) -> None:
        """Go behind the key through the same queues: from its receiver up to the app, where bindings are looked up."""
        if node is not self and node.call_later(self._follow, receiver, node.parent or self, passes, number):
            return
        if passes > 1:
            self.call_later(self._follow, receiver, receiver, passes - 1, number)
        else:
            self.call_later(self._obeyed, number)

    def _look_after(self, receiver: DOMNode, number: int) -> None:
        self.set_timer(PATIENCE, partial(self._still_there, receiver, number))

    async def _still_there(self, receiver: DOMNode, number: int) -> None:
        """Wait on for a receiver that is only slow: the key behind it may mean something else as yet."""
        if number == self._under_way and receiver.is_running:
            self._look_after(receiver, number)
        else:
            await self._obeyed(number)

    async def _obeyed(self, number: int) -> None:
        if number == self._under_way:
            self._under_way = 0
            await self._give_next()
