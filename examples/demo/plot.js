// Two lines over the last seconds on a canvas, in the colours of the page. Drawn when a sample comes, not in between.

export function drawPlot(canvas, samples, seconds) {
  const style = getComputedStyle(canvas);
  const colour = (name) => style.getPropertyValue(name).trim();
  const scale = devicePixelRatio || 1;
  const { width, height } = canvas.getBoundingClientRect();
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);

  const frame = { left: 50, right: width - 1, top: 8, bottom: height - 22 };
  const now = samples.length ? samples[samples.length - 1].time : 0;
  const x = (time) => frame.right - ((now - time) / seconds) * (frame.right - frame.left);
  const y = (share) => frame.bottom - share * (frame.bottom - frame.top);

  pen.font = "12px system-ui, sans-serif";
  pen.fillStyle = colour("--quiet");
  pen.strokeStyle = colour("--line");
  pen.lineWidth = 1;
  pen.textBaseline = "middle";
  pen.textAlign = "right";
  for (const share of [0, 0.5, 1]) {
    const level = Math.round(y(share)) + 0.5;
    pen.beginPath();
    pen.moveTo(frame.left, level);
    pen.lineTo(frame.right, level);
    pen.stroke();
    pen.fillText(`${100 * share} %`, frame.left - 8, level);
  }
  pen.textBaseline = "alphabetic";
  for (let ago = 0; ago <= seconds; ago += 15) {
    pen.textAlign = ago === 0 ? "right" : ago === seconds ? "left" : "center";
    pen.fillText(ago === 0 ? "now" : `−${ago} s`, x(now - ago), height - 4);
  }

  pen.save();
  pen.beginPath();
  pen.rect(frame.left, 0, frame.right - frame.left + 1, height);
  pen.clip();
  line("memory", colour("--second"), 0);
  line("cpu", colour("--accent"), 0.12);
  pen.restore();

  // A hole in time (the tab was hidden) is a hole in the line.
  function line(name, ink, fill) {
    const runs = [];
    let last = -Infinity;
    for (const sample of samples) {
      if (sample[name] === null) continue;
      if (sample.time - last > 2.5) runs.push([]);
      runs[runs.length - 1].push([x(sample.time), y(sample[name])]);
      last = sample.time;
    }
    pen.strokeStyle = pen.fillStyle = ink;
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
