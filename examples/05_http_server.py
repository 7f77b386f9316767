"""A single file on the standard library's http.server: no framework, no server, nothing installed.

run:  python examples/05_http_server.py
curl: curl -N http://127.0.0.1:8000/events
curl: curl -N http://127.0.0.1:8000/
"""

import sys

from streamkit import EventSourceResponse, every, serve

PAGE = """<!doctype html><title>clock</title><h1>…</h1>
<script>new EventSource("/events").onmessage = event =>
  document.querySelector("h1").textContent = JSON.parse(event.data).beat</script>"""

beats = iter(range(10**9))

if __name__ == "__main__":
    serve(
        {
            "/": lambda environ: PAGE,
            "/events": lambda environ: EventSourceResponse(
                every(0.2, lambda: {"beat": next(beats)}, times=5)
            ),
        },
        port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000,
    )
