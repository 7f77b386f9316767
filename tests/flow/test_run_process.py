"""Real processes: what they write, how they end, and that none of them is left."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamkit.errors import ProcessFailed
from streamkit.flow import run_process as module
from streamkit.flow.run_process import ProcessLines, run_process
from tests.conftest import descriptors, eventually

IGNORE = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
LINGER = "import time\nfor _ in range(600): time.sleep(0.1)"  # a minute, should a test leave it behind


def python(*lines: str) -> list[str]:
    return [sys.executable, "-u", "-c", "\n".join(lines)]


def children() -> set[int]:
    """The processes whose parent is this one, zombies too."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                text = Path(f"/proc/{name}/stat").read_text()
            except OSError:
                continue
            if int(text.rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(name))
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in ("Z", "X")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    files, processes = descriptors(), children()
    yield
    gc.collect()  # an unclosed pipe or an unreaped child warns now, and a warning is an error
    assert descriptors() - files == set()
    assert children() - processes == set()


@pytest.fixture
def run() -> Iterator[Callable[..., ProcessLines]]:
    """`run(argv, **options)`; whatever it started is closed at the end of the test."""
    started: list[ProcessLines] = []

    def start(argv: Any, **options: Any) -> ProcessLines:
        started.append(run_process(argv, **options))
        return started[-1]

    yield start
    for source in started:
        source.close()


Run = Callable[..., ProcessLines]


# -- lines --------------------------------------------------------------------------------------------


def test_lines_and_a_last_one_without_an_end(run: Run) -> None:
    assert list(run(["printf", "a\\r\\nb\\n\\nc"])) == ["a", "b", "", "c"]


def test_no_output(run: Run) -> None:
    assert list(run(["true"])) == []


def test_a_line_is_delivered_while_the_program_goes_on(run: Run) -> None:
    source = run(python("print('first')", LINGER))
    assert next(source) == "first"
    assert source.pid is not None
    assert is_alive(source.pid)


def test_bytes_that_do_not_decode(run: Run) -> None:
    assert list(run(["printf", "\\351\\n"])) == ["\ufffd"]
    assert list(run(["printf", "\\351\\n"], encoding="latin-1")) == ["\u00e9"]


def test_much_output_is_complete_and_a_long_line_comes_in_pieces(run: Run) -> None:
    source = run(python("for n in range(50_000): print(n)"))
    assert list(source) == [str(number) for number in range(50_000)]
    pieces = list(run(python("print('x' * 300_000)"), max_line_bytes=1000))
    assert max(len(piece) for piece in pieces) == 1000
    assert "".join(pieces) == "x" * 300_000


def test_stderr_is_merged_or_discarded(run: Run) -> None:
    script = ["sh", "-c", "echo out; echo err >&2"]
    assert list(run(script)) == ["out", "err"]
    assert list(run(script, stderr="discard")) == ["out"]


def test_nothing_to_read_on_stdin(run: Run) -> None:
    assert list(run(["cat"])) == []


def test_folder_and_environment(run: Run, tmp_path: Path) -> None:
    source = run(["/bin/sh", "-c", 'pwd; echo "$NAME"'], cwd=tmp_path, env={"NAME": "value"})
    assert list(source) == [str(tmp_path.resolve()), "value"]


