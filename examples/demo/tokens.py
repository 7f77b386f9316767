"""Text at the pace of a language model: the words of a real text, one event each."""

from __future__ import annotations

import ast
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

from library import installation

from streamkit import ServerSentEvent

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


def words(module: str, text: str) -> Iterator[ServerSentEvent]:
    """One `question` with the `module` and the number of `words`; then each `word` with the white space around it.

    Nothing has to be cancelled: who stops it closes the generator at its next word.
    """
    pieces = re.findall(r"\s*\S+\s*", text)
    question: dict[str, Any] = {"module": module, "words": len(pieces)}
    yield ServerSentEvent(question, event="question")
    for piece in pieces:
        yield ServerSentEvent({"word": piece}, event="word")
        time.sleep(1 / WORDS_PER_SECOND)
