// The lanes of all ranks: stretches of work on their tracks, idle in between. Where stretches are
// narrower than pixels, columns as high as the lane was busy then.
const TRACK = 15, TRACK_GAP = 5, RANK_GAP = 7, AROUND = 14; // AROUND: steps that are shown at first
const LANE_COLOURS = { target: "ink", draft: "draft", network: "corr", host: "acc" };

function createGantt(section, { onPick, chunkOf, chunkAt, onNeed }) {
  const hover = section.querySelector(".hover"), frame = section.querySelector(".frame");
  const names = section.querySelector(".names"), el = section.querySelector(".plot");
  let facts = null, at = -1, tops = [], percents = [];
  const plot = createPlot(el, {
    draw,
    onPick: (us) => onPick(us),
    onHover: (us, y) => { hover.textContent = us === null || !facts ? "" : tell(us, y); },
    onRange: () => { place(); onNeed(); },
  });

  function set(told) {
    facts = told;
    const ranks = new Set(facts.lanes.map(({ rank }) => rank)).size;
    names.replaceChildren();
    tops = [];
    percents = [];
    let top = 0, rank = null;
    for (const lane of facts.lanes) {
      if (rank !== null && lane.rank !== rank) top += RANK_GAP;
      const label = htmlEl("span", "", names);
      label.style.top = `${top}px`;
      if (ranks > 1 && lane.rank !== rank) htmlEl("b", "", label, `${facts.derived ? "replica" : "rank"} ${lane.rank}`);
      htmlEl("em", "", label, lane.lane);
      percents.push(htmlEl("i", "", label));
      rank = lane.rank;
      tops.push(top);
      top += TRACK + TRACK_GAP;
    }
    names.classList.toggle("ranks", ranks > 1);
    el.style.height = names.style.height = `${top + AXIS_HIGH}px`;
    plot.setSpan(facts.since, facts.length);
    plot.redraw();
  }

  const first = (us) => Math.max(0, lastUpTo(facts.moments.begin, us));

  // Chunks that the range shows; none where it shows too many to draw stretch by stretch.
  function needed() {
    if (!facts || !facts.lanes.length) return [];
    const [from, to] = plot.range().map((us) => chunkOf(first(us)));
    return to - from > 2 ? [] : Array.from({ length: to - from + 1 }, (_, k) => from + k);
  }

  function draw(context, area) {
    if (!facts) return;
    const chunks = needed().map(chunkAt);
    tops.forEach((top, lane) => {
      context.fillStyle = area.colour("soft");
      context.fillRect(0, top, area.w, TRACK);
      if (!chunks.length || chunks.some((chunk) => !chunk)) overview(context, area, lane, top);
    });
    if (chunks.length && chunks.every(Boolean)) for (const chunk of chunks) stretches(context, area, chunk.lanes);
    boundaries(context, area);
    place();
  }

  function overview(context, { w, range, colour, toX }, lane, top) {
    const bins = facts.overview[lane], width = (facts.length - facts.since) / bins.length;
    context.fillStyle = colour(LANE_COLOURS[facts.lanes[lane].lane] ?? "other");
    const column = Math.max(1, (width / (range[1] - range[0])) * w), at = (bin) => facts.since + bin * width;
    for (let bin = Math.max(0, Math.floor((range[0] - facts.since) / width)); bin < bins.length && at(bin) < range[1]; bin++) {
      if (!bins[bin]) continue;
      const high = Math.max(1, (bins[bin] / 100) * TRACK);
      context.fillRect(toX(at(bin)), top + TRACK - high, column + 0.3, high);
    }
  }

  // Prefill is hollow, so that it is told from scoring on the same lane.
  function stretches(context, { w, range, toX, colour }, { lane, what, begin, dur }) {
    const prefill = facts.whats.indexOf("prefill");
    for (let i = 0; i < lane.length; i++) {
      if (begin[i] + dur[i] < range[0] || begin[i] > range[1]) continue;
      const x = toX(begin[i]), wide = Math.max(0.8, (dur[i] / (range[1] - range[0])) * w - 0.6);
      context.fillStyle = context.strokeStyle = colour(LANE_COLOURS[facts.lanes[lane[i]].lane] ?? "other");
      if (what[i] !== prefill || wide < 4) context.fillRect(x, tops[lane[i]], wide, TRACK);
      else {
        context.lineWidth = 1.3;
        context.strokeRect(x + 0.6, tops[lane[i]] + 0.6, wide - 1.2, TRACK - 1.2);
      }
    }
  }

  function boundaries(context, { h, w, range, toX, colour }) {
    const { begin } = facts.moments, from = first(range[0]), to = first(range[1]);
    if (w / Math.max(1, to - from) < 14) return;
    context.fillStyle = colour("line");
    for (let i = from; i <= to; i++) context.fillRect(Math.round(toX(begin[i])), 0, 1, h);
  }

  function place() {
    if (!facts || at < 0) return;
    const { begin, end } = facts.moments, range = plot.range();
    frame.hidden = end[at] < range[0] || begin[at] > range[1];
    const left = Math.max(-2, plot.toX(begin[at])), right = Math.min(el.clientWidth + 2, plot.toX(end[at]));
    frame.style.transform = `translateX(${left - 1.5}px)`;
    frame.style.width = `${Math.max(3, right - left + 3)}px`;
  }

  function near(moment) {
    const { begin, end } = facts.moments, last = begin.length - 1;
    const from = clamp(moment - AROUND / 2, 0, Math.max(0, last - AROUND)), to = Math.min(last, from + AROUND);
    plot.setRange([begin[from], Math.max(end[to], begin[from] + 1)]);
  }

  // Marks a step; a zoomed range follows it.
  function show(moment) {
    at = moment;
    const { begin, end } = facts.moments, [from, to] = plot.range();
    if (!plot.whole() && (begin[at] < from || end[at] > to)) {
      const start = begin[at] - (to - from) * 0.3;
      plot.setRange([start, start + to - from]);
    } else place();
    percents.forEach((label, lane) => {
      label.textContent = `${Math.round((100 * facts.busy[lane][at]) / Math.max(1, end[at] - facts.since))} %`;
    });
  }

  function tell(us, y) {
    const lane = tops.findLastIndex((top) => top <= y), moment = first(us), { begin, end } = facts.moments;
    const step = us >= begin[moment] && us <= end[moment] ? `step ${moment + 1}` : "between steps";
    const chunk = chunkAt(chunkOf(moment))?.lanes;
    if (lane < 0 || !chunk) return `${seconds(us)}, ${step}`;
    const i = chunk.begin.findIndex((from, k) => chunk.lane[k] === lane && from <= us && us <= from + chunk.dur[k]);
    const doing = i < 0 ? "idle" : `${facts.whats[chunk.what[i]]} ${seconds(chunk.dur[i])}`;
    return `${seconds(us)}, ${step}, ${facts.lanes[lane].lane}: ${doing}`;
  }

  return {
    set, show, near, needed,
    zoom: plot.zoom, fit: plot.fit, close: plot.close, redraw: plot.redraw,
  };
}
