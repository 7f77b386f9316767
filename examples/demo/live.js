// The one stream that a page holds, with everything that is shared. It is open while the page is in view.
//
// A browser has six connections to a server, for all its tabs together, so one has to be enough. It reconnects by
// itself, and says which event it saw last; after the page was hidden, `lastEventId` in the address says so.

import { $, NO_ANSWER, say } from "./parts.js";

const SILENT_MS = 6000; // a measurement comes each second: after so long whoever measured is gone, and asking helps

const handlers = new Map();
let source = null;
let last = "0"; // no event has this id, so the server begins with what it still holds, after a `gap`
let heard = 0;
let opened = false;

// `handler` gets the data (JSON, but text for lines of the log). Call it before `follow`.
export function on(name, handler) {
  if (!handlers.has(name)) handlers.set(name, []);
  handlers.get(name).push(handler);
}

function state(text, kind) {
  if ($("connection").textContent !== text) $("connection").textContent = text;
  document.body.dataset.state = kind; // what the stream has told is grey while it is lost
}

// A server that is loaded again ends its streams, and takes them again a moment later: that is no alarm yet.
function lose() {
  state(opened ? "reconnecting" : NO_ANSWER, "lost");
  opened = false;
}

function connect() {
  source?.close();
  source = new EventSource(`live?lastEventId=${encodeURIComponent(last)}`);
  heard = performance.now();
  source.addEventListener("open", () => {
    opened = true;
    state("live", "open");
    for (const { id, textContent } of document.querySelectorAll(".note")) if (textContent === NO_ANSWER) say(id, "It answers again.");
  });
  for (const [name, all] of handlers) {
    source.addEventListener(name, (event) => {
      if (event.data === undefined) return; // the browser's own `error`; a run's has data
      if (event.lastEventId) last = event.lastEventId;
      if (name === "machine") heard = performance.now();
      const data = name === "message" ? event.data : JSON.parse(event.data);
      for (const handler of all) handler(data);
    });
  }
  // Without data it is the connection's: the browser tries again by itself, or has given up and `watch` does.
  source.addEventListener("error", (event) => { if (event.data === undefined) lose(); });
}

export function reconnect() {
  if (source) connect();
}

function watch() {
  if (!source || performance.now() - heard < SILENT_MS) return;
  lose();
  connect();
}

function leave() {
  source?.close();
  source = null;
}

function followView() {
  if (document.visibilityState === "hidden") { leave(); state("paused", "waiting"); } else if (!source) connect();
}

export function follow() {
  document.addEventListener("visibilitychange", followView);
  addEventListener("pagehide", leave);
  addEventListener("pageshow", (event) => { if (event.persisted) followView(); });
  setInterval(watch, 1000);
  followView();
}
