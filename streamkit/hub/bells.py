"""How a process that publishes to a file wakes the processes that read it: a FIFO beside the file for each reader.

Law of this file
- A reader *hangs* a bell (makes a FIFO and opens it), then writes its name into the file, then looks into the log for
  the first time: so whoever appends after that look sees the name, and rings. One byte, never waited for.
- A FIFO that nobody has open is *dead*: its process was killed. Who rings it finds out, removes it, and takes its name
  out of the file with its next publication.
- Nothing depends on a bell but the time: readers look every second without. They see then where theirs was removed,
  and hang another one.
- Whoever may write to the file may ring: a bell has its mode and its group, whatever the umask says, as SQLite gives
  them to its `-wal` and `-shm`.

A FIFO has no limit on the length of its path, as UNIX sockets have, and a write to it does not wait or block.
"""

from __future__ import annotations

import errno
import os
import secrets
import select
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

DRAIN_BYTES: Final = 65536  # what a FIFO holds on Linux
# Seconds until a reader that was rung is back from its wait. It is not where it runs a finalizer that takes its own
# bell down.
BACK_SECONDS: Final = 0.5


class Bell:
    """One reader's own. `wait` is for one thread; the rest for any."""

    def __init__(self, path: Path, like: Path) -> None:
        """Make the FIFO, for those who may write to `like`, and open it. Raises OSError where there can be none."""
        self.name = path.name
        self._path = path
        os.mkfifo(path, 0o600)
        try:
            _permit(path, like)
            # For writing too: so it never reads as ended when the last publisher leaves, and can ring itself.
            self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        self._reset()

    def _reset(self) -> None:
        self._ringing = threading.RLock()  # owned for one non-blocking write, or the close
        self._waiting = threading.Lock()  # owned by the reader while it waits
        self._down = False

    def wait(self, seconds: float) -> None:
        """Wait until it rings, or `seconds` are over."""
        with self._waiting:
            if not self._down:
                poll = select.poll()
                poll.register(self._descriptor, select.POLLIN)
                if poll.poll(seconds * 1000):
                    try:
                        os.read(self._descriptor, DRAIN_BYTES)
                    except BlockingIOError:
                        pass
            if self._down:
                self._close()

    def ring(self) -> None:
        """Wake the reader."""
        with self._ringing:
            if self._descriptor >= 0:
                try:
                    os.write(self._descriptor, b"!")
                except OSError:
                    pass  # full: it has been rung often enough

    @property
    def hangs(self) -> bool:
        """Whether it is still where others look for it."""
        return os.path.exists(self._path)

    def take_down(self) -> None:
        """Close and remove it, or leave that to the reader, if it does not come back from its wait at once."""
        self._down = True
        self.ring()
        if self._waiting.acquire(timeout=BACK_SECONDS):
            try:
                self._close()
            finally:
                self._waiting.release()

    def _close(self) -> None:
        with self._ringing:
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)
                self._path.unlink(missing_ok=True)

    def forget(self) -> None:
        """In a child after a fork: close the copy, leave the parent's bell hanging."""
        self._reset()
        self._down = True
        os.close(self._descriptor)
        self._descriptor = -1


def _permit(path: Path, like: Path) -> None:
    """Give `path` the mode and group of `like`, and its owner where this process is root's."""
    try:
        found = os.stat(like)
    except FileNotFoundError:
        return  # deleted; the next look makes it anew
    try:
        os.chown(path, found.st_uid if os.geteuid() == 0 else -1, found.st_gid)
    except OSError:
        pass  # a group that this process is not in, an owner that its container does not know
    os.chmod(path, found.st_mode & 0o666)


class Bells:
    """The bells of all readers of one file, as those who publish see them. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Owned for a few system calls that do not block; finalizers may ring too.
        self._lock = threading.RLock()
        self._open: dict[str, int] = {}
        self._dead: set[str] = set()

    def hang(self) -> Bell | None:
        """A new bell for this process, or None where there can be none."""
        name = f"{self._path.name}-bell-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            return Bell(self._path.with_name(name), self._path)
        except (OSError, AttributeError):  # no FIFOs on this file system, or on this system
            return None

    def ring(self, names: Sequence[str]) -> None:
        """Ring each of these; remember those that are dead. Never waits, never raises."""
        with self._lock:
            for name in names:
                descriptor = self._open.get(name)
                if descriptor is None:
                    descriptor = self._reach(name)
                    if descriptor is None:
                        continue
                    known = self._open.setdefault(name, descriptor)
                    if known != descriptor:
                        os.close(descriptor)
                        descriptor = known
                try:
                    os.write(descriptor, b"!")
                except BlockingIOError:
                    pass  # full: it has been rung often enough
                except OSError:  # nobody has it open any more
                    self._close(name)
                    self._bury(name)
            if len(self._open) > len(names):
                for name in self._open.keys() - set(names):  # taken down in good order
                    self._close(name)

    def _close(self, name: str) -> None:
        descriptor = self._open.pop(name, None)
        if descriptor is not None:
            os.close(descriptor)

    def _reach(self, name: str) -> int | None:
        if os.path.basename(name) != name:
            return None  # not a name that a bell has
        try:
            return os.open(self._path.with_name(name), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.ENXIO, errno.ENOENT):  # no reader; no FIFO
                self._bury(name)
            return None

    def _bury(self, name: str) -> None:
        self._dead.add(name)
        try:
            self._path.with_name(name).unlink(missing_ok=True)
        except OSError:
            pass

    def is_dead(self, name: str) -> bool:
        """Whether nobody listens to this one."""
        with self._lock:
            if name not in self._open:
                descriptor = self._reach(name)
                if descriptor is not None:
                    os.close(descriptor)
            return name in self._dead

    def take_dead(self) -> list[str]:
        """The names that were found dead since the last call."""
        if not self._dead:
            return []
        with self._lock:
            dead, self._dead = list(self._dead), set()
        return dead

    def forget(self) -> None:
        """In a child after a fork: close the copies."""
        self._lock = threading.RLock()
        self.close()

    def close(self) -> None:
        """Close what is open."""
        with self._lock:
            for name in list(self._open):
                self._close(name)
