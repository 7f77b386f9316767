// The server: its processes, their streams, and what a hundred more of them cost.

import { on } from "./live.js";
import { $, accepted, bytes, counted, drawn, duration, element, say, whole } from "./parts.js";
import { drawPlot } from "./plot.js";

const GONE_MS = 4000; // a process reports each second
const PING_MS = 200;
const PINGS_WITHOUT = 8;
const CALM_MS = 500; // after the crowd has left: a hundred ends are work too
const SECONDS = 20;

const processes = new Map();

on("process", (report) => {
  processes.set(report.id, { ...report, seen: performance.now() });
  for (const [id, one] of processes) if (performance.now() - one.seen > GONE_MS) processes.delete(id);
  showServer();
});

function sum(name) {
  let all = 0;
  for (const one of processes.values()) all += one[name] ?? 0;
  return all;
}

function row(group) {
  const made = document.createElement("tr");
  const name = element("td", group.path);
  name.append(element("small", group.kind));
  const how = document.createElement("td");
  how.append(element("span", group.delivery === "detached" ? "detached" : "holds a thread", `badge ${group.delivery}`));
  made.append(name, how, element("td", whole.format(group.count), "number"), element("td", duration(group.age), "number wide"));
  made.append(element("td", whole.format(group.events), "number wide"), element("td", bytes(group.bytes), "number"));
  return made;
}

const showServer = drawn(() => {
  const all = [...processes.values()].sort((one, other) => one.id - other.id);
  showLibrary(all.map((one) => one.library));
  if (!sum("detached") && !sum("held")) return; // reported before this page's own stream was there
  $("streams").replaceChildren(...all.flatMap((one) => {
    const rows = one.streams.map(row);
    if (all.length > 1) {
      const head = element("th", `Process ${one.id}: ${counted(one.threads ?? 0, "thread")}, ${bytes(one.bytes ?? 0)}`, "process");
      head.colSpan = 6;
      const line = document.createElement("tr");
      line.append(head);
      rows.unshift(line);
    }
    return rows;
  }));
  $("server-streams").textContent = whole.format(sum("detached") + sum("held"));
  $("server-held").textContent = whole.format(sum("held"));
  $("server-threads").textContent = whole.format(sum("threads")) + (all.length > 1 ? ` in ${all.length} processes` : "");
  $("server-bytes").textContent = bytes(sum("bytes"));
});

function showLibrary(states) {
  const library = states.find((state) => state.ready) ?? states.find((state) => state.total) ?? states[0];
  if (!library || !("building" in $("csv-note").dataset)) return;
  if (library.ready) {
    delete $("csv-note").dataset.building;
    $("csv-start").disabled = false;
    say("csv-note", `${whole.format(library.rows)} functions and classes in ${whole.format(library.files)} files of Python’s library, from SQLite.`);
  } else if (library.error) say("csv-note", `The database could not be built: ${library.error}`, "bad");
  else say("csv-note", library.total ? `Reading Python’s library: ${whole.format(library.files)} of ${whole.format(library.total)} files.` : "Reading Python’s library.");
}

// ---- a hundred more streams -----------------------------------------------------------------------------------

let crowd = null; // its last report
let pings = []; // [seconds, milliseconds], of this page
let alone = []; // the milliseconds of those before the crowd
let among = [];
let after = []; // and of those when it is gone: another panel may have been busy before
let disturbed = false; // whether another panel of this page was, at any ping
let counts = []; // [seconds, share of the crowd that is open], as this page has seen it happen
let running = false;
let measuring = false;

const median = (values) => [...values].sort((one, other) => one - other)[Math.floor(values.length / 2)];
const milliseconds = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
const without = () => Math.min(...[alone, after].filter((some) => some.length).map(median));
const busy = () => document.querySelector("[id$='-stop']:enabled:not(#crowd-stop)") !== null;
const pause = (time) => new Promise((done) => { setTimeout(done, time); });

async function ping(into) {
  const start = performance.now();
  await (await accepted("ping", { cache: "no-store" })).text();
  const took = performance.now() - start;
  disturbed ||= busy();
  into.push(took);
  pings.push([performance.now() / 1000, took]);
  showCrowd();
}

