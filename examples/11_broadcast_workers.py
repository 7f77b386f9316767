"""One hub, two workers: what one browser says, all tabs hear, whichever worker has them; nothing is lost on a reload.

run:  gunicorn --workers 2 --threads 4 --chdir examples 11_broadcast_workers:app
curl: curl -d text=hello http://127.0.0.1:8000/say
curl: curl -N --max-time 1 "http://127.0.0.1:8000/events?lastEventId=0"
Open http://127.0.0.1:8000/ in three tabs; then `kill -HUP` the first gunicorn process and go on talking.
"""

import tempfile

from flask import Flask, request

from streamkit import EventSourceResponse, Hub

app = Flask(__name__)
hub = Hub(f"sqlite:///{tempfile.gettempdir()}/broadcast_workers.db")

PAGE = """<!doctype html><title>Broadcast</title><form><input name=text autofocus><button>Say</button></form><ul></ul>
<script>
document.forms[0].onsubmit = e => {
  e.preventDefault(); fetch("/say", {method: "POST", body: new FormData(e.target)}); e.target.reset() }
new EventSource("/events").onmessage = e => {
  document.querySelector("ul").append(Object.assign(document.createElement("li"), {textContent: e.data})) }
</script>"""


@app.get("/")
def page() -> str:
    return PAGE


@app.post("/say")
def say() -> str:
    return hub.publish("room", request.form["text"])


@app.get("/events")
def events() -> EventSourceResponse:
    return EventSourceResponse(hub.subscribe("room"))
