"""The output of a program, line by line, and nothing of that program left when the stream ends.

Law of this file
- The program starts at the first `next()`, in a session and process group of its own: a HEAD request, or a
  response nobody sent, never starts it.
- However the stream ends, `close()` ends the whole group, and other groups of its session: SIGTERM, then
  SIGKILL. A process that made itself a session of its own (a daemon) is out of reach.
- The leader stays a zombie until the group is gone. Its number, which is the group's too, cannot be given to
  another process before it is reaped; so it is signalled only before, under one lock, and reaped under the
  same lock.
- Nothing blocks on the pipe: it is read when `poll` says so, and `poll` also watches a pipe that `cancel`
  writes to.

POSIX only; needs `os.waitid` (macOS has it since Python 3.13).
"""

from __future__ import annotations

import logging
import os
import select
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Final, Literal

from streamkit.errors import ProcessFailed
from streamkit.flow.tail_file import BLOCK_BYTES, MAX_LINE_BYTES, LineSplitter

log: Final = logging.getLogger("streamkit")

Argument = str | bytes | os.PathLike[str] | os.PathLike[bytes]

# Seconds between two looks at something that cannot be waited for (the exit of a process that must not be
# reaped, the members of a group): short at first, for most are gone at once, then longer.
FIRST_LOOK_SECONDS: Final = 0.002
LONGEST_LOOK_SECONDS: Final = 0.05

# Seconds. SIGKILL needs no consent, but a process in an uninterruptible system call (a dead network file
# system) outlives it; it is left to the system, with a line in the log.
KILLED_SECONDS: Final = 5.0


