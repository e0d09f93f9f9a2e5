// Draws one laid-out draft tree in SVG: zoom, pan, fit and the card of the node under the pointer.
const NS = "http://www.w3.org/2000/svg";
// drawn, not written: a browser lays out strokes many times faster than characters
const MARKS = { rejected: "m-3 -3l6 6m0 -6l-6 6", bonus: "m-3.5 0h7m-3.5 -3.5v7", correction: "m-3.5 -1.7h7m-7 3.4h7m-1.4 -5l-4.2 6.6", pruned: "m-3 0h6" };
const FATES = {
  root: "start", accepted: "accepted", bonus: "bonus", correction: "correction", rejected: "rejected ✕",
  "not-reached": "not reached", pruned: "pruned –", fold: "folded",
};

function svgEl(name, attributes, parent, text) {
  const el = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) el.setAttribute(key, value);
  if (text !== undefined) el.textContent = text;
  parent?.append(el);
  return el;
}

function htmlEl(name, className, parent, text) {
  const el = document.createElement(name);
  if (className) el.className = className;
  if (text !== undefined) el.textContent = text;
  parent?.append(el);
  return el;
}

function createTree(stage, { onFold }) {
  const svg = stage.querySelector("svg");
  const scene = svg.querySelector(".scene");
  const card = stage.querySelector(".card");
  const view = { x: 0, y: 0, k: 1, manual: false, tree: null, sizes: [], high: 0, width: 0 };

  const apply = () => {
    card.hidden = true;
    scene.setAttribute("transform", `translate(${view.x} ${view.y}) scale(${view.k})`);
  };

  function fit({ whole = false } = {}) {
    view.width ||= svg.getBoundingClientRect().width; // read once: it costs a layout
    const W = view.width;
    if (!view.tree || !W) return;
    const { width, height } = view.tree;
    // A common scale for the last trees keeps the picture calm while steps follow each other.
    const wide = whole ? width : Math.max(...view.sizes.map((size) => size[0]));
    const high = whole ? height : Math.max(...view.sizes.map((size) => size[1]));
    const H = grow(high * Math.min(1.3, (W - 12) / wide) + 24);
    const k = Math.min(1.3, (W - 12) / wide, (H - 12) / high);
    view.k = whole ? k : Math.max(k, Math.min(0.62, Math.max(0.5, (W - 12) / width)));
    view.x = Math.max(4, whole ? (W - width * view.k) / 2 : 4);
    view.y = (H - height * view.k) / 2;
    if (height * view.k > H) view.y = clamp(H / 2 - pathEnd() * view.k, H - height * view.k - 6, 6);
    apply();
  }

  // The stage is as high as its trees need, within bounds; it shrinks only for another run.
  function grow(needed) {
    view.high = clamp(Math.max(view.high, needed), 190, Math.max(280, 0.38 * innerHeight));
    stage.style.height = `${view.high}px`;
    return view.high;
  }

  function pathEnd() {
    const at = view.tree.node.indexOf(-1);
    return at < 0 ? 0 : view.tree.y[at];
  }

  function zoom(factor, cx, cy) {
    const { width, height } = svg.getBoundingClientRect();
    const px = cx ?? width / 2, py = cy ?? height / 2;
    const k = clamp(view.k * factor, 0.08, 4);
    Object.assign(view, { x: px - (px - view.x) * (k / view.k), y: py - (py - view.y) * (k / view.k), k, manual: true });
    apply();
  }

  // `time`: milliseconds in which it may grow round by round, 0 for at once.
  function show(tree, { time }) {
    view.tree = tree;
    hideCard();
    scene.replaceChildren();
    if (!tree) return;
    view.sizes = [...view.sizes.slice(-7), [tree.width, tree.height]];
    const last = Math.max(...tree.round);
    scene.classList.toggle("grow", time > 0);
    scene.style.setProperty("--last", last);
    scene.style.setProperty("--beat", `${Math.min(80, time / (last + 1))}ms`);
    drawEdges(tree);
    for (let i = 0; i < tree.node.length; i++) drawNode(tree, i, scene);
    if (!view.manual) fit();
  }

  function drawEdges(tree) { // those of one kind that appear together are one path
    const paths = new Map();
    for (let i = 0; i < tree.node.length; i++) {
      const from = tree.up[i];
      if (from < 0) continue;
      const x0 = tree.x[from] + tree.w[from], x1 = tree.x[i], bend = (x1 - x0) * 0.55;
      const d = `M${x0} ${tree.y[from]}C${x0 + bend} ${tree.y[from]} ${x1 - bend} ${tree.y[i]} ${x1} ${tree.y[i]}`;
      const alike = `edge ${tree.kind[i]}|--r:${tree.round[i]}`;
      paths.set(alike, (paths.get(alike) ?? "") + d);
    }
    const edges = svgEl("g", {}, scene);
    for (const [alike, d] of paths) {
      const [name, style] = alike.split("|");
      svgEl("path", { d, class: name, style }, edges);
    }
  }

  function drawNode(tree, i, parent) {
    const w = tree.w[i], kind = tree.kind[i], p = (tree.bar ?? tree.p_draft)[i];
    const g = svgEl("g", {
      class: `node ${kind}`, "data-i": i, style: `--r:${tree.round[i]}`,
      transform: `translate(${tree.x[i]} ${tree.y[i] - 12})`,
    }, parent);
    svgEl("rect", { class: "box", width: w, height: 24 }, g);
    if (p !== null) svgEl("rect", { class: "p", x: 3, y: 20, width: Math.max(1, (w - 6) * p), height: 2.6, rx: 1.3 }, g);
    svgEl("text", { x: 9, y: 15.5 }, g, tree.label[i]);
    if (MARKS[kind]) svgEl("path", { class: "mark", d: `M${w - 12} 11.5${MARKS[kind]}` }, g);
    if (tree.hidden[i] && kind !== "fold") svgEl("text", { class: "cut", x: w + 5, y: 7 }, g, `–${tree.hidden[i]}`);
  }

  function showCard(i) {
    const tree = view.tree, kind = tree.kind[i];
    card.replaceChildren();
    htmlEl("span", "fate", card, FATES[kind]);
    htmlEl("code", "", card, tree.piece[i] || " ");
    const facts = htmlEl("dl", "", card);
    const fact = (name, value) => {
      if (value === null || value === undefined) return;
      htmlEl("dt", "", facts, name);
      htmlEl("dd", "", facts, value);
    };
    fact("token id", tree.token[i]);
    fact("depth", kind === "fold" ? null : tree.depth[i]);
    if (tree.rank[i] !== null) fact("rank", `${tree.rank[i] + 1} of ${tree.siblings[i]}`);
    fact("p draft", percent(tree.p_draft[i]));
    fact("p target", percent(tree.p_target[i]));
    fact("p draft of the path", percent(tree.p_path[i]));
    if (kind !== "fold" && tree.hidden[i]) fact("pruned below", tree.hidden[i]);
    if (tree.source[i] && tree.source[i] !== "draft") fact("source", tree.source[i]);
    if (tree.drafts?.[i]) fact("drafted by", tree.drafts[i].split("+").map((n) => `draft ${n}`).join(", "));
    htmlEl("p", "", card, tree.reasons[tree.why[i]]);
    card.hidden = false;
    const room = stage.getBoundingClientRect();
    const left = view.x + tree.x[i] * view.k, below = view.y + (tree.y[i] + 16) * view.k;
    const above = view.y + (tree.y[i] - 16) * view.k - card.offsetHeight;
    const fits = room.top + below + card.offsetHeight < innerHeight || room.top + above < 0;
    card.style.left = `${clamp(left, 0, Math.max(0, room.width - card.offsetWidth))}px`;
    card.style.top = `${fits ? below : above}px`;
  }

  const hideCard = () => { card.hidden = true; };
  const nodeAt = (event) => event.target.closest?.(".node");

  let drag = null;
  svg.addEventListener("pointerdown", (event) => {
    drag = { id: event.pointerId, x: event.clientX - view.x, y: event.clientY - view.y, moved: false };
  });
  svg.addEventListener("pointermove", (event) => {
    if (drag && event.buttons) {
      const x = event.clientX - drag.x, y = event.clientY - drag.y;
      if (!drag.moved && Math.hypot(x - view.x, y - view.y) < 4) return;
      if (!drag.moved) svg.setPointerCapture(drag.id);
      Object.assign(view, { x, y, manual: true });
      drag.moved = true;
      svg.classList.add("drag");
      apply();
    } else {
      const node = nodeAt(event);
      if (node) showCard(Number(node.dataset.i)); else hideCard();
    }
  });
  svg.addEventListener("pointerup", (event) => {
    const node = nodeAt(event);
    if (node && !drag?.moved && view.tree.kind[node.dataset.i] === "fold") onFold();
    drag = null;
    svg.classList.remove("drag");
  });
  svg.addEventListener("pointerleave", hideCard);
  svg.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // the page keeps its scrolling
    event.preventDefault();
    const box = svg.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY * 0.0025), event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
  const observer = new ResizeObserver(() => { view.width = 0; if (!view.manual) fit(); });
  observer.observe(svg);

  return {
    show,
    zoom,
    fit: () => { view.manual = false; fit({ whole: true }); },
    forget: () => { Object.assign(view, { manual: false, sizes: [], high: 0 }); },
    close: () => observer.disconnect(),
  };
}

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const percent = (p) => (p === null ? null : p >= 0.0995 ? `${(100 * p).toFixed(0)} %` : `${Number((100 * p).toPrecision(2))} %`);
