"""Every exception of streamkit, one family. This file imports nothing.

Read a name as an answer to two questions, whose fault and what now:

======================  ==========================  =============================================
exception               whose fault                 what now
======================  ==========================  =============================================
`ClientDisconnected`    nobody's: the client left   stop producing, release what you hold
`StreamExpired`         nobody's: its time is over  the client reconnects and resumes
`QuotaExceeded`         the stream sent too much    raise `max_bytes`, or send less
`ProcessFailed`         the subprocess              read its exit status and its last lines
`DecodeError`           the sender of the bytes     nothing more can be read from this stream
`RangeNotSatisfiable`   the client's Range header   it gets 416 and the size of the file
`TooManyStreams`        this process is full        the client is told 503 and when to try again
`EventSourceError`      the server that was asked   do not reconnect; read `.status`
======================  ==========================  =============================================

A value that cannot be sent (a newline in an event id, NaN in JSON, `None` where bytes belong) is a plain
`ValueError` or `TypeError`: it is a mistake in the calling code, and those are Python's own names for it.
"""


class StreamkitError(Exception):
    """The base of every exception that streamkit defines."""

    code = "stream_failed"
    """A stable word for programs: the `code` of the `error` event that a client sees."""


class ClientDisconnected(StreamkitError):
    """The client closed its connection; raised where a producer writes after that (`out.write`)."""

    code = "client_disconnected"


class StreamExpired(StreamkitError):
    """The stream reached its `max_duration`."""

    code = "stream_expired"


class QuotaExceeded(StreamkitError):
    """The stream reached its `max_bytes`."""

    code = "quota_exceeded"


class ProcessFailed(StreamkitError):
    """A subprocess behind `run_process` ended with a status other than 0.

    `returncode` is what `subprocess.Popen.returncode` says: the exit status, or minus the signal's number.
    """

    code = "process_failed"

    def __init__(self, program: str, returncode: int) -> None:
        how = f"was killed by signal {-returncode}" if returncode < 0 else f"exited with status {returncode}"
        super().__init__(f"{program!r} {how}")
        self.program = program
        self.returncode = returncode


class DecodeError(StreamkitError, ValueError):
    """Bytes that arrived are not what the format allows, or exceed the limit that was set for them."""

    code = "decode_error"


class RangeNotSatisfiable(StreamkitError, ValueError):
    """No requested byte range overlaps the file (RFC 9110 section 15.5.17).

    `size` is the length of the file in bytes, for the `Content-Range: bytes */size` of the 416 answer.
    """

    code = "range_not_satisfiable"

    def __init__(self, header: str, size: int) -> None:
        super().__init__(f"Range {header!r} does not overlap a file of {size} bytes")
        self.size = size


class EventSourceError(StreamkitError):
    """A server refused an event stream for good: a final status, a wrong content type, or retries used up.

    `status` is the HTTP status of the last answer, or None where there was none.
    """

    code = "event_source_error"

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class TooManyStreams(StreamkitError):
    """This process, or the client's own share of it, holds as many streams as it may.

    `status` is 503 or 429, and `retry_after` the whole number of seconds for the `Retry-After` header.
    `event_streams` says what a client is answered that asks for an event stream: "retry" or "status" (see `Limiter`).
    """

    code = "too_many_streams"

    def __init__(
        self, message: str, retry_after: int = 5, status: int = 503, event_streams: str = "retry"
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.status = status
        self.event_streams = event_streams
