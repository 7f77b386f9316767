// The page's side of each stream. EventSource where the browser reconnects by itself, fetch where it must not.

import { drawPlot } from "./plot.js";
import { events, lines } from "./readers.js";

const $ = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en");

function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (count >= 1000 && unit < units.length - 1) { count /= 1000; unit += 1; }
  return `${unit && count < 100 ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
}

function duration(seconds) {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
}

function element(name, text, className) {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function say(id, text, kind = "") {
  $(id).textContent = text;
  $(id).dataset.kind = kind;
}

// A server that refuses says why in its body: that sentence is what the user should read.
async function accepted(response) {
  if (!response.ok) throw new Error((await response.text()).trim() || `The server answered ${response.status}.`);
  return response;
}

// Keep the end of a growing box in view, unless the reader has scrolled up.
function grow(box, change) {
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 30;
  change();
  if (atEnd) box.scrollTop = box.scrollHeight;
}

// ---- two permanent streams, open only while the page is in view -----------------------------------------------

const SECONDS = 60;
const samples = [];
let permanent = [];

function open(address, prepare) {
  let timer = 0;
  const stream = { close: () => {} };
  const connect = () => {
    const source = new EventSource(address);
    stream.close = () => { clearTimeout(timer); source.close(); };
    prepare(source);
    source.addEventListener("error", () => {
      // CONNECTING: the browser tries again by itself. CLOSED: the answer was no event stream; try later.
      if (source.readyState === EventSource.CLOSED) timer = setTimeout(connect, 3000);
    });
  };
  connect();
  return stream;
}

function state(text, kind) {
  if ($("connection").textContent !== text) $("connection").textContent = text;
  $("connection").dataset.state = kind;
}

function openLive(source) {
  source.addEventListener("open", () => state("live", "open"));
  source.addEventListener("error", () => state("reconnecting", "lost"));
  source.addEventListener("machine", (event) => showMachine(JSON.parse(event.data)));
  source.addEventListener("streams", (event) => showStreams(JSON.parse(event.data)));
  source.addEventListener("library", (event) => showLibrary(JSON.parse(event.data)));
}

function openLog(source) {
  const box = $("log");
  source.addEventListener("open", () => box.replaceChildren());
  source.addEventListener("message", (event) => grow(box, () => {
    const level = /^[\d:]{8} (\w+)/.exec(event.data);
    box.append(element("p", event.data, level ? level[1] : "trace"));
    while (box.childElementCount > 300) box.firstElementChild.remove();
  }));
}

function showMachine(sample) {
  if (sample.note) { $("machine-note").textContent = sample.note; return; }
  $("cpu").textContent = sample.cpu === null ? "–" : `${(100 * sample.cpu).toFixed(0)} %`;
  $("memory").textContent = `${(sample.memory_used / 1e9).toFixed(1)} of ${bytes(sample.memory_total)}`;
  $("load").textContent = `${sample.load.toFixed(2)} on ${sample.cores}`;
  $("process").textContent = `${bytes(sample.process.bytes)}, ${sample.process.threads} threads`;
  samples.push({ time: sample.time, cpu: sample.cpu, memory: sample.memory_used / sample.memory_total });
  while (samples[0].time < sample.time - SECONDS - 2) samples.shift();
  drawPlot($("plot"), samples, SECONDS);
}

function showStreams({ live, ended }) {
  $("streams").replaceChildren(...live.map((record) => {
    const row = document.createElement("tr");
    const name = element("td", record.path);
    name.append(element("small", `${record.kind}, ${record.peer || record.id}`));
    row.append(name);
    for (const text of [duration(record.age), whole.format(record.events), bytes(record.bytes)]) {
      row.append(element("td", text, "number"));
    }
    return row;
  }));
  noteStop(ended);
}

function showLibrary(library) {
  $("csv-start").disabled = !library.ready;
  if (library.ready) say("csv-note", `${whole.format(library.rows)} functions and classes in ${whole.format(library.files)} files of Python’s library, from SQLite.`);
  else if (library.error) say("csv-note", `The database could not be built: ${library.error}`, "bad");
  else say("csv-note", library.total ? `Reading Python’s library: ${whole.format(library.files)} of ${whole.format(library.total)} files.` : "Reading Python’s library.");
}

function followView() {
  permanent.forEach((stream) => stream.close());
  permanent = [];
  if (document.visibilityState === "hidden") state("paused", "waiting");
  else permanent = [open("live", openLive), open("log", openLog)];
}

document.addEventListener("visibilitychange", followView);
addEventListener("pagehide", () => permanent.forEach((stream) => stream.close()));
addEventListener("pageshow", (event) => { if (event.persisted) followView(); });
addEventListener("resize", () => drawPlot($("plot"), samples, SECONDS));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawPlot($("plot"), samples, SECONDS));
drawPlot($("plot"), samples, SECONDS);
followView();

// ---- tokens ---------------------------------------------------------------------------------------------------

let generation = null; // what is being generated, or was stopped and waits for the server's word

$("tokens-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  generation?.control.abort();
  const own = generation = { control: new AbortController(), id: "", got: 0, of: 0, stopped: 0 };
  const box = $("tokens-text");
  box.textContent = "";
  $("tokens-stop").disabled = false;
  say("tokens-note", "Waiting for the first word.");
  try {
    const response = await accepted(await fetch("tokens", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ module: $("module").value }),
      signal: own.control.signal,
    }));
    let done = false;
    for await (const { event: name, data } of events(response.body)) {
      if (data === "[DONE]") { done = true; break; }
      const item = JSON.parse(data);
      if (name === "error") throw new Error(item.message);
      if (item.words) { own.id = item.stream; own.of = item.words; continue; }
      own.got += 1;
      grow(box, () => box.append(item.word));
      say("tokens-note", `${own.got} of ${own.of} words`);
    }
    if (done) say("tokens-note", `[DONE] after ${own.got} words.`, "good");
    else say("tokens-note", `The stream broke off after ${own.got} words, without [DONE].`, "bad");
  } catch (error) {
    if (own !== generation) return;
    if (error.name === "AbortError") own.stopped = performance.now();
    say("tokens-note", own.stopped ? `Stopped after ${own.got} of ${own.of} words. Has the server noticed?` : error.message, own.stopped ? "" : "bad");
  }
  if (own === generation) $("tokens-stop").disabled = true;
});

$("tokens-stop").addEventListener("click", () => generation?.control.abort());

function noteStop(ended) {
  const own = generation;
  if (!own?.stopped) return;
  const record = ended.find((candidate) => candidate.id === own.id);
  if (record) {
    const words = record.events - 1; // the first event is none
    say("tokens-note", `Stopped after ${own.got} of ${own.of} words. The server noticed (${record.outcome}): its generator was closed after word ${words}.`, "good");
    own.stopped = 0;
  } else if (performance.now() - own.stopped > 8000) {
    say("tokens-note", `Stopped after ${own.got} words. No word from the server: another worker process had this stream, see the log.`);
    own.stopped = 0;
  }
}

// ---- the job --------------------------------------------------------------------------------------------------

let job = null;

function endJob(text, kind) {
  job?.close();
  job = null;
  $("job-start").disabled = false;
  $("job-stop").disabled = true;
  say("job-note", text, kind);
}

function showJob(files, read, share) {
  $("job-files").textContent = whole.format(files);
  $("job-bytes").textContent = bytes(read);
  $("job-share").textContent = `${Math.floor(100 * share)} %`;
  $("job-bar").value = share;
}

$("job-start").addEventListener("click", () => {
  let result = null;
  $("job-start").disabled = true;
  $("job-stop").disabled = false;
  say("job-note", "Looking for files.");
  job = new EventSource("job");
  job.addEventListener("progress", (event) => {
    const progress = JSON.parse(event.data);
    showJob(progress.files, progress.bytes, progress.total ? progress.bytes / progress.total : 0);
    if (progress.name) say("job-note", progress.name);
  });
  job.addEventListener("result", (event) => { result = JSON.parse(event.data); });
  job.addEventListener("done", () => {
    showJob(result.files, result.bytes, 1);
    endJob(`${bytes(result.bytes)} packed to ${bytes(result.packed)} in ${duration(result.seconds)}, SHA-256 ${result.sha256.slice(0, 16)}…`, "good");
  });
  job.addEventListener("error", (event) => {
    endJob(event.data ? JSON.parse(event.data).message : "The connection was lost before the job was done.", "bad");
  });
});

$("job-stop").addEventListener("click", () => endJob("Cancelled: the server closes its generator at the next file."));

// ---- search ---------------------------------------------------------------------------------------------------

let searching = null;

$("search-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  searching?.abort();
  const own = searching = new AbortController();
  const box = $("hits");
  let hits = 0;
  box.replaceChildren();
  $("search-stop").disabled = false;
  say("search-note", "Searching.");
  try {
    const address = `search.ndjson?text=${encodeURIComponent($("search-text").value)}`;
    const response = await accepted(await fetch(address, { signal: own.signal }));
    let end = null;
    for await (const line of lines(response.body)) {
      const item = JSON.parse(line);
      if (item.end) { end = item; break; }
      hits += 1;
      const hit = document.createElement("li");
      hit.append(element("b", `${item.path}:${item.line} `), item.text);
      box.append(hit);
      if (hits % 10 === 1) say("search-note", `${whole.format(hits)} hits so far`);
    }
    if (!end) throw new Error(`The list broke off after ${hits} hits.`);
    say("search-note", `${whole.format(end.hits)} hits in ${whole.format(end.files)} files${end.limited ? "; more are not listed" : ""}.`, "good");
  } catch (error) {
    if (own !== searching) return;
    say("search-note", error.name === "AbortError" ? `Stopped after ${hits} hits.` : error.message, error.name === "AbortError" ? "" : "bad");
  }
  if (own === searching) $("search-stop").disabled = true;
});

$("search-stop").addEventListener("click", () => searching?.abort());

// ---- CSV, whole and broken ------------------------------------------------------------------------------------

// No name in this table holds a line break, so a line is a row. `seen` hears of every chunk.
async function countRows(address, seen) {
  const count = { rows: -1, bytes: 0, chunks: 0 }; // the first line is the header
  const response = await accepted(await fetch(address, { cache: "no-store" }));
  const reader = response.body.getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return count;
    for (const byte of value) if (byte === 10) count.rows += 1;
    count.bytes += value.length;
    count.chunks += 1;
    seen(count);
  }
}

$("csv-start").addEventListener("click", async () => {
  const start = performance.now();
  $("csv-start").disabled = true;
  try {
    const count = await countRows("definitions.csv", (so_far) => {
      $("csv-rows").textContent = whole.format(so_far.rows);
      $("csv-bytes").textContent = bytes(so_far.bytes);
      $("csv-chunks").textContent = whole.format(so_far.chunks);
    });
    say("csv-note", `${whole.format(count.rows)} rows, complete, in ${((performance.now() - start) / 1000).toFixed(2)} s.`, "good");
  } catch (error) {
    say("csv-note", error.message, "bad");
  }
  $("csv-start").disabled = false;
});

function tell(text, kind) {
  $("broken-story").append(element("li", text, kind));
}

$("broken-csv").addEventListener("click", async () => {
  $("broken-story").replaceChildren();
  let rows = 0;
  try {
    await countRows("broken/definitions.csv", (count) => { rows = count.rows; });
    tell("The export ended as if it were complete: that would be a mistake of the server.", "bad");
  } catch (error) {
    tell(`${whole.format(Math.max(rows, 0))} rows were read.`);
    tell(`Then fetch rejected: ${error.name}, ${error.message}.`, "bad");
    tell("A browser’s download of it is marked as failed; curl exits with an error.");
  }
});

$("broken-events").addEventListener("click", () => {
  $("broken-story").replaceChildren();
  $("broken-events").disabled = true;
  const source = new EventSource("broken/events");
  source.addEventListener("message", (event) => tell(`Event: ${event.data}`));
  source.addEventListener("error", (event) => {
    // The server's own `error` event has data; the browser's, for a lost connection, has none.
    if (event.data) tell(`Event “error”: ${JSON.parse(event.data).message}`, "bad");
    else tell("The connection was lost.", "bad");
    source.close();
    $("broken-events").disabled = false;
  });
});

// ---- a range of bytes -----------------------------------------------------------------------------------------

function dump(data) {
  const rows = [];
  const width = $("range-dump").clientWidth < 440 ? 8 : 16; // a phone has room for eight
  for (let at = 0; at < data.length && at < 1024; at += width) {
    const row = [...data.subarray(at, at + width)];
    const hex = row.map((byte) => byte.toString(16).padStart(2, "0")).join(" ").padEnd(3 * width - 1);
    rows.push(`${hex}  ${row.map((byte) => (byte > 31 && byte < 127 ? String.fromCharCode(byte) : "·")).join("")}`);
  }
  return rows.join("\n");
}

$("range-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const range = `bytes=${$("range-first").value}-${$("range-last").value}`;
  try {
    const response = await fetch("library.db", { headers: { Range: range }, cache: "no-store" });
    const facts = [["Request", `Range: ${range}`], ["Status", `${response.status} ${response.statusText}`]];
    for (const name of ["Content-Range", "Content-Length", "ETag"]) {
      if (response.headers.has(name)) facts.push([name, response.headers.get(name)]);
    }
    $("range-facts").replaceChildren(...facts.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
    if (response.status !== 206) {
      $("range-dump").textContent = "";
      const words = response.ok ? "The server sent the whole file." : (await response.text()).trim();
      if (response.ok) response.body.cancel();
      say("range-note", words || "No byte of the file is in this range.", "bad");
      return;
    }
    const data = new Uint8Array(await response.arrayBuffer());
    $("range-dump").textContent = dump(data);
    say("range-note", `${whole.format(data.length)} bytes${data.length > 1024 ? ", the first 1,024 are shown" : ""}.`, "good");
  } catch (error) {
    say("range-note", error.message, "bad");
  }
});
