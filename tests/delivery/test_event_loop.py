"""The event loop over real socket pairs: turned by hand with a clock of the test's own, and running in its thread."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque

import pytest

from streamkit.delivery.detached import DetachedConnection
from streamkit.delivery.event_loop import event_loop
from streamkit.delivery.outflow import Limits
from streamkit.flow.pushed_chunks import PushedChunks
from tests.conftest import eventually
from tests.delivery.loop_by_hand import ByHandLoop, Client, chunk
from tests.flow.by_hand import ByHand
from tests.interrupts import Interrupted

pytestmark = pytest.mark.usefixtures("all_ended")


# -- timers --------------------------------------------------------------------------------------------------


def test_timers_do_not_add_up_over_the_life_of_a_stream(loop: ByHandLoop) -> None:
    """Near deadlines come and go while a far one stands: one entry a connection, or a few, not one for each."""
    Client(loop)
    loop.turn()
    (connection,) = loop._connections.values()
    for _ in range(200):
        connection.deadline = loop.now + 0.5
        loop.schedule(connection, connection.deadline)
        loop.now += 0.6
        connection.deadline = loop.now + 15  # as `advance` does when it has sent
        loop._run_timers(loop.now)
    assert len(loop._timers) < 10


def test_streams_with_near_and_far_deadlines_keep_few_timers(loop: ByHandLoop) -> None:
    class Due(PushedChunks[bytes]):
        """Holds items back for half a second, as rows are."""

    client = Client(loop, limits=Limits(heartbeat=15))
    loop.turn()
    (connection,) = loop._connections.values()
    assert connection.outflow is not None
    chunks = connection.outflow.chunks
    for n in range(100):
        chunks.due_at = loop.now + 0.5
        connection.wake()
        loop.turn()
        chunks.due_at = float("inf")
        client.source.push(str(n))
        loop.turn(0.6)
    assert len(loop._timers) < 10


def test_timers_of_closed_connections_are_not_kept(loop: ByHandLoop) -> None:
    for _ in range(300):
        client = Client(loop, limits=Limits(heartbeat=3600))
        loop.turn(times=1)
        client.socket.close()
        loop.turn(times=2)
    assert len(loop) == 0
    assert len(loop._timers) <= 70


def test_a_deadline_beyond_what_the_kernel_can_wait_for() -> None:
    """40 days are more milliseconds than fit into its argument."""
    client = Client(event_loop, limits=Limits(max_duration=50 * 86400))
    client.read_until(b"<")
    client.source.push("a")
    client.read_until(b"a \r\n")
    client.socket.close()
    eventually(lambda: client.stream.outcome == "client_gone")


def test_clearing_timers_of_closed_connections_forgets_no_deadline(loop: ByHandLoop) -> None:
    """A stream without a deadline just now still has an entry; its next deadline must be seen all the same."""
    client = Client(loop)
    loop.turn()
    (connection,) = loop._connections.values()
    assert connection.outflow is not None
    chunks = connection.outflow.chunks
    chunks.due_at = loop.now + 50  # an item is held back ...
    connection.wake()
    loop.turn()
    chunks.due_at = float("inf")  # ... and went out with others before its time
    connection.wake()
    loop.turn()
    for _ in range(100):
        other = Client(loop, limits=Limits(heartbeat=3600))
        loop.turn(times=1)
        other.socket.close()
        loop.turn(times=2)
    chunks.due_at = loop.now + 60
    connection.wake()
    loop.turn()
    takes = client.source.takes
    chunks.due_at = loop.now + 60
    loop.turn(61)
    assert client.source.takes > takes, "nobody looked when the item was due"


# -- forks ---------------------------------------------------------------------------------------------------


def test_a_forked_process_lets_go_of_every_connection(loop: ByHandLoop) -> None:
    """As long as a child holds a connection, its client sees no end. The newest ones are no exception."""
    adopted = Client(loop)
    loop.turn()
    new = Client(loop)
    loop._pipe = os.pipe()
    loop._after_fork()  # what the child runs
    assert adopted.read().endswith((b"|", b"RESET"))
    assert new.read().endswith((b"|", b"RESET"))
    assert len(loop) == 0
    for client in (adopted, new):
        client.socket.close()
        client.stream.end("drained")
        client.stream.leave()


# -- the thread ----------------------------------------------------------------------------------------------


def test_the_thread_runs_and_callbacks_run_elsewhere() -> None:
    client = Client(event_loop, "a")
    client.read_until(b"a \r\n")
    client.source.push("b")
    client.read_until(b"b \r\n")
    client.source.end()
    client.read_until(b"0\r\n\r\n")
    eventually(lambda: client.ended)
    assert client.ended[0] != "streamkit-loop"


def test_a_signal_handler_that_raises_loses_no_wake_up(
    loop: ByHandLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    loop._pipe = (reading, writing)

    def interrupt(descriptor: int, data: bytes) -> int:
        monkeypatch.undo()
        raise Interrupted

    loop.sleeping = True
    monkeypatch.setattr("streamkit.delivery.event_loop.os.write", interrupt)
    with pytest.raises(Interrupted):
        loop.wake()
    assert os.read(reading, 10) == b"\0"
    loop.sleeping = True
    os.close(writing)
    loop._pipe = (reading, -1)  # as in a child of a fork
    loop.wake()
    os.close(reading)
    loop._pipe = (-1, -1)


def test_a_signal_handler_that_raises_while_a_connection_is_woken_loses_no_event(loop: ByHandLoop) -> None:
    class Interrupting(deque[DetachedConnection]):
        def append(self, connection: DetachedConnection, /) -> None:
            loop.waiting = deque([*self, connection])  # a signal's turn comes behind a call
            raise Interrupted

    client = Client(loop)
    loop.turn()
    client.read()
    reading, writing = loop._pipe = os.pipe()
    loop.waiting, loop.sleeping = Interrupting(), True
    with pytest.raises(Interrupted):
        client.source.push("a")
    os.set_blocking(reading, False)
    assert os.read(reading, 10) == b"\0"
    loop.turn()
    assert client.read() == chunk(b"a ")
    os.close(reading)
    os.close(writing)
    loop._pipe = (-1, -1)


def test_a_log_handler_that_raises_does_not_end_the_thread_of_all() -> None:
    class Raising(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise SystemExit("no log to be had")

    def fail() -> None:
        raise ValueError("not of one connection")

    handler = Raising()
    good, bad = Client(event_loop), Client(event_loop)
    logging.getLogger("streamkit").addHandler(handler)
    try:
        bad.source.take = fail  # type: ignore[method-assign, assignment]
        bad.source.close = fail  # type: ignore[method-assign]
        bad.source.wake()
        eventually(lambda: bad.ended)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(event_loop, "_run_timers", lambda now: fail())
            patch.setattr(event_loop, "_timers", [(0.0, 0, good)])
            good.source.push("a")
            good.read_until(b"a \r\n")
    finally:
        logging.getLogger("streamkit").removeHandler(handler)
    good.source.push("b")
    good.read_until(b"b \r\n")
    good.source.end()
    good.read_until(b"0\r\n\r\n")


def test_many_threads_wake_many_streams_and_nothing_is_lost() -> None:
    clients = [Client(event_loop) for _ in range(20)]

    def feed(own: list[Client]) -> None:
        for n in range(200):
            for client in own:
                client.source.push(b"%d," % n)

    feeders = [threading.Thread(target=feed, args=(clients[k::4],)) for k in range(4)]
    for feeder in feeders:
        feeder.start()
    for feeder in feeders:
        feeder.join()
    expected = b"".join(b"%d," % n for n in range(200))
    for client in clients:
        client.source.end()
    for client in clients:
        data = client.read_until(b"0\r\n\r\n")
        assert unchunked(data.partition(b"\r\n\r\n<")[2]) == expected + b">"
        client.socket.close()
    eventually(lambda: len(event_loop) == 0)


def unchunked(body: bytes) -> bytes:
    content = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        content, body = content + body[:length], body[length + 2 :]
        if not length:
            break
    return content


def test_a_flooding_source_does_not_starve_the_others() -> None:
    class Flood(ByHand):
        def take(self) -> list[object]:
            self.takes += 1
            self.wake()
            return [b"x" * 1000]

    flood = Client(event_loop, source=Flood("go"))
    flood.socket.setblocking(False)
    done = threading.Event()

    def drain() -> None:
        while not done.is_set():
            try:
                flood.socket.recv(1 << 20)
            except BlockingIOError:
                done.wait(0.001)
            except OSError:
                break

    reader = threading.Thread(target=drain)
    reader.start()
    other = Client(event_loop)
    other.read_until(b"<")
    for n in range(100):
        other.source.push(str(n))
        other.read_until(b"%d \r\n" % n)
    done.set()
    reader.join()
    assert isinstance(flood.source, Flood)
    assert flood.source.takes > 1  # it did flood
