"""Code that writes to a file, as a stream: what the packages people use need of that file."""

from __future__ import annotations

import io
import tarfile
import threading
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, BinaryIO

import pytest

from streamkit import StreamingResponse
from streamkit.errors import ClientDisconnected
from tests.conftest import eventually
from tests.responses.test_streamed import Answer, body_of

pytestmark = pytest.mark.usefixtures("nothing_left")

BIG = b"0123456789abcdef" * 50_000


def written(write: Callable[[Any], object]) -> bytes:
    answer = Answer(StreamingResponse.from_writer(write))
    assert answer.error is None
    return answer.body


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zipfile(method: int) -> None:
    def write(out: BinaryIO) -> None:
        with zipfile.ZipFile(out, "w", method) as archive:
            archive.writestr("a.txt", b"abc")
            with archive.open("big.bin", "w") as entry:
                entry.write(BIG)

    with zipfile.ZipFile(io.BytesIO(written(write))) as archive:
        assert archive.testzip() is None
        assert archive.read("big.bin") == BIG


@pytest.mark.parametrize("mode", ["w|", "w|gz"])
def test_tarfile(mode: str) -> None:
    def write(out: BinaryIO) -> None:
        with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
            info = tarfile.TarInfo("big.bin")
            info.size = len(BIG)
            archive.addfile(info, io.BytesIO(BIG))

    with tarfile.open(fileobj=io.BytesIO(written(write))) as archive:
        extracted = archive.extractfile("big.bin")
        assert extracted is not None
        assert extracted.read() == BIG


def test_openpyxl_write_only() -> None:
    openpyxl = pytest.importorskip("openpyxl")

    def write(out: BinaryIO) -> None:
        book = openpyxl.Workbook(write_only=True)
        sheet = book.create_sheet("numbers")
        for n in range(500):
            sheet.append([n, f"row {n}"])
        book.save(out)

    book = openpyxl.load_workbook(io.BytesIO(written(write)), read_only=True)
    rows = list(book["numbers"].iter_rows(values_only=True))
    book.close()
    assert rows == [(n, f"row {n}") for n in range(500)]


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_pandas_to_csv(compression: str | None) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"n": range(20_000), "text": "x"})

    def write(out: BinaryIO) -> None:
        frame.to_csv(out, index=False, chunksize=1000, compression=compression)

    read = pandas.read_csv(io.BytesIO(written(write)), compression=compression)
    assert read.equals(frame)


def test_pyarrow_stream() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    ipc = pytest.importorskip("pyarrow.ipc")
    batch = pyarrow.record_batch([pyarrow.array(range(1000))], names=["n"])

    def write(out: BinaryIO) -> None:
        with ipc.new_stream(out, batch.schema) as sink:
            for _ in range(20):
                sink.write_batch(batch)

    body = written(write)
    assert body.endswith(b"\xff\xff\xff\xff\0\0\0\0")  # the marker of a complete stream
    with ipc.open_stream(body) as reader:
        assert reader.read_all().num_rows == 20_000


def test_pyarrow_parquet() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"n": list(range(10_000))})

    def write(out: BinaryIO) -> None:
        parquet.write_table(table, out)

    assert parquet.read_table(io.BytesIO(written(write))).equals(table)


def test_copy_to_stdout() -> None:
    """What psycopg2's `copy_expert(sql, file)` asks of a file: `write` with bytes, nothing else."""

    def copy_expert(sql: str, file: Any, size: int = 8192) -> None:
        for n in range(5000):
            file.write(f"{n}\trow {n}\n".encode())

    body = written(lambda out: copy_expert("copy t to stdout", out))
    assert body.count(b"\n") == 5000


def test_a_file_that_is_closed_twice_or_never() -> None:
    def twice(out: BinaryIO) -> None:
        out.write(b"x")
        out.close()
        out.close()

    assert written(twice) == b"x"
    assert written(lambda out: out.write(b"x")) == b"x"


def test_a_writer_that_fails_is_no_whole_answer() -> None:
    def write(out: BinaryIO) -> None:
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("a", BIG)
            raise OSError("disk read error")

    answer = Answer(StreamingResponse.from_writer(write))
    assert isinstance(answer.error, OSError)


@pytest.mark.parametrize("kind", ["generator", "coroutine", "asynchronous generator"])
def test_a_writer_that_would_write_nothing_is_no_empty_answer(kind: str) -> None:
    def generator(out: BinaryIO) -> Iterator[None]:
        out.write(b"x")
        yield

    async def coroutine(out: BinaryIO) -> None:
        out.write(b"x")

    async def asynchronous(out: BinaryIO) -> AsyncIterator[None]:
        out.write(b"x")
        yield

    write: Any = {"generator": generator, "coroutine": coroutine, "asynchronous generator": asynchronous}[
        kind
    ]
    with pytest.raises(TypeError, match="writes nothing when it is called"):
        StreamingResponse.from_writer(write)
    with pytest.raises(TypeError, match="writes nothing when it is called"):
        Answer(StreamingResponse.from_writer(lambda out: write(out)))


@pytest.mark.parametrize("data", [5, [65, 66], {65: 1}, None])
def test_what_is_no_bytes_is_not_written(data: Any) -> None:
    with pytest.raises(TypeError, match="bytes-like object is required"):
        Answer(StreamingResponse.from_writer(lambda out: out.write(data)))


def test_a_writer_may_have_threads_of_its_own() -> None:
    """All that wait for room are woken by it: none may come after them that fills the queue again."""

    def write(out: BinaryIO) -> None:
        threads = [threading.Thread(target=out.write, args=(bytes(100_000),), daemon=True) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    body = body_of(StreamingResponse.from_writer(write))
    pump = body._outflow.chunks
    eventually(lambda: len(pump._frames) == 6)
    assert len(b"".join(body)) == 600_000


def test_a_thread_that_writes_on_after_the_writer_returned_is_not_kept() -> None:
    """It waits for room that nobody makes any more."""
    told = threading.Event()
    full = threading.Event()

    def write_on(out: BinaryIO) -> None:
        try:
            while True:
                out.write(b"x" * 10_000)
                if out.tell() > 240_000:  # of the 256 KiB that may be queued
                    full.set()
        except ClientDisconnected:
            told.set()

    def write(out: BinaryIO) -> None:
        threading.Thread(target=write_on, args=(out,), daemon=True).start()
        assert full.wait(10)

    body = body_of(StreamingResponse.from_writer(write))
    assert told.wait(10)
    body.close()


def test_a_writer_waits_for_its_client_and_is_told_when_it_left() -> None:
    told = threading.Event()
    most = [0]

    def write(out: BinaryIO) -> None:
        try:
            while True:
                most[0] += out.write(b"x" * 10_000)
        except ClientDisconnected:
            told.set()
            raise

    body = body_of(StreamingResponse.from_writer(write))
    assert next(iter(body))
    body.close()
    assert told.wait(10)
    assert most[0] < 2_000_000  # it did not run ahead
