"""Text at the pace of a language model: the words of a real text, one event each."""

from __future__ import annotations

import ast
import re
import sys
import threading
from collections.abc import Iterator
from typing import Any

from library import installation

from streamkit import streams

WORDS_PER_SECOND = 20  # what a hosted model of middling size writes
MAX_CHARACTERS = 20_000

_MODULE = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*", re.IGNORECASE | re.ASCII)


class UnknownModule(LookupError):
    """No module of the standard library with a docstring has this name."""


def text_about(module: str) -> str:
    """The docstring of a module of the standard library, or Python's licence for "". Nothing is imported.

    Raises UnknownModule.
    """
    if not module:
        licence = installation() / "LICENSE.txt"
        return (licence.read_text("utf-8") if licence.is_file() else sys.copyright)[:MAX_CHARACTERS]
    if _MODULE.fullmatch(module):
        place = installation().joinpath(*module.split("."))
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.is_file():
                text = ast.get_docstring(ast.parse(path.read_bytes()))
                if text:
                    return text[:MAX_CHARACTERS]
    raise UnknownModule(
        f"The standard library has no module {module[:80]!r} with a docstring. Try json, heapq or ssl."
    )


def words(text: str) -> Iterator[dict[str, Any]]:
    """First the stream's id and the number of words to come; then each word with the white space around it."""
    pieces = re.findall(r"\s*\S+\s*", text)
    stream = streams.current()
    stopped = stream.cancelled if stream is not None else threading.Event()
    yield {"stream": stream.id if stream is not None else "", "words": len(pieces)}
    for piece in pieces:
        if stopped.wait(1 / WORDS_PER_SECOND):  # instead of sleep: it returns when the client has left
            return
        yield {"word": piece}
