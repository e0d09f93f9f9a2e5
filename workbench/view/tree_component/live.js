// The decoding view: text, tree, times and charts of a window of steps, linked by the chosen step.
// Streamlit calls the default export on every update; what is kept between calls lives here.
const CALM_MS = 250; // growth is animated only when steps come slower than this

export default function (component) {
  return mount(component, createView, { run: null, steps: [], earlier: [], prompt: "", first: 0, at: -1, follow: true, pruned: false });
}

function createView(root, kept) {
  const $ = (selector) => root.querySelector(selector);
  const follow = $(".follow input"), pruned = $(".cut input");
  const prose = createProse($(".prose")), strip = createStrip($(".strip svg"), { onPick: choose });
  const view = { tell: () => {}, update, close };
  const tree = createTree($(".stage"), { onFold: () => view.tell("ask", { unfold: kept.at }) });
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
    $("[data-do=replay]").hidden = live || !data.stored;
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
    prose.reset(kept.prompt, kept.earlier);
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
      if (missing()) view.tell("ask", { resync: true });
      askForMore(tries - 1);
    }, tries === 4 ? 300 : 1500);
  }

  function write() {
    const atEnd = prose.atEnd();
    for (; kept.steps[written]; written++) prose.add(written, kept.steps[written].tokens);
    if (atEnd || follow.checked) prose.toEnd();
  }

  function go(at, { arrived = false } = {}) {
    if (at < 0 || at >= kept.total || (arrived && at === kept.at)) return select();
    const now = performance.now(), since = now - changed;
    const calm = since > CALM_MS && !(arrived && at > kept.at + 1); // steps that rush by do not grow
    kept.at = at;
    changed = now;
    select({ time: calm ? since / 2 : 0 });
    if (!arrived) askForMore();
    return undefined;
  }

  function select({ time = 0 } = {}) {
    const step = kept.steps[kept.at];
    prose.mark(kept.at, { into: !follow.checked });
    if (drawn !== step?.tree) {
      tree.show(step?.tree, { time });
      drawn = step?.tree;
    }
    drawTitle(step);
    drawStages($(".stages"), step?.stages);
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
    const progress = $(".progress");
    drawState($(".state"), data.state, [data.detail, data.setup]);
    progress.hidden = !data.live;
    progress.classList.toggle("unknown", data.fraction === null);
    progress.firstElementChild.style.width = data.fraction === null ? "" : `${100 * data.fraction}%`;
    drawFigures($(".figures"), data.figures);
  }

  function drawStrip() {
    strip.draw({
      first: kept.first, total: kept.total, at: kept.at,
      accepted: (i) => kept.steps[i]?.accepted,
      origin: (i) => kept.steps[i].origin,
      most: Math.max(4, ...kept.steps.filter(Boolean).map((step) => step.accepted)),
    });
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
    replay: () => view.tell("ask", { replay: kept.at }),
    in: () => tree.zoom(1.3), out: () => tree.zoom(1 / 1.3), fit: () => tree.fit(),
  };
  root.addEventListener("click", (event) => {
    const action = event.target.closest("[data-do]")?.dataset.do;
    const token = event.target.closest("[data-step]");
    if (action) actions[action]();
    else if (token) choose(Number(token.dataset.step));
  });
  follow.addEventListener("change", () => { setFollow(follow.checked); if (follow.checked) go(kept.total - 1); });

  pruned.addEventListener("change", () => { kept.pruned = pruned.checked; view.tell("ask", { pruned: kept.pruned }); });

  function onKey(event) {
    const target = event.composedPath()[0];
    if (event.ctrlKey || event.metaKey || event.altKey || !(root.contains(target) || target === document.body)) return;
    const action = { ArrowLeft: "prev", ArrowRight: "next", f: "fit", F: "fit" }[event.key];
    if (!action) return;
    event.preventDefault();
    actions[action]();
  }
  document.addEventListener("keydown", onKey);

  function close() {
    document.removeEventListener("keydown", onKey);
    prose.close();
    strip.close();
    tree.close();
    clearTimeout(timer);
  }
  return view;
}
