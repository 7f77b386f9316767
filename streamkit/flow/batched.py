"""Sources that get their items several at a time, as a database cursor does, and can hand them on like that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from streamkit.flow.flush import Flush


class BatchedSource(ABC):
    """A `Source` that a stream may ask for `batches()` in place of `iter()`: one step for many items."""

    @abstractmethod
    def batches(self) -> Iterator[Sequence[Any] | Flush] | None:
        """The items in sequences that can be sliced, with `FLUSH` between them where iterating has it.

        To be called once, on the thread that iterates. None: these items come one by one after all, so iterate.
        """
