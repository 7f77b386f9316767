"""One table of event streams for the encoder and the decoder: what is on the wire, and what it means.

Section numbers are those of WHATWG HTML 9.2; names in brackets are files of the Web Platform Tests, `eventsource/`.
"""

from dataclasses import dataclass
from typing import Any

from streamkit import ServerSentEvent


def R(data: str, event: str = "message", id: str = "") -> ServerSentEvent:
    """Return what a decoded event is equal to."""
    return ServerSentEvent(data, event=event, id=id)


@dataclass(frozen=True)
class Vector:
    """A stream. `sent` is what encodes to exactly `wire`, where the wire is in the encoder's own form."""

    name: str
    wire: bytes
    events: list[ServerSentEvent]
    last_event_id: str = ""
    retry: int | None = None
    sent: list[Any] | None = None

    def __str__(self) -> str:
        return self.name


E = ServerSentEvent
A_MEGABYTE = "x" * 1_000_000

VECTORS = [
    # What the encoder writes, and what must come back.
    Vector("one event", b"data: x\n\n", [R("x")], sent=[E("x")]),
    Vector(
        "all fields in order",
        b": c\nevent: tick\nid: 7\nretry: 250\ndata: x\n\n",
        [R("x", "tick", "7")],
        "7",
        250,
        sent=[E("x", event="tick", id="7", retry=250, comment="c")],
    ),
    Vector("empty data is an event", b"data: \n\n", [R("")], sent=[E("")]),
    Vector("two lines", b"data: a\ndata: b\n\n", [R("a\nb")], sent=[E("a\nb")]),
    Vector(
        "twelve lines", b"data: a\n" * 12 + b"\n", [R("\n".join("a" * 12))], sent=[E("\n".join("a" * 12))]
    ),
    Vector("only line feeds", b"data: \ndata: \ndata: \n\n", [R("\n\n")], sent=[E("\n\n")]),
    Vector("a trailing line feed stays", b"data: a\ndata: \n\n", [R("a\n")], sent=[E("a\n")]),
    Vector(
        "CR and CRLF arrive as LF", b"data: a\ndata: b\ndata: c\n\n", [R("a\nb\nc")], sent=[E("a\rb\r\nc")]
    ),
    Vector("leading spaces stay", b"data:   a\n\n", [R("  a")], sent=[E("  a")]),
    Vector("a leading tab stays", b"data: \ta\n\n", [R("\ta")], sent=[E("\ta")]),
    Vector("colons in data", b"data: :a: b\n\n", [R(":a: b")], sent=[E(":a: b")]),
    Vector(
        "data that looks like fields", b"data: data: id: 1\n\n", [R("data: id: 1")], sent=[E("data: id: 1")]
    ),
    Vector("NUL in data [format-null-character]", b"data: \0\n\n", [R("\0")], sent=[E("\0")]),
    Vector(
        "U+2028, U+2029, U+0085, VT, FF, FS are no line ends",
        "data: a\u2028b\u2029c\x85d\ve\ff\x1cg\x1dh\x1ei\n\n".encode(),
        [R("a\u2028b\u2029c\x85d\ve\ff\x1cg\x1dh\x1ei")],
        sent=[E("a\u2028b\u2029c\x85d\ve\ff\x1cg\x1dh\x1ei")],
    ),
    Vector(
        "they are none in event and id either",
        "event: a\u2028\ve\nid: \x85\u2029 \ndata: x\n\n".encode(),
        [R("x", "a\u2028\ve", "\x85\u2029 ")],
        "\x85\u2029 ",
        sent=[E("x", event="a\u2028\ve", id="\x85\u2029 ")],
    ),
    Vector("characters of two to four bytes", "data: é…𝄞\n\n".encode(), [R("é…𝄞")], sent=[E("é…𝄞")]),
    Vector(
        "JSON on one line",
        b'data: {"a":[1,null,"\\u2028"]}\n\n',
        [R('{"a":[1,null,"\\u2028"]}')],
        sent=[E({"a": [1, None, "\u2028"]})],
    ),
    Vector("the empty type is message", b"event: \ndata: x\n\n", [R("x")], sent=[E("x", event="")]),
    Vector(
        "the type is forgotten after its event",
        b"event: a\ndata: x\n\ndata: y\n\n",
        [R("x", "a"), R("y")],
        sent=[E("x", event="a"), E("y")],
    ),
    Vector(
        "a type without data is forgotten", b"event: a\n\ndata: y\n\n", [R("y")], sent=[E(event="a"), E("y")]
    ),
    Vector(
        "the id stays in force",
        b"id: 1\ndata: x\n\ndata: y\n\n",
        [R("x", id="1"), R("y", id="1")],
        "1",
        sent=[E("x", id="1"), E("y")],
    ),
    Vector(
        "an id without data counts", b"id: 9\n\ndata: x\n\n", [R("x", id="9")], "9", sent=[E(id="9"), E("x")]
    ),
    Vector("id 0 is an id", b"id: 0\ndata: x\n\n", [R("x", id="0")], "0", sent=[E("x", id=0)]),
    Vector(
        "the empty id clears [format-field-id-3]",
        b"id: 1\ndata: x\n\nid: \ndata: y\n\n",
        [R("x", id="1"), R("y")],
        "",
        sent=[E("x", id="1"), E("y", id="")],
    ),
    Vector(
        "a lone retry needs no blank line",
        b"retry: 0\ndata: x\n\n",
        [R("x")],
        "",
        0,
        sent=[E(retry=0), E("x")],
    ),
    Vector(
        "a lone comment is a line",
        b": hb\n:\n:\n: b\ndata: x\n\n",
        [R("x")],
        sent=[E(comment="hb"), E(comment=""), E(comment="\r\nb"), E("x")],
    ),
    Vector(
        "a comment of two lines",
        b": data: no\n: id: no\ndata: x\n\n",
        [R("x")],
        sent=[E("x", comment="data: no\nid: no")],
    ),
    Vector("a large event", b"data: " + A_MEGABYTE.encode() + b"\n\n", [R(A_MEGABYTE)], sent=[E(A_MEGABYTE)]),
    # 9.2.5 and 9.2.6: what others may send.
    Vector("nothing", b"", []),
    Vector("blank lines", b"\n\n\r\r\r\n\r\n\n", []),
    Vector("a name without a colon", b"data\n\ndata\ndata\n\ndata:", [R(""), R("\n")]),
    Vector("tab, space and CR", b"data:\ttest\rdata: \ndata:test\n\n", [R("\ttest\n\ntest")]),
    Vector(
        "no space after the colon",
        b"event:a\nid:1\ndata:x\n\nid:2\nevent:b\ndata:y\ndata:z\n\n",
        [R("x", "a", "1"), R("y\nz", "b", "2")],
        "2",
    ),
    Vector(
        "with and without the space",
        b"data:x\n\ndata: y\n\ndata:  z\n\ndata: a\ndata:b\n\ndata:c\ndata: data:d\n\n",
        [R(data) for data in ("x", "y", " z", "a\nb", "c\ndata:d")],
    ),
    Vector(
        "id before event",
        b"id: 1\nevent: a\ndata: x\n\nid: 2\nevent: b\ndata: y\n\n",
        [R("x", "a", "1"), R("y", "b", "2")],
        "2",
    ),
    Vector(
        "fields after data",
        b"data: x\nevent: a\nid: 1\n\ndata: y\n\n",
        [R("x", "a", "1"), R("y", id="1")],
        "1",
    ),
    Vector(
        "the last of several fields counts",
        b"id: 1\nevent: a\nid: 2\nevent: b\ndata: x\nid: 3\ndata: y\n\n",
        [R("x\ny", "b", "3")],
        "3",
    ),
    Vector("CRLF", b"event: a\r\ndata: x\r\n\r\ndata: y\r\n\r\n", [R("x", "a"), R("y")]),
    Vector("CR", b"event: a\rdata: x\r\rdata: y\r\r", [R("x", "a"), R("y")]),
    Vector(
        "three line ends mixed [format-newlines]",
        b"data:test\r\ndata\ndata:test\r\n\r\n",
        [R("test\n\ntest")],
    ),
    Vector("CR LF LF", b"data: x\r\n\ndata: y\n\r\ndata: z\n\r", [R("x"), R("y"), R("z")]),
    Vector(
        "unknown names [format-field-parsing]",
        b"data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nd-a:3\rdata_5\ndata:3\rdata:\r\n data:32\ndata:4\n\n",
        [R("\0\n 2\n1\n3\n\n4")],
    ),
    Vector(
        "unknown names around usual blocks",
        b"foo: 1\ndata: x\n\ndata: y\nfoo\n\nfoo\n\ndata: z\n\n",
        [R("x"), R("y"), R("z")],
    ),
    Vector(
        "a block that begins in an unusual way",
        b"event\nid\ndata: x\n\nevent: a\n foo\nevent: b\nid: 1\ndata: y\n\n",
        [R("x"), R("y", "b", "1")],
        "1",
    ),
    Vector("a comment inside a block", b"event: a\n: c\ndata: x\n:\ndata: y\n\n", [R("x\ny", "a")]),
    Vector("comment blocks", b": hb\n\nretry: 100\n\ndata:1\n\n", [R("1")], "", 100),
    Vector(
        "a heartbeat before each event",
        b":\ndata: x\n\n:\n:\nid: 1\ndata: y\n\n:\n",
        [R("x"), R("y", id="1")],
        "1",
    ),
    Vector(
        "an unfinished block is dropped", b"id: 1\ndata:1\n\nid: 2\nevent: a\ndata:2\n", [R("1", id="1")], "1"
    ),
    Vector("an unfinished line is dropped", b"data: x\n\ndata: y\n\ndata: z", [R("x"), R("y")]),
    Vector("a retry counts when its line is read", b"data: x\n\nretry: 300\n", [R("x")], "", 300),
    Vector("an unfinished retry does not", b"retry: 300", []),
    Vector(
        "NUL in id [format-field-id-null]",
        b"id: 1\ndata: x\n\nid: 2\0\ndata: y\n\nid: \0\nevent: a\ndata: z\n\n",
        [R("x", id="1"), R("y", id="1"), R("z", "a", "1")],
        "1",
    ),
    Vector(
        "an id in an undispatched block clears",
        b"id: 1\ndata: x\n\nid\n\ndata: y\n\n",
        [R("x", id="1"), R("y")],
    ),
    Vector("retry [format-field-retry]", b"retry: 3000\n\nretry:03\ndata: x\n\n", [R("x")], "", 3),
    Vector(
        "retry that is none [format-field-retry-bogus]",
        b"retry: 10\nretry: 1000x\nretry: 1_0\nretry: -3\nretry: +3\nretry:  5\nretry: 5 \nretry\nretry:\n"
        + "retry: \u0665\nretry: \u00b2\n".encode()
        + b"retry: "
        + b"9" * 5000
        + b"\n",
        [],
        "",
        10,
    ),
    Vector("a BOM [format-bom]", b"\xef\xbb\xbfdata:1\n\n\xef\xbb\xbfdata:2\n\ndata:3\n\n", [R("1"), R("3")]),
    Vector("two BOMs [format-bom-2]", b"\xef\xbb\xbf\xef\xbb\xbfdata:1\n\ndata:2\n\n", [R("2")]),
    Vector("half a BOM", b"\xef\xbbdata:1\n\ndata:2\n\n", [R("2")]),
    Vector("invalid UTF-8 [format-utf-8]", b"data:a\xffb\n\n", [R("a\ufffdb")]),
    Vector(
        "a character cut by a line end",
        b"data: \xe2\x82\ndata: \xac\n\nevent: \xf0\x9f\ndata: x\n\n",
        [R("\ufffd\n\ufffd"), R("x", "\ufffd")],
    ),
    Vector("surrogates in UTF-8", b"data: \xed\xa0\x80\n\n", [R("\ufffd\ufffd\ufffd")]),
]
