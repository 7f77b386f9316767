"""The log in a file: several processes, and what may happen to a file."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamkit.errors import BrokerUnavailable, SubscriberTooSlow
from streamkit.hub import hub as hub_module
from streamkit.hub import run as one_run
from streamkit.hub import runs as runs_module
from streamkit.hub import sqlite_file, sqlite_leases, sqlite_turns
from streamkit.hub.bells import Bells
from streamkit.hub.broker import Entry, HistoryLost
from streamkit.hub.gap import Gap
from streamkit.hub.hub import Hub
from streamkit.hub.sqlite import SQLiteBroker
from tests.conftest import ROOT, eventually
from tests.hub.conftest import Viewer, hears
from tests.interrupts import Interrupted

PUBLISH = """
import sys
from streamkit.hub.hub import Hub
hub = Hub(sys.argv[1])
hub.subscribe("none")  # a reader with a bell, as in a worker
for number in range(int(sys.argv[2])):
    id = hub.publish("t", f"{sys.argv[3]} {number}")
    print(number, id, flush=True)
"""


@contextmanager
def python(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/events.db"


def entries(*texts: str) -> list[Entry]:
    return [Entry("t", text, None, None) for text in texts]


def test_other_processes_are_heard(url: str) -> None:
    with Hub(url) as hub:
        viewer = Viewer(hub.subscribe("t"))
        with python(PUBLISH, url, "200", "one") as one, python(PUBLISH, url, "200", "two") as two:
            viewer.take(400)
            assert (one.wait(20), two.wait(20)) == (0, 0), one.communicate()[0] + two.communicate()[0]
        for name in ("one", "two"):
            own = [event.data for event in viewer.events if (event.data or "").startswith(name)]
            assert own == [f"{name} {number}" for number in range(200)]
        first = viewer.events[0].id
        assert Viewer(hub.subscribe("t", last_event_id=first)).take(399) == viewer.events[1:]


def test_a_publisher_that_is_killed_loses_nothing_that_it_was_told(url: str, tmp_path: Path) -> None:
    with Hub(url) as hub:
        viewer = Viewer(hub.subscribe("t"))
        with python(PUBLISH, url, "1000000", "killed") as process:
            viewer.until(lambda: len(viewer.events) >= 300)
            process.send_signal(signal.SIGKILL)
            process.wait(10)
            assert process.stdout is not None
            told = [line.split() for line in process.stdout.read().splitlines() if len(line.split()) == 2]
        hub.publish("t", "afterwards")
        viewer.until(lambda: viewer.events[-1].data == "afterwards")
        ids = [event.id for event in viewer.events]
        assert len(set(ids)) == len(ids)
        assert [id for _, id in told] == ids[: len(told)]
        data = [event.data for event in viewer.events[:-1]]
        assert data == [f"killed {number}" for number in range(len(data))]
        hub.publish("t", "the dead one's bell is removed")
        eventually(lambda: hub.publish("t", "x") and len(list(tmp_path.glob("*-bell-*"))) == 1)


def test_two_processes_make_the_file_at_once(tmp_path: Path) -> None:
    code = """
import sys
from streamkit.hub.hub import Hub
sys.stdin.readline()
for number in range(10):
    print(Hub(f"sqlite:///{sys.argv[1]}/{number}.db").publish("t", "x").partition("-")[0])
