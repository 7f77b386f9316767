"""Calls to Redis: borrowed connections, attempts until a deadline, and errors that say what to do.

Law of this file
- At most `CONNECTIONS` connections, made when needed; one owner at a time, from borrowing to giving back. A connection
  on which something went wrong is disconnected: half an answer never meets the next question.
- An attempt that got no answer may have been done. Scripts are told that they are being repeated (see
  `redis_scripts`), so a call is done once however many attempts it takes.
- Nothing is retried that would fail the same way a second later (a wrong password, a key of another kind).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from random import uniform
from time import monotonic
from typing import Any, Final, Protocol, cast

from streamkit.errors import BrokerUnavailable, HubClosed
from streamkit.hub.redis_address import RedisAddress
from streamkit.hub.redis_scripts import Script, key_names

# Connections for calls. One call takes about 0.1 ms, so eight carry more than one Redis executes.
CONNECTIONS: Final = 8
# Pauses between attempts, in seconds: the first, and the longest; each is a random 50 to 100 % of it.
FIRST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 1.0


Word = str | int
"""One argument of a command."""


class Connection(Protocol):
    """What is used of a connection of redis-py (5 and later)."""

    socket_timeout: float | None
    socket_connect_timeout: float | None

    def connect(self) -> None: ...

    def disconnect(self) -> None: ...

    def send_packed_command(self, command: Sequence[bytes]) -> None: ...

    def read_response(self) -> Any: ...

    def can_read(self, timeout: float) -> bool: ...


class RedisCalls:
    """Runs scripts for any thread. `redis` is the module redis-py; `timeout` the seconds that a call may take."""

    def __init__(self, redis: Any, address: RedisAddress, timeout: float) -> None:
        self.url = address.shown
        self.timeout = timeout
        self.errors: tuple[type[Exception], ...] = (redis.RedisError, OSError)
        """What a connection raises."""
        self._redis = redis
        self._address = address
        self._names = key_names(address.stream)
        self._kinds = redis.exceptions
        # Set by `close`; who pauses between two attempts waits on it.
        self._closing = threading.Event()
        self._heads: dict[str, tuple[bytes, int]] = {}
        # Connections that nobody uses, connected or not; append and pop are atomic. The condition is for who finds
        # none: it guards the two numbers, and is waited on as long as a call may take.
        self._idle: list[Connection] = []
        self._freed = threading.Condition(threading.RLock())
        self._made = 0
        self._waiting = 0

    def new_connection(self) -> Connection:
        """A connection of redis-py that connects when it is first used."""
        kind = {
            "tcp": self._redis.Connection,
            "tls": self._redis.SSLConnection,
            "unix": self._redis.UnixDomainSocketConnection,
        }[self._address.kind]
        connection = kind(
            **self._address.options,
            socket_timeout=self.timeout,
            protocol=2,  # RESP 3 adds messages that nobody asked for
            decode_responses=False,
        )
        connection.socket_connect_timeout = self.timeout
        return cast(Connection, connection)

    def call(self, script: Script, *words: Word, timeout: float | None = None) -> Any:
        """The reply of a script. Raises BrokerUnavailable when `timeout` seconds have passed, and HubClosed."""
        deadline = monotonic() + (self.timeout if timeout is None else timeout)
        attempt, pause = 0, FIRST_PAUSE
        while True:
            self.check_open()
            try:
                return self.attempt(script, [attempt, *words], deadline)
            except self.errors as error:
                wait = uniform(pause / 2, pause)
                if self._is_final(error) or monotonic() + wait >= deadline:
                    raise BrokerUnavailable(self.explained(error)) from error
            attempt = round(1000 * self.timeout)
            pause = min(2 * pause, LONGEST_PAUSE)
            self._closing.wait(wait)

    def attempt(self, script: Script, words: Sequence[Word], deadline: float) -> Any:
        """The reply of one attempt. Raises what redis-py raises, and BrokerUnavailable if no connection got free."""
        connection = self._borrow(deadline)
        left = max(0.001, deadline - monotonic())
        # Each change of a timeout costs a system call, so a little less than all of the time is taken for all.
        limited = left < 0.9 * self.timeout
        try:
            if socket_of(connection) is None:
                connection.socket_timeout = connection.socket_connect_timeout = left
                connection.connect()
                limited = True
            if limited:
                socket_of(connection).settimeout(max(0.001, deadline - monotonic()))
            return self.evaluated(connection, script, words)
        except BaseException as error:
            if not self._is_answer(error):
                connection.disconnect()
            raise
        finally:
            if limited and socket_of(connection) is not None:
                socket_of(connection).settimeout(self.timeout)
            self._give_back(connection)

    def _borrow(self, deadline: float) -> Connection:
        try:
            return self._idle.pop()
        except IndexError:
            pass
        with self._freed:
            self._waiting += 1  # before the look at `_idle`: `_give_back` does the two in the opposite order
            try:
                while True:
                    if self._idle:
                        try:
                            return self._idle.pop()
                        except IndexError:
                            pass  # somebody was faster
                    if self._made < CONNECTIONS:
                        self._made += 1  # first: a finalizer may borrow one in the midst of making this one
                        try:
                            return self.new_connection()
                        except BaseException:
                            self._made -= 1
                            raise
                    left = deadline - monotonic()
                    if left <= 0:
                        raise BrokerUnavailable(
                            f"{self.url}: all {CONNECTIONS} connections of this process are busy; try again later"
                        )
                    self._freed.wait(left)
            finally:
                self._waiting -= 1

    def _give_back(self, connection: Connection) -> None:
        self._idle.append(connection)
        if self._waiting:
            with self._freed:
                self._freed.notify()
        if self._closing.is_set():
            self._disconnect_idle()

    def evaluated(self, connection: Connection, script: Script, words: Sequence[Word]) -> Any:
        """The reply of a script on this connection."""
        head = self._heads.get(script.sha)
        if head is None:
            keys = [self._names[name] for name in script.keys]
            head = packed_words(("EVALSHA", script.sha, len(keys), *keys)), 3 + len(keys)
            self._heads[script.sha] = head
        start, count = head
        try:
            command = b"*%d\r\n%s%s" % (count + len(words), start, packed_words(words))
            connection.send_packed_command([command])
            return connection.read_response()
        except self._kinds.NoScriptError:  # a Redis that was started anew, or SCRIPT FLUSH
            keys = [self._names[name] for name in script.keys]
            connection.send_packed_command([packed("EVAL", script.text, len(keys), *keys, *words)])
            return connection.read_response()

    def _is_answer(self, error: BaseException) -> bool:
        """Whether Redis said no, and the connection is as good as before."""
        return isinstance(error, self._kinds.ResponseError) and not isinstance(
            error,
            self._kinds.ReadOnlyError,  # no longer the primary: the next connection may find the new one
        )

    def _is_final(self, error: BaseException) -> bool:
        if isinstance(error, self._kinds.AuthenticationError | self._kinds.AuthorizationError):
            return True
        return self._is_answer(error) and not str(error).startswith(
            ("BUSY ", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN")  # they pass
        )

    def explained(self, error: BaseException) -> str:
        """What happened and what to do, in one line, without a password."""
        said = ascii(str(error))[1:-1]
        stream = self._address.stream
        if isinstance(error, self._kinds.AuthenticationError | self._kinds.AuthorizationError):
            return f"{self.url} refuses the user or password of the URL: {said}"
        if isinstance(error, self._kinds.NoPermissionError):
            return (
                f"{self.url} does not let this user do it: {said}; it needs EVAL, EVALSHA, XREAD, and what they"
                f" do to the keys {stream!r} and '{{{stream}}}:*'"
            )
        if isinstance(error, self._kinds.ResponseError) and "WRONGTYPE" in said:
            return f"{self.url}: a key of {stream!r} holds something else; choose another name, ?stream=..."
        if "maxmemory" in said:
            return f"{self.url} is full: {said}; raise its maxmemory, or retain less"
        if self._is_answer(error):
            return f"{self.url} cannot do it: {said}"
        return f"{self.url} does not answer: {said}; is it running, and reachable from here? Try again later"

    def _disconnect_idle(self) -> None:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return
            connection.disconnect()

    def close(self) -> None:
        """End every pause and disconnect; who waits for an answer disconnects when it came."""
        self._closing.set()
        self._disconnect_idle()

    @property
    def closed(self) -> bool:
        return self._closing.is_set()

    def check_open(self) -> None:
        """Raise HubClosed after `close`."""
        if self._closing.is_set():
            raise HubClosed(f"the hub on {self.url} is closed; make a new one to publish or subscribe")


def packed(*words: Word) -> bytes:
    """A command in RESP 2: an array of bulk strings.

    Source: https://redis.io/docs/latest/develop/reference/protocol-spec/
    """
    return b"*%d\r\n%s" % (len(words), packed_words(words))


def packed_words(words: Sequence[Word]) -> bytes:
    """The words of a command; three times as fast as redis-py, which takes more types."""
    parts = []
    for word in words:
        data = word.encode() if isinstance(word, str) else b"%d" % word
        parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
    return b"".join(parts)


def socket_of(connection: Connection) -> Any:
    """The socket of a connection, None before it is connected. redis-py has no public name for it (5.0 to 8.1)."""
    return connection._sock  # type: ignore[attr-defined]
