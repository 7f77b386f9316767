"""`last_event_id`: the cursor of a WSGI request (WHATWG HTML 9.2.4)."""

import pytest

from streamkit import last_event_id
from streamkit.formats.last_event_id import MAX_CURSOR_BYTES, UNKNOWN_CURSOR


@pytest.mark.parametrize(
    ("header", "query", "cursor"),
    [
        (None, "", None),
        (None, None, None),
        ("7", "", "7"),
        ("0", "", "0"),
        ("", "lastEventId=9", None),
        ("7", "lastEventId=9", "7"),
        (" 7\t", "", "7"),
        ("…".encode().decode("latin-1"), "", "…"),  # [format-field-id-2]
        ("…".encode()[:-1].decode("latin-1"), "", UNKNOWN_CURSOR),
        ("\xff", "lastEventId=9", UNKNOWN_CURSOR),
        ("…", "", UNKNOWN_CURSOR),  # a server that breaks PEP 3333
        ("a\rb", "", UNKNOWN_CURSOR),
        ("a\nb", "", UNKNOWN_CURSOR),
        ("a\0b", "", UNKNOWN_CURSOR),
        ("x" * MAX_CURSOR_BYTES, "", "x" * MAX_CURSOR_BYTES),
        ("x" * (MAX_CURSOR_BYTES + 1), "", UNKNOWN_CURSOR),
        (None, "lastEventId=9", "9"),
        (None, "last_event_id=9", "9"),
        (None, "a=1&last_event_id=8&b&lastEventId=9&c=2", "9"),
        (None, "lastEventId=8&last_event_id=9", "9"),
        (None, "lastEventId=8&lastEventId=9&lastEventId=&last_event_id", "9"),
        (None, "lastEventId=", None),
        (None, "xlastEventId=9&lasteventid=9&LastEventId", None),
        (None, "lastEventId=room%3A22+a%2Bb", "room:22 a+b"),
        (None, "lastEventId=a=b", "a=b"),
        (None, "lastEventId=%E2%80%A6", "…"),
        (None, "lastEventId=…".encode().decode("latin-1"), "…"),
        (None, "lastEventId=%E2%80", UNKNOWN_CURSOR),
        (None, "lastEventId=a%0Ab", UNKNOWN_CURSOR),
        (None, "lastEventId=a%0Db", UNKNOWN_CURSOR),
        (None, "lastEventId=%00", UNKNOWN_CURSOR),
        (None, "lastEventId=%zz%", "%zz%"),
        (None, "lastEventId=" + "x" * 5000, UNKNOWN_CURSOR),
    ],
)
def test_cursors(header: str | None, query: str | None, cursor: str | None) -> None:
    environ: dict[str, object] = {"REQUEST_METHOD": "GET"}
    if header is not None:
        environ["HTTP_LAST_EVENT_ID"] = header
    if query is not None:
        environ["QUERY_STRING"] = query
    assert last_event_id(environ) == cursor


def test_an_id_that_wsgiref_cuts_is_unknown() -> None:
    """wsgiref strips the header as text, and with it the last byte of an id that ends in A0 or 85."""
    cut = "voilà".encode().decode("latin-1").strip()
    assert last_event_id({"HTTP_LAST_EVENT_ID": cut}) == UNKNOWN_CURSOR


def test_a_request_in_the_place_of_its_environ_is_told() -> None:
    class Request:
        environ = None

    with pytest.raises(TypeError, match=r"it is the WSGI environ, a dict; give request\.environ"):
        last_event_id(Request())  # type: ignore[arg-type]
