"""A real browser's `<video>`: it plays a file whose index is at the end, and seeks in it without loading all of it."""

from __future__ import annotations

import json
import queue
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from streamkit import FileResponse
from streamkit.servers.http_server import StreamServer
from tests.services import program

PAGE = b"""<!doctype html><title>test</title>
<video id="video" muted preload="metadata" src="/video.mp4"></video>
<script>
const report = seen => fetch("/report", {method: "POST", body: JSON.stringify(seen)});
video.onerror = () => report({error: video.error.code + " " + video.error.message});
video.onloadedmetadata = () => { video.currentTime = 55; };
video.onseeked = () => report({duration: video.duration, time: video.currentTime});
</script>"""


def test_a_video_seeks_in_chromium(tmp_path: Path) -> None:
    chromium = program("chromium", "chromium-browser", "google-chrome")
    name = "video.mp4"
    made = subprocess.run(
        [
            *[
                program("ffmpeg"),
                "-v",
                "error",
                "-f",
                "lavfi",
                "-i",
                "testsrc2=size=320x180:rate=10:duration=60",
            ],
            *["-c:v", "libx264", "-preset", "ultrafast", "-b:v", "2M", "-pix_fmt", "yuv420p", "-g", "10"],
            str(tmp_path / name),
        ],
        capture_output=True,
        timeout=60,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"ffmpeg has no H.264 encoder: {made.stderr.decode(errors='replace')[:200]}")
    content = (tmp_path / name).read_bytes()
    assert content.index(b"moov") > len(content) * 0.9
    reports: queue.Queue[dict[str, Any]] = queue.Queue()
    ranges: list[str] = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == f"/{name}":
            ranges.append(environ.get("HTTP_RANGE", ""))
            answer: Iterable[bytes] = FileResponse(name, directory=tmp_path)(environ, start_response)
            return answer
        if path == "/report":
            reports.put(json.loads(environ["wsgi.input"].read()))
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
        return [PAGE]

    with StreamServer(app, port=0) as server:
        server.start()
        flags = (
            "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
            " --disable-component-update --disable-sync --remote-debugging-port=0"
        )
        browser = subprocess.Popen(
            [chromium, *flags.split(), f"--user-data-dir={tmp_path}/profile", server.url],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            seen = reports.get(timeout=60)
        finally:
            browser.terminate()
            browser.wait(20)
    assert seen.get("duration") == pytest.approx(60, abs=0.5), seen
    assert seen["time"] == pytest.approx(55, abs=0.5)
    assert ranges[0] == "bytes=0-"
    starts = [int(asked_for.removeprefix("bytes=").partition("-")[0]) for asked_for in ranges]
    assert any(start > len(content) / 2 for start in starts), ranges
