"""Bytes as a network may deliver them: cut anywhere."""

from __future__ import annotations

from collections.abc import Iterator


def cuts(data: bytes) -> Iterator[list[bytes]]:
    r"""Every way to cut `data` in two, then `data` byte by byte, each as a list of pieces that join to `data`.

    The first is `[b"", data]` and the last of the pairs `[data, b""]`: an empty piece must change nothing either. So
    there are `len(data) + 2` lists. A reader is right when it gives the same for each of them:

    ```python
    for pieces in cuts(b"data: a\n\n"):
        decoder = EventStreamDecoder()
        assert [event.data for piece in pieces for event in decoder.feed(piece)] == ["a"]
    ```
    """
    for place in range(len(data) + 1):
        yield [data[:place], data[place:]]
    yield [data[place : place + 1] for place in range(len(data))]
