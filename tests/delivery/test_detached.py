"""A detached connection over a real socket pair, on a loop that is turned by hand: its course, ends and failures."""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

import pytest

from streamkit import streams
from streamkit.delivery import detached
from streamkit.delivery.event_loop import TICK_SECONDS, event_loop
from streamkit.delivery.outflow import Limits
from streamkit.delivery.sending import send_at_once
from tests.conftest import eventually
from tests.delivery.loop_by_hand import OPENING, ByHandLoop, Client, chunk
from tests.flow.by_hand import ByHand, Words

pytestmark = pytest.mark.usefixtures("all_ended")


# -- the ordinary course -------------------------------------------------------------------------------------


def test_a_stream_from_its_opening_to_its_end(loop: ByHandLoop) -> None:
    client = Client(loop, "a")
    loop.turn()
    assert client.read() == OPENING + chunk(b"a ")
    assert client.stream.delivery == "detached"
    client.source.push("b", "c")
    loop.turn()
    assert client.read() == chunk(b"b c ")
    client.source.end()
    loop.turn()
    assert client.read() == chunk(b">") + b"0\r\n\r\n|"
    assert (client.stream.outcome, client.source.closed) == ("completed", 1)
    assert len(loop) == 1  # it lingers
    client.socket.close()
    loop.turn()
    assert len(loop) == 0


def test_without_chunks_the_end_of_the_connection_is_the_end(loop: ByHandLoop) -> None:
    client = Client(loop, "a", chunked=False)
    client.source.end()
    loop.turn()
    assert client.read() == OPENING + b"a >|"


def test_the_counts_are_those_of_a_threaded_stream(loop: ByHandLoop) -> None:
    client = Client(loop, "a")
    loop.turn()
    client.source.push("b")
    loop.turn()
    assert (client.stream.events, client.stream.chunks, client.stream.bytes) == (2, 3, len(b"<a b "))
    assert client.stream.last_write is not None


def test_a_client_that_does_not_close_is_not_waited_for(loop: ByHandLoop) -> None:
    client = Client(loop)
    client.source.end()
    loop.turn()
    assert len(loop) == 1
    eventually(lambda: len(streams) == 0)  # but its stream is over already
    loop.turn(seconds=detached.LINGER_SECONDS + 0.1)
    assert len(loop) == 0


def test_heartbeats(loop: ByHandLoop) -> None:
    client = Client(loop, limits=Limits(heartbeat=15))
    loop.turn()
    assert client.read() == OPENING
    loop.turn(14.9)
    assert client.read() == b""
    loop.turn(0.2)
    assert client.read() == chunk(b"~")
    loop.turn(10)
    client.source.push("a")
    loop.turn()
    assert client.read() == chunk(b"a ")
    loop.turn(14.9)
    assert client.read() == b""
    loop.turn(0.2)
    assert client.read() == chunk(b"~")


def test_heartbeats_that_are_due_within_a_tick_go_out_together(loop: ByHandLoop) -> None:
    loop.turn(TICK_SECONDS / 10)
    clients = []
    for _ in range(4):
        clients.append(Client(loop, limits=Limits(heartbeat=15)))
        loop.turn(TICK_SECONDS / 5)
    for client in clients:
        assert client.read()
    due = {connection.scheduled for connection in loop._connections.values()}
    assert len(due) == 1
    last = max(connection.deadline for connection in loop._connections.values())
    assert last < due.pop() <= last + TICK_SECONDS
    loop.turn(15 + TICK_SECONDS)
    assert [client.read() for client in clients] == [chunk(b"~")] * 4


def test_heartbeats_of_a_client_that_was_slow_once_are_not_late(loop: ByHandLoop) -> None:
    client = Client(loop, limits=Limits(heartbeat=15))
    loop.turn()
    client.source.push(b"x" * 100_000)
    loop.turn()
    received = client.read()
    for _ in range(1000):
        loop.turn()
        more = client.read()
        if not more:
            break
        received += more
    assert received.endswith(b"x\r\n")
    loop.turn(14.9)
    assert client.read() == b""
    loop.turn(0.2)
    assert client.read() == chunk(b"~")


