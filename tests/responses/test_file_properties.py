"""Any list of ranges: what comes back is what was asked for, no byte twice, no byte more."""

from __future__ import annotations

import io
import random
import re

import pytest

pytest.importorskip("hypothesis")

from hypothesis import given, settings
from hypothesis import strategies as st

from streamkit import FileResponse
from tests.responses.test_streamed import Answer

pytestmark = pytest.mark.usefixtures("nothing_left")

SIZE = 4000
DATA = random.Random(7).randbytes(SIZE)  # every few bytes tell where they are from
AROUND = 150  # bytes around a part, at most
position = st.integers(0, SIZE + 10)


@st.composite
def specs(draw: st.DrawFn) -> tuple[str, range]:
    """One range as text, and the positions that it means."""
    first, length = draw(position), draw(position)
    kind = draw(st.sampled_from(["closed", "open", "suffix"]))
    if kind == "closed":
        return f"{first}-{first + length}", range(first, min(first + length + 1, SIZE))
    if kind == "open":
        return f"{first}-", range(first, SIZE)
    return f"-{length}", range(max(0, SIZE - length), SIZE)


@settings(deadline=None, max_examples=200)
@given(st.lists(specs(), min_size=1, max_size=8))
def test_ranges(asked: list[tuple[str, range]]) -> None:
    header = "bytes=" + ", ".join(text for text, _ in asked)
    wanted = {place for _, places in asked for place in places}
    answer = Answer(FileResponse(io.BytesIO(DATA)), HTTP_RANGE=header)
    assert int(answer.headers["Content-Length"]) == len(answer.body)
    if not wanted:
        assert answer.status[:3] == "416"
        return
    if answer.status[:3] == "200":  # RFC 9110 section 17.15: the parts would have been longer
        assert answer.body == DATA
        assert len(wanted) + AROUND * (len(asked) + 1) > SIZE
        return
    assert answer.status[:3] == "206"
    assert len(answer.body) <= SIZE
    content: list[tuple[int, int, bytes]] = []
    if "Content-Range" in answer.headers:
        content.append((*_ends(answer.headers["Content-Range"]), answer.body))
    else:
        boundary = answer.headers["Content-Type"].partition("boundary=")[2].encode()
        *parts, tail = answer.body.split(b"--" + boundary)[1:]
        assert tail == b"--\r\n"
        assert len(parts) > 1
        for part in parts:
            head, _, body = part.partition(b"\r\n\r\n")
            found = re.search(rb"Content-Range: (.*)", head)
            assert found
            content.append((*_ends(found[1].decode().strip()), body[:-2]))
    for first, last, body in content:
        assert body == DATA[first : last + 1]
    assert sorted(place for first, last, _ in content for place in range(first, last + 1)) == sorted(wanted)


def _ends(content_range: str) -> tuple[int, int]:
    found = re.fullmatch(rf"bytes (\d+)-(\d+)/{SIZE}", content_range)
    assert found
    return int(found[1]), int(found[2])
