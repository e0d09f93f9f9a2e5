// The tree editor: draw a static tree of ranks by clicking, and see at once what it would have brought.
const ROW = 32, WIDTH = 98, GAP = 42; // as in workbench/view/layout.py
const MOST = 256, SHOWN_ROWS = 8, CONTEXT = 18;

export default function (component) {
  return mount(component, createEditor, { run: null, paths: null, edited: false, undo: [], redo: [], at: "", size: 8 });
}

function createEditor(root, kept) {
  const $ = (selector) => root.querySelector(selector);
  const stage = $(".stage"), scene = $(".scene"), preset = $(".preset"), count = $(".count");
  const tree = createTree(stage, { onFold: () => {} });
  const view = { tell: () => {}, update, close: () => { tree.close(); observer.disconnect(); } };
  let data = null, nodes = [], found = null, ownSize = {};
  count.value = kept.size;

  function update(next) {
    const again = data?.identity === next.identity && data?.busy === next.busy;
    data = next;
    if (again) return;
    if (!kept.paths || (kept.run !== data.run && !kept.edited)) {
      Object.assign(kept, { paths: pathsOf(data.start), undo: [], redo: [], at: "" });
      tree.forget();
    }
    kept.run = data.run;
    offer();
    redraw();
  }

  // --- changing the tree ---

  function change(paths, at) {
    kept.undo.push([...kept.paths].join(";"));
    kept.redo = [];
    Object.assign(kept, { paths, at, edited: true });
    redraw();
  }

  function addChild(path) {
    if (nodes.length > MOST) return;
    const { kids } = nodes.find((node) => node.path === path);
    let rank = 0;
    while (kids.has(rank)) rank += 1;
    const added = path ? `${path}.${rank}` : `${rank}`;
    change(new Set([...kept.paths, added]), path);
  }

  function remove(path) {
    if (!path) return;
    const left = [...kept.paths].filter((other) => other !== path && !other.startsWith(`${path}.`));
    change(new Set(left), path.split(".").slice(0, -1).join("."));
  }

  function restore(from, onto) {
    if (!from.length) return;
    onto.push([...kept.paths].join(";"));
    kept.paths = pathsOf(from.pop());
    if (!kept.paths.has(kept.at)) kept.at = "";
    redraw();
  }

  function choose(at) {
    kept.at = at;
    mark();
  }

  function move(key) {
    const node = nodes.find((each) => each.path === kept.at) ?? nodes[0];
    const level = nodes.filter((each) => each.depth === node.depth), place = level.indexOf(node);
    const next = {
      ArrowLeft: nodes[node.parent], ArrowRight: nodes[Math.min(...node.kids.values())],
      ArrowUp: level[place - 1], ArrowDown: level[place + 1],
    }[key];
    if (next) choose(next.path);
  }

  // --- drawing ---

  function offer() {
    const group = (label, entries) => {
      if (!entries.length) return;
      const el = htmlEl("optgroup", "", preset);
      el.label = label;
      for (const [name, paths] of entries) htmlEl("option", "", el, name).value = paths;
    };
    preset.replaceChildren();
    htmlEl("option", "", preset, "choose").value = "";
    group("This run", [
      ...(data.own.paths ? [["the run's own", data.own.paths]] : []),
      ...(data.fastest ? [["expected fastest", data.fastest]] : []),
    ]);
    group("Known trees", Object.entries(data.presets));
    $(".best").hidden = !data.optimal.length;
    count.max = data.optimal.length;
    ownSize = {};
  }

  function redraw() {
    nodes = treeOf(kept.paths);
    if (!nodes.some((node) => node.path === kept.at)) kept.at = "";
    found = evaluate(nodes, data.requests);
    drawTree();
    drawSums();
    drawHistogram();
    drawSteps();
    const text = textOf(nodes), run = $('[data-do="run"]');
    $(".shape code").textContent = text ? `--option 'paths=${text}'` : "the root alone: plain decoding";
    run.disabled = !text || data.busy;
    run.textContent = data.busy ? "Running" : "Run it for real";
    $('[data-do="copy"]').disabled = !text;
    $('[data-do="undo"]').disabled = !kept.undo.length;
    $('[data-do="redo"]').disabled = !kept.redo.length;
    $(".size").textContent = `${nodes.length - 1} nodes, ${nodes[nodes.length - 1].depth} deep`;
    root.dataset.paths = text;
  }

  function drawTree() {
    tree.show(laidOut(nodes, found), { time: 0 });
    for (const g of scene.querySelectorAll(".node")) {
      const i = Number(g.dataset.i);
      g.dataset.path = nodes[i].path;
      g.setAttribute("role", "treeitem");
      g.setAttribute("aria-label", spoken(nodes[i], i));
      if (!i) continue;
      const drop = svgEl("g", { class: "drop", transform: `translate(${WIDTH - 19} 4)` }, g);
      svgEl("rect", { width: 16, height: 16 }, drop);
      svgEl("text", { x: 4.2, y: 12 }, drop, "✕");
    }
    mark();
  }

  function mark() {
    for (const g of scene.querySelectorAll(".node")) {
      const here = g.dataset.path === kept.at;
      g.classList.toggle("sel", here);
      g.setAttribute("aria-selected", here);
      if (here) $(".said").textContent = g.getAttribute("aria-label");
    }
  }

  function spoken(node, i) {
    if (!i) return "Root";
    return `${ordinal(node.rank)} choice at depth ${node.depth}, accepted in ${percent(found.accepted[i] / found.low.steps)} of steps`;
  }

  function sums(paths) {
    const its = treeOf(pathsOf(paths)), result = evaluate(its, data.requests);
    return { nodes: its, found: result };
  }

  function column(its, result) {
    const time = stepTime(its, data.times);
    const speeds = [result.low, result.high].map(({ steps }) => speedOf(result.kept, steps, time, data.times));
    return {
      tau: range(result.low.tau, result.high.tau, 2),
      second: range(speeds[0].second, speeds[1].second, 0),
      speedup: range(speeds[0].speedup, speeds[1].speedup, 2, "×"),
      ms: time ? time.ms.toFixed(1) : "–", nodes: its.length - 1, depth: its[its.length - 1].depth, how: time?.how,
    };
  }

  function drawSums() {
    const { own } = data, size = nodes.length - 1;
    const mine = column(nodes, found);
    const columns = [["This tree", mine], ["The run", {
      tau: own.tokens_per_step.toFixed(2), second: own.tokens_per_second.toFixed(0),
      speedup: own.speedup ? `${own.speedup.toFixed(2)}×` : "–", ms: own.step_ms.toFixed(1),
      nodes: trim(own.nodes), depth: trim(own.passes),
    }]];
    const best = data.optimal[size - 1];
    if (best) {
      if (!ownSize[size]) { const { nodes: its, found: result } = sums(best); ownSize[size] = column(its, result); }
      columns.push([`Optimal of ${size}`, ownSize[size]]);
    }
    const head = $("thead"), body = $("tbody");
    head.replaceChildren();
    body.replaceChildren();
    const row = htmlEl("tr", "", head);
    for (const name of ["", ...columns.map(([name]) => name)]) htmlEl("th", "", row, name);
    for (const [key, label] of Object.entries({ tau: "Tokens per step", second: "Tokens/s", speedup: "Against plain", ms: "ms per step", nodes: "Nodes", depth: "Draft passes" })) {
      const line = htmlEl("tr", "", body);
      line.dataset.row = key;
      htmlEl("th", "", line, label);
      columns.forEach(([, values], i) => htmlEl("td", i ? "" : "lead", line, values[key]));
    }
    $(".times").textContent = timesNote(mine, size);
  }

  function timesNote(mine) {
    const { times } = data;
    const exact = found.exact ? "Accepted tokens are exact." : "Some ranks are unknown: accepted tokens are bounds.";
    if (!times) return `${exact} No stored run of this set-up tells what drafting and scoring take.`;
    const plain = times.plain_from ? "a plain run" : "plain passes before the run";
    return `${exact} The run is as measured; the others take pass times of ${times.runs} runs of this set-up (this tree's are ${mine.how}) and ${plain}: estimates.`;
  }

  function drawHistogram() {
    const svg = $(".accepts svg"), { width, height } = svg.getBoundingClientRect();
    svg.replaceChildren();
    if (!width) return;
    const own = data.own.histogram, mine = found.low.histogram;
    const bins = Math.max(own.length, mine.length), pitch = Math.min(64, width / bins), base = height - 18;
    const share = (counts, k) => (counts[k] ?? 0) / Math.max(1, counts.reduce((a, b) => a + (b ?? 0), 0));
    let top = 0.01;
    for (let k = 0; k < bins; k++) top = Math.max(top, share(own, k), share(mine, k));
    svgEl("line", { x1: 0, x2: width, y1: base + 0.5, y2: base + 0.5 }, svg);
    for (let k = 0; k < bins; k++) {
      const x = k * pitch + pitch * 0.14, w = pitch * 0.72, one = share(mine, k), other = share(own, k);
      const high = (value) => (value / top) * (base - 18);
      const bar = svgEl("g", {}, svg);
      svgEl("title", {}, bar, `${k} accepted: this tree ${percent(one)} of steps, the run ${percent(other)}`);
      svgEl("rect", { class: "bar", x, y: base - high(one), width: w, height: high(one), rx: 2 }, bar);
      svgEl("rect", { class: "own", x: x - 2, y: base - high(other), width: w + 4, height: high(other), rx: 2 }, bar);
      if (pitch > 30 && one > 0) svgEl("text", { x: x + w / 2, y: base - high(Math.max(one, other)) - 4 }, svg, percent(one));
      svgEl("text", { x: x + w / 2, y: height - 4 }, svg, k);
    }
  }

  // Each of the run's own steps, had this tree stood there.
  function drawSteps() {
    const rows = [], tally = { more: 0, fewer: 0, same: 0, open: 0 };
    for (const request of data.requests) {
      request.starts.forEach((start, k) => {
        const own = Math.min(request.accepted[k], request.ranks.length - start);
        const may = possibleAccepts(nodes, request, start), low = may[0], high = may[may.length - 1];
        const kind = low > own ? "more" : high < own ? "fewer" : low === high ? "same" : "open";
        tally[kind] += 1;
        if (kind === "more" || kind === "fewer") rows.push({ request, k, start, own, kind, gain: (kind === "more" ? low : high) - own });
      });
    }
    const open = tally.open ? `, undecided in ${tally.open}` : "";
    $(".steps .sum").textContent = `more in ${tally.more}, as many in ${tally.same}, fewer in ${tally.fewer}${open}`;
    rows.sort((a, b) => Math.abs(b.gain) - Math.abs(a.gain) || a.start - b.start);
    const list = $(".steps .rows");
    list.replaceChildren();
    for (const [kind, title] of [["more", "Would have accepted more"], ["fewer", "Would have accepted fewer"]]) {
      const some = rows.filter((row) => row.kind === kind), group = htmlEl("div", "group", list);
      htmlEl("h3", "", group, some.length > SHOWN_ROWS ? `${title}: the first ${SHOWN_ROWS} of ${some.length}` : some.length ? title : `${title}: nowhere`);
      for (const row of some.slice(0, SHOWN_ROWS)) drawStep(row, group);
    }
  }

  function drawStep({ request, k, start, own, kind, gain }, list) {
    const line = htmlEl("button", `row ${kind}`, list), step = request.steps[k];
    htmlEl("b", "", line, gain > 0 ? `+${gain}` : `−${-gain}`);
    htmlEl("span", "", line, data.requests.length > 1 ? `question ${request.name || request.request + 1}, step ${step + 1}` : `step ${step + 1}`);
    const code = htmlEl("code", "", line), texts = request.texts;
    htmlEl("i", "", code, visible(texts.slice(Math.max(0, start - 8), start).join("")).slice(-CONTEXT));
    code.append(visible(texts.slice(start, start + Math.max(own, own + gain) + 1).join("")));
    line.title = "Open this step in Replay";
    line.addEventListener("click", () => view.tell("open", { request: request.request + 1, step: step + 1 }));
  }

  // --- what people do ---

  const actions = {
    undo: () => restore(kept.undo, kept.redo), redo: () => restore(kept.redo, kept.undo),
    in: () => tree.zoom(1.3), out: () => tree.zoom(1 / 1.3), fit: () => tree.fit(),
    copy: () => copy($(".shape code")), run: () => view.tell("run", { paths: textOf(nodes) }),
  };
  root.addEventListener("click", (event) => {
    const action = event.target.closest("[data-do]")?.dataset.do, node = event.target.closest(".scene .node");
    if (action) actions[action]();
    else if (node && event.target.closest(".drop")) remove(node.dataset.path);
    else if (node) addChild(node.dataset.path);
  });
  preset.addEventListener("change", () => {
    if (preset.value) { change(pathsOf(preset.value), ""); tree.fit(); }
    preset.value = "";
  });
  count.addEventListener("change", () => {
    kept.size = Math.min(Math.max(1, Math.round(count.valueAsNumber) || 1), data.optimal.length);
    count.value = kept.size;
    change(pathsOf(data.optimal[kept.size - 1]), "");
    tree.fit();
  });
  root.addEventListener("keydown", (event) => {
    if (event.target.closest("input, select, button")) return;
    const { key } = event, command = event.ctrlKey || event.metaKey;
    if (command && key.toLowerCase() === "z") actions[event.shiftKey ? "redo" : "undo"]();
    else if (command && key.toLowerCase() === "y") actions.redo();
    else if (command || event.altKey) return;
    else if (key.startsWith("Arrow")) move(key);
    else if (key === "Enter" || key === "+") addChild(kept.at);
    else if (key === "Delete" || key === "Backspace") remove(kept.at);
    else if (key.toLowerCase() === "f") actions.fit();
    else return;
    event.preventDefault();
  });

  function copy(code) {
    const text = code.textContent, button = $('[data-do="copy"]');
    const done = () => { button.textContent = "Copied"; setTimeout(() => { button.textContent = "Copy"; }, 1500); };
    if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, () => getSelection().selectAllChildren(code));
    else getSelection().selectAllChildren(code);
  }

  const observer = new ResizeObserver(() => { if (found) drawHistogram(); });
  observer.observe($(".accepts svg"));
  return view;
}

