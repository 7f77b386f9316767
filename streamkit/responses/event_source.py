"""Server-sent events as a response (WHATWG HTML 9.2), token streams with a `[DONE]` line included."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from streamkit.errors import StreamkitError
from streamkit.flow.sources import Items
from streamkit.formats.event_stream import HEARTBEAT, EventStreamEncoder, ServerSentEvent, retry_line
from streamkit.formats.last_event_id import last_event_id
from streamkit.responses.options import StreamOptions, function, seconds, switch
from streamkit.responses.streamed import StreamedResponse

if TYPE_CHECKING:
    from typing_extensions import Unpack

log: Final = logging.getLogger("streamkit")

COMPLETE_ID: Final = "streamkit-complete"
"""The id of the `complete=` event. No characters that would cost a cross-origin client a preflight request."""

RESUME_SECONDS: Final = (1.0, 5.0)
"""When clients of a stream that was ended early come back: spread, so that they do not all come at once."""

Words = str | Mapping[str, object] | ServerSentEvent | None


class EventStreamFraming(EventStreamEncoder):
    """The event stream's beginning, items and ends."""

    heartbeat = HEARTBEAT
    head_first = True
    encode_batch = None
    resets = False  # a reset could overtake the error event

    def __init__(
        self,
        *,
        retry: int | None,
        done: str | None,
        complete: str | None,
        connected: Mapping[str, object] | None,
        on_error: Callable[[BaseException], Words] | None,
    ) -> None:
        super().__init__(retry=retry, done=done)
        self._done_line = done
        self._complete = complete
        self._connected = connected
        self._on_error = on_error

    @property
    def keeps_frames(self) -> bool:
        """Once `retry` is sent, an event has the same bytes in every stream."""
        return self._retry is None

    def head(self) -> bytes:
        """The opening comment: the headers travel with it, so nothing waits for the first event."""
        opening = super().head()
        if self._connected is not None:
            opening += self.encode(ServerSentEvent(self._connected, event="connected"))
        return opening

    def tail(self) -> bytes:
        """The completion event, then the bare `done` line."""
        last = b""
        if self._complete is not None:
            last = self.encode(ServerSentEvent({}, event=self._complete, id=COMPLETE_ID))
        return last + super().tail()

    def finish(self) -> bytes:
        """Nothing: what ends a complete stream is its last event."""
        return b""

    def failed(self, error: BaseException) -> bytes:
        """An `error` event without an id, so that the client's cursor stays where it was.

        It says nothing of the exception but the `code` of streamkit's own; `on_error` may say more.
        """
        if self._on_error is not None:
            try:
                return self._error_event(self._on_error(error), error)
            except BaseException:  # it runs wherever the stream is sent from, and ends that stream alone
                log.exception("on_error failed; the client is told the default")
        return self._error_event(None, error)

    def _error_event(self, words: Words, error: BaseException) -> bytes:
        if isinstance(words, ServerSentEvent):
            return words.encode()
        code = error.code if isinstance(error, StreamkitError) else StreamkitError.code
        data: dict[str, object] = {"message": "The stream failed.", "code": code}
        if isinstance(words, str):
            data["message"] = words
        elif isinstance(words, Mapping):
            data = dict(words)
        elif words is not None:
            raise TypeError(
                f"on_error returned {type(words).__name__}; it returns a message, a mapping, a ServerSentEvent or None"
            )
        if self._done_line is not None and "error" not in data:
            # Readers of token streams look for a truthy `error` in the data, not for the event's name.
            data["error"] = {**data, "type": "server_error"}
        return ServerSentEvent(data, event="error").encode()

    def paused(self) -> bytes | None:
        """`retry:` and a clean end. A token stream has none: cut cleanly, its readers would take it for complete."""
        if self._done_line is not None:
            return None
        return retry_line(round(1000 * random.uniform(*RESUME_SECONDS)))


class EventSourceResponse(StreamedResponse):
    """An event stream from any iterable, generator or callable.

    events: items are ServerSentEvent; `str` is data; `bytes` is a block that is encoded already; FLUSH; anything
        else but None is JSON data. A callable is called before anything is sent, so what it raises is a real HTTP
        error; that is nothing for a generator function, whose first line runs with its first item (`wait_first`).
        A generator runs on a thread of its own, in a copy of the caller's context.
    heartbeat: seconds without a byte until a comment is sent, also while the producer is blocked and before its
        first item. Default 15 (WHATWG HTML 9.2.7 suggests about 15; proxies cut idle connections from 60 s on);
        None is off.
    retry: milliseconds a client waits before it reconnects; sent within the first event. None leaves it to the
        client.
    wait_first: seconds that the first item gets to fail as a real HTTP error. None opens the stream at once.
    lifecycle: send `connected` first and `complete` last.
    complete: the name of a last event under a terminal id; a client that reconnects with this id gets 204, which
        stops it, so a finished job is never run twice.
    done: a bare data line that ends a complete stream, such as "[DONE]".
    on_error: called with the exception that ended the stream; what it returns is told to the client: a message, a
        mapping as the data, or a ServerSentEvent. None: a message that tells nothing. It must not block: the thread
        that sends runs it, which may be that of all detached streams. To report errors, use `on_close`.
    options: see StreamOptions.
    delivery: "auto" and "detached" let the stream leave the server's thread; "threaded" keeps it there, and lets that
        thread run the producer where no heartbeat is asked for.

    Raises TypeError or ValueError for what cannot be the events of a stream, and for parameters out of range. Items
    that cannot be sent end the stream as failed.
    """

    def __init__(
        self,
        events: Items,
        *,
        heartbeat: float | None = 15.0,
        retry: int | None = None,
        wait_first: float | None = None,
        lifecycle: bool = False,
        complete: str | None = None,
        done: str | None = None,
        on_error: Callable[[BaseException], Words] | None = None,
        **options: Unpack[StreamOptions],
    ) -> None:
        seconds("wait_first", wait_first)
        switch("lifecycle", lifecycle)
        function("on_error", on_error)
        if complete is not None and not isinstance(complete, str):
            raise TypeError(f'complete is {complete!r}; give the name of the last event, such as "complete"')
        if lifecycle and complete is None:
            complete = "complete"
        if complete is not None:
            ServerSentEvent("", event=complete)  # raises for a name that cannot be sent
        self._complete = complete
        framing = EventStreamFraming(
            retry=retry,
            done=done,
            complete=complete,
            connected={"heartbeat": heartbeat} if lifecycle else None,
            on_error=on_error,
        )
        super().__init__(
            "events",
            framing,
            events,
            "events",
            content_type="text/event-stream; charset=utf-8",
            thread="own",
            wait_first=wait_first,
            heartbeat=heartbeat,
            flush_bytes=1,
            flush_seconds=None,
            options=options,
        )
        # Never stored (RFC 9111 5.2.2.4), never rewritten or compressed on the way (RFC 9110 7.7), never buffered by
        # nginx.
        self.headers.setdefault("Cache-Control", "no-cache, no-transform")
        self.headers.setdefault("X-Accel-Buffering", "no")

    def _answer(self, environ: dict[str, Any]) -> tuple[Iterable[bytes], str, list[tuple[str, str]]]:
        """See `StreamedResponse`. A client that has had the last event is told here to stay away."""
        if self._complete is not None and last_event_id(environ) == COMPLETE_ID:
            self.status_code = 204
            del self.headers["Content-Type"]
        return super()._answer(environ)
