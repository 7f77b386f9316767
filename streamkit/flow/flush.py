"""The item that means "send what you have"."""

from typing import Final


class Flush:
    """The type of `FLUSH`. There is one instance; compare with `is`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "FLUSH"

    def __reduce__(self) -> str:
        return "FLUSH"


FLUSH: Final = Flush()
"""Yield it from any producer: what is buffered goes out now, and nothing is added to the stream."""
