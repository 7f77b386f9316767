"""Every exception of streamkit, one family. This file imports nothing.

Read a name as an answer to two questions, whose fault and what now:

======================  ==========================  ====================================================
exception               whose fault                 what now
======================  ==========================  ====================================================
`ClientDisconnected`    nobody's: the client left   stop producing, release what you hold
`StreamExpired`         nobody's: its time is over  the client reconnects and resumes
`QuotaExceeded`         the stream sent too much    raise `max_bytes` or the `Quota`, or send less
`ProcessFailed`         the subprocess              read its exit status and its last lines
`DecodeError`           the sender of the bytes     nothing more can be read from this stream
`RangeNotSatisfiable`   the client's Range header   it gets 416 and the size of the file
`TooManyStreams`        this process is full        the client is told 503 and when to try again
`Draining`              this process is stopping    the client is told 503; another process answers
`EventSourceError`      the server that was asked   do not reconnect; read `.status`
`BrokerUnavailable`     what the hub stands on      try again later; nothing before it was lost
`DuplicateEvent`        the publisher's own id      it was published already: nothing, or choose another id
`SubscriberTooSlow`     the client reads too slowly it reconnects and resumes by its last id
`HubClosed`             the caller: it was closed   publish before `hub.close()`
`StreamRefused`         it says why                 read `.status`, `.retry_after` and `.body`
`NotAnEventStream`      the URL, or its server      look at what the URL answers
`RedirectFailed`        the server's redirects      ask the URL where the stream really is
`CertificateRefused`    the server's certificate    give an `ssl_context` that trusts it
`ProxyFailed`           the proxy in between        check `http_proxy`, `https_proxy`, `no_proxy`
`ConnectionLost`        the network, or the server  try again later; `.__cause__` says what failed
`DownloadError`         its message says            call `download` again: what came is kept
`DigestMismatch`        the server, or the path     the bytes were thrown away; load them again
======================  ==========================  ====================================================

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
    """The stream reached its `max_bytes`, or a `Quota` that it has to keep to."""

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


class StreamRefused(EventSourceError):
    """A server answered an event stream with a status other than 200, which is final (WHATWG HTML 9.2.3).

    `body` is the beginning of its answer, at most 16 KiB, where APIs say what they did not like. `retry_after` is the
    value of its `Retry-After` header in seconds, None where it named none.
    """

    code = "stream_refused"

    def __init__(
        self, message: str, status: int, body: bytes = b"", retry_after: float | None = None
    ) -> None:
        super().__init__(message, status)
        self.body = body
        self.retry_after = retry_after


class NotAnEventStream(EventSourceError):
    """A server answered 200 with something that is not `text/event-stream`, in a coding that is not known, or with a
    framing that contradicts itself.
    """

    code = "not_an_event_stream"


class RedirectFailed(EventSourceError):
    """A redirect leads nowhere, to a place where it must not lead, or in a circle."""

    code = "redirect_failed"


class CertificateRefused(EventSourceError):
    """The certificate of a server is not trusted, or not that of the host that was asked."""

    code = "certificate_refused"


class ProxyFailed(EventSourceError):
    """A proxy refused the tunnel to an `https` server, or is of a kind that cannot be used."""

    code = "proxy_failed"


class ConnectionLost(EventSourceError):
    """The connection failed, and the retries are used up. `__cause__` is the last failure."""

    code = "connection_lost"


class DownloadError(StreamkitError):
    """A download did not come to its end. What has arrived is kept, unless it was wrong, and the next call resumes.

    `status` is the HTTP status of the last answer, or None where that was not the reason.
    """

    code = "download_failed"

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class DigestMismatch(DownloadError):
    """The bytes that arrived are not those that the digest belongs to; they were removed."""

    code = "digest_mismatch"


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


class Draining(TooManyStreams):
    """This process is about to stop and opens no stream any more; the next attempt meets another one."""

    code = "draining"


class BrokerUnavailable(StreamkitError):
    """What a hub stands on (a file, a Redis) cannot be used now: unreachable, busy, full, read-only or damaged.

    Raised after a bounded time. Nothing that was published before is lost by it.
    """

    code = "broker_unavailable"


class DuplicateEvent(StreamkitError, ValueError):
    """An event with this id of the publisher's own was published already, or the id is not one that may be chosen."""

    code = "duplicate_event"


class SubscriberTooSlow(StreamkitError):
    """A subscriber read so slowly that the hub no longer holds what comes next for it.

    The client reconnects with its last id, and is told of the gap.
    """

    code = "subscriber_too_slow"


class HubClosed(StreamkitError):
    """The hub was closed: nothing can be published on it, and its subscriptions have ended."""

    code = "hub_closed"
