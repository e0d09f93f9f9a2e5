// A canvas over a time axis in microseconds: range, zoom, pan, pick, hover. What is drawn on it is
// the caller's: `draw(context, area)` with area = {w, h, toX, toTime, range, colour}.
const AXIS_HIGH = 18, NICE_TICKS = [1, 2, 5];

function createPlot(plot, { draw, onPick, onHover, onRange = () => {} }) {
  const canvas = plot.querySelector("canvas"), context = canvas.getContext("2d");
  let full = [0, 1], range = [0, 1], queued = 0, wide = 0, drag = null;

  const width = () => (wide ||= plot.clientWidth); // read once: it costs a layout
  const toX = (us) => ((us - range[0]) / (range[1] - range[0])) * width();
  const toTime = (x) => range[0] + (x / width()) * (range[1] - range[0]);
  const whole = () => range[1] - range[0] >= (full[1] - full[0]) * 0.999;

  function redraw() {
    if (!queued) queued = requestAnimationFrame(() => { queued = 0; paint(); });
  }

  function paint() {
    const w = width(), h = plot.clientHeight, scale = devicePixelRatio || 1;
    if (!w || !h) return;
    canvas.width = Math.round(w * scale);
    canvas.height = Math.round(h * scale);
    context.setTransform(scale, 0, 0, scale, 0, 0);
    const style = getComputedStyle(plot), colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const area = { w, h: h - AXIS_HIGH, toX, toTime, range, colour, font: style.fontFamily, ink: style.color };
    draw(context, area);
    drawAxis(area, h);
  }

  function drawAxis({ w, colour, font, ink }, h) {
    const span = range[1] - range[0], rough = (span / w) * 90, power = 10 ** Math.floor(Math.log10(rough));
    const tick = NICE_TICKS.map((n) => n * power).find((n) => n >= rough) ?? 10 * power;
    const unit = tick >= 100_000 ? 1e6 : 1e3, name = unit === 1e6 ? "s" : "ms";
    const digits = Math.max(0, Math.ceil(-Math.log10(tick / unit) - 1e-9));
    context.font = `11.5px ${font}`;
    context.textBaseline = "bottom";
    for (let t = Math.ceil(range[0] / tick) * tick; t <= range[1]; t += tick) {
      const x = toX(t);
      context.fillStyle = colour("line");
      context.fillRect(Math.round(x), h - AXIS_HIGH, 1, 4);
      context.fillStyle = ink;
      context.textAlign = x < 24 ? "left" : x > w - 24 ? "right" : "center";
      context.fillText(`${(t / unit).toFixed(digits)} ${name}`, x, h);
    }
  }

  function setRange([from, to]) {
    const most = Math.max(1, full[1] - full[0]), span = clamp(to - from, Math.min(most, 500), most);
    const start = clamp(from, full[0], full[1] - span);
    range = [start, start + span];
    onRange(range);
    redraw();
  }

  function zoom(factor, x = width() / 2) {
    const t = toTime(x), part = x / width(), span = (range[1] - range[0]) / factor;
    setRange([t - part * span, t + (1 - part) * span]);
  }

  const xOf = (event) => event.clientX - plot.getBoundingClientRect().left;
  const yOf = (event) => event.clientY - plot.getBoundingClientRect().top;
  plot.addEventListener("pointerdown", (event) => {
    drag = { x: xOf(event), range, moved: false };
    plot.setPointerCapture(event.pointerId);
  });
  plot.addEventListener("pointermove", (event) => {
    if (!drag || !event.buttons) return onHover(toTime(xOf(event)), yOf(event));
    const by = xOf(event) - drag.x;
    if (Math.abs(by) < 4 && !drag.moved) return;
    drag.moved = true;
    const us = (by / width()) * (drag.range[1] - drag.range[0]);
    setRange([drag.range[0] - us, drag.range[1] - us]);
  });
  plot.addEventListener("pointerup", (event) => {
    if (drag && !drag.moved) onPick(toTime(xOf(event)), yOf(event));
    drag = null;
  });
  plot.addEventListener("pointerleave", () => onHover(null));
  plot.addEventListener("dblclick", () => setRange(full));
  plot.addEventListener("wheel", (event) => {
    if (event.deltaY > 0 && whole()) return; // nothing left to zoom out of: the page scrolls
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * 0.002), xOf(event));
  }, { passive: false });

  const observer = new ResizeObserver(() => { wide = 0; redraw(); });
  observer.observe(plot);
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  const recolour = () => setTimeout(redraw, 400); // once the page has changed its own colours
  scheme.addEventListener("change", recolour);

  return {
    redraw, zoom, setRange, toX, whole,
    range: () => range,
    fit: () => setRange(full),
    // A new span; a range that showed all goes on to.
    setSpan: (from, to) => {
      const all = whole() || full[1] <= 1;
      full = [from, Math.max(from + 1, to)];
      setRange(all ? full : range);
    },
    close: () => {
      observer.disconnect();
      scheme.removeEventListener("change", recolour);
      cancelAnimationFrame(queued);
    },
  };
}

// Of ascending `values`, the last place whose value is at most `what`; -1 where there is none.
function lastUpTo(values, what) {
  let low = -1, high = values.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (values[middle] <= what) low = middle; else high = middle - 1;
  }
  return low;
}

const seconds = (us) => {
  if (us < 1_000) return `${us.toFixed(0)} µs`;
  if (us < 1_000_000) return `${(us / 1e3).toFixed(us < 10_000 ? 1 : 0)} ms`;
  return us < 100_000_000 ? `${(us / 1e6).toFixed(2)} s` : `${(us / 1e6).toFixed(0)} s`;
};
