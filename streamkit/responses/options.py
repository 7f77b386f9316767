"""What every streamed response takes by keyword, and the checks of such parameters.

A wrong value is refused in the view that makes the response, where the traceback shows who gave it; not in the middle
of a stream, when the client has its 200 already.
"""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict

from streamkit.flow.limiter import Limiter
from streamkit.flow.rate import Allowance, Limit, Rate
from streamkit.flow.stream import Stream
from streamkit.formats.header_fields import check_header
from streamkit.responses.plain import status_line

Headers = Mapping[str, str] | Iterable[tuple[str, str]]
Delivery = Literal["auto", "threaded", "detached"]
LimitKey = str | Callable[[Mapping[str, Any]], str] | None


class StreamOptions(TypedDict, total=False):
    """What every streamed response takes by keyword, beside its own parameters.

    max_duration, max_bytes: seconds, bytes; beyond them the stream ends early (event streams so that they resume,
        everything else as an abort). The real duration is 80 to 100 % of it, at random. None, the default, is off.
    on_close: called with the stream's record at its end.
    limiter, limit_key: a place to take before the producer starts (see Limiter), and whose it is: a text, or a
        function of the environ.
    max_rate: bytes a second; or a Rate, a Quota or several of them, which streams may share. None is off.
    compress: whether a client that accepts it gets the stream compressed (gzip; brotli or zstd where installed), each
        chunk readable at once. Not where the headers say `no-transform`, as those of event streams do.
    delivery: "auto" lets a long-lived stream leave the server's thread where the server lends its socket; "detached"
        asks the same of tables and files, whose producer then runs on a thread of its own; "threaded" keeps everything
        on the server's thread. STREAMKIT_DELIVERY=threaded in the environment keeps every stream on the server.
    status: default 200. headers: a mapping or pairs; they win over the response's own.
    """

    max_duration: float | None
    max_bytes: int | None
    max_rate: float | Limit | Sequence[Limit] | None
    on_close: Callable[[Stream], object] | None
    limiter: Limiter | None
    limit_key: LimitKey
    compress: bool
    delivery: Delivery
    status: int | str
    headers: Headers | None


def check_options(response: type, options: StreamOptions) -> None:
    """Raise TypeError for words that are no option, TypeError or ValueError for values that none may have."""
    for word in options:
        if word not in StreamOptions.__annotations__:
            raise TypeError(_no_such_option(response, word))
    seconds("max_duration", options.get("max_duration"))
    if (max_bytes := options.get("max_bytes")) is not None:
        whole("max_bytes", max_bytes, or_none=", or None to switch it off")
    function("on_close", options.get("on_close"))
    switch("compress", options.get("compress", False))
    limiter, key = options.get("limiter"), options.get("limit_key")
    if limiter is not None and not isinstance(limiter, Limiter):
        raise TypeError(f"limiter is {limiter!r}; give a Limiter, such as Limiter(max_streams=100)")
    if key is not None and not (isinstance(key, str) or callable(key)):
        raise TypeError(f"limit_key is {key!r}; give a text, or a function of the environ")
    if key is not None and limiter is None:
        raise ValueError("limit_key says whose place is taken, in the limiter: give limiter= as well")
    if key is None and limiter is not None and limiter.per_key is not None:
        raise ValueError(
            "this limiter has per_key, so it needs limit_key= (a text, or a function of the environ)"
        )
    delivery = options.get("delivery", "auto")
    if delivery not in ("auto", "threaded", "detached"):
        raise ValueError(f'delivery is {delivery!r}; it is "auto", "threaded" or "detached"')
    status_line(options.get("status", 200))


def _no_such_option(response: type, word: str) -> str:
    own = [
        name
        for name, parameter in inspect.signature(response).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    known = [*own, *StreamOptions.__annotations__]
    near = difflib.get_close_matches(word, known, 1)
    guess = f" (did you mean {near[0]}?)" if near else ""
    return f"{response.__name__} has no option {word!r}{guess}; it has {', '.join(known)}"


def allowance(max_rate: float | Limit | Sequence[Limit] | None) -> Allowance | None:
    """What `max_rate` asks for. Raises TypeError or ValueError for what is no rate."""
    if max_rate is None:
        return None
    if isinstance(max_rate, (int, float)) and not isinstance(max_rate, bool):
        return Allowance(Rate(max_rate))
    several = isinstance(max_rate, Sequence) and not isinstance(max_rate, str)
    limits: Sequence[Any] = max_rate if several else [max_rate]  # type: ignore[assignment]
    for limit in limits:
        if not (hasattr(limit, "delay") and hasattr(limit, "is_idle")):
            raise TypeError(
                f"max_rate is {max_rate!r}; give bytes a second as a number, a Rate, a Quota, or a list of them"
            )
    return Allowance(*limits)


def seconds(name: str, value: float | None) -> None:
    """Check a parameter that is a time: a finite number of seconds above 0, or None for off."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is {value!r}; give seconds as a number, or None to switch it off")
    if not value > 0 or math.isinf(value):
        raise ValueError(f"{name} is {value!r}; give a number of seconds above 0, or None to switch it off")


def whole(name: str, value: object, *, least: int = 1, or_none: str = "") -> None:
    """Check a parameter that is a size: a whole number from `least` on. or_none: what the error says of None."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}; give a whole number{or_none}")
    if value < least:
        raise ValueError(f"{name} is {value!r}; give a whole number from {least} on{or_none}")


def switch(name: str, value: object) -> None:
    """Check a parameter that is on or off."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; it is True or False")


def function(name: str, value: object) -> None:
    """Check a parameter that is called, or None."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} is {value!r}; give a function, or None")


def checked_headers(headers: Headers | None) -> list[tuple[str, str]]:
    """The pairs of `headers`. Raises TypeError or ValueError for what no server may be given (see `check_header`)."""
    given: Any = headers.items() if isinstance(headers, Mapping) else headers or ()
    pairs = []
    for pair in given if isinstance(given, Iterable) else [given]:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(f"headers has {pair!r}; give a mapping, or pairs of a name and a value")
        name, value = pair
        check_header(name, value)
        if name.lower() == "content-length" and not re.fullmatch("[0-9]+", value):
            raise ValueError(
                f"header 'Content-Length' is {value!r}; give the number of bytes (RFC 9110 section 8.6)"
            )
        pairs.append((name, value))
    return pairs


def content_type(mimetype: object) -> str:
    """The Content-Type of `mimetype`; a text that names no charset is in UTF-8. Raises TypeError, ValueError."""
    if not isinstance(mimetype, str):
        raise TypeError(f'mimetype is {mimetype!r}; give a text such as "text/plain"')
    check_header("Content-Type", mimetype)
    if not re.match(r"[^/;\s]+/[^/;\s]+\s*(;|$)", mimetype):
        raise ValueError(f'mimetype is {mimetype!r}; give a type and a subtype, such as "text/plain"')
    plain_text = mimetype.lower().startswith("text/") and "charset=" not in mimetype.lower()
    return f"{mimetype}; charset=utf-8" if plain_text else mimetype