const showCrowd = drawn(() => {
  $("crowd-start").disabled = running || measuring;
  $("crowd-stop").disabled = !running;
  // What was measured beside other work says nothing of the crowd: then the second measurement is waited for.
  $("ping-alone").textContent = after.length || (alone.length && !disturbed) ? milliseconds(without()) : "–";
  $("ping-among").textContent = among.length ? milliseconds(median(among)) : "–";
  $("ping-worst").textContent = among.length ? milliseconds(Math.max(...among)) : "–";
  $("crowd-open").textContent = counts.length ? whole.format(running ? crowd.open : 0) : "–";
  const now = performance.now() / 1000;
  const shown = pings.filter(([time]) => time > now - SECONDS);
  // A logarithmic scale: one slow answer among quick ones is seen, and moves nothing else.
  const decades = Math.max(...shown.map(([, took]) => took)) > 1000 ? 4 : 3;
  drawPlot($("ping-plot"), {
    now,
    seconds: SECONDS,
    step: 5,
    left: ["1 ms", "10 ms", "100 ms", "1 s", "10 s"].slice(0, decades + 1).map((text, power) => [power / decades, text]),
    right: [[0, "0"], [1, "100"]],
    rightInk: "--second",
    lines: [
      { points: counts, ink: "--second", fill: 0.1 },
      { points: shown.map(([time, took]) => [time, Math.log10(Math.max(1, took)) / decades]), ink: "--accent" },
    ],
  });
});

function spread() {
  return crowd?.spread ? ` Each measurement reached the last of them within ${milliseconds(1000 * crowd.spread)}.` : "";
}

on("start", ({ run }) => {
  if (!run.startsWith("crowd-")) return;
  running = true;
  crowd = null;
  counts = [];
  showCrowd();
});

on("crowd", (report) => {
  crowd = report;
  // What is told of the past is not shown as if it were now.
  if (1000 * report.time < Math.max(performance.timeOrigin, Date.now() - GONE_MS)) return;
  counts.push([performance.now() / 1000, report.open / report.wanted]);
  if (report.stuck) {
    say("crowd-note", `Only ${report.open} of ${report.wanted} were answered, and all are closed again: this server does not lend its sockets, so each stream holds one of its threads.`, "bad");
  } else if (!report.over) {
    const left = report.left === undefined ? "" : `, closing in ${report.left} s`;
    say("crowd-note", `${whole.format(report.open)} of ${whole.format(report.wanted)} more streams are open${left}.${spread()}`);
  }
  showCrowd();
});

function tellEnd() {
  let cost = measuring ? " How long an answer takes without them is measured once more." : "";
  if (after.length) {
    const [quiet, crowded] = [without(), median(among)];
    cost = ` An ordinary answer took ${milliseconds(crowded)} among them, ${crowded > quiet ? "and" : "no longer than the"} ${milliseconds(quiet)} without them.`;
    if (disturbed) cost += " Other panels were busy too, for some of the time.";
  }
  say("crowd-note", `${whole.format(crowd.events)} events on ${whole.format(crowd.wanted)} streams; all are closed again.${cost}${spread()}`, "good");
}

for (const how of ["complete", "stopped", "error"]) {
  on(how, (event) => {
    if (!event.run?.startsWith("crowd-")) return;
    running = false;
    if (counts.length) {
      counts.push([performance.now() / 1000, 0]);
      if (how === "error") say("crowd-note", event.message, "bad");
      else if (how === "stopped") say("crowd-note", "Closed early.");
      else if (crowd.over) tellEnd();
    }
    showCrowd();
  });
}

on("gap", () => { running = false; showCrowd(); });

async function measureWithout(into) {
  for (let number = 0; number < PINGS_WITHOUT; number += 1) { await ping(into); await pause(PING_MS / 2); }
}

$("crowd-start").addEventListener("click", async () => {
  measuring = true;
  disturbed = false;
  [alone, among, after, pings, counts] = [[], [], [], [], []];
  showCrowd();
  try {
    await measureWithout(alone);
    await accepted("crowd", { method: "POST" });
    const start = performance.now();
    // The event that says it runs comes over the hub, and so a moment after the answer.
    while (running || performance.now() - start < 1000) { await ping(among); await pause(PING_MS); }
    await pause(CALM_MS);
    await measureWithout(after);
    if (crowd?.over) tellEnd();
  } catch (error) {
    say("crowd-note", error.message, "bad");
  }
  measuring = false;
  showCrowd();
});

$("crowd-stop").addEventListener("click", async () => {
  try {
    await accepted("crowd", { method: "DELETE" });
  } catch (error) {
    say("crowd-note", error.message, "bad");
  }
});

addEventListener("resize", showCrowd);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showCrowd);
showCrowd();