def test_an_event_does_not_overtake_the_rest_of_a_heartbeat(
    loop: ByHandLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(loop, limits=Limits(heartbeat=15))
    loop.turn()
    (connection,) = loop._connections.values()
    assert connection._source is not None  # the short path of steady streams

    def nearly_full(descriptor: int, data: bytes, size: object, flags: int) -> int:
        monkeypatch.setattr(detached, "send_at_once", send_at_once)
        return os.write(descriptor, data[:4])

    monkeypatch.setattr(detached, "send_at_once", nearly_full)
    loop.turn(15.1, times=1)
    client.source.push("a")
    connection.advance(loop.now)  # before there is room
    loop.turn()
    assert client.read() == OPENING + chunk(b"~") + chunk(b"a ")


@pytest.mark.parametrize("pause", [b"...", None])
def test_max_duration(loop: ByHandLoop, pause: bytes | None) -> None:
    client = Client(loop, "a", limits=Limits(max_duration=100), framing=Words(pause))
    loop.turn()
    loop.turn(79)
    assert client.read() == OPENING + chunk(b"a ")
    loop.turn(22)
    assert client.read() == (chunk(b"...") + b"0\r\n\r\n|" if pause else chunk(b"!") + b"|")
    assert client.stream.outcome == "expired"


def test_drained_streams_pause(loop: ByHandLoop) -> None:
    clients = [Client(loop, "a") for _ in range(5)]
    loop.turn()
    streams.drain()
    loop.turn(times=20)
    for client in clients:
        assert client.read() == OPENING + chunk(b"a ") + chunk(b"...") + b"0\r\n\r\n|"
        assert client.stream.outcome == "drained"
        client.socket.close()
    loop.turn()


# -- ends by the client --------------------------------------------------------------------------------------


def test_a_client_that_leaves_is_noticed_without_writing(loop: ByHandLoop) -> None:
    client = Client(loop)
    loop.turn()
    client.socket.close()
    loop.turn()
    assert (client.stream.outcome, client.source.closed, len(loop)) == ("client_gone", 1, 0)
    eventually(lambda: client.ended)


def test_a_client_that_left_before_its_connection_arrived(loop: ByHandLoop) -> None:
    client = Client(loop, "a")
    client.socket.close()
    loop.turn()
    assert (client.stream.outcome, client.source.closed, len(loop)) == ("client_gone", 1, 0)


def test_a_half_close_counts_as_leaving(loop: ByHandLoop) -> None:
    client = Client(loop)
    loop.turn()
    client.socket.shutdown(socket.SHUT_WR)
    loop.turn()
    assert client.stream.outcome == "client_gone"


def test_what_a_client_says_is_thrown_away_within_bounds(loop: ByHandLoop) -> None:
    """A body that the application did not want, or a further request: not read for ever, and no reason to end."""
    client = Client(loop, "a")
    loop.turn()
    client.socket.sendall(b"GET /next HTTP/1.1\r\n\r\n")
    loop.turn()
    client.source.push("b")
    loop.turn()
    assert client.read() == OPENING + chunk(b"a ") + chunk(b"b ")
    client.socket.setblocking(False)
    sent = refused = 0
    while refused < 10:
        try:
            sent += client.socket.send(b"x" * 65536)
        except BlockingIOError:
            refused += 1
        loop.turn()
    assert detached.MOST_UNREAD_BYTES <= sent < 4 * detached.MOST_UNREAD_BYTES
    client.source.push("c")
    loop.turn()
    assert client.read() == chunk(b"c ")
    client.socket.close()
    for _ in range(3):  # seen by a write now
        client.source.push("d")
        loop.turn()
    assert client.stream.outcome == "client_gone"
    assert len(loop) == 0


def test_a_client_that_never_reads_is_too_slow_and_holds_back_its_source_alone(loop: ByHandLoop) -> None:
    slow, good = Client(loop), Client(loop)
    loop.turn()
    good.read()
    for n in range(200):
        slow.source.push(b"x" * 10_000)
        good.source.push(str(n))
        loop.turn()
        assert good.read() == chunk(b"%d " % n)
    assert slow.source.takes < 50  # what it had is not taken into memory
    loop.turn(detached.WRITE_SECONDS - 1)
    assert slow.stream.outcome is None
    loop.turn(2)
    assert slow.stream.outcome == "too_slow"
    assert slow.source.closed == 1
    assert len(loop) == 1
    good.source.push("still here")
    loop.turn()
    assert good.read() == chunk(b"still here ")


def test_a_client_that_reads_slowly_but_does_read_gets_all(loop: ByHandLoop) -> None:
    client = Client(loop)
    block = bytes(range(256)) * 400
    client.source.push(block)
    client.source.end()
    received = b""
    while not received.endswith(b"|"):
        loop.turn(detached.WRITE_SECONDS / 2)
        received += client.read()
    assert received == OPENING + chunk(block + b">") + b"0\r\n\r\n|"
    assert client.stream.outcome == "completed"


def held_up(loop: ByHandLoop, framing: Words, limits: Limits | None = None) -> Client:
    """A client that has yet to take most of what was sent to it."""
    client = Client(loop, framing=framing, limits=limits)
    loop.turn()
    client.source.push(b"x" * 100_000)
    loop.turn()
    (connection,) = loop._connections.values()
    assert connection._unsent
    return client


@pytest.mark.parametrize("outcome", ["drained", "expired"])
def test_a_client_that_has_yet_to_take_a_piece_has_a_moment_when_its_stream_is_to_end(
    loop: ByHandLoop, outcome: str
) -> None:
    """A drain has one second, and so has the end of `max_duration` to look like one."""
    limits = Limits(max_duration=10)
    slow, good = held_up(loop, Words(), limits), Client(loop, limits=limits)
    loop.turn()
    if outcome == "drained":
        streams.drain()
    loop.turn(0.0 if outcome == "drained" else 10.1)
    assert slow.stream.outcome == good.stream.outcome == outcome
    assert good.read().endswith(b"...\r\n0\r\n\r\n|")
    assert (slow.source.closed, len(loop)) == (0, 2)  # the other one lingers
    loop.turn(detached.LEAVE_SECONDS + 0.01)
    assert (slow.source.closed, len(loop)) == (1, 1)
    assert slow.stream.outcome == outcome
    assert not slow.read().endswith(b"0\r\n\r\n|")


def test_a_client_that_uses_its_moment_gets_the_last_words(loop: ByHandLoop) -> None:
    client = held_up(loop, Words())
    client.stream.end("drained")
    assert read_slowly(loop, client).endswith(b"x\r\n" + chunk(b"...") + b"0\r\n\r\n|")


def test_a_body_that_is_reset_anyhow_is_not_waited_for(loop: ByHandLoop) -> None:
    framing = Words(pause=None)
    framing.resets = True
    client = held_up(loop, framing)
    client.stream.end("drained")
    loop.turn()
    assert len(loop) == 0
    assert client.stream.outcome == "drained"


def test_an_opening_that_finds_no_room_is_sent_later(loop: ByHandLoop) -> None:
    """A client on a kept connection that has not read its last answer yet."""
    client = Client(loop, "a", fill=True)
    loop.turn()
    data = b""
    for _ in range(100):
        data += client.read()
        loop.turn()
    assert data[client.filled :] == OPENING + chunk(b"a ")


def test_an_opening_that_never_finds_room_is_too_slow(loop: ByHandLoop) -> None:
    client = Client(loop, "a", fill=True)
    loop.turn()
    loop.turn(detached.WRITE_SECONDS + 1)
    assert client.stream.outcome == "too_slow"


class Wordy(Words):
    """Has much to say at the end."""

    def __init__(self, pause: bytes | None = b"..." * 50_000, *, resets: bool = False) -> None:
        super().__init__(pause)
        self.resets = resets

    def failed(self, error: BaseException) -> bytes:
        return b"!" * 100_000


def read_slowly(loop: ByHandLoop, client: Client) -> bytes:
    received = b""
    for _ in range(1000):
        loop.turn(0.001)
        received += client.read()
        if received.endswith((b"|", b"RESET")):
            break
    return received


def test_last_words_that_do_not_fit_at_once_still_have_the_end_after_them(loop: ByHandLoop) -> None:
    client = Client(loop, framing=Wordy())
    loop.turn()
    client.stream.end("drained")
    assert read_slowly(loop, client).endswith(b"...\r\n0\r\n\r\n|")


def test_failed_events_that_do_not_fit_at_once_have_no_end(loop: ByHandLoop) -> None:
    client = Client(loop, framing=Wordy())
    loop.turn()
    client.source.end(RuntimeError("gone"))
    assert read_slowly(loop, client).endswith(b"!!\r\n|")


def test_failed_rows_that_do_not_fit_at_once_are_reset(
    loop: ByHandLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    resets: list[socket.socket] = []
    reset = detached.reset_connection
    monkeypatch.setattr(detached, "reset_connection", lambda sock: (resets.append(sock), reset(sock)))
    client = Client(loop, framing=Wordy(resets=True))
    loop.turn()
    client.source.end(RuntimeError("gone"))
    read_slowly(loop, client)
    assert resets


# -- failures of one -----------------------------------------------------------------------------------------


class BrokenBeat(Words):
    @property
    def heartbeat(self) -> bytes:  # type: ignore[override]
        if self.broken:
            raise RuntimeError("an encoder with a bug")
        return b"~"

    broken = False


class BrokenPause(Words):
    def paused(self) -> bytes:
        raise RuntimeError("an encoder with a bug")


class BrokenClose(ByHand):
    def close(self) -> None:
        raise RuntimeError("a source with a bug")


class Exiting(ByHand):
    """Calls `sys.exit()` in one of its methods, as a library may that was not written for threads."""

    def __init__(self, *items: object, method: str) -> None:
        super().__init__(*items)
        self.method = method

    def take(self) -> Any:
        self._exit("take")
        return super().take()

    def cancel(self) -> None:
        self._exit("cancel")
        super().cancel()

    def close(self) -> None:
        self._exit("close")
        super().close()

    def _exit(self, method: str) -> None:
        if method == self.method and (method != "take" or self.ended):
            sys.exit(3)


class ExitingWords(Words):
    def failed(self, error: BaseException) -> bytes:
        sys.exit(3)


def test_a_callback_that_raises_ends_one_connection_only(
    loop: ByHandLoop, caplog: pytest.LogCaptureFixture
) -> None:
    broken = BrokenBeat()
    bad, good = (
        Client(loop, framing=broken, limits=Limits(heartbeat=1)),
        Client(loop, limits=Limits(heartbeat=1)),
    )
    loop.turn()
    broken.broken = True
    loop.turn(1.1)
    assert bad.stream.outcome == "failed"
    assert "an encoder with a bug" in caplog.text
    assert good.read() == OPENING + chunk(b"~")
    assert len(loop) == 1
    eventually(lambda: bad.ended)


def test_a_source_that_raises_in_take_fails_its_stream_with_its_last_words(loop: ByHandLoop) -> None:
    class Broken(ByHand):
        def take(self) -> Any:
            if "b" in self.items:
                raise OSError("the broker is gone")
            return super().take()

    client = Client(loop, source=Broken("a"))
    loop.turn()
    (connection,) = loop._connections.values()
    assert connection._source is not None  # the short path of steady streams
    client.source.push("b")
    loop.turn()
    assert client.read() == OPENING + chunk(b"a ") + chunk(b"!") + b"|"
    assert isinstance(client.stream.error, OSError)


def test_last_words_that_raise(loop: ByHandLoop) -> None:
    bad, good = Client(loop, framing=BrokenPause()), Client(loop)
    loop.turn()
    streams.drain()
    loop.turn(times=10)
    assert good.read().endswith(b"0\r\n\r\n|")
    assert not bad.read().endswith(b"0\r\n\r\n|")
    bad.socket.close()
    good.socket.close()
    loop.turn()
    assert len(loop) == 0


def test_a_source_whose_close_raises(loop: ByHandLoop) -> None:
    client = Client(loop, source=BrokenClose("a"))
    loop.turn()
    client.socket.close()
    loop.turn()
    assert client.stream.outcome == "client_gone"
    assert len(loop) == 0
    eventually(lambda: client.ended)


@pytest.mark.parametrize("method", ["take", "cancel", "close", "failed"])
def test_an_exit_of_one_source_does_not_end_the_thread_of_all(method: str) -> None:
    framing = ExitingWords() if method == "failed" else Words()
    good, bad = Client(event_loop), Client(event_loop, source=Exiting("a", method=method), framing=framing)
    bad.read_until(b"a \r\n")
    if method in ("take", "failed"):
        bad.source.end(RuntimeError("gone"))
        eventually(lambda: bad.stream.outcome == "failed")
    else:
        bad.socket.close()
        eventually(lambda: bad.stream.outcome == "client_gone")
    eventually(lambda: bad.ended)
    eventually(lambda: len(event_loop) == 1)
    good.source.push("still here")
    good.read_until(b"still here \r\n")


def test_a_socket_that_cannot_be_watched(loop: ByHandLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel bounds watches too (fs.epoll.max_user_watches)."""
    good = Client(loop)
    loop.turn()

    def refuse(*args: Any) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(loop._selector, "register", refuse)
        bad = Client(loop)
        loop.turn()
    assert bad.stream.outcome == "failed"
    assert bad.read().endswith((b"|", b"RESET"))  # closed, not forgotten
    assert len(loop) == 1
    eventually(lambda: bad.ended)
    good.source.push("a")
    loop.turn()
    assert good.read() == OPENING + chunk(b"a ")
