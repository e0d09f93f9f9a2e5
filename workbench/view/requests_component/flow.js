// Queue length and batch size over the whole run, who arrived when, and the chosen request's way.
const BAND = 9, MARKS_HIGH = 12; // pixels of the chosen request's bar and of the row of arrivals

function createFlow(section, { onPick }) {
  const hover = section.querySelector(".hover"), cursor = section.querySelector(".cursor");
  let facts = null, queue = null, batch = null, at = 0, chosen = -1;
  const plot = createPlot(section.querySelector(".plot"), {
    draw,
    onPick: (us) => onPick(us),
    onHover: (us) => { hover.textContent = us === null || !facts ? "" : tell(us); },
    onRange: () => place(),
  });

  function set(told) {
    facts = told;
    const r = facts.requests, left = r.id.map((_, k) => (r.admitted[k] >= 0 ? r.admitted[k] : r.ended[k]));
    queue = counted(r.arrival, left);
    batch = counted(r.admitted, r.ended);
    plot.setSpan(facts.since, facts.length);
    plot.redraw();
  }

  // How many are between coming and going, as times and counts from each of them on.
  function counted(came, went) {
    const changes = [];
    for (let k = 0; k < came.length; k++) {
      if (came[k] < 0) continue;
      changes.push([came[k], 1]);
      if (went[k] >= 0) changes.push([went[k], -1]);
    }
    changes.sort((a, b) => a[0] - b[0]);
    const times = [], counts = [];
    let count = 0;
    for (const [time, by] of changes) {
      count += by;
      if (times[times.length - 1] === time) counts[counts.length - 1] = count;
      else { times.push(time); counts.push(count); }
    }
    return { times, counts, most: Math.max(1, ...counts) };
  }

  const countAt = ({ times, counts }, us) => { const i = lastUpTo(times, us); return i < 0 ? 0 : counts[i]; };
  const tell = (us) => `${seconds(us)}: ${countAt(queue, us)} waiting, ${countAt(batch, us)} in the batch`;

  function draw(context, area) {
    if (!facts) return;
    const high = area.h - MARKS_HIGH - BAND - 8, most = Math.max(queue.most, batch.most);
    const y = (count) => high - (count / most) * (high - 16);
    grid(context, area, most, y);
    area.low = high;
    steps(context, area, queue, y, true);
    steps(context, area, batch, y, false);
    marks(context, area, high + 4);
    if (chosen >= 0) band(context, area, high + MARKS_HIGH + 6);
    place();
  }

  function grid(context, { w, colour, font, ink }, most, y) {
    context.font = `11px ${font}`;
    context.textBaseline = "middle";
    context.textAlign = "left";
    const pace = Math.max(1, Math.ceil(most / 4));
    for (let count = 0; count <= most; count += pace) {
      context.fillStyle = colour("line");
      context.fillRect(0, Math.round(y(count)), w, 1);
      context.fillStyle = ink;
      if (count) context.fillText(String(count), 2, y(count) - 7);
    }
  }

  // A stepped line; the queue is filled and hatched, the batch a bare line.
  function steps(context, area, { times, counts }, y, filled) {
    const { w, toX, range, colour, low } = area;
    const path = new Path2D(), first = Math.max(0, lastUpTo(times, range[0]));
    let level = first < times.length && times[first] <= range[0] ? counts[first] : 0, column = -1, peak = level;
    path.moveTo(0, y(level));
    for (let i = first; i < times.length && times[i] <= range[1]; i++) {
      const x = Math.max(0, toX(times[i]));
      if (Math.floor(x) === column) { // several in one pixel: its highest is seen
        if (counts[i] > peak) { peak = counts[i]; path.lineTo(x, y(peak)); }
      } else {
        path.lineTo(x, y(level));
        column = Math.floor(x);
        peak = counts[i];
      }
      level = counts[i];
      path.lineTo(x, y(level));
    }
    path.lineTo(w, y(level));
    context.lineWidth = filled ? 1.2 : 2;
    context.strokeStyle = colour(filled ? "bonus" : "draft");
    context.stroke(path);
    if (!filled) return;
    path.lineTo(w, low);
    path.lineTo(0, low);
    path.closePath();
    context.fillStyle = colour("bonusbg");
    context.fill(path);
    context.save();
    context.clip(path);
    context.beginPath();
    for (let x = -low; x < w; x += 7) { context.moveTo(x, low); context.lineTo(x + low, 0); }
    context.lineWidth = 0.6;
    context.globalAlpha = 0.55;
    context.stroke();
    context.restore();
  }

  // Arrivals as ticks; requests that were not served as crosses where they ended.
  function marks(context, { toX, range, colour }, top) {
    const r = facts.requests;
    context.fillStyle = colour("other");
    for (const us of r.arrival) if (us >= range[0] && us <= range[1]) context.fillRect(toX(us), top + 2, 1, MARKS_HIGH - 5);
    context.strokeStyle = colour("corr");
    context.lineWidth = 1.6;
    context.beginPath();
    r.reason.forEach((reason, k) => {
      if (!reason || SERVED.has(reason) || r.ended[k] < range[0] || r.ended[k] > range[1]) return;
      const x = toX(r.ended[k]), y = top + MARKS_HIGH / 2 - 0.5;
      context.moveTo(x - 3, y - 3); context.lineTo(x + 3, y + 3);
      context.moveTo(x + 3, y - 3); context.lineTo(x - 3, y + 3);
    });
    context.stroke();
  }

  // Waiting is hatched, prefill outlined, decoding solid.
  function band(context, { w, toX, colour }, top) {
    const r = facts.requests, end = r.ended[chosen] >= 0 ? r.ended[chosen] : facts.length;
    const from = toX(r.arrival[chosen]), admitted = r.admitted[chosen];
    const begun = toX(admitted >= 0 ? admitted : end), ready = toX(r.prefilled[chosen] >= 0 ? r.prefilled[chosen] : end), to = toX(end);
    context.fillStyle = colour("soft");
    context.fillRect(0, top, w, BAND);
    context.strokeStyle = colour("bonus");
    context.lineWidth = 1;
    context.setLineDash([3, 2]);
    context.strokeRect(from, top + 0.5, Math.max(1, begun - from), BAND - 1);
    context.setLineDash([]);
    if (admitted < 0) return;
    context.strokeStyle = context.fillStyle = colour("acc");
    context.strokeRect(begun, top + 0.5, Math.max(1, ready - begun), BAND - 1);
    context.fillRect(ready, top, Math.max(2, to - ready), BAND);
  }

  function place() {
    if (!facts) return;
    const x = plot.toX(at), range = plot.range();
    cursor.hidden = at < range[0] || at > range[1];
    cursor.style.transform = `translateX(${x}px)`;
  }

  return {
    set,
    show: (us) => { at = us; place(); },
    choose: (place) => { chosen = place; plot.redraw(); },
    zoom: plot.zoom, fit: plot.fit, close: plot.close, redraw: plot.redraw,
  };
}

const SERVED = new Set(["eos", "stop-string", "length"]);