def test_words_may_be_paths_and_bytes(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a file"
    path.write_text("content\n")
    assert list(run(("cat", b"--", path))) == ["content"]


def test_descriptors_beyond_what_select_can_take(run: Run) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1200:
        pytest.skip("no 1,200 descriptors here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    many = [os.open("/dev/null", os.O_RDONLY) for _ in range(1050)]
    try:
        source = run(["echo", "a"])
        assert list(source) == ["a"]
        source.close()
    finally:
        for descriptor in many:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# -- the start ----------------------------------------------------------------------------------------


def test_it_starts_at_the_first_next(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "started"
    source = run(["touch", str(path)])
    assert source.pid is None
    source.close()
    assert list(source) == []
    assert not path.exists()


def test_cancelled_before_it_started(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "started"
    source = run(["touch", str(path)])
    source.cancel()
    assert list(source) == []
    assert not path.exists()


@pytest.mark.parametrize("options", [{}, {"cwd": "/no/such/folder"}])
def test_a_program_that_is_not_there(run: Run, options: dict[str, Any]) -> None:
    source = run(["no-such-program"] if not options else ["true"], **options)
    with pytest.raises(FileNotFoundError, match=r"no.such"):
        next(source)
    source.close()


def test_a_cancel_while_it_starts_ends_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    source = run(python("print('a')", LINGER))
    popen = subprocess.Popen

    def start(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        process = popen(*arguments, **options)
        source.cancel()
        return process

    monkeypatch.setattr(subprocess, "Popen", start)
    assert list(source) == []
    source.close()
    assert source._process is not None
    assert source._process.returncode == -signal.SIGTERM


@pytest.mark.parametrize("argv", ["ls -l 'a b'", b"ls -l", "ls 'open quote"])
def test_a_string_is_not_a_list_of_words(argv: Any) -> None:
    with pytest.raises(TypeError, match="no shell is used, so give a list of words") as caught:
        run_process(argv)
    if argv == "ls -l 'a b'":
        assert "['ls', '-l', 'a b']" in str(caught.value)
        assert '["sh", "-c", ' in str(caught.value)


def test_values_out_of_range() -> None:
    with pytest.raises(ValueError, match="argv is empty"):
        run_process([])
    with pytest.raises(TypeError, match=r"argv holds 7.*write str"):
        run_process(["sleep", 7])  # type: ignore[list-item]
    with pytest.raises(ValueError, match='"merge"'):
        run_process(["true"], stderr="keep")  # type: ignore[arg-type]
    for kill_after in (-1, float("nan")):
        with pytest.raises(ValueError, match="0 or more"):
            run_process(["true"], kill_after=kill_after)
    with pytest.raises(ValueError, match="1 or more"):
        run_process(["true"], max_line_bytes=0)


# -- the exit status ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "returncode", "told"),
    [("echo a; exit 3", 3, "'sh' exited with status 3"), ("echo a; kill -9 $$", -9, "killed by signal 9")],
)
def test_a_failure_is_raised_after_the_last_line(run: Run, script: str, returncode: int, told: str) -> None:
    source = run(["sh", "-c", script])
    assert next(source) == "a"
    with pytest.raises(ProcessFailed, match=told) as caught:
        next(source)
    assert caught.value.returncode == returncode
    assert list(source) == []


def test_a_failure_may_be_ignored(run: Run) -> None:
    assert list(run(["sh", "-c", "echo a; exit 3"], check=False)) == ["a"]


def test_a_program_that_closed_its_output_is_waited_for(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "go"
    os.mkfifo(path)
    source = run(["sh", "-c", f"exec >&- 2>&-; read line <'{path}'; exit 5"])
    caught: list[BaseException] = []

    def read() -> None:
        try:
            next(source)
        except ProcessFailed as error:
            caught.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    with open(path, "w") as file:
        file.write("now\n")
    thread.join(10)
    assert [error.returncode for error in caught if isinstance(error, ProcessFailed)] == [5]


# -- close() ------------------------------------------------------------------------------------------


def test_close_ends_a_program_that_runs(run: Run) -> None:
    source = run(python("print('a')", LINGER))
    assert next(source) == "a"
    source.close()
    source.close()
    assert source._process is not None
    assert source._process.returncode == -signal.SIGTERM
    assert list(source) == []


def test_close_gives_time_to_end_well(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "ended well"
    script = f"trap ': > \"{path}\"; exit 0' TERM; echo a; while :; do sleep 0.05; done"
    source = run(["sh", "-c", script], kill_after=30)
    assert next(source) == "a"
    source.close()
    assert path.exists()
    assert source._process is not None
    assert source._process.returncode == 0


def test_close_lets_a_program_finish_what_it_writes_at_its_end(run: Run, tmp_path: Path) -> None:
    """More than a pipe holds: neither a full output nor a closed one keeps it from ending well."""
    path = tmp_path / "ended well"
    end = f"def end(*_): os.write(1, bytes(1_000_000)); open({str(path)!r}, 'w').close(); os._exit(0)"
    program = python("import os, signal", end, "signal.signal(signal.SIGTERM, end)", "print('a')", LINGER)
    source = run(program, kill_after=30)
    assert next(source) == "a"
    source.close()
    assert path.exists()
    assert source._process is not None
    assert source._process.returncode == 0


def test_close_kills_what_ignores_sigterm(run: Run) -> None:
    source = run(python(IGNORE, "print('a')", LINGER), kill_after=0.1)
    assert next(source) == "a"
    source.close()
    assert source._process is not None
    assert source._process.returncode == -signal.SIGKILL


def test_kill_after_0_does_not_wait(run: Run) -> None:
    source = run(python(IGNORE, "print('a')", LINGER), kill_after=0)
    assert next(source) == "a"
    source.close()


def test_close_ends_a_program_that_is_blocked_in_a_write(run: Run) -> None:
    source = run(["yes"])
    assert next(source) == "y"
    source.close()


def test_close_ends_the_children_of_a_program_that_runs(run: Run) -> None:
    source = run(["sh", "-c", "sleep 60 & echo $!; sleep 60 & echo $!; wait"])
    pids = [int(next(source)), int(next(source))]
    assert all(is_alive(pid) for pid in pids)
    source.close()
    assert not any(is_alive(pid) for pid in pids)


@pytest.mark.parametrize("redirected", ["", ">/dev/null 2>&1"])
def test_close_ends_the_children_of_a_program_that_has_exited(run: Run, redirected: str) -> None:
    source = run(["sh", "-c", f"sleep 60 {redirected} & echo $!"])
    pid = int(next(source))
    if redirected:
        assert list(source) == []  # nobody holds the pipe: the stream has ended, and well
    leader = source.pid
    assert leader is not None
    eventually(lambda: not is_alive(leader))
    assert is_alive(pid)
    source.close()
    assert not is_alive(pid)


def test_close_kills_the_children_that_ignore_sigterm(run: Run) -> None:
    child = python(IGNORE, "import os", "print(os.getpid())", LINGER)
    source = run(python("import subprocess", f"subprocess.Popen({child!r})"), kill_after=0.1)
    pid = int(next(source))
    source.close()
    assert not is_alive(pid)


def test_close_reaches_a_group_of_its_own_in_the_session(run: Run) -> None:
    if not hasattr(os, "pidfd_open"):
        pytest.skip("needs os.pidfd_open")
    # timeout(1) makes itself a process group when it does not lead one
    source = run(["sh", "-c", "timeout 60 sh -c 'echo $$; sleep 60; true' >/dev/stdout; true"])
    pid = int(next(source))
    assert os.getpgid(pid) != source.pid
    source.close()
    assert not is_alive(pid)


def test_a_program_that_has_ended_and_left_nobody_gets_no_signal(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    killpg = os.killpg

    def recorded(group: int, number: int) -> None:
        sent.append(number)
        killpg(group, number)

    monkeypatch.setattr(os, "killpg", recorded)
    source = run(["echo", "a"])
    assert list(source) == ["a"]
    source.close()
    assert signal.SIGTERM not in sent


def test_no_group_is_signalled_after_its_leader_was_reaped(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number may belong to somebody else from then on."""
    source = run(python("print('a')", LINGER))
    assert next(source) == "a"
    pid = source.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)  # as a SIGCHLD handler of the application does
    monkeypatch.setattr(os, "killpg", lambda group, number: pytest.fail(f"signal {number} to {group}"))
    source.cancel()
    source.close()
    source.cancel()


# -- cancel() -----------------------------------------------------------------------------------------


def cancelled_while_it_reads(source: ProcessLines, when: Callable[[], object]) -> list[str]:
    """The lines that came until `cancel()` was called from another thread, after `when()` returned."""
    lines: list[str] = []
    thread = threading.Thread(target=lambda: lines.extend(source))
    thread.start()
    try:
        eventually(lambda: source.pid)
        when()
    finally:
        source.cancel()
        thread.join(10)
    assert not thread.is_alive()
    return lines


def test_cancel_wakes_a_reader_and_sends_sigterm(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "running"
    source = run(python(f"open({str(path)!r}, 'w')", "print('a')", LINGER), kill_after=30)
    assert cancelled_while_it_reads(source, lambda: eventually(path.exists)) in (["a"], [])
    pid = source.pid
    assert pid is not None
    eventually(lambda: not is_alive(pid))  # before close()
    source.cancel()
    source.close()
    source.cancel()
    assert source._process is not None
    assert source._process.returncode == -signal.SIGTERM


def test_cancel_does_not_wait_for_a_program_that_ignores_sigterm(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "ignores"
    source = run(python(IGNORE, f"open({str(path)!r}, 'w')", LINGER), kill_after=0.1)
    assert cancelled_while_it_reads(source, lambda: eventually(path.exists)) == []
    assert source.pid is not None
    assert is_alive(source.pid)
    source.close()
    assert not is_alive(source.pid)


def test_cancel_wakes_the_wait_for_an_exit(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "closed"
    program = python(IGNORE, "import os", "os.close(1); os.close(2)", f"open({str(path)!r}, 'w')", LINGER)
    source = run(program, kill_after=0.1)
    assert cancelled_while_it_reads(source, lambda: eventually(path.exists)) == []


def test_a_cancelled_program_did_not_fail(run: Run) -> None:
    source = run(python("print('a')", LINGER))
    assert next(source) == "a"
    source.cancel()
    assert list(source) == []  # and no ProcessFailed for the SIGTERM


def test_sigterm_is_sent_once(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "signals"
    program = python(
        "import os, signal, time",
        f"signal.signal(signal.SIGTERM, lambda *_: open({str(path)!r}, 'a').write('TERM '))",
        "print('ready')",
        "until = time.monotonic() + 60",
        f"while not os.path.exists({str(path)!r}) and time.monotonic() < until: time.sleep(0.01)",
        "time.sleep(0.2)",
    )
    source = run(program, kill_after=30)
    assert next(source) == "ready"
    source.cancel()
    source.cancel()
    source.close()
    assert path.read_text() == "TERM "


def test_many_threads_may_cancel_beside_close(run: Run) -> None:
    for _ in range(10):
        source = run(["sh", "-c", "echo a; sleep 60"])
        assert next(source) == "a"
        threads = [threading.Thread(target=source.cancel) for _ in range(4)]
        for thread in threads:
            thread.start()
        source.close()
        for thread in threads:
            thread.join()


def test_without_proc_nothing_is_left_either(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    source = run(["sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!"], kill_after=0.1)
    pid = int(next(source))
    assert list(source) == []
    with monkeypatch.context() as patch:
        patch.setattr(module, "_living_members", lambda session: iter(()))
        source.close()
    eventually(lambda: not is_alive(pid))
