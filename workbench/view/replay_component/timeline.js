// The stages of all steps on a real time axis, one lane per stage, on a canvas: thousands of steps
// are drawn once per zoom, and moving to another step only moves the frame around it.
const LANE = 13, LANE_GAP = 3, AXIS = 18, NICE = [1, 2, 5];

// `facts` has start and wall of each step and its stages, all in microseconds. `onRange` is told
// of zooming and panning, so that two timelines can share one range.
function createTimeline(section, { onPick, onRange }) {
  const plot = section.querySelector(".plot"), canvas = plot.querySelector("canvas");
  const frame = plot.querySelector(".frame"), hover = section.querySelector(".hover");
  const names = section.querySelector(".lanes");
  const context = canvas.getContext("2d");
  let facts = null, range = [0, 1], full = [0, 1], at = -1, queued = 0, lanes = [], wide = 0;

  function set(told, whole) {
    facts = told;
    lanes = Object.keys(facts.stages);
    names.replaceChildren();
    for (const name of lanes) {
      const label = htmlEl("span", "", names);
      htmlEl("i", `s-${name}`, label);
      label.append(name);
      htmlEl("b", "", label);
    }
    plot.style.height = `${lanes.length * (LANE + LANE_GAP) + AXIS}px`;
    full = range = [0, whole];
    redraw();
  }

  const width = () => (wide ||= plot.clientWidth); // read once: it costs a layout
  const toX = (us) => ((us - range[0]) / (range[1] - range[0])) * width();
  const toTime = (x) => range[0] + (x / width()) * (range[1] - range[0]);
  const end = (i) => facts.start[i] + facts.wall[i];

  // The step that runs at a time, or the last before it.
  function stepAt(us) {
    let low = 0, high = facts.num_steps - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (facts.start[middle] <= us) low = middle; else high = middle - 1;
    }
    return low;
  }

  function redraw() {
    if (!queued) queued = requestAnimationFrame(() => { queued = 0; draw(); });
  }

  function draw() {
    const w = width(), h = plot.clientHeight, scale = devicePixelRatio || 1;
    if (!facts || !w) return;
    canvas.width = Math.round(w * scale);
    canvas.height = Math.round(h * scale);
    context.setTransform(scale, 0, 0, scale, 0, 0);
    const style = getComputedStyle(plot), line = style.getPropertyValue("--line").trim();
    drawAxis(w, h, line, style);
    const first = stepAt(range[0]), last = stepAt(range[1]);
    const pitch = w / Math.max(1, last - first + 1), least = pitch > 6 ? 1 : 0;
    if (pitch > 12) {
      context.fillStyle = line;
      for (let i = first; i <= last; i++) context.fillRect(Math.round(toX(facts.start[i])), 0, 1, h - AXIS);
    }
    if (pitch < 3) drawShares(w, first, last);
    else drawBars(w, first, last, least);
    place();
  }

  const colour = (lane) => getComputedStyle(names.children[lane].firstElementChild).backgroundColor;

  // Steps wide enough to be told apart: each stage where it stood within its step.
  function drawBars(w, first, last, least) {
    const offsets = new Float64Array(last - first + 1);
    lanes.forEach((name, lane) => {
      const spent = facts.stages[name], y = lane * (LANE + LANE_GAP);
      context.fillStyle = colour(lane);
      for (let i = first; i <= last; i++) {
        if (!spent[i]) continue;
        const x = toX(facts.start[i] + offsets[i - first]);
        context.fillRect(x, y, Math.max(least, (spent[i] / (range[1] - range[0])) * w), LANE);
        offsets[i - first] += spent[i];
      }
    });
  }

  // More steps than pixels: each column is as high as the stage's share of the time there, and
  // at least so high that a stage that took any time is seen.
  function drawShares(w, first, last) {
    const columns = Math.ceil(w / 2), wall = new Float64Array(columns);
    const column = (i) => clamp(Math.floor(toX(facts.start[i] + facts.wall[i] / 2) / 2), 0, columns - 1);
    for (let i = first; i <= last; i++) wall[column(i)] += facts.wall[i];
    lanes.forEach((name, lane) => {
      const spent = facts.stages[name], sums = new Float64Array(columns), low = lane * (LANE + LANE_GAP) + LANE;
      for (let i = first; i <= last; i++) sums[column(i)] += spent[i];
      context.fillStyle = colour(lane);
      for (let x = 0; x < columns; x++) {
        if (!sums[x]) continue;
        const high = Math.max(1, (sums[x] / wall[x]) * LANE);
        context.fillRect(2 * x, low - high, 2, high);
      }
    });
  }

  function drawAxis(w, h, line, style) {
    const span = range[1] - range[0], rough = (span / w) * 90, power = 10 ** Math.floor(Math.log10(rough));
    const tick = NICE.map((n) => n * power).find((n) => n >= rough) ?? 10 * power;
    const seconds = tick >= 100_000, unit = seconds ? 1e6 : 1e3;
    const digits = Math.max(0, Math.ceil(-Math.log10(tick / unit) - 1e-9));
    context.fillStyle = line;
    lanes.forEach((_, lane) => context.fillRect(0, lane * (LANE + LANE_GAP) + LANE + 1, w, 1));
    context.font = `11.5px ${style.fontFamily}`;
    context.textBaseline = "bottom";
    for (let t = Math.ceil(range[0] / tick) * tick; t <= range[1]; t += tick) {
      const x = toX(t), label = `${(t / unit).toFixed(digits)} ${seconds ? "s" : "ms"}`;
      context.fillStyle = line;
      context.fillRect(Math.round(x), h - AXIS, 1, 4);
      context.fillStyle = style.color;
      context.textAlign = x < 24 ? "left" : x > w - 24 ? "right" : "center";
      context.fillText(label, x, h);
    }
  }

  function place() {
    const shown = facts && at >= 0 && end(at) >= range[0] && facts.start[at] <= range[1];
    frame.hidden = !shown;
    if (!shown) return;
    const left = Math.max(-2, toX(facts.start[at])), right = Math.min(width() + 2, toX(end(at)));
    frame.style.transform = `translateX(${left - 1.5}px)`;
    frame.style.width = `${Math.max(3, right - left + 3)}px`;
  }

  // Marks a step; a zoomed range follows it.
  function show(step) {
    at = step;
    const span = range[1] - range[0];
    if (span < (full[1] - full[0]) * 0.999 && (facts.start[at] < range[0] || end(at) > range[1])) {
      const middle = facts.start[at] + span * 0.35;
      move([middle - span / 2, middle + span / 2]);
    } else place();
  }

  function setRange([from, to]) {
    const most = full[1] - full[0], span = clamp(to - from, Math.min(most, 200), most);
    const start = clamp(from, full[0], full[1] - span);
    range = [start, start + span];
    redraw();
  }

  function move(next) {
    setRange(next);
    onRange(range);
  }

  function zoom(factor, x = width() / 2) {
    const t = toTime(x), part = x / width(), span = (range[1] - range[0]) / factor;
    move([t - part * span, t + (1 - part) * span]);
  }

  const xOf = (event) => event.clientX - plot.getBoundingClientRect().left;
  let drag = null;
  plot.addEventListener("pointerdown", (event) => {
    drag = { x: xOf(event), range, moved: false };
    plot.setPointerCapture(event.pointerId);
  });
  plot.addEventListener("pointermove", (event) => {
    if (!facts) return;
    if (drag && event.buttons) {
      const by = xOf(event) - drag.x;
      if (Math.abs(by) < 4 && !drag.moved) return;
      drag.moved = true;
      const us = (by / width()) * (drag.range[1] - drag.range[0]);
      move([drag.range[0] - us, drag.range[1] - us]);
    } else tell(event);
  });
  plot.addEventListener("pointerup", (event) => {
    if (drag && !drag.moved && facts) onPick(stepAt(toTime(xOf(event))));
    drag = null;
  });
  plot.addEventListener("pointerleave", () => { hover.textContent = ""; });
  plot.addEventListener("dblclick", () => move(full));
  plot.addEventListener("wheel", (event) => {
    const out = event.deltaY > 0, whole = range[1] - range[0] >= (full[1] - full[0]) * 0.999;
    if (!facts || (out && whole)) return; // nothing left to zoom out of: the page scrolls
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * 0.002), xOf(event));
  }, { passive: false });

  function tell(event) {
    const i = stepAt(toTime(xOf(event)));
    const y = event.clientY - plot.getBoundingClientRect().top;
    const name = lanes[Math.floor(y / (LANE + LANE_GAP))];
    const spent = name ? `${name} ${milliseconds(facts.stages[name][i])}` : milliseconds(facts.wall[i]);
    hover.textContent = `step ${i + 1}: ${spent}`;
  }

  const observer = new ResizeObserver(() => { wide = 0; redraw(); });
  observer.observe(plot);
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  const recolour = () => setTimeout(redraw, 400); // once the page has changed its own colours
  scheme.addEventListener("change", recolour);

  return {
    set, show, zoom, setRange, redraw,
    fit: () => move(full),
    close: () => { observer.disconnect(); scheme.removeEventListener("change", recolour); cancelAnimationFrame(queued); },
  };
}

const milliseconds = (us) => `${(us / 1000).toFixed(2)} ms`;
