"""Topics and patterns: what they may be, and who listens to what.

Law of this file
- A topic is exact where something is published; where somebody subscribes it may be a pattern (`fnmatch`: `*`, `?`,
  `[...]`, matching case). So a published topic holds none of those characters.
- An `Audience` belongs to the reader's thread alone; nothing here takes a lock.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import translate
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from streamkit.hub.subscription import Subscription

# Longest topic or pattern in bytes of UTF-8: long enough for a path or a URL, short enough for an index of thousands.
MAX_TOPIC_BYTES: Final = 1024
# Topics of which it is remembered who listens; all are forgotten beyond that. A few hundred bytes each.
REMEMBERED_TOPICS: Final = 50_000

_WILD: Final = re.compile(r"[*?\[]")


def is_pattern(topic: str) -> bool:
    """Whether this may stand for more than one topic."""
    return _WILD.search(topic) is not None


def check_topic(topic: object) -> str:
    """Return a topic that may be published on. Raises TypeError or ValueError."""
    text = check_pattern(topic)
    if _WILD.search(text) is not None:
        raise ValueError(
            f"topic {text!r} cannot be published on: *, ? and [ are for patterns of subscribers; use other characters"
        )
    return text


def check_pattern(topic: object) -> str:
    """Return a topic or pattern that may be subscribed to. Raises TypeError or ValueError."""
    if not isinstance(topic, str):
        hint = "; unpack it: subscribe(*topics)" if isinstance(topic, (list, tuple, set, frozenset)) else ""
        raise TypeError(f"a topic must be str, not {type(topic).__name__}{hint}")
    if not topic:
        raise ValueError("a topic cannot be empty; for all topics subscribe to '*'")
    if not topic.isprintable():
        raise ValueError(
            f"topic {topic[:80]!r} has a character that cannot be printed (a line break, a control); use others"
        )
    if len(topic) > MAX_TOPIC_BYTES // 4 and len(topic.encode()) > MAX_TOPIC_BYTES:
        raise ValueError(
            f"topic {topic[:40]!r}... has {len(topic.encode())} bytes; at most {MAX_TOPIC_BYTES} are allowed"
        )
    return topic


def matcher(pattern: str) -> Callable[[str], object]:
    """A function that tells whether a topic is one of those that the pattern means."""
    return re.compile(translate(pattern)).match


class Group:
    """Who listens to one topic or pattern. Dictionaries, because they keep the order and lose a member at once.

    plain: those that take every event as it is. choosy: those that are asked first, because they have a filter, or an
    end, or could be reached by more than one of their topics.
    """

    __slots__ = ("choosy", "plain")

    def __init__(self) -> None:
        self.plain: dict[Subscription, None] = {}
        self.choosy: dict[Subscription, None] = {}


class Audience:
    """The live subscriptions by topic: 10,000 topics cost one dictionary look-up an event."""

    def __init__(self) -> None:
        self._exact: dict[str, Group] = {}
        self._patterns: dict[str, tuple[Callable[[str], object], Group]] = {}
        self._remembered: dict[str, tuple[Group, ...]] = {}

    def add(self, subscription: Subscription) -> None:
        """From now on it is in `of(topic)` for each of its topics."""
        for topic in subscription.topics:
            if is_pattern(topic):
                known = self._patterns.get(topic)
                if known is None:
                    known = self._patterns[topic] = (matcher(topic), Group())
                    self._remembered.clear()
                group = known[1]
            else:
                found = self._exact.get(topic)
                if found is None:
                    found = self._exact[topic] = Group()
                    self._remembered.pop(topic, None)
                group = found
            (group.choosy if subscription.choosy else group.plain)[subscription] = None

    def discard(self, subscription: Subscription) -> None:
        """It is in no group any more."""
        for topic in subscription.topics:
            pattern = self._patterns.get(topic)
            group = self._exact.get(topic) if pattern is None else pattern[1]
            if group is None:
                continue
            group.plain.pop(subscription, None)
            group.choosy.pop(subscription, None)
            if group.plain or group.choosy:
                continue
            if pattern is None:
                del self._exact[topic]
                self._remembered.pop(topic, None)
            else:
                del self._patterns[topic]
                self._remembered.clear()

    def of(self, topic: str) -> tuple[Group, ...]:
        """Every group that an event on this topic is for."""
        known = self._remembered.get(topic)
        if known is None:
            if len(self._remembered) >= REMEMBERED_TOPICS:
                self._remembered.clear()
            exact = self._exact.get(topic)
            known = () if exact is None else (exact,)
            known += tuple(group for matches, group in self._patterns.values() if matches(topic))
            self._remembered[topic] = known
        return known

    def everyone(self) -> list[Subscription]:
        """Every subscription, once."""
        groups = [*self._exact.values(), *(group for _, group in self._patterns.values())]
        return list(dict.fromkeys(member for group in groups for member in (*group.plain, *group.choosy)))
