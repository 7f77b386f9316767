"""What a response is given to stream, looked at in the view; what is refused there is closed."""

from __future__ import annotations

from types import FunctionType, GeneratorType

from streamkit.flow.cursor_rows import is_cursor
from streamkit.flow.sources import check_items, close_quietly

__all__ = ["check_given", "refuse_lookalikes"]


def check_given(items: object, what: str) -> None:
    """Raise TypeError or ValueError for what cannot be the items of a stream. `what`: the noun for messages."""
    refuse_lookalikes(items, what)
    try:
        check_items(items, what)
    except BaseException:
        close_quietly(items)
        raise


def refuse_lookalikes(items: object, what: str) -> None:
    """Raise TypeError for what can be iterated, and would fail late or give something else than its items."""
    if _has_flask_context(items):
        reason = (
            f"{what} are wrapped by stream_with_context(), which works on the request's own thread alone; give the"
            " generator itself: it runs in a copy of the request's context already"
        )
    elif _is_data_frame(items):
        reason = (
            f"{what} cannot be a {type(items).__qualname__}, which gives its columns when it is iterated; give its"
            " rows, frame.itertuples(index=False) with pandas and frame.iter_rows() with Polars, or let it write:"
            " StreamingResponse.from_writer(frame.to_csv)"
        )
    else:
        return
    close_quietly(items)
    raise TypeError(reason)


def _has_flask_context(items: object) -> bool:
    # Flask's wrapper is a generator that has entered the context of the request, in this thread, and leaves it with its
    # last item: in any other context that is a ValueError. As a decorator it is a function that returns one.
    scope = None
    if isinstance(items, GeneratorType) and items.gi_frame is not None:
        scope = items.gi_frame.f_globals
    elif isinstance(items, FunctionType):
        scope = items.__globals__
    return scope is not None and scope.get("__name__") == "flask.helpers"


def _is_data_frame(items: object) -> bool:
    # Of pandas, Polars, PyArrow and others, by the protocols in which they exchange frames; series have these as well.
    kind = type(items)
    exchanged = hasattr(kind, "__dataframe__") or hasattr(kind, "__arrow_c_stream__")
    return exchanged and hasattr(kind, "columns") and not is_cursor(items)
