"""Whether an answer may be compressed, and what its header says then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from wsgiref.headers import Headers as PlainHeaders

import pytest

from streamkit.formats.content_codings import available_codings
from streamkit.responses.compression import negotiate


def werkzeug_headers(pairs: list[tuple[str, str]]) -> Any:
    return pytest.importorskip("werkzeug.datastructures").Headers(pairs)


@pytest.fixture(params=[PlainHeaders, werkzeug_headers], ids=["plain", "werkzeug"])
def make(request: pytest.FixtureRequest) -> Callable[[list[tuple[str, str]]], Any]:
    made: Callable[[list[tuple[str, str]]], Any] = request.param
    return made


def test_a_compressed_answer(make: Callable[..., Any]) -> None:
    headers = make(
        [("Content-Type", "text/csv"), ("Content-Length", "5"), ("ETag", '"a"'), ("Accept-Ranges", "bytes")]
    )
    assert negotiate(headers, {"HTTP_ACCEPT_ENCODING": "gzip"}, 200) == "gzip"
    assert dict(headers.items()) == {
        "Content-Type": "text/csv",
        "ETag": 'W/"a"',
        "Accept-Ranges": "none",
        "Vary": "Accept-Encoding",
        "Content-Encoding": "gzip",
    }


def test_a_weak_tag_stays(make: Callable[..., Any]) -> None:
    headers = make([("ETag", 'W/"a"')])
    negotiate(headers, {"HTTP_ACCEPT_ENCODING": "gzip"}, 200)
    assert headers["ETag"] == 'W/"a"'


def test_a_304_has_the_tag_of_the_200(make: Callable[..., Any]) -> None:  # RFC 9110 section 15.4.5
    headers = make([("ETag", '"a"'), ("Accept-Ranges", "bytes")])
    assert negotiate(headers, {"HTTP_ACCEPT_ENCODING": "gzip"}, 304) is None
    assert dict(headers.items()) == {"ETag": 'W/"a"', "Accept-Ranges": "none", "Vary": "Accept-Encoding"}


LEFT_ALONE: list[tuple[str, list[tuple[str, str]], dict[str, str], int]] = [
    ("no wish", [], {}, 200),
    ("refused", [], {"HTTP_ACCEPT_ENCODING": "gzip;q=0, br;q=0, zstd;q=0"}, 200),
    ("unknown", [], {"HTTP_ACCEPT_ENCODING": "compress, x-rot13"}, 200),
    ("a part", [], {"HTTP_ACCEPT_ENCODING": "gzip"}, 206),
    ("no content", [], {"HTTP_ACCEPT_ENCODING": "gzip"}, 204),
    ("not modified, and not wished", [], {}, 304),
    ("a condition failed", [], {"HTTP_ACCEPT_ENCODING": "gzip"}, 412),
    ("no such range", [], {"HTTP_ACCEPT_ENCODING": "gzip"}, 416),
    ("a range", [("Content-Range", "bytes 0-1/5")], {"HTTP_ACCEPT_ENCODING": "gzip"}, 200),
    ("coded", [("Content-Encoding", "br")], {"HTTP_ACCEPT_ENCODING": "gzip"}, 200),
    ("a digest", [("Repr-Digest", "sha-256=:AAAA:")], {"HTTP_ACCEPT_ENCODING": "gzip"}, 200),
    ("no-transform", [("Cache-Control", "no-store, No-Transform")], {"HTTP_ACCEPT_ENCODING": "gzip"}, 200),
    (
        "no-transform in another line",
        [("Cache-Control", "no-store"), ("Cache-Control", "no-transform")],
        {"HTTP_ACCEPT_ENCODING": "gzip"},
        200,
    ),
    (
        "no-transform of the request",
        [],
        {"HTTP_ACCEPT_ENCODING": "gzip", "HTTP_CACHE_CONTROL": "max-age=0,no-transform"},
        200,
    ),
]


@pytest.mark.parametrize(
    ("why", "pairs", "environ", "status"), LEFT_ALONE, ids=[row[0] for row in LEFT_ALONE]
)
def test_answers_that_are_left_alone_vary_all_the_same(
    make: Callable[..., Any], why: str, pairs: list[tuple[str, str]], environ: dict[str, str], status: int
) -> None:
    pairs = [*pairs, ("Content-Length", "5"), ("ETag", '"a"')]
    headers = make(list(pairs))
    assert negotiate(headers, environ, status) is None
    assert headers["Vary"] == "Accept-Encoding"
    del headers["Vary"]
    assert list(headers.items()) == pairs


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["Cookie"], "Cookie, Accept-Encoding"),
        (["Cookie", "Origin"], "Cookie, Origin, Accept-Encoding"),
        (["accept-encoding"], "accept-encoding"),
        (["*"], "*"),
    ],
)
def test_vary_keeps_what_it_had(make: Callable[..., Any], before: list[str], after: str) -> None:
    headers = make([("Vary", value) for value in before])
    negotiate(headers, {}, 200)
    assert [value for name, value in headers.items() if name == "Vary"] == [after]


def test_the_best_that_both_know(make: Callable[..., Any]) -> None:
    everything = {"HTTP_ACCEPT_ENCODING": "gzip, deflate, br, zstd"}
    assert negotiate(make([]), everything, 200) == available_codings()[0]