class ProcessLines:
    """The lines that a program writes; see `run_process`.

    pid: of the program, which is also the number of its process group; None before the first `next()`.
    """

    def __init__(
        self,
        argv: Sequence[Argument],
        cwd: str | os.PathLike[str] | None,
        env: Mapping[str, str] | None,
        stderr: Literal["merge", "discard"],
        check: bool,
        kill_after: float,
        splitter: LineSplitter,
    ) -> None:
        self._argv = _checked(argv)
        if stderr not in ("merge", "discard"):
            raise ValueError(f'stderr is {stderr!r}: give "merge" (in between the lines) or "discard"')
        if not 0 <= kill_after <= threading.TIMEOUT_MAX:
            raise ValueError(
                f"kill_after is {kill_after!r}: give the seconds between SIGTERM and SIGKILL, 0 or more"
            )
        if not hasattr(os, "waitid"):
            raise NotImplementedError("run_process needs os.waitid: on macOS use Python 3.13 or later")
        self._cwd = cwd
        self._env = env
        self._stderr = subprocess.STDOUT if stderr == "merge" else subprocess.DEVNULL
        self._check = check
        self._kill_after = kill_after
        self._splitter = splitter
        # Owned for one signal, one reaping of a process that has exited, or one byte into the wake pipe. It
        # guards everything below.
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._reaped = False
        self._cancelled = threading.Event()
        self._closed = False
        self._terminated_at: float | None = None  # time.monotonic() of the SIGTERM, which is sent once
        self._wake: tuple[int, int] | None = None  # a pipe: one byte in it means cancelled
        self._iterator = self._lines()

    @property
    def pid(self) -> int | None:
        """The process id of the program, or None before it was started."""
        process = self._process
        return None if process is None else process.pid

    def __iter__(self) -> Iterator[str]:
        return self._iterator

    def __next__(self) -> str:
        return next(self._iterator)

    def cancel(self) -> None:
        """Send SIGTERM to the group and wake a waiting `next()`; any thread. `close()` does the rest."""
        with self._lock:
            if self._cancelled.is_set() or self._closed:
                return
            self._cancelled.set()
            self._terminate()
            if self._wake is not None:
                os.write(self._wake[1], b"\0")  # the only byte that is ever written: it cannot block

    def close(self) -> None:
        """End every process of the group, reap the program, close the pipes.

        Blocks until they are gone: not at all after a program that has ended and left nobody behind, else for
        as long as they take to act on SIGTERM, at most `kill_after` seconds. What they write meanwhile is thrown
        away. The second call does nothing.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._iterator.close()
        process = self._process
        try:
            if process is not None:
                self._end_group(process)
        finally:
            if process is not None and process.stdout is not None:
                process.stdout.close()
            with self._lock:
                wake, self._wake = self._wake, None
            for descriptor in wake or ():
                os.close(descriptor)

    # -- the lines ----------------------------------------------------------------------------------------

    def _lines(self) -> Generator[str, None, None]:
        process = self._start()
        if process is None:
            return
        assert process.stdout is not None
        assert self._wake is not None
        output = process.stdout.fileno()
        poll = select.poll()  # not select.select, which fails on descriptors from 1024 on
        poll.register(output, select.POLLIN)
        poll.register(self._wake[0], select.POLLIN)
        while True:
            poll.poll()
            if self._cancelled.is_set():
                return
            block = os.read(output, BLOCK_BYTES)
            if not block:
                break
            yield from self._splitter.feed(block)
        yield from self._splitter.finish()
        returncode = self._wait_for_exit(process.pid)
        if returncode and self._check:
            raise ProcessFailed(os.fsdecode(self._argv[0]), returncode)

    def _start(self) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._cancelled.is_set():
                return None
            self._wake = os.pipe()
        process = subprocess.Popen(
            self._argv,
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            cwd=self._cwd,
            env=self._env,
            start_new_session=True,
        )
        with self._lock:
            self._process = process
            if self._cancelled.is_set():  # meanwhile, when there was nobody to send a signal to
                self._terminate()
        return process

    def _wait_for_exit(self, pid: int) -> int | None:
        """The exit status of the program, which has closed its output; None when cancelled first."""
        assert self._wake is not None
        poll = select.poll()
        poll.register(self._wake[0], select.POLLIN)
        pause = FIRST_LOOK_SECONDS
        while (returncode := _exit_status(pid)) is None:
            if poll.poll(pause * 1000):
                return None
            pause = min(2 * pause, LONGEST_LOOK_SECONDS)
        return returncode

    # -- the end ------------------------------------------------------------------------------------------

    def _terminate(self) -> None:
        """SIGTERM to the group, once: a second one means "drop everything" to many. Called with the lock."""
        if self._process is not None and not self._reaped and self._terminated_at is None:
            self._terminated_at = time.monotonic()
            _signal_group(self._process.pid, signal.SIGTERM)

    def _end_group(self, process: subprocess.Popen[bytes]) -> None:
        pid = process.pid
        if not _session_is_gone(pid):
            with self._lock:
                self._terminate()
            _signal_strays(pid, signal.SIGTERM)
        assert process.stdout is not None
        output = process.stdout.fileno()
        asked = self._terminated_at
        if asked is not None and not _wait_until_gone(pid, asked + self._kill_after, output):
            with self._lock:
                _signal_group(pid, signal.SIGKILL)
            _signal_strays(pid, signal.SIGKILL)
            if not _wait_until_gone(pid, time.monotonic() + KILLED_SECONDS, output):
                log.warning("process group %d of %s survives SIGKILL", pid, ascii(self._argv[0]))
        with self._lock:
            # A look through /proc can miss a process born meanwhile; this cannot, and zombies do not mind.
            _signal_group(pid, signal.SIGKILL)
            self._reaped = True
            process.poll()


def _checked(argv: Sequence[Argument]) -> list[Argument]:
    if isinstance(argv, (str, bytes)):
        text = os.fsdecode(argv)
        try:
            words = shlex.split(text)
        except ValueError:  # an open quote
            words = [text]
        raise TypeError(
            f"argv is the string {text!r}: no shell is used, so give a list of words, {words!r},"
            f' or name the shell, ["sh", "-c", {text!r}]'
        )
    words_of_argv = list(argv)
    if not words_of_argv:
        raise ValueError("argv is empty: give the program and its arguments")
    for word in words_of_argv:
        if not isinstance(word, (str, bytes, os.PathLike)):
            raise TypeError(f"argv holds {word!r}: each word is a str, bytes or a path; write str(...)")
    return words_of_argv


def _signal_group(group: int, number: signal.Signals) -> None:
    """Signal every process of a group whose leader has not been reaped."""
    if not _is_our_child(group):
        return
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # nobody there; or all of them changed their user
        pass


def _is_our_child(pid: int) -> bool:
    """False when somebody else (a SIGCHLD handler) reaped it: its number may be a stranger's by now."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _exit_status(pid: int) -> int | None:
    """The status of a child as `Popen.returncode` would say it, without reaping it; None while it runs."""
    try:
        result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0  # reaped by somebody else: nobody can know; `Popen` says 0 too
    if result is None:
        return None
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


