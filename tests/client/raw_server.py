"""A server that does exactly what each test says, byte for byte, on sockets alone."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
QUICK = b"retry: 0\n"  # so that a test need not wait to reconnect
Answer = bytes | Callable[[socket.socket], object]


class Server:
    """A listening socket; each connection gets the next of `answers`: bytes and a close, or a function."""

    def __init__(self, wrap: Callable[[socket.socket], socket.socket] | None = None) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(20)
        self.port = self.listener.getsockname()[1]
        self.url = f"http{'s' if wrap else ''}://127.0.0.1:{self.port}/events"
        self.answers: list[Answer] = []
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self._wrap = wrap
        self._thread: threading.Thread | None = None

    def start(self, *answers: Answer) -> str:
        self.answers += answers
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self.url

    def _serve(self) -> None:
        for answer in self.answers:
            try:
                plain, _ = self.listener.accept()
            except OSError:
                return
            with plain:
                plain.settimeout(20)
                try:
                    connection = self._wrap(plain) if self._wrap else plain
                except OSError:
                    continue
                with connection:
                    self._read_request(connection)
                    if isinstance(answer, bytes):
                        connection.sendall(answer)
                    else:
                        answer(connection)

    def _read_request(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as file:
            line = file.readline().decode("latin-1").strip()
            headers = {}
            while (header := file.readline()) not in (b"\r\n", b""):
                name, _, value = header.decode("utf-8").partition(":")
                headers[name.lower()] = value.strip()
            self.requests.append((line, headers, file.read(int(headers.get("content-length", 0)))))

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # wakes an accept that nobody came for
        self.listener.close()
        if self._thread is not None:
            self._thread.join(20)
            assert not self._thread.is_alive()

    def hold(self, sent: bytes, ready: threading.Event | None = None) -> Answer:
        """Return an answer that is sent and then neither goes on nor ends, until the client leaves."""

        def answer(connection: socket.socket) -> None:
            connection.sendall(sent)
            if ready is not None:
                ready.set()
            assert connection.recv(1) == b""  # fails after 20 s

        return answer


GONE = b"HTTP/1.1 204 No Content\r\n\r\n"


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


def moved(status: int, location: str) -> bytes:
    return f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 5\r\n\r\nmoved".encode()