"""
    with contextmanager_all([python_with_input(code, str(tmp_path)) for _ in range(3)]) as processes:
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=30)[0].split() for process in processes]
    assert len(outputs[0]) == 10, outputs
    assert outputs[0] == outputs[1] == outputs[2], "they made different logs"


def python_with_input(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextmanager
def contextmanager_all(processes: list[subprocess.Popen[str]]) -> Iterator[list[subprocess.Popen[str]]]:
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait(10)
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()


def test_the_log_survives_a_restart(url: str) -> None:
    with Hub(url) as hub:
        ids = hub.publish_many([("t", "1"), ("t", "2")])
    with Hub(url) as hub:
        ids.append(hub.publish("t", "3"))
        assert [event.id for event in Viewer(hub.subscribe("t", last_event_id=ids[0])).take(2)] == ids[1:]


def test_a_file_made_anew_is_a_gap_and_not_silence(url: str, tmp_path: Path) -> None:
    with Hub(url) as hub:
        viewer = Viewer(hub.subscribe("t"))
        old = hub.publish("t", "old")
        viewer.take(1)
        for path in tmp_path.glob("events.db*"):
            if "bell" not in path.name:
                path.unlink()
        new = hub.publish("t", "new")
        viewer.until(lambda: viewer.events[-1].data == "new")
        assert any(isinstance(event, Gap) for event in viewer.events)
        late = Viewer(hub.subscribe("t", last_event_id=old)).take(2)
        assert isinstance(late[0], Gap)
        assert late[1].id == new


def test_a_slow_subscriber_of_a_file_that_is_gone_does_not_wait_for_ever(url: str, tmp_path: Path) -> None:
    with Hub(url) as hub:
        slow, fast = Viewer(hub.subscribe("t")), Viewer(hub.subscribe("t"))
        hub.publish_many([("t", str(number)) for number in range(3000)])
        fast.take(3000)
        for path in tmp_path.glob("events.db*"):
            if "bell" not in path.name:
                path.unlink()
        hub.publish("t", "new")
        fast.until(lambda: fast.events[-1].data == "new")
        events = slow.end()
        assert [event.data for event in events] == [str(number) for number in range(len(events))]
        assert isinstance(slow.subscription.error, SubscriberTooSlow)


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BrokerUnavailable, match="there is no folder"):
        Hub(f"sqlite:///{tmp_path}/none/events.db")
    with pytest.raises(BrokerUnavailable, match="is a folder"):
        Hub(f"sqlite:///{tmp_path}")
    monkeypatch.chdir(tmp_path)
    with Hub("sqlite:///a%20name%3F.db") as hub:
        monkeypatch.chdir("/")  # the path is of the moment when the hub was made
        hub.publish("t", "x")
    assert (tmp_path / "a name?.db").exists()
    long = tmp_path / ("x" * 100) / ("y" * 100)
    long.mkdir(parents=True)
    with Hub(f"sqlite:///{long}/events.db") as hub:  # longer than the path of a UNIX socket may be
        viewer = Viewer(hub.subscribe("t"))
        hub.publish("t", "x")
        viewer.take(1)
        assert len(list(long.glob("*-bell-*"))) == 1
    assert not list(long.glob("*-bell-*"))


def test_a_corrupted_file(url: str, tmp_path: Path) -> None:
    (tmp_path / "events.db").write_bytes(b"this is not a database" * 500)
    with Hub(url) as hub:
        viewer = Viewer(hub.subscribe("t"))
        for _ in range(2):
            with pytest.raises(BrokerUnavailable, match="damaged, or not a hub's file; move it away"):
                hub.publish("t", "x")
        (tmp_path / "events.db").unlink()
        hub.publish("t", "a new one is made")
        eventually(lambda: hub._reader._position is not None)
        hub.publish("t", "and read")
        viewer.until(lambda: viewer.events and viewer.events[-1].data == "and read")


def test_somebody_elses_file_is_not_touched(url: str, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "events.db") as theirs:
        theirs.execute("CREATE TABLE log (theirs)")
    theirs.close()
    before = (tmp_path / "events.db").read_bytes()
    with (
        Hub(url) as hub,
        pytest.raises(BrokerUnavailable, match="holds other tables; give the hub a file of its own"),
    ):
        hub.publish("t", "x")
    assert (tmp_path / "events.db").read_bytes() == before


def test_a_newer_format_is_not_touched(url: str, tmp_path: Path) -> None:
    with Hub(url) as hub:
        hub.publish("t", "x")
    with sqlite3.connect(tmp_path / "events.db") as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    with Hub(url) as hub, pytest.raises(BrokerUnavailable, match="another version of streamkit"):
        hub.publish("t", "x")


def test_a_read_only_file(url: str, tmp_path: Path) -> None:
    with Hub(url) as hub:
        hub.publish("t", "x")
    code = """
import os, sys
import streamkit.hub.sqlite
from streamkit.errors import BrokerUnavailable
from streamkit.hub.hub import Hub
os.setuid(65534)  # root may write everything
try:
    Hub(sys.argv[1]).publish("t", "x")
except BrokerUnavailable as error:
    print(error)
