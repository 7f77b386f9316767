// What a page asks for itself: a search, exports, an archive, something broken, a range of a file.

import { $, NO_ANSWER, accepted, answered, bytes, counted, element, say, whole } from "./parts.js";
import { BrokenOff, chunks, lines } from "./readers.js";

// One run of a form at a time, as with what all pages share: its button is grey while it runs, and Stop is not.
// `work(signal)` says how it ends; only what goes wrong is said here, and `stopped()` says where it was stopped.
function stoppable(name, work, stopped) {
  let controller = null;
  $(`${name}-form`).addEventListener("submit", async (event) => {
    event.preventDefault();
    controller = new AbortController();
    $(`${name}-start`).disabled = true;
    $(`${name}-stop`).disabled = false;
    try {
      await work(controller.signal);
    } catch (error) {
      if (controller.signal.aborted) say(`${name}-note`, stopped());
      else say(`${name}-note`, error.message, "bad");
    }
    $(`${name}-start`).disabled = false;
    $(`${name}-stop`).disabled = true;
  });
  $(`${name}-stop`).addEventListener("click", () => controller?.abort());
}

// ---- search ---------------------------------------------------------------------------------------------------

let hits = 0;

async function search(signal) {
  hits = 0;
  $("hits").replaceChildren();
  say("search-note", "Searching.");
  const response = await accepted(`search.ndjson?text=${encodeURIComponent($("search-text").value)}`, { signal });
  for await (const line of lines(response.body)) {
    const item = JSON.parse(line);
    if (item.end) {
      say("search-note", `${whole.format(item.hits)} hits in ${whole.format(item.files)} files${item.limited ? "; more are not listed" : ""}.`, "good");
      return;
    }
    hits += 1;
    const hit = document.createElement("li");
    hit.append(element("b", `${item.path}:${item.line} `), item.text);
    $("hits").append(hit);
    if (hits % 10 === 1) say("search-note", `${whole.format(hits)} hits so far`);
  }
  throw new Error(`The list broke off after ${hits} hits.`);
}

stoppable("search", search, () => `Stopped after ${hits} hits.`);

// ---- CSV ------------------------------------------------------------------------------------------------------

// No name in this table holds a line break, so a line is a row. `seen` hears of every chunk.
async function countRows(address, seen) {
  const response = await accepted(address, { cache: "no-store" });
  // the first line is the header
  const count = { rows: -1, bytes: 0, chunks: 0, coding: response.headers.get("Content-Encoding") };
  for await (const chunk of chunks(response.body)) {
    for (const byte of chunk) if (byte === 10) count.rows += 1;
    count.bytes += chunk.length;
    count.chunks += 1;
    seen(count);
  }
  return count;
}

// What was sent for it, which is less than what arrived here where it was compressed on the way; null if unknown.
async function onTheWire(address) {
  await new Promise((done) => { setTimeout(done, 50); }); // the browser notes it after the body has ended
  const [entry] = performance.getEntriesByName(new URL(address, location.href).href);
  return entry?.encodedBodySize || null;
}

$("csv-start").addEventListener("click", async () => {
  const start = performance.now();
  $("csv-start").disabled = true;
  $("csv-wire").textContent = "–";
  performance.clearResourceTimings();
  try {
    const count = await countRows("definitions.csv", (so_far) => {
      $("csv-rows").textContent = whole.format(so_far.rows);
      $("csv-bytes").textContent = bytes(so_far.bytes);
    });
    const seconds = ((performance.now() - start) / 1000).toFixed(2);
    const wire = await onTheWire("definitions.csv");
    if (wire !== null) $("csv-wire").textContent = bytes(wire);
    const coding = count.coding ? `, ${count.coding} on the way` : "";
    say("csv-note", `${whole.format(count.rows)} rows in ${whole.format(count.chunks)} chunks, complete, in ${seconds} s${coding}.`, "good");
  } catch (error) {
    say("csv-note", error.message, "bad");
  }
  $("csv-start").disabled = false;
});

// ---- an archive, at a rate ------------------------------------------------------------------------------------

