"""The event that says: some history is missing here."""

from __future__ import annotations

from streamkit.formats.event_stream import ServerSentEvent


class Gap(ServerSentEvent):
    """Delivered first where history does not reach back to what a client has seen, so that a loss is never silent.

    On the wire it is the event `gap` with the data `{"asked": ..., "oldest": ...}`: the `Last-Event-ID` that the client
    gave, and the id of the oldest event that is still held, with which what follows begins (None where none is held).
    It has no id of its own, which would overwrite the client's. After it a client asks for the whole state again, or
    takes what follows for a new beginning: everything that is still held on its topics, then what is live.
    """

    __slots__ = ("_asked", "_oldest")

    def __init__(self, asked: str | None, oldest: str | None) -> None:
        super().__init__({"asked": asked, "oldest": oldest}, event="gap")
        self._asked = asked
        self._oldest = oldest

    @property
    def asked(self) -> str | None:
        """The id that history does not reach back to; None where a subscriber without one missed something."""
        return self._asked

    @property
    def oldest(self) -> str | None:
        """The id of the oldest event that is still held, or None."""
        return self._oldest
