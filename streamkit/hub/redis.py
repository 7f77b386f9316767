"""The log in Redis or Valkey, for many machines: `redis://[:password@]host:port/0?stream=name`, `rediss://` for TLS.

Law of this file
- It alone imports redis-py (5 or later), and only when a broker is made.
- Two kinds of connections for a process, however many subscribers it has: one on which the reader waits
  (`redis_reader`), and a few that any thread borrows for one call (`redis_calls`). What Redis does is in
  `redis_scripts`, what its replies mean in `redis_records`, what a URL says in `redis_address`.
- A call tries again, with a growing and random pause, until `timeout` seconds have passed; then it raises
  BrokerUnavailable. `follow` tries once: its caller pauses.
- `close` waits for nobody: who is inside a call comes back with HubClosed, or with the answer that was on its way.

Redis has to keep what it holds for the log to survive its restart (`appendonly yes`; with `appendfsync always` also
what it promised in the second before it was killed), and must not evict keys (`maxmemory-policy noeviction`). Where it
comes back empty, or with less, the positions and ids that it lost are unknown and `HistoryLost` says so. All keys are
`name` and `{name}:...`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from streamkit.errors import BrokerUnavailable, DuplicateEvent, HubClosed
from streamkit.hub import redis_scripts as scripts
from streamkit.hub.broker import RETAIN, Entry, LeaseState, Position, Record
from streamkit.hub.redis_address import RedisAddress
from streamkit.hub.redis_calls import RedisCalls
from streamkit.hub.redis_reader import RedisReader
from streamkit.hub.redis_records import Log, parts_of, position_in, read_words, records_in

# Seconds after which a call gives up: a request that publishes is answered with an error before its own client, or the
# 30 s of gunicorn's --timeout, give up on it. Long enough for a restart of Redis with its data.
TIMEOUT: Final = 5.0
# Seconds for the farewell of `close`, which a Redis that is down shall not hold up.
FAREWELL_SECONDS: Final = 0.5


class RedisBroker:
    """See `Broker`.

    url: `redis://` or `rediss://`, see `RedisAddress`. retain, retain_seconds: see `Hub`. timeout: seconds after which
    a call that Redis does not answer raises BrokerUnavailable. Nothing is connected before it is needed, so that a
    Redis that is down does not keep an application from starting. Raises ValueError for a URL that says something
    else, ModuleNotFoundError where redis-py is not installed.
    """

    local = False

    def __init__(
        self,
        url: str,
        *,
        retain: int | None = None,
        retain_seconds: float | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self._address = RedisAddress.of(url)
        self.url = self._address.shown
        self._redis = _redis_module()
        self._timeout = timeout
        self._declared = ""
        if retain is not None or retain_seconds is not None:
            age = 0 if retain_seconds is None else _ms(retain_seconds)
            self._declared = f"{RETAIN if retain is None else retain} {age}"
        self._reset()

    def _reset(self) -> None:
        self._calls = RedisCalls(self._redis, self._address, self._timeout)
        self._reader = RedisReader(self._calls, self._address.stream)
        self._newest = "0-0"  # the id of some entry that was appended; which thread's does not matter
        self._declared_to: str | None = None  # the epoch of the log that knows what is retained here
        # Whose presence is whose; made when it is needed, because not every server tells Python that it forks (uWSGI).
        self._process: str | None = None

    # -- the log ----------------------------------------------------------------------------------------------------

    def append(self, entries: Sequence[Entry]) -> list[str]:
        """Add to the log; see `Broker.append`.

        After BrokerUnavailable it is unknown whether Redis has the entries: perhaps only its answer was lost. The
        attempts within one call do not add them twice: where that cannot be told any more, because all that the log
        holds was published since the first one, it is raised too.
        """
        if not entries:
            self._calls.check_open()
            return []
        # By the token a repeated attempt finds the first one, among entries newer than `_newest`; its beginning is the
        # epoch where the log is new.
        token = secrets.token_hex(8)
        declared = self._declared if self._declared_to is None else ""
        words: list[str | int] = [declared, self._newest, token]
        for topic, data, event, id in entries:
            words += (topic, data, "" if event is None else f"={event}", id or "")
        reply = self._calls.call(scripts.APPEND, *words)
        if isinstance(reply, list):
            raise self._refusal(reply)
        epoch, base, first, ms = reply.split()
        log, self._newest = Log(epoch.decode(), int(base)), f"{int(first)}-{int(ms)}"
        if declared or log.epoch != self._declared_to:
            self._declared_to = log.epoch if declared else None
        return [entry.id or log.id(number, int(ms)) for number, entry in enumerate(entries, int(first))]

    def _refusal(self, reply: Sequence[bytes]) -> Exception:
        if reply[0] == b"foreign":
            return BrokerUnavailable(
                f"{self.url}: the stream {self._address.stream!r} holds entries that no hub wrote;"
                " choose another name, ?stream=..."
            )
        if reply[0] == b"unknown":
            return BrokerUnavailable(
                f"{self.url} did not answer at first, and has been sent more since than it retains: nobody knows"
                " whether this was published; publish it again, or retain more"
            )
        id = reply[1].decode()
        if reply[0] == b"taken":
            return DuplicateEvent(f"id {id!r} was published already; nothing of this call was published")
        return DuplicateEvent(f"id {id!r} begins as the hub's own ids do; choose another, or leave it out")

    def read(self, after: Position, limit: int) -> list[Record]:
        """What follows `after`; see `Broker.read`."""
        self._calls.check_open()
        return records_in(self._calls.call(scripts.READ, *read_words(after, limit)), self.url)[1]

    def follow(self, after: Position, limit: int, timeout: float) -> list[Record]:
        """What follows `after`, waited for; see `Broker.follow`."""
        return self._reader.follow(after, limit, timeout)

    def wake(self) -> None:
        """Make `follow` return; see `Broker.wake`."""
        self._reader.wake()

    def head(self) -> Position:
        """The newest position."""
        return position_in(self._calls.call(scripts.EDGE, "head"))

    def floor(self) -> Position:
        """The position before the oldest record that is held."""
        return position_in(self._calls.call(scripts.EDGE, "floor"))

    def locate(self, id: str) -> Position | None:
        """Where this id is; see `Broker.locate`."""
        self._calls.check_open()
        if not 0 < len(id) <= 128 or not id.isprintable():
            return None  # never given out; what is not printable may not even be text
        reply = self._calls.call(scripts.LOCATE, id, *parts_of(id))
        return position_in(reply) if reply else None

    # -- leases -----------------------------------------------------------------------------------------------------

    def claim(self, name: str, holder: str, seconds: float) -> str:
        """Take a lease; see `Broker.claim`."""
        return cast(bytes, self._calls.call(scripts.CLAIM, name, holder, _ms(seconds))).decode()

    def renew(self, leases: Sequence[tuple[str, str]], seconds: float) -> list[LeaseState]:
        """Extend leases; see `Broker.renew`."""
        words = [word for lease in leases for word in lease]
        states = self._calls.call(scripts.RENEW, _ms(seconds), *words)
        return [cast(LeaseState, state.decode()) for state in states]

    def release(self, name: str, holder: str) -> bool:
        """Give a lease up; see `Broker.release`."""
        return bool(self._calls.call(scripts.RELEASE, name, holder, secrets.token_hex(8)))

    def holder(self, name: str) -> str | None:
        """Who has a lease."""
        reply = cast("bytes | None", self._calls.call(scripts.HOLDER, name))
        return None if reply is None else reply.decode()

    def expired(self) -> list[tuple[str, str]]:
        """Leases that nobody renewed in time; see `Broker.expired`."""
        words = [word.decode() for word in self._calls.call(scripts.EXPIRED)]
        return list(zip(words[::2], words[1::2], strict=True))

    def request_stop(self, name: str, holder: str) -> bool:
        """Ask the holder of a lease to stop; see `Broker.request_stop`."""
        return bool(self._calls.call(scripts.REQUEST_STOP, name, holder))

    # -- presence ---------------------------------------------------------------------------------------------------

    def announce(self, counts: Mapping[str, int], seconds: float) -> None:
        """Say how many listen here; see `Broker.announce`."""
        process = self._process = self._process or secrets.token_hex(8)
        words = [word for pair in counts.items() for word in pair]
        self._calls.call(scripts.ANNOUNCE, process, _ms(seconds), *words)

    def present(self, topic: str) -> int | None:
        """How many listen; see `Broker.present`."""
        return int(self._calls.call(scripts.PRESENT, topic))

    # -- life -------------------------------------------------------------------------------------------------------

    def after_fork(self) -> None:
        """Forget connections and locks. The child's descriptors are closed without a word to Redis."""
        reader, closed = self._reader, self._calls.closed
        self._reset()
        reader.abandon()
        if closed:
            self._calls.close()

    def close(self) -> None:
        """Take back what was announced (briefly tried), disconnect, and wake `follow`, which ends with HubClosed."""
        if self._calls.closed:
            return
        if self._process is not None:
            try:
                self._calls.call(scripts.LEAVE, self._process, timeout=FAREWELL_SECONDS)
            except (BrokerUnavailable, HubClosed):
                pass  # what was announced expires
        self._calls.close()
        self._reader.close()


def _redis_module() -> Any:
    try:
        import redis
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "redis:// needs the package redis: pip install 'redis>=5'", name=error.name
        ) from error
    return redis


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