let got = 0;
let began = 0;
const rate = () => `${bytes(got / ((performance.now() - began) / 1000))}/s`;

function zipAddress() {
  return `sources.zip${$("zip-rate").value ? `?rate=${$("zip-rate").value}` : ""}`;
}

async function zip(signal) {
  let count = 0;
  got = 0;
  began = performance.now();
  $("zip-asked").textContent = $("zip-rate").value ? `${bytes(Number($("zip-rate").value))}/s` : "no limit";
  say("zip-note", "Files are read and compressed while the archive is sent.");
  const response = await accepted(zipAddress(), { signal, cache: "no-store" });
  for await (const chunk of chunks(response.body)) {
    got += chunk.length;
    count += 1;
    $("zip-bytes").textContent = bytes(got);
    $("zip-measured").textContent = rate();
  }
  say("zip-note", `Complete: ${bytes(got)} in ${whole.format(count)} chunks, ${rate()}.`, "good");
}

$("zip-rate").addEventListener("change", () => { $("zip-link").href = zipAddress(); });
stoppable("zip", zip, () => `Stopped after ${bytes(got)}, at ${rate()}.`);

// ---- broken on purpose ----------------------------------------------------------------------------------------

function tell(text, kind) {
  $("broken-story").append(element("li", text, kind));
}

$("broken-csv").addEventListener("click", async () => {
  $("broken-story").replaceChildren();
  $("broken-csv").disabled = true;
  let rows = 0;
  try {
    await countRows("broken/definitions.csv", (count) => { rows = count.rows; });
    tell("The export ended as if it were complete: that would be a mistake of the server.", "bad");
  } catch (error) {
    if (error instanceof BrokenOff) {
      tell(`${whole.format(Math.max(rows, 0))} rows were read.`);
      tell(`Then fetch rejected: ${error.cause.name}, ${error.cause.message}.`, "bad");
      tell("A browser’s download of it is marked as failed; curl exits with an error.");
    } else tell(error.message, "bad"); // it did not begin
  }
  $("broken-csv").disabled = false;
});

$("broken-events").addEventListener("click", () => {
  $("broken-story").replaceChildren();
  $("broken-events").disabled = true;
  const source = new EventSource("broken/events");
  let begun = false;
  source.addEventListener("open", () => { begun = true; });
  source.addEventListener("message", (event) => tell(`Event: ${event.data}`));
  source.addEventListener("error", (event) => {
    // The server's own `error` event has data; the browser's, for a lost connection, has none.
    if (event.data) tell(`Event “error”: ${JSON.parse(event.data).message}`, "bad");
    else tell(begun ? "The connection was lost." : NO_ANSWER, "bad");
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

async function showRange(first, last) {
  const range = `bytes=${first}-${last}`;
  const response = await answered("library.db", { headers: { Range: range }, cache: "no-store" });
  const facts = [["Request", `Range: ${range}`], ["Status", `${response.status} ${response.statusText}`]];
  for (const name of ["Content-Range", "Content-Length", "ETag"]) {
    if (response.headers.has(name)) facts.push([name, response.headers.get(name)]);
  }
  $("range-facts").replaceChildren(...facts.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
  $("range-dump").textContent = "";
  if (response.status === 206) {
    const data = new Uint8Array(await response.arrayBuffer().catch((error) => { throw new BrokenOff(error); }));
    $("range-dump").textContent = dump(data);
    say("range-note", `${counted(data.length, "byte")}${data.length > 1024 ? ", the first 1,024 are shown" : ""}.`, "good");
  } else if (response.ok) {
    response.body.cancel();
    const reason = first > last ? "First after last is no range (RFC 9110, 14.1.1), so it is ignored: the" : "The";
    say("range-note", `${reason} server sends the whole file.`);
  } else say("range-note", (await response.text()).trim() || "No byte of the file is in this range.", "bad");
}

$("range-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("range-start").disabled = true;
  try {
    await showRange($("range-first").valueAsNumber, $("range-last").valueAsNumber);
  } catch (error) {
    say("range-note", error.message, "bad");
  }
  $("range-start").disabled = false;
});
