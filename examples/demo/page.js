// The machine, the pages in view and the log; the other panels are in files of their own.

import { follow, on, reconnect } from "./live.js";
import { $, bytes, counted, drawn, element, grow } from "./parts.js";
import { drawPlot } from "./plot.js";
import "./requests.js";
import "./runs.js";
import "./server.js";

const SECONDS = 60;
const MAX_LINES = 300;
let samples = [];

on("machine", (sample) => {
  samples.push(sample);
  while (samples[0].time < sample.time - SECONDS - 2) samples.shift();
  showMachine();
});

const showMachine = drawn(() => {
  const sample = samples[samples.length - 1];
  if (sample) {
    $("pages").textContent = sample.pages ? counted(sample.pages, "viewer") : ""; // measured before this page was counted
    if (sample.note) { $("machine-note").textContent = sample.note; return; }
    $("cpu").textContent = sample.cpu === null ? "–" : `${(100 * sample.cpu).toFixed(0)} %`;
    $("memory").textContent = `${(sample.memory_used / 1e9).toFixed(1)} of ${bytes(sample.memory_total)}`;
    $("load").textContent = `${sample.load.toFixed(2)} on ${counted(sample.cores, "core")}`;
  }
  drawPlot($("plot"), {
    now: sample ? sample.time : 0,
    seconds: SECONDS,
    step: 15,
    left: [[0, "0 %"], [0.5, "50 %"], [1, "100 %"]],
    lines: [
      { points: samples.map((one) => [one.time, one.memory_used / one.memory_total]), ink: "--second" },
      { points: samples.map((one) => [one.time, one.cpu]), ink: "--accent", fill: 0.12 },
    ],
  });
});

// ---- the log --------------------------------------------------------------------------------------------------

let lines = [];

const showLines = drawn(() => grow($("log"), () => {
  $("log").append(...lines.slice(-MAX_LINES).map((line) => {
    const level = /^[\d:]{8} (\w+)/.exec(line);
    return element("p", line, level ? level[1] : "trace");
  }));
  lines = [];
  while ($("log").childElementCount > MAX_LINES) $("log").firstElementChild.remove();
}));

function clearLog() {
  lines = [];
  $("log").replaceChildren();
}

on("message", (line) => { lines.push(line); showLines(); });
on("gap", () => { clearLog(); samples = []; }); // what is still held follows

// Whoever reads the log for all is in one of the server's processes. When that one ends, connecting again makes the
// server begin anew, with the last lines; unless another page was faster.
let again = 0;
on("start", ({ run }) => {
  if (!run.startsWith("log-")) return;
  clearTimeout(again);
  clearLog();
});
for (const end of ["complete", "stopped", "error"]) {
  on(end, ({ run }) => {
    if (!run?.startsWith("log-")) return;
    clearTimeout(again);
    again = setTimeout(reconnect, 1000);
  });
}

addEventListener("resize", showMachine);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showMachine);
showMachine();
follow();