// Where the nodes stand, as workbench/view/layout.py has it: a node is level with its first child.
function laidOut(nodes, found) {
  const top = new Array(nodes.length);
  let rows = 0;
  (function place(i) {
    const kids = [...nodes[i].kids.entries()].sort((a, b) => a[0] - b[0]).map(([, kid]) => kid);
    kids.forEach(place);
    top[i] = kids.length ? top[kids[0]] : rows++;
  })(0);
  const each = (of) => nodes.map(of), none = each(() => null), { steps } = found.low;
  const earned = each((_, i) => (i && steps ? found.accepted[i] / steps : 0));
  return {
    node: each((_, i) => i), up: each((node) => node.parent), depth: each((node) => node.depth),
    x: each((node) => node.depth * (WIDTH + GAP)), y: each((_, i) => top[i] * ROW + 12), w: each(() => WIDTH),
    width: (nodes[nodes.length - 1].depth + 1) * (WIDTH + GAP) - GAP, height: rows * ROW - 8,
    label: each((node, i) => (i ? `${ordinal(node.rank)} ${earned[i] ? `+${earned[i].toFixed(earned[i] < 0.0095 ? 3 : 2)}` : "0"}` : "root")),
    piece: each((node, i) => (i ? `${ordinal(node.rank)} choice` : "root")),
    kind: each((_, i) => (!i ? "root" : found.accepted[i] ? "accepted" : found.tested[i] ? "rejected" : "not-reached")),
    rank: none, siblings: none, token: none, p_draft: none, p_target: none, p_path: none, source: none,
    bar: each((_, i) => (i ? earned[i] : null)), hidden: each(() => 0), round: each((node) => node.depth),
    why: each((_, i) => i), reasons: each((node, i) => reason(node, found.tested[i], found.accepted[i], steps, i)),
  };
}

function reason(node, tested, accepted, steps, i) {
  if (!i) return `The last token written. ${steps} steps start here.`;
  if (!tested) return `Never reached in ${steps} steps: its parent was never accepted.`;
  const share = percent(accepted / tested);
  return `Reached in ${tested} of ${steps} steps and accepted in ${accepted} of those (${share}): it earns ${(accepted / steps).toFixed(3)} tokens per step.`;
}

const ordinal = (rank) => `${rank + 1}${["st", "nd", "rd"][rank % 10] && ![10, 11, 12].includes(rank % 100) ? ["st", "nd", "rd"][rank % 10] : "th"}`;
const trim = (value) => (Number.isInteger(value) ? value : value.toFixed(1));
const visible = (text) => text.replaceAll("\n", "\\n").replaceAll("\t", "\\t").replaceAll(" ", "·");
function range(low, high, digits, unit = "") {
  if (low === null) return "–";
  const one = low.toFixed(digits), other = high.toFixed(digits);
  return `${one === other ? one : `${one}–${other}`}${unit}`;
}