def _wait_until_gone(session: int, deadline: float, output: int) -> bool:
    """Wait until no process of the session lives. False at the deadline (time.monotonic()).

    What they still write is read and thrown away: who is blocked in a write goes on, and who has a last word before
    it tidies up is not ended by SIGPIPE in the midst of that.
    """
    poll = select.poll()
    poll.register(output, select.POLLIN)
    pause = FIRST_LOOK_SECONDS
    while not _session_is_gone(session):
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        if not poll.poll(min(pause, left) * 1000):
            pause = min(2 * pause, LONGEST_LOOK_SECONDS)
        elif not os.read(output, BLOCK_BYTES):
            poll.unregister(output)  # nobody can write any more
    return True


def _session_is_gone(session: int) -> bool:
    """Whether the program has exited and only zombies are left of its session.

    `killpg(group, 0)` cannot tell: the leader, a zombie that is not reaped yet, counts for it. Without /proc
    (macOS, the BSDs) nobody can; those who outlive the program get the last SIGKILL there, and no SIGTERM
    before.
    """
    if not _is_our_child(session):
        return True  # nothing can be done about it any more
    return _exit_status(session) is not None and next(_living_members(session), None) is None


def _living_members(session: int) -> Iterator[tuple[int, int]]:
    """The processes of a session that are not zombies, each with its process group."""
    try:
        names = os.listdir("/proc")
    except OSError:
        return
    for name in names:
        if name.isdecimal() and (member := _member(int(name), session)):
            yield member


def _member(pid: int, session: int) -> tuple[int, int] | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None  # gone meanwhile
    # proc(5): "pid (comm) state ppid pgrp session ..."; comm may hold anything, also a parenthesis
    state, _, group, its_session = text[text.rindex(b")") + 2 :].split(maxsplit=4)[:4]
    return (pid, int(group)) if int(its_session) == session and state not in (b"Z", b"X") else None


def _signal_strays(session: int, number: signal.Signals) -> None:
    """Signal the processes that made themselves a group of their own within the session, as timeout(1) does.

    Through a pidfd (Linux 5.3), looked at again after it was opened: a number may pass to another process, a
    pidfd not.
    """
    if not hasattr(os, "pidfd_open") or not _is_our_child(session):
        return
    for pid, group in _living_members(session):
        if group == session:
            continue
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            if _member(pid, session):
                signal.pidfd_send_signal(descriptor, number)
        except OSError:  # gone meanwhile, or it changed its user
            pass
        finally:
            os.close(descriptor)


def run_process(
    argv: Sequence[Argument],
    *,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    encoding: str = "utf-8",
    stderr: Literal["merge", "discard"] = "merge",
    check: bool = True,
    kill_after: float = 5.0,
    max_line_bytes: int = MAX_LINE_BYTES,
) -> ProcessLines:
    """Run a program and deliver what it writes as lines, `str` without their ends. It ends with the stream.

    argv: the program and its arguments, a list; no shell. It starts at the first `next()`, with stdin from
    /dev/null, and the stream ends when it has exited and the last process that writes to its output has
    closed it. Most programs write blocks, not lines, into a pipe: use their own switch (`python -u`, `grep
    --line-buffered`) or `stdbuf -oL`.
    cwd, env: as for `subprocess.Popen`; None means those of this process.
    encoding: see `LineSplitter`; bytes that do not decode become U+FFFD.
    stderr: "merge" puts its lines between those of stdout, "discard" throws them away.
    check: True raises `ProcessFailed` after the last line when the exit status is not 0.
    kill_after: seconds between SIGTERM and SIGKILL when the stream ends first, 5 by default (half of what
    `docker stop` grants); 0 kills at once.
    max_line_bytes: 1 MiB; a longer line is delivered in pieces.

    Raises, at the call, TypeError for a string as argv and ValueError for a value out of range; at the first
    `next()` FileNotFoundError or PermissionError when the program cannot be started. One thread iterates and
    closes; `cancel()` may be called from any thread and sends SIGTERM at once.
    """
    splitter = LineSplitter(encoding, max_line_bytes)
    return ProcessLines(argv, cwd, env, stderr, check, kill_after, splitter)