"""
    if os.getuid() != 0:
        code = code.replace("os.setuid(65534)", "pass")
    (tmp_path / "events.db").chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
    tmp_path.chmod(0o555)
    folder = tmp_path.parent
    modes = []
    while os.getuid() == 0 and not folder.stat().st_mode & stat.S_IXOTH:  # pytest's own folders are private
        modes.append((folder, folder.stat().st_mode))
        folder.chmod(0o755)
        folder = folder.parent
    try:
        with python(code, url) as process:
            output = process.communicate(timeout=20)[0]
    finally:
        tmp_path.chmod(0o755)
        for folder, mode in modes:
            folder.chmod(mode)
    assert "cannot be written; let this process write to the file and to its folder" in output


def test_a_full_disk_loses_nothing_before_it(url: str) -> None:
    """A limit on the size of files, in a process of its own, stands for the disk."""
    code = """
import resource, signal, sys
from streamkit.errors import BrokerUnavailable
from streamkit.hub.hub import Hub
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
hub = Hub(sys.argv[1])
hub.publish("t", "0")
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
number = 0
try:
    while number < 1000:
        hub.publish("t", f"{number + 1} ".ljust(5000))
        number += 1
except BrokerUnavailable as error:
    print("full", number, error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print("again", hub.publish("t", "again"))
"""
    assert resource.RLIM_INFINITY
    with python(code, url) as process:
        output = process.communicate(timeout=30)[0]
    full, again = output.splitlines()
    published = int(full.split()[1])
    assert published < 1000
    with Hub(url) as hub:
        events = Viewer(hub.subscribe("t", last_event_id="all")).take(published + 3)
        assert [(event.data or "").strip() for event in events[1:]] == [
            *(str(number) for number in range(published + 1)),
            "again",
        ]
        assert events[-1].id == again.split()[1]


def test_a_full_file_system_loses_nothing_before_it(tmp_path: Path) -> None:
    """A real one, of a megabyte; when it has room again, publishing goes on."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system can be mounted by root alone")
    try:
        url = f"sqlite:///{place}/events.db"
        with Hub(url) as hub:
            published = 0
            with contextlib.suppress(BrokerUnavailable):
                while published < 1000:
                    hub.publish("t", f"{published} ".ljust(5000))
                    published += 1
            assert 0 < published < 1000
            larger = ["mount", "-o", "remount,size=8m", str(place)]
            subprocess.run(larger, check=True, capture_output=True)
            hub.publish("t", "again")
        with Hub(url) as hub:
            events = Viewer(hub.subscribe("t", last_event_id="all")).take(published + 2)
            got = [(event.data or "").strip() for event in events[1:]]
            assert got == [*map(str, range(published)), "again"]
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_file_that_is_busy(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_turns, "BUSY_SECONDS", 0.1)
    with Hub(url) as hub:
        hub.publish("t", "1")
        other = sqlite3.connect(tmp_path / "events.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BrokerUnavailable, match=r"held by another process for more than 0\.1 s"):
            hub.publish("t", "2")
        other.execute("ROLLBACK")
        other.close()
        hub.publish("t", "3")
        assert Viewer(hub.subscribe("t", last_event_id="all")).data(3)[1:] == ["1", "3"]


def test_without_bells_a_reader_looks_by_itself(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bells, "hang", lambda self: None)
    with Hub(url) as hub:
        viewer = Viewer(hub.subscribe("t"))
        hub.publish("t", "x")
        viewer.take(1)


def test_trimming_keeps_the_file_small(url: str, tmp_path: Path) -> None:
    broker = SQLiteBroker(url, retain=1000)
    try:
        for _ in range(200):
            broker.append(entries(*["x" * 100] * 100))
        assert broker.head() - broker.floor() <= 1200
        (size,) = (path.stat().st_size for path in tmp_path.glob("events.db"))
        assert size < 2_000_000
    finally:
        broker.close()


def test_who_names_no_retention_trims_by_that_of_the_log(url: str) -> None:
    """A script or the command publishes now and then to a file that an application wants to hold more of."""
    with Hub(url, retain=20_000) as application, Hub(url, retain=1000) as operator:

        def held() -> int:
            return application.broker.head() - application.broker.floor()

        for _ in range(24):
            application.publish_many([("t", "x")] * 500)
        command = [sys.executable, "-m", "streamkit", "publish", url, "t", "-"]
        subprocess.run(command, input="line\n" * 5, text=True, check=True, timeout=30, capture_output=True)
        assert application.broker.floor() == 0
        for _ in range(5):
            operator.publish_many([("t", "x")] * 2000)
        assert held() <= 1100
        for _ in range(5):
            application.publish_many([("t", "x")] * 2000)
        assert held() <= 1100, "the last to begin decides"


def test_a_file_that_was_made_anew_is_told_what_to_retain(url: str, tmp_path: Path) -> None:
    with Hub(url, retain=100) as hub:
        hub.publish("t", "x")
        for path in tmp_path.glob("events.db*"):
            path.unlink()
        for _ in range(20):
            hub.publish_many([("t", "x")] * 100)
        assert len(hub.broker.read(hub.broker.floor(), 2000)) <= 200


def test_a_position_of_another_file_is_never_taken_for_ones_own(tmp_path: Path) -> None:
    one, two = (SQLiteBroker(f"sqlite:///{tmp_path}/{name}.db") for name in ("one", "two"))
    try:
        one.append(entries("a", "b"))
        two.append(entries("a", "b", "c"))
        with pytest.raises(HistoryLost):
            two.read(one.head(), 10)
    finally:
        one.close()
        two.close()


def test_a_fork_begins_anew_on_the_same_log(url: str) -> None:
    code = r"""
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later warn of forks beside threads
from streamkit.hub.hub import Hub
hub = Hub(sys.argv[1])
subscription = hub.subscribe("t")
hub.publish("t", "parent")
child = os.fork()
name = "child" if child == 0 else "parent"
events = iter(hub.subscribe("t", last_event_id="all"))
if child == 0:
    hub.publish("t", "from the child")
seen = [next(events).data for _ in range(3)][1:]
events.close()
os.write(1, f"{name} {seen}\n".encode())  # at once: both write to one pipe
if child:
    os.waitpid(child, 0)
"""
    with python(code, url) as process:
        output = process.communicate(timeout=30)[0]
    assert sorted(output.splitlines()) == [
        "child ['parent', 'from the child']",
        "parent ['parent', 'from the child']",
    ], output


def test_what_a_child_publishes_outlives_the_hub_of_its_parent(url: str) -> None:
    """It would be in a write-ahead log that the parent deletes, which knows nothing of the child."""
    code = """
import os, sys
from streamkit.hub.hub import Hub
hub = Hub(sys.argv[1])
hub.publish("t", "parent")
hub.broker.read(0, 10)
published, closed = os.pipe(), os.pipe()
child = os.fork()
if child:
    os.read(published[0], 1)
    hub.close()
    os.write(closed[1], b"x")
    os.waitpid(child, 0)
else:
    hub.publish("t", "1")
    hub.broker.read(0, 10)
    os.write(published[1], b"x")
    os.read(closed[0], 1)
    hub.publish_many([("t", "2"), ("t", "3")])
    os._exit(0)
"""
    with python(code, url) as process:
        assert process.communicate(timeout=30)[0] == ""
    with Hub(url) as hub:
        assert Viewer(hub.subscribe("t", last_event_id="all")).data(5)[1:] == ["parent", "1", "2", "3"]


def test_a_signal_handler_that_raises_while_a_fork_waits_keeps_nobody_out(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_turns, "BUSY_SECONDS", 0.2)
    read = []

    def interrupted(seconds: float) -> bool:
        raise Interrupted

    with Hub(url) as hub:
        hub.publish("t", "x")
        broker = hub.broker
        assert isinstance(broker, SQLiteBroker)
        with monkeypatch.context() as patch:
            patch.setattr(broker._write_turn, "hold", interrupted)
            with pytest.raises(Interrupted):
                sqlite_turns._before_fork()
        sqlite_turns._after_fork()
        thread = threading.Thread(target=lambda: read.extend(broker.read(0, 10)))
        thread.start()
        thread.join()
    assert len(read) == 1


def test_a_hub_that_another_thread_makes_does_not_keep_a_fork_from_taking_the_turns(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def make(frame: object, event: str, argument: object) -> None:
        if len(made) < 20:
            made.append(Hub(url))

    with Hub(url) as hub:
        hub.publish("t", "x")
        broker = hub.broker
        assert isinstance(broker, SQLiteBroker)
        sys.setprofile(make)  # at each call and return
        try:
            sqlite_turns._before_fork()
        finally:
            sys.setprofile(None)
            sqlite_turns._after_fork()
        assert made
        assert broker._write_turn.connection is None


def test_a_fork_beside_threads_that_use_the_file(url: str) -> None:
    """SQLite's own mutexes would be locked for ever in a child that was forked while a thread held one."""
    code = """
import os, signal, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later warn of forks beside threads
from streamkit.hub.hub import Hub
hub = Hub(sys.argv[1], retain=1_000_000)  # that the reader is behind, on a busy machine, is nothing to report
hub.subscribe("t")
stop = threading.Event()
def publish():
    while not stop.is_set():
        hub.publish_many([("t", "x" * 200)] * 20)
thread = threading.Thread(target=publish)
thread.start()
for _ in range(60):
    child = os.fork()
    if not child:
        signal.alarm(10)  # kills who hangs
        hub.publish("t", "from the child")
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        os.write(1, b"a child hung\\n")
        break
stop.set()
thread.join()
"""
    with python(code, url) as process:
        assert process.communicate(timeout=60)[0] == ""
        assert process.returncode == 0


def test_memory_warns_after_a_fork() -> None:
    code = """
import logging, os
logging.basicConfig()
from streamkit.hub.hub import Hub
hub = Hub()
if os.fork() == 0:
    for _ in range(3):
        hub.publish("t", "x")
else:
    hub.publish("t", "x")
    os.wait()
"""
    with python(code) as process:
        output = process.communicate(timeout=30)[0]
    assert output.count("memory:// reaches one process only") == 1, output


def test_a_worker_that_dies_with_a_run_is_seen(url: str) -> None:
    code = """
import sys, threading
from streamkit.hub.hub import Hub
hub = Hub(sys.argv[1])
def produce():
    yield "half"
    threading.Event().wait()
print(hub.run("t", produce).id, flush=True)
threading.Event().wait()
"""
    with Hub(url) as hub, python(code, url) as process:
        assert process.stdout is not None
        id = process.stdout.readline().strip()
        run = hub.run("t", lambda: ["never"])
        assert run.attached, process.stdout.read()
        assert run.id == id
        viewer = Viewer(run.events())
        viewer.take(1)
        process.kill()
        process.wait(20)
        name = one_run.lease_name("t")
        hub.broker.renew([(name, hub.broker.holder(name) or "")], 0.1)  # nobody else renews it any more
        assert viewer.end()[-1].json()["code"] == "run_lost"


def test_a_process_that_stood_still_publishes_nothing_after_the_end(url: str) -> None:
    code = """
import sys, time
from streamkit.hub import run as runs
from streamkit.hub.hub import Hub
runs.LEASE_SECONDS = 1.0
hub = Hub(sys.argv[1])
def answer():
    try:
        while True:
            yield "old"
            time.sleep(0.3)  # where it is stopped, and not inside of a transaction
    finally:
        print("closed", flush=True)
hub.run("t", answer)
sys.stdin.read()
"""
    with Hub(url) as hub, contextmanager_all([python_with_input(code, url)]) as (process,):
        viewer = Viewer(hub.subscribe("t"))
        # Start, and two: all that writes at its beginning has written.
        viewer.until(lambda: len(viewer.events) >= 3)
        process.send_signal(signal.SIGSTOP)
        viewer.until(lambda: viewer.events[-1].event == "error")
        count = len(viewer.events)
        hub.publish("t", "new")
        process.send_signal(signal.SIGCONT)
        assert process.stdout is not None
        assert any(line == "closed\n" for line in process.stdout)  # after lines of the log
        hub.publish("t", "last")
        viewer.until(lambda: viewer.events[-1].data == "last")
        assert [event.data for event in viewer.events[count:]] == ["new", "last"]


def test_nobody_is_declared_dead_who_could_not_renew(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody held the file for longer than a lease; whoever comes first then is not to bury those that live."""
    monkeypatch.setattr(sqlite_turns, "BUSY_SECONDS", 0.1)
    monkeypatch.setattr(runs_module, "RENEWAL_SECONDS", 1.0)
    lease = (one_run.lease_name("t"), one_run.new_holder("job"))
    with Hub(url) as hub, contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as foreign:
        hub.broker.claim(*lease, 60.0)
        hub._runs.heartbeat()
        assert hub.broker.renew([lease], 0.2) == ["held"]
        foreign.execute("BEGIN IMMEDIATE")
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            with pytest.raises(BrokerUnavailable, match="held by another process"):
                hub._runs.heartbeat()
        foreign.execute("ROLLBACK")
        hub._runs.heartbeat()
        assert hub.run("t", lambda: ["never"]).id == "job"
        assert hub.broker.renew([lease], 0.2) == ["held"]

        def is_buried() -> bool:
            hub._runs.heartbeat()
            return hub.attach("t") is None

        eventually(is_buried)
        assert hub.broker.locate(one_run.end_id("job")) is not None


def test_presence_counts_other_processes(url: str) -> None:
    code = """
import sys
from streamkit.hub.hub import Hub
hub = Hub(sys.argv[1])
subscriptions = [hub.subscribe("t") for _ in range(3)]
for subscription in subscriptions:
    subscription.start(lambda: None)
print("ready", flush=True)
sys.stdin.readline()
hub.close()
"""
    with Hub(url) as hub, contextmanager_all([python_with_input(code, url)]) as (process,):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        viewer = Viewer(hub.subscribe("t"))
        eventually(lambda: hub.presence("t") == (1, 4))
        process.communicate("bye\n", timeout=20)
        eventually(lambda: hub.presence("t") == (1, 1))
        viewer.close()


def test_presence_counts_nobody_twice_while_it_is_announced(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "PRESENCE_PAUSE_SECONDS", 0.0)
    with Hub(url) as hub, Hub(url) as other:
        told, go = threading.Event(), threading.Event()
        announce = hub.broker.announce

        def announce_slowly(counts: Mapping[str, int], seconds: float) -> None:
            announce(counts, seconds)
            told.set()
            assert go.wait(20)

        monkeypatch.setattr(hub.broker, "announce", announce_slowly)
        viewers = [Viewer(hub.subscribe("t")) for _ in range(2)]
        assert told.wait(20)
        try:
            assert hub.presence("t") == (2, 2)
        finally:
            go.set()
        eventually(lambda: other.presence("t") == (0, 2))
        assert hub.presence("t") == (2, 2)
        for viewer in viewers:
            viewer.close()


def test_presence_of_workers_that_were_forked_without_a_word_to_python(url: str) -> None:
    """As uWSGI does; the hub was made before and not used."""
    code = """
import ctypes, os, sys, time
from streamkit.hub.hub import Hub
hub = Hub(sys.argv[1])
seen, sees = os.pipe()
child = ctypes.PyDLL(None).fork()
subscription = hub.subscribe("t")
subscription.start(lambda: None)
deadline = time.monotonic() + 20
while hub.presence("t") != (1, 2) and time.monotonic() < deadline:
    time.sleep(0.05)
os.write(1, f"{hub.presence('t').everywhere}\\n".encode())
if not child:
    os.read(seen, 1)
    os._exit(0)
os.write(sees, b"x")
os.waitpid(child, 0)
"""
    with python(code, url) as process:
        assert process.communicate(timeout=60)[0] == "2\n2\n"


def test_presence_that_was_forgotten_comes_back(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a process that stood still, although its count does not change, and that of another topic does."""
    monkeypatch.setattr(hub_module, "PRESENCE_AGAIN_SECONDS", 3600.0)
    monkeypatch.setattr(hub_module, "PRESENCE_PAUSE_SECONDS", 0.0)
    with Hub(url) as hub, Hub(url) as other:
        viewer = Viewer(hub.subscribe("t"))
        eventually(lambda: other.presence("t") == (0, 1))
        broker = hub.broker
        assert isinstance(broker, SQLiteBroker)
        broker._write(lambda connection: sqlite_leases.leave(connection, broker._process or ""))
        assert other.presence("t") == (0, 0)
        monkeypatch.setattr(hub_module, "PRESENCE_AGAIN_SECONDS", 0.3)
        visitors = []

        def is_back() -> bool:
            visitors.append(Viewer(hub.subscribe("other")))
            return other.presence("t") == (0, 1)

        eventually(is_back)
        for one in (viewer, *visitors):
            one.close()


def test_at_exit_nothing_is_left(url: str, tmp_path: Path) -> None:
    code = """
import sys
from streamkit.hub.hub import Hub
hub = Hub(sys.argv[1])
subscription = hub.subscribe("t")
subscription.start(lambda: None)
hub.publish("t", "x")
"""
    with python(code, url) as process:
        output = process.communicate(timeout=30)[0]
        assert (process.returncode, output) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["events.db"]


def test_whoever_may_write_to_the_file_may_ring(url: str, tmp_path: Path) -> None:
    with Hub(url) as hub:
        hub.publish("t", "x")
        file = tmp_path / "events.db"
        file.chmod(0o664)
        if os.geteuid() == 0:
            os.chown(file, 12345, 54321)
        before = os.umask(0o077)
        try:
            viewer = Viewer(hub.subscribe("t", last_event_id="unknown"))
            viewer.take(2)  # so it has hung its bell
        finally:
            os.umask(before)
        (bell,) = tmp_path.glob("*-bell-*")
        expected, found = file.stat(), bell.stat()
        assert stat.S_IMODE(found.st_mode) == 0o664
        assert (found.st_uid, found.st_gid) == (expected.st_uid, expected.st_gid)


def test_an_owner_whom_the_container_does_not_know(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "chown", refuse)
    with Hub(url) as hub:
        Viewer(hub.subscribe("t", last_event_id="unknown")).take(1)
        assert list(tmp_path.glob("*-bell-*"))


def test_bells_of_the_dead_are_removed(tmp_path: Path) -> None:
    bells = Bells(tmp_path / "events.db")
    bell = bells.hang()
    assert bell is not None
    bells.ring([bell.name])
    bell.wait(20)
    os.mkfifo(tmp_path / "dead")
    assert bells.is_dead("dead")
    bells.ring([bell.name, "gone", "../elsewhere"])
    assert sorted(bells.take_dead()) == ["dead", "gone"]
    assert not bells.is_dead(bell.name)
    waiting = threading.Thread(target=bell.wait, args=(20,))
    waiting.start()
    bell.take_down()
    waiting.join(20)
    bell.take_down()
    bell.wait(20)
    bells.ring([bell.name])
    assert bells.take_dead() == [bell.name]
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_somebody_holds_does_not_hold_up_close(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_turns, "BUSY_SECONDS", 30.0)
    hub = Hub(url)
    viewer = Viewer(hub.subscribe("t", last_event_id="unknown"))
    hub.publish("t", "1")
    viewer.take(2)  # so its bell hangs
    with contextlib.closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as foreign:
        foreign.execute("BEGIN IMMEDIATE")
        publishing = threading.Thread(target=hub.publish, args=("t", "2"))
        publishing.start()
        broker = hub.broker
        assert isinstance(broker, SQLiteBroker)
        eventually(lambda: broker._write_turn.taken)
        began = time.monotonic()
        hub.close()
        assert time.monotonic() - began < 15
        foreign.execute("ROLLBACK")
        publishing.join(20)
        viewer.end()
        eventually(lambda: broker._write_turn.connection is None and broker._read_turn.connection is None)
    assert [path.name for path in tmp_path.iterdir()] == ["events.db"]


def test_who_rings_after_close_leaves_nothing_open(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Hub(url) as other:
        Viewer(other.subscribe("t", last_event_id="unknown")).take(1)  # so its bell hangs
        hub = Hub(url)
        broker = hub.broker
        assert isinstance(broker, SQLiteBroker)
        ring, ringing, closed = broker._bells.ring, threading.Event(), threading.Event()

        def ring_late(names: list[str]) -> None:
            ringing.set()
            assert closed.wait(20)
            ring(names)
            assert broker._bells._open

        monkeypatch.setattr(broker._bells, "ring", ring_late)
        publishing = threading.Thread(target=hub.publish, args=("t", "x"))
        publishing.start()
        assert ringing.wait(20)
        hub.close()
        closed.set()
        publishing.join(20)
        assert not broker._bells._open


def test_a_bell_that_was_removed_is_hung_again(url: str, tmp_path: Path) -> None:
    with Hub(url) as hub, Hub(url) as other:
        viewer = Viewer(hub.subscribe("t"))
        hears(hub)
        for number in range(2):
            other.publish("t", str(number))
            viewer.until(lambda number=number: viewer.events and viewer.events[-1].data == str(number))  # type: ignore[misc]
            (bell,) = tmp_path.glob("*-bell-*")
            for path in tmp_path.glob("events.db*"):
                path.unlink()
            eventually(lambda bell=bell: list(tmp_path.glob("*-bell-*")) not in ([], [bell]))  # type: ignore[misc]


def test_a_bell_that_is_taken_down_by_who_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finalizer that closes the hub, in the midst of `wait`."""
    bell = Bells(tmp_path / "events.db").hang()
    assert bell is not None
    poll = select.poll

    def interrupted() -> select.poll:
        bell.take_down()
        return poll()

    monkeypatch.setattr(select, "poll", interrupted)
    waiting = threading.Thread(target=bell.wait, args=(20,), daemon=True)
    waiting.start()
    waiting.join(20)
    assert not waiting.is_alive()
    bell.ring()
    assert list(tmp_path.iterdir()) == []


def test_a_closed_hub_is_closed_in_a_child_too(url: str) -> None:
    code = """
import os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later warn of forks beside threads
from streamkit.errors import HubClosed
from streamkit.hub.hub import Hub
hub = Hub(sys.argv[1])
hub.publish("t", "x")
hub.close()
def publish():
    try:
        hub.publish("t", "x")
    except HubClosed:
        os.write(1, b"closed\\n")
if os.fork():
    os.wait()
else:
    thread = threading.Thread(target=publish)
    thread.start()
    thread.join()
"""
    with python(code, url) as process:
        assert process.communicate(timeout=30)[0] == "closed\n"


def test_a_process_whose_log_was_removed_says_so(url: str, tmp_path: Path) -> None:
    """It copied the file, which gave up its locks: another process that closes the file thinks that it was the last."""
    with Hub(url) as hub:
        viewer = Viewer(hub.subscribe("t", last_event_id="unknown"))
        hub.publish("t", "mine")
        viewer.take(2)
        shutil.copyfile(tmp_path / "events.db", tmp_path / "copy")
        with python(PUBLISH, url, "1", "theirs") as process:
            assert process.wait(20) == 0
        assert not (tmp_path / "events.db-wal").exists()
        for _ in range(2):
            with pytest.raises(BrokerUnavailable, match="lost its -wal while this process used it"):
                hub.publish("t", "lost")
    with Hub(url) as hub:
        hub.publish("t", "again")
        last = str(viewer.events[-1].id)
        assert Viewer(hub.subscribe("t", last_event_id=last)).data(2) == ["theirs 0", "again"]


def test_a_file_that_is_replaced_while_it_is_opened(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, before = sqlite_file._prepare, iter([True])

    def replaced(connection: sqlite_file.Connection) -> None:
        prepare(connection)
        if next(before, False):
            for path in tmp_path.glob("events.db*"):
                path.unlink()
            with Hub(url) as other:
                other.publish("t", "theirs")

    monkeypatch.setattr(sqlite_file, "_prepare", replaced)
    with Hub(url) as hub, Hub(url) as other:
        hub.publish("t", "mine")
        assert [record.data for record in other.broker.read(0, 10)] == ["theirs", "mine"]


def test_a_copy_that_is_put_back_is_another_log(url: str, tmp_path: Path) -> None:
    """Its positions are given again, so neither an id nor a reader's place may be taken for one of what came since."""
    file, copy = tmp_path / "events.db", tmp_path / "copy.db"
    with Hub(url) as hub:
        hub.publish("t", "kept")
    shutil.copyfile(file, copy)
    with Hub(f"sqlite:///{copy}") as hub:
        hub.publish_many([("t", f"new {number}") for number in range(4)])
    with Hub(url) as hub:
        viewer = Viewer(hub.subscribe("t"))
        lost = hub.publish_many([("t", "lost"), ("t", "lost")])
        viewer.take(2)
        os.replace(copy, file)  # beside what SQLite kept for the other one
        expected = ["kept", "new 0", "new 1", "new 2", "new 3"]
        gap, *events = viewer.take(2 + 6)[2:]
        assert isinstance(gap, Gap)
        assert [event.data for event in events] == expected
        gap, *events = Viewer(hub.subscribe("t", last_event_id=lost[-1])).take(6)
        assert isinstance(gap, Gap)
        assert [event.data for event in events] == expected
        assert Viewer(hub.subscribe("t", last_event_id=events[-2].id)).data(1) == ["new 3"]


def test_a_link_that_points_elsewhere_costs_the_first_file_nothing(tmp_path: Path) -> None:
    first, link = tmp_path / "first.db", tmp_path / "events.db"
    link.symlink_to(first)
    with Hub(f"sqlite:///{first}") as other, Hub(f"sqlite:///{link}") as hub:
        hub.publish("t", "1")
        link.unlink()
        link.symlink_to(tmp_path / "second.db")
        hub.publish("t", "2")
        other.publish("t", "3")
        assert [record.data for record in other.broker.read(0, 10)] == ["1", "3"]
        assert [record.data for record in hub.broker.read(0, 10)] == ["2"]
