// A job and an answer that belong to no page: each page shows what runs, may start it, and may stop it.

import { on } from "./live.js";
import { $, accepted, bytes, drawn, duration, element, grow, say, whole } from "./parts.js";

const ends = ["complete", "stopped", "error"];

// `topic` is where it runs, and its address. Calls begin(), then ended(how, message); returns whether it runs.
function follow(topic, { begin, ended }) {
  const run = { id: "", running: false, mine: new Set() };
  on("start", (event) => {
    if (!event.run.startsWith(`${topic}-`)) return;
    run.id = event.run;
    run.running = true;
    begin();
  });
  for (const how of ends) {
    on(how, (event) => {
      if (!event.run?.startsWith(`${topic}-`)) return;
      run.running = false;
      ended(how, event.message ?? "");
    });
  }
  return run;
}

async function ask(topic, method, note, body) {
  try {
    const answer = await (await accepted(topic, { method, body })).json();
    if (answer.joined) say(note, "It was running already: this page has joined.");
    return answer;
  } catch (error) {
    say(note, error.message, "bad");
    return null;
  }
}

// ---- the job --------------------------------------------------------------------------------------------------

const MAX_NAMES = 50;
let progress = null;
let names = [];
let result = null;
let jobEnd = null;

const showJob = drawn(() => {
  $("job-start").disabled = job.running;
  $("job-stop").disabled = !job.running;
  const now = result ?? progress;
  const share = result ? 1 : progress?.total ? progress.bytes / progress.total : 0;
  $("job-bar").value = share;
  $("job-files").textContent = now ? whole.format(now.files) : "–";
  $("job-bytes").textContent = now ? bytes(now.bytes) : "–";
  $("job-share").textContent = now ? `${(100 * share).toFixed(0)} %` : "–";
  if (names.length) {
    grow($("job-names"), () => {
      $("job-names").append(...names.slice(-MAX_NAMES).map((name) => element("p", name)));
      while ($("job-names").childElementCount > MAX_NAMES) $("job-names").firstElementChild.remove();
    });
    names = [];
  }
  if (job.running) say("job-note", "It runs, for every page.");
  else if (jobEnd?.how === "complete" && result) {
    say("job-note", `${bytes(result.bytes)} packed to ${bytes(result.packed)} in ${duration(result.seconds)}, SHA-256 ${result.sha256.slice(0, 16)}…`, "good");
  } else if (jobEnd?.how === "stopped") say("job-note", "Stopped, for every page. Its generator was closed.");
  else if (jobEnd) say("job-note", jobEnd.message, "bad");
});

function clearNames() {
  names = [];
  $("job-names").replaceChildren();
}

const job = follow("job", {
  begin: () => { progress = result = jobEnd = null; clearNames(); showJob(); },
  ended: (how, message) => { jobEnd = { how, message }; showJob(); },
});

on("progress", (data) => {
  if (data.name && data.name !== progress?.name) names.push(data.name); // a large file is reported several times
  progress = data;
  showJob();
});
on("result", (data) => { result = data; showJob(); });
$("job-start").addEventListener("click", () => ask("job", "POST", "job-note"));
$("job-stop").addEventListener("click", () => ask("job", "DELETE", "job-note"));

// ---- the answer -----------------------------------------------------------------------------------------------

let question = null;
let words = 0;
let waiting = "";
let answerEnd = null;

const showAnswer = drawn(() => {
  $("answer-start").disabled = answer.running;
  $("answer-stop").disabled = !answer.running;
  if (waiting) grow($("answer-text"), () => $("answer-text").append(waiting));
  waiting = "";
  const so_far = question ? `${whole.format(words)} of ${whole.format(question.words)} words ${question.module ? `about ${question.module}` : "of Python’s licence"}` : "";
  if (answer.running) say("answer-note", so_far || "Waiting for the first word.");
  else if (answerEnd?.how === "complete") say("answer-note", `Complete: ${so_far}.`, "good");
  else if (answerEnd?.how === "stopped") say("answer-note", `Stopped after ${so_far}, for every page.`);
  else if (answerEnd) say("answer-note", answerEnd.message, "bad");
});

const answer = follow("answer", {
  begin: () => {
    question = answerEnd = null;
    words = 0;
    waiting = "";
    $("answer-text").textContent = "";
    showAnswer();
  },
  ended: (how, message) => { answerEnd = { how, message }; showAnswer(); },
});

on("question", (data) => { question = data; showAnswer(); });
on("word", (data) => { words += 1; waiting += data.word; showAnswer(); });
$("answer-form").addEventListener("submit", (event) => {
  event.preventDefault();
  ask("answer", "POST", "answer-note", JSON.stringify({ module: $("module").value }));
});
$("answer-stop").addEventListener("click", () => ask("answer", "DELETE", "answer-note"));

on("gap", () => { // what is still held follows: begin anew, also where the beginning of a run is not held any more
  progress = result = jobEnd = question = answerEnd = null;
  words = 0;
  waiting = "";
  job.running = answer.running = false;
  clearNames();
  $("answer-text").textContent = "";
});
