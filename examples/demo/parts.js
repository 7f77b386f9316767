// Small things that every panel uses.

export const $ = (id) => document.getElementById(id);
export const whole = new Intl.NumberFormat("en");

export function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (count >= 1000 && unit < units.length - 1) { count /= 1000; unit += 1; }
  return `${unit && count < 100 ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
}

export function duration(seconds) {
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

export function counted(count, word) {
  return `${whole.format(count)} ${word}${count === 1 ? "" : "s"}`;
}

export function element(name, text, className) {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

export function say(id, text, kind = "") {
  if ($(id).textContent !== text) $(id).textContent = text; // a screen reader reads each change
  $(id).dataset.kind = kind;
}

export const NO_ANSWER = "The server does not answer; is it running?";

// As fetch; what it says of a server that is not there is different in each browser, and clear in none.
export async function answered(address, options) {
  try {
    return await fetch(address, options);
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error(NO_ANSWER);
  }
}

// A server that refuses says why in its body: that sentence is what the user should read.
export async function accepted(address, options) {
  const response = await answered(address, options);
  if (!response.ok) throw new Error((await response.text()).trim() || `The server answered ${response.status}.`);
  return response;
}

// Keep the end of a growing box in view, unless the reader has scrolled up. Only a scroll upwards tells that: in a window
// that was made narrower the end is elsewhere as well, and a scroll of ours may be told of after that.
const places = new WeakMap();

export function grow(box, change) {
  if (!places.has(box)) {
    places.set(box, { atEnd: true, top: box.scrollTop });
    box.addEventListener("scroll", () => {
      const place = places.get(box);
      if (box.scrollHeight - box.scrollTop - box.clientHeight < 30) place.atEnd = true;
      else if (box.scrollTop < place.top) place.atEnd = false;
      place.top = box.scrollTop;
    });
  }
  change();
  const place = places.get(box);
  if (place.atEnd) box.scrollTop = box.scrollHeight;
  place.top = box.scrollTop;
}

// Draw once for all that arrived since the last frame: a page that is loaded again gets minutes of events at once.
export function drawn(draw) {
  let due = false;
  return () => {
    if (due) return;
    due = true;
    requestAnimationFrame(() => { due = false; draw(); });
  };
}
