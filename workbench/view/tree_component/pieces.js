// What the live view and the replay share: text with origin marks, stage bar, strip, figures, legend.
const KINDS = ["accepted", "bonus", "correction", "rejected", "not-reached", "pruned"];
const ORIGINS = { 1: "a", 2: "b", 3: "c" };

// The output with its prompt. `add` appends the tokens of a step as [text, origin] pairs. The bars
// over the marked words lie beside the text, not in it: moving them lays out no text again.
function createProse(el) {
  const text = htmlEl("div", "text", el), marks = htmlEl("div", "marks", el);
  let spans = []; // by step
  let marked = [];

  function reset(prompt, earlier) {
    spans = [];
    marked = [];
    marks.replaceChildren();
    text.replaceChildren();
    htmlEl("span", "prompt", text, prompt);
    for (const [words, origin] of earlier) htmlEl("span", ORIGINS[origin], text, words);
  }

  function add(step, tokens) {
    spans[step] = tokens.map(([words, origin]) => {
      const span = htmlEl("span", ORIGINS[origin], text, words);
      span.dataset.step = step;
      return span;
    });
  }

  // Marks the words of a step; `into` brings them into view where they are not. Reads all places
  // before it writes any: called before other changes, it costs no layout.
  function mark(step, { into }) {
    const words = spans[step] ?? [], frame = el.getBoundingClientRect();
    const boxes = words.flatMap((span) => [...span.getClientRects()]);
    const down = el.scrollTop - frame.top, high = el.clientHeight, scrolled = el.scrollTop;
    for (const span of marked) span.classList.remove("now");
    marked = words;
    for (const span of marked) span.classList.add("now");
    marks.replaceChildren();
    for (const box of boxes) {
      const bar = htmlEl("i", "", marks);
      bar.style.cssText = `left:${box.left - frame.left}px;top:${box.top + down - 1}px;width:${box.width}px`;
    }
    if (!boxes.length || !into) return;
    const top = boxes[0].top + down;
    if (top < scrolled + 8 || top > scrolled + high - 44) el.scrollTop = top - 60;
  }

  const observer = new ResizeObserver(() => {
    const step = marked[0]?.dataset.step;
    if (step !== undefined) mark(Number(step), { into: false });
  });
  observer.observe(el);
  return {
    reset, add, mark,
    at: (step) => spans[step] ?? [],
    atEnd: () => el.scrollHeight - el.scrollTop - el.clientHeight < 40,
    toEnd: () => { el.scrollTop = el.scrollHeight; },
    close: () => observer.disconnect(),
  };
}

// The stages of a step as a bar and a list; `stages` are {name, ms, share}, none before a step.
function drawStages(section, stages) {
  const bar = section.querySelector(".bar"), list = section.querySelector("dl");
  bar.replaceChildren();
  list.replaceChildren();
  for (const { name, ms, share } of stages ?? []) {
    const part = htmlEl("div", `s-${name}`, bar);
    part.style.flexGrow = share;
    part.title = `${name} ${ms} ms`;
    const label = htmlEl("dt", "", list);
    htmlEl("i", `s-${name}`, label);
    label.append(name);
    htmlEl("dd", "", list, `${ms} ms`);
    htmlEl("dd", "", list, `${(100 * share).toFixed(0)} %`);
  }
  if (!stages) htmlEl("dt", "", list, "Drafting, scoring and the rest, in milliseconds, once a step is done.");
}

// Accepted tokens step by step. `draw` is told of steps first..total: accepted(i) is undefined
// for a step not at hand, `most` the highest of all.
function createStrip(strip, { onPick }) {
  let last = null, size = null; // read once: asking a changed page costs a layout

  function draw(steps) {
    last = steps;
    const { first, total, at, accepted, origin, most } = steps;
    size ??= strip.getBoundingClientRect();
    const { width, height } = size;
    strip.replaceChildren();
    if (!width) return;
    const pitch = 9, shown = Math.floor((width - 4) / pitch);
    const from = clamp(at - shown + 8, Math.max(first, 0), Math.max(first, total - shown));
    const unit = Math.min(9, (height - 16) / most), base = height - 5;
    let drafts = "", bonus = "", correction = "";
    for (let i = from; i < Math.min(total, from + shown); i++) {
      const count = accepted(i);
      if (count === undefined) continue;
      const x = 2 + (i - from) * pitch, mid = x + 3, top = base - count * unit - 5;
      for (let n = 1; n <= count; n++) drafts += `M${x} ${base - n * unit}h6v${unit - 1.2}h-6z`;
      if (origin(i) === 2) bonus += `M${mid - 2.2} ${top}a2.2 2.2 0 1 0 4.4 0a2.2 2.2 0 1 0 -4.4 0`;
      else correction += `M${mid} ${top - 3.2}l3.2 3.2l-3.2 3.2l-3.2 -3.2z`;
    }
    svgEl("line", { class: "base", x1: 0, x2: width, y1: base + 0.5, y2: base + 0.5 }, strip);
    svgEl("path", { class: "acc", d: drafts }, strip);
    svgEl("path", { class: "bon", d: bonus }, strip);
    svgEl("path", { class: "cor", d: correction }, strip);
    if (at >= from) svgEl("rect", { class: "sel", x: 0.5 + (at - from) * pitch, y: 1, width: 9, height: height - 3, rx: 3 }, strip);
    strip.dataset.first = from;
  }

  strip.addEventListener("click", (event) => {
    const at = Number(strip.dataset.first) + Math.floor((event.clientX - strip.getBoundingClientRect().left - 1) / 9);
    if (last && at < last.total) onPick(at);
  });
  const observer = new ResizeObserver(() => { size = null; if (last) draw(last); });
  observer.observe(strip);
  return { draw, close: () => observer.disconnect() };
}

// A sentence with smaller lines below it, rewritten only when it says something else.
function drawState(state, sentence, lines) {
  const said = [sentence, ...lines].join("|");
  if (state.dataset.said === said) return;
  state.dataset.said = said;
  state.textContent = sentence;
  for (const line of lines) if (line) htmlEl("small", "", state, line);
}

function drawFigures(place, figures) {
  place.replaceChildren();
  for (const { value, label, help } of figures) {
    const figure = htmlEl("div", "figure", place);
    figure.title = help;
    htmlEl("b", "", figure, value);
    htmlEl("span", "", figure, label);
  }
}

function drawKey(key) {
  for (const kind of KINDS) {
    const item = htmlEl("span", "", key);
    const svg = svgEl("svg", { viewBox: "0 0 26 14" }, item);
    const g = svgEl("g", { class: `node ${kind}` }, svg);
    svgEl("rect", { class: "box", x: 1.5, y: 1.5, width: 23, height: 11 }, g);
    if (MARKS[kind]) svgEl("path", { class: "mark", d: `M13 7${MARKS[kind]}` }, g);
    item.append(kind.replace("-", " "));
  }
  htmlEl("span", "", key, "bar: the draft's probability");
  htmlEl("span", "hint", key, "drag to move, Ctrl + wheel to zoom");
}
