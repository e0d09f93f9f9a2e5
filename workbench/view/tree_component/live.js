// The decoding view: text, tree, times and charts of a window of steps, linked by the chosen step.
// Streamlit calls the default export on every update; what is kept between calls lives here.
const views = new WeakMap();
const memory = new Map(); // what each view was told, by the name it is given: it survives a remount
const KINDS = ["accepted", "bonus", "correction", "rejected", "not-reached", "pruned"];
const ORIGINS = { 1: "a", 2: "b", 3: "c" };
const CALM_MS = 250; // growth is animated only when steps come slower than this

export default function ({ data, parentElement, setTriggerValue }) {
  let view = views.get(parentElement);
  if (!view) { // Streamlit's own key is another one after a remount
    const name = data.view;
    if (!memory.has(name)) memory.set(name, { run: null, steps: [], earlier: [], prompt: "", first: 0, at: -1, follow: true, pruned: false });
    view = createView(parentElement.querySelector(".view"), memory.get(name));
    views.set(parentElement, view);
  }
  view.ask = (what) => setTriggerValue("ask", { ...what, at: Date.now() });
  view.update(data);
  return () => { view.close(); views.delete(parentElement); };
}

function createView(root, kept) {
  const $ = (selector) => root.querySelector(selector);
  const prose = $(".prose"), follow = $(".follow input"), pruned = $(".cut input"), strip = $(".strip svg");
  const view = { ask: () => {}, update, close };
  const tree = createTree($(".stage"), { onFold: () => view.ask({ unfold: kept.at }) });
  let drawn = null, written = 0, changed = 0;
  drawKey($(".key"));
  follow.checked = kept.follow;
  pruned.checked = kept.pruned;
  rewrite();

  function update(data) {
    const opened = data.run !== kept.run || (kept.live && !data.live);
    if (data.run !== kept.run) restart();
    for (const step of data.steps) {
      if (!step.tree) step.tree = kept.steps[step.i]?.tree;
      kept.steps[step.i] = step;
    }
    const { run, live, first, total } = data;
    Object.assign(kept, { run, live, first, total });
    root.dataset.run = run;
    if (data.full) {
      Object.assign(kept, { prompt: data.prompt, earlier: data.earlier, partial: false });
      rewrite();
    }
    write();
    drawHead(data);
    drawDepth(data.depth);
    if (opened || (live && follow.checked)) go(data.show, { arrived: true });
    else select();
    $(".follow").hidden = !live;
    askForMore();
  }

  function restart() {
    Object.assign(kept, { steps: [], earlier: [], prompt: "", at: -1, partial: true });
    setFollow(true);
    tree.forget();
  }

  function setFollow(on) {
    kept.follow = follow.checked = on;
  }

  function rewrite() {
    prose.replaceChildren();
    htmlEl("span", "prompt", prose, kept.prompt);
    for (const [text, origin] of kept.earlier) htmlEl("span", ORIGINS[origin], prose, text);
    written = kept.first;
  }

  function missing() {
    for (let i = kept.first; i < kept.total; i++) if (!kept.steps[i]) return true;
    return kept.partial || (!follow.checked && kept.steps[kept.at] && !kept.steps[kept.at].tree && !kept.steps[kept.at].gone);
  }

  let timer = 0;
  function askForMore(tries = 4) { // updates may get lost; so may questions
    if (timer || !tries || !missing()) return;
    timer = setTimeout(() => {
      timer = 0;
      if (missing()) view.ask({ resync: true });
      askForMore(tries - 1);
    }, tries === 4 ? 300 : 1500);
  }

  function write() {
    const atEnd = prose.scrollHeight - prose.scrollTop - prose.clientHeight < 40;
    for (; kept.steps[written]; written++) {
      for (const [text, origin] of kept.steps[written].tokens) {
        htmlEl("span", ORIGINS[origin], prose, text).dataset.step = written;
      }
    }
    if (atEnd || follow.checked) prose.scrollTop = prose.scrollHeight;
  }

  function go(at, { arrived = false } = {}) {
    if (at < 0 || at >= kept.total || (arrived && at === kept.at)) return select();
    const now = performance.now(), since = now - changed;
    kept.at = at;
    changed = now;
    select({ time: since > CALM_MS ? since / 2 : 0 });
    if (!arrived) askForMore();
    return undefined;
  }

  function select({ time = 0 } = {}) {
    const step = kept.steps[kept.at];
    for (const span of prose.querySelectorAll(".now")) span.classList.remove("now");
    if (step) {
      const spans = prose.querySelectorAll(`[data-step="${kept.at}"]`);
      for (const span of spans) span.classList.add("now");
      if (spans.length && !follow.checked) prose.scrollTop = spans[0].offsetTop - prose.offsetTop - 60;
    }
    if (drawn !== step?.tree) {
      tree.show(step?.tree, { time });
      drawn = step?.tree;
    }
    drawTitle(step);
    drawStages(step);
    drawStrip();
  }

  function drawTitle(step) {
    const note = $(".note");
    note.hidden = Boolean(step?.tree);
    note.textContent = kept.total ? "The tree of this step is not kept here." : "The first draft tree appears here.";
    $(".which").textContent = step ? `Draft tree of step ${kept.at + 1} of ${kept.total}: ${step.words}` : "Draft tree";
    $(".stage svg").setAttribute("aria-label", $(".which").textContent);
    $("[data-do=prev]").disabled = kept.at <= kept.first;
    $("[data-do=next]").disabled = kept.at >= kept.total - 1;
    for (const button of root.querySelectorAll("[data-do=in], [data-do=out], [data-do=fit]")) button.disabled = !step?.tree;
  }

  function drawHead(data) {
    const state = $(".state"), progress = $(".progress");
    const said = [data.state, data.detail, data.setup].join("|");
    if (state.dataset.said !== said) {
      state.dataset.said = said;
      state.textContent = data.state;
      for (const line of [data.detail, data.setup]) if (line) htmlEl("small", "", state, line);
    }
    progress.hidden = !data.live;
    progress.classList.toggle("unknown", data.fraction === null);
    progress.firstElementChild.style.width = data.fraction === null ? "" : `${100 * data.fraction}%`;
    const figures = $(".figures");
    figures.replaceChildren();
    for (const { value, label, help } of data.figures) {
      const figure = htmlEl("div", "figure", figures);
      figure.title = help;
      htmlEl("b", "", figure, value);
      htmlEl("span", "", figure, label);
    }
  }

  function drawStages(step) {
    const bar = $(".stages .bar"), list = $(".stages dl");
    bar.replaceChildren();
    list.replaceChildren();
    for (const { name, ms, share } of step?.stages ?? []) {
      const part = htmlEl("div", `s-${name}`, bar);
      part.style.flexGrow = share;
      part.title = `${name} ${ms} ms`;
      const label = htmlEl("dt", "", list);
      htmlEl("i", `s-${name}`, label);
      label.append(name);
      htmlEl("dd", "", list, `${ms} ms`);
      htmlEl("dd", "", list, `${(100 * share).toFixed(0)} %`);
    }
    if (!step) htmlEl("dt", "", list, "Drafting, scoring and the rest, in milliseconds, once a step is done.");
  }

  function drawStrip() {
    const { width, height } = strip.getBoundingClientRect();
    strip.replaceChildren();
    if (!width) return;
    const pitch = 9, shown = Math.floor((width - 4) / pitch);
    const first = clamp(kept.at - shown + 8, Math.max(kept.first, 0), Math.max(kept.first, kept.total - shown));
    const steps = kept.steps.slice(first, first + shown);
    const most = Math.max(4, ...kept.steps.filter(Boolean).map((step) => step.accepted));
    const unit = Math.min(9, (height - 16) / most), base = height - 5;
    let accepted = "", bonus = "", correction = "";
    steps.forEach((step, k) => {
      const x = 2 + k * pitch, mid = x + 3, top = base - step.accepted * unit - 5;
      for (let n = 1; n <= step.accepted; n++) accepted += `M${x} ${base - n * unit}h6v${unit - 1.2}h-6z`;
      if (step.origin === 2) bonus += `M${mid - 2.2} ${top}a2.2 2.2 0 1 0 4.4 0a2.2 2.2 0 1 0 -4.4 0`;
      else correction += `M${mid} ${top - 3.2}l3.2 3.2l-3.2 3.2l-3.2 -3.2z`;
    });
    svgEl("line", { class: "base", x1: 0, x2: width, y1: base + 0.5, y2: base + 0.5 }, strip);
    svgEl("path", { class: "acc", d: accepted }, strip);
    svgEl("path", { class: "bon", d: bonus }, strip);
    svgEl("path", { class: "cor", d: correction }, strip);
    if (kept.at >= first) svgEl("rect", { class: "sel", x: 0.5 + (kept.at - first) * pitch, y: 1, width: 9, height: height - 3, rx: 3 }, strip);
    strip.dataset.first = first;
  }

  function drawDepth(depths) {
    const rows = $(".depth .rows");
    rows.replaceChildren();
    for (const { depth, accepted, tested, share } of depths) {
      htmlEl("span", "", rows, depth);
      const track = htmlEl("div", "track", rows);
      htmlEl("i", "", track).style.width = `${100 * share}%`;
      htmlEl("b", "", rows, `${(100 * share).toFixed(0)} %`);
      htmlEl("span", "", rows, `${accepted} of ${tested}`);
    }
    if (!depths.length) htmlEl("span", "", rows, "No drafted tokens tested yet.").style.gridColumn = "1 / -1";
  }

  function choose(at) { // the user's own choice ends following, except at the last step
    setFollow(kept.live && at >= kept.total - 1);
    go(clamp(at, kept.first, kept.total - 1));
  }

  const actions = {
    prev: () => choose(kept.at - 1), next: () => choose(kept.at + 1),
    in: () => tree.zoom(1.3), out: () => tree.zoom(1 / 1.3), fit: () => tree.fit(),
  };
  root.addEventListener("click", (event) => {
    const action = event.target.closest("[data-do]")?.dataset.do;
    const token = event.target.closest("[data-step]");
    if (action) actions[action]();
    else if (token) choose(Number(token.dataset.step));
  });
  strip.addEventListener("click", (event) => {
    const at = Number(strip.dataset.first) + Math.floor((event.clientX - strip.getBoundingClientRect().left - 1) / 9);
    if (at < kept.total) choose(at);
  });
  follow.addEventListener("change", () => { setFollow(follow.checked); if (follow.checked) go(kept.total - 1); });

  pruned.addEventListener("change", () => { kept.pruned = pruned.checked; view.ask({ pruned: kept.pruned }); });

  function onKey(event) {
    const target = event.composedPath()[0];
    if (event.ctrlKey || event.metaKey || event.altKey || !(root.contains(target) || target === document.body)) return;
    const action = { ArrowLeft: "prev", ArrowRight: "next", f: "fit", F: "fit" }[event.key];
    if (!action) return;
    event.preventDefault();
    actions[action]();
  }
  document.addEventListener("keydown", onKey);
  const observer = new ResizeObserver(drawStrip);
  observer.observe(strip);

  function close() {
    document.removeEventListener("keydown", onKey);
    observer.disconnect();
    tree.close();
    clearTimeout(timer);
  }
  return view;
}

function drawKey(key) {
  for (const kind of KINDS) {
    const item = htmlEl("span", "", key);
    const svg = svgEl("svg", { viewBox: "0 0 26 14" }, item);
    const g = svgEl("g", { class: `node ${kind}` }, svg);
    svgEl("rect", { class: "box", x: 1.5, y: 1.5, width: 23, height: 11 }, g);
    if (MARKS[kind]) svgEl("text", { class: "mark", x: 9, y: 11 }, g, MARKS[kind]);
    item.append(kind.replace("-", " "));
  }
  htmlEl("span", "", key, "bar: the draft's probability");
  htmlEl("span", "hint", key, "drag to move, Ctrl + wheel to zoom");
}
