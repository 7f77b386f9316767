// Lines over the last seconds on a canvas, in the colours of the page. Drawn when something is new, not in between.

const HOLE_SECONDS = 2.5; // a hole in time (the tab was hidden) is a hole in the line

// now, seconds, step: the right end and the length of the axis of time, and from mark to mark.
// left, right: [[height, text], …], the marks of the axes; the right one in the colour `rightInk`.
// lines: [{points: [[time, height], …], ink: name of a colour, fill: opacity below the line}]; heights are 0 to 1.
export function drawPlot(canvas, { now, seconds, step, left, right = [], rightInk, lines }) {
  const style = getComputedStyle(canvas);
  const colour = (name) => style.getPropertyValue(name).trim();
  const scale = devicePixelRatio || 1;
  const { width, height } = canvas.getBoundingClientRect();
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);

  const frame = { left: 54, right: width - (right.length ? 34 : 1), top: 8, bottom: height - 22 };
  const x = (time) => frame.right - ((now - time) / seconds) * (frame.right - frame.left);
  const y = (height) => frame.bottom - Math.min(1, height) * (frame.bottom - frame.top);

  pen.font = "12px system-ui, sans-serif";
  pen.fillStyle = colour("--quiet");
  pen.strokeStyle = colour("--line");
  pen.lineWidth = 1;
  pen.textBaseline = "middle";
  pen.textAlign = "right";
  for (const [share, text] of left) {
    const level = Math.round(y(share)) + 0.5;
    pen.beginPath();
    pen.moveTo(frame.left, level);
    pen.lineTo(frame.right, level);
    pen.stroke();
    pen.fillText(text, frame.left - 8, level);
  }
  if (right.length) pen.fillStyle = colour(rightInk);
  pen.textAlign = "left";
  for (const [share, text] of right) pen.fillText(text, frame.right + 8, Math.round(y(share)) + 0.5);
  pen.fillStyle = colour("--quiet");
  pen.textBaseline = "alphabetic";
  for (let ago = 0; ago <= seconds; ago += step) {
    pen.textAlign = ago === 0 ? "right" : ago === seconds ? "left" : "center";
    pen.fillText(ago === 0 ? "now" : `−${ago} s`, x(now - ago), height - 4);
  }

  pen.save();
  pen.beginPath();
  pen.rect(frame.left, 0, frame.right - frame.left + 1, height);
  pen.clip();
  for (const line of lines) draw(line);
  pen.restore();

  function draw({ points, ink, fill }) {
    const runs = [];
    let last = -Infinity;
    for (const [time, value] of points) {
      if (value === null) continue;
      if (time - last > HOLE_SECONDS) runs.push([]);
      runs[runs.length - 1].push([x(time), y(value)]);
      last = time;
    }
    pen.strokeStyle = pen.fillStyle = colour(ink);
    pen.lineWidth = 1.75;
    pen.lineJoin = "round";
    for (const run of runs) {
      pen.beginPath();
      for (const point of run) pen.lineTo(...point);
      pen.stroke();
      if (!fill) continue;
      pen.lineTo(run[run.length - 1][0], frame.bottom);
      pen.lineTo(run[0][0], frame.bottom);
      pen.globalAlpha = fill;
      pen.fill();
      pen.globalAlpha = 1;
    }
  }
}
