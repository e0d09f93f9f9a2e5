// Replay: one stored request step by step, or two side by side by output position. All moves are
// made here; the server is only asked for trees, ahead of the step that is shown.
const AHEAD = 40, BEHIND = 10, LOW = 16; // stops whose trees are asked for; ask again below LOW
const PLAYING = 2.5; // times as far ahead: playing does not wait for answers
const KEPT_TREES = 800, KEPT_RUNS = 4, ANSWER_MS = 4000, ADDRESS_MS = 350, CALM_MS = 200;

export default function (component) {
  return mount(component, createReplay, { facts: new Map(), trees: new Map(), pairs: new Map(), pruned: false, speed: "2" });
}

const lower = (words) => words[0].toLowerCase() + words.slice(1);

function createReplay(root, kept) {
  const $ = (selector) => root.querySelector(selector);
  const view = { tell: () => {}, update, close };
  const scrub = $(".scrub"), pruned = $(".cut input"), speed = $(".speed"), help = $(".keys");
  const player = createPlayer({ onStop: (stop) => go(stop, { played: true }), onState: drawPlaying });
  let ids = [], labels = [], sides = [], stops = [], stop = 0, fork = null, changed = 0, address = 0, opened = false;
  pruned.checked = kept.pruned;
  speed.value = kept.speed;
  player.setSpeed(kept.speed);

  // --- what the server says ---

  function update(data) {
    for (const side of data.sides) keep(side);
    const named = data.sides.map((side) => side.id), key = named.join(" ");
    if (data.pair) kept.pairs.set(key, data.pair);
    const known = named.every((id) => kept.facts.has(id)) && (named.length < 2 || kept.pairs.has(key));
    if (!known) return void view.tell("ask", { have: [] });
    if (key !== ids.join(" ")) open(data, named);
    else for (const side of sides) side.settle();
    return askAnew();
  }

  function keep({ id, facts, trees, pruned: shown, whole }) {
    if (facts) {
      kept.facts.delete(id);
      kept.facts.set(id, facts);
      kept.trees.set(id, new Map());
    }
    while (kept.facts.size > KEPT_RUNS) {
      const oldest = kept.facts.keys().next().value;
      kept.facts.delete(oldest);
      kept.trees.delete(oldest);
    }
    if (shown !== kept.pruned) return; // an answer to what was asked before the switch
    const known = kept.trees.get(id);
    for (const [at, tree] of Object.entries(trees)) {
      if (known?.has(Number(at)) && !whole) continue; // a tree unfolded here stays so
      known?.set(Number(at), tree);
    }
    while (known?.size > KEPT_TREES) known.delete(known.keys().next().value);
  }

  function open(data, named) {
    const first = opened ? data.start : stepInAddress(named[0]) ?? data.start;
    const pair = named.length === 2 ? kept.pairs.get(named.join(" ")) : null;
    for (const side of sides) side.close();
    for (const old of root.querySelectorAll(".side")) old.remove();
    ids = named;
    labels = data.sides.map((side, k) => (pair ? `${k ? "Right" : "Left"}: ${side.label}` : ""));
    opened = true;
    root.classList.toggle("pair", Boolean(pair));
    root.dataset.run = named.join(" ");
    sides = named.map((id, k) => {
      root.append($("template").content.cloneNode(true));
      const section = root.lastElementChild;
      section.querySelector(".which-text").textContent = labels[k] || "Text";
      section.querySelector(".which-time").textContent = pair ? `Timeline, ${lower(labels[k])}` : "Timeline";
      return createSide(section, {
        label: labels[k],
        facts: kept.facts.get(id),
        fork: pair ? pair.fork : null,
        tree: (at) => kept.trees.get(id)?.get(at),
        onPick: (at) => jump(stopOf(k, at)),
        onFold: () => view.tell("ask", question({ [id]: [atStop(stop, k)] }, { whole: true })),
        onRange: (range) => sides.forEach((side, other) => { if (other !== k) side.timeline.setRange(range); }),
      });
    });
    const whole = Math.max(...sides.map((side) => side.length));
    sides.forEach((side, k) => side.timeline.set(kept.facts.get(named[k]), whole));
    stops = makeStops();
    scrub.max = stops.length - 1;
    player.load({ stops: stops.length, time: (i) => stops[i].t, length: sides[0].length / 1000 });
    drawHead(pair);
    jump(stopOf(0, clamp(first, 0, sides[0].total - 1)));
  }

  // One stop per step; of two runs, one wherever either of them begins a step.
  function makeStops() {
    if (sides.length === 1) {
      const { start } = kept.facts.get(ids[0]);
      return start.map((us, at) => ({ at: [at], t: us / 1000, position: sides[0].before[at] }));
    }
    const positions = new Set(sides.flatMap((side) => side.before.slice(0, -1)));
    return [...positions].sort((a, b) => a - b).map((position) => (
      { at: sides.map((side) => side.stepAt(position)), t: sides[0].timeAt(position), position }));
  }

  const atStop = (index, k) => stops[index].at[k];

  function stopOf(k, at) {
    let low = 0, high = stops.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (atStop(middle, k) < at) low = middle + 1; else high = middle;
    }
    return low;
  }

  // --- moving ---

  function jump(to) {
    player.jumped(clamp(to, 0, stops.length - 1));
    go(clamp(to, 0, stops.length - 1));
  }

  function go(to, { played = false } = {}) {
    const now = performance.now(), since = now - changed, forward = to === stop + 1 || played;
    changed = now;
    stop = to;
    const time = forward && since > CALM_MS ? Math.min(since, 900) / 2 : 0;
    sides.forEach((side, k) => side.show(atStop(stop, k), { time }));
    scrub.value = stop;
    const step = atStop(stop, 0), facts = kept.facts.get(ids[0]);
    $(".where").textContent = `step ${step + 1} of ${facts.num_steps} · ${(facts.start[step] / 1e6).toFixed(3)} s`;
    scrub.setAttribute("aria-valuetext", $(".where").textContent);
    for (const name of ["home", "prev"]) $(`[data-do=${name}]`).disabled = stop === 0;
    for (const name of ["next", "end"]) $(`[data-do=${name}]`).disabled = stop === stops.length - 1;
    askForMore();
    writeAddress();
  }

  // --- trees, asked for before they are needed ---

  let asking = 0, timer = 0;

  function question(want, how = {}) {
    return { have: [...kept.facts.keys()], want, pruned: kept.pruned, ...how };
  }

  function missing(order) {
    const want = {};
    ids.forEach((id, k) => {
      const known = kept.trees.get(id), at = order.map((index) => atStop(index, k));
      want[id] = [...new Set(at)].filter((step) => !known.has(step));
    });
    return want;
  }

  const some = (want) => Object.values(want).some((steps) => steps.length);

  function around(ahead, behind) {
    const step = player.stride(), order = [];
    for (let n = 0; n <= ahead; n++) order.push(stop + n * step);
    for (let n = 1; n <= behind; n++) order.push(stop - n * step);
    return order.filter((index) => index >= 0 && index < stops.length);
  }

  function askForMore() {
    const far = player.playing() ? PLAYING : 1;
    if (!ids.length || !some(missing(around(far * LOW, 2)))) return;
    if (timer) return;
    const wait = asking ? asking + ANSWER_MS - Date.now() : 0; // answers may get lost
    timer = setTimeout(() => {
      timer = 0;
      const want = missing(around(far * AHEAD, BEHIND));
      if (!some(want)) return;
      asking = Date.now();
      view.tell("ask", question(want));
      askForMore();
    }, Math.max(20, wait));
  }

  function askAnew() {
    clearTimeout(timer);
    asking = timer = 0;
    askForMore();
  }

  // --- the address bar ---

  function stepInAddress(id) {
    const asked = new URL(location.href).searchParams, step = Number(asked.get("step"));
    return step >= 1 && id.startsWith(asked.get("run") ?? "") ? step - 1 : null;
  }

  function writeAddress() {
    clearTimeout(address);
    address = setTimeout(() => {
      const url = new URL(location.href), step = String(atStop(stop, 0) + 1);
      if (!ids[0].startsWith(url.searchParams.get("run")) || url.searchParams.get("step") === step) return;
      url.searchParams.set("step", step);
      history.replaceState(history.state, "", url);
    }, ADDRESS_MS);
  }

  // --- what is drawn of all of it ---

  function drawHead(pair) {
    const { head, figures } = kept.facts.get(ids[0]);
    if (pair) drawState($(".state"), pair.sentence, []);
    else drawState($(".state"), head.state, [head.message, head.detail, head.setup]);
    drawFigures($(".figures"), pair ? [] : figures);
    drawTotals(pair?.totals ?? []);
    $(".totals").hidden = !pair;
    fork = pair?.fork ?? null;
    $("[data-do=fork]").hidden = fork === null;
  }

  function drawTotals(totals) {
    const head = $(".totals thead"), body = $(".totals tbody");
    head.replaceChildren();
    body.replaceChildren();
    const names = htmlEl("tr", "", head);
    htmlEl("td", "", names);
    for (const [name] of totals) htmlEl("th", "", names, name).scope = "col";
    for (const k of totals.length ? [0, 1] : []) {
      const row = htmlEl("tr", "", body);
      htmlEl("th", "", row, labels[k]).scope = "row";
      for (const values of totals) htmlEl("td", "", row, values[k + 1]);
    }
  }

  function drawPlaying(on) {
    root.classList.toggle("playing", on);
    const button = $("[data-do=play]");
    button.setAttribute("aria-label", on ? "Pause" : "Play");
    button.title = on ? "Pause (space)" : "Play (space)";
  }

  const both = (what) => () => sides.forEach(what);
  const actions = {
    play: () => player.toggle(),
    home: () => jump(0), end: () => jump(stops.length - 1),
    prev: () => { player.pause(); jump(stop - 1); }, next: () => { player.pause(); jump(stop + 1); },
    in: both((side) => side.tree.zoom(1.3)), out: both((side) => side.tree.zoom(1 / 1.3)),
    fit: both((side) => side.tree.fit()),
    tin: () => sides[0].timeline.zoom(2), tout: () => sides[0].timeline.zoom(0.5), tfit: () => sides[0].timeline.fit(),
    pruned: () => pruned.click(),
    keys: () => { help.hidden = !help.hidden; $("[data-do=keys]").setAttribute("aria-expanded", String(!help.hidden)); },
    close: () => { if (!help.hidden) actions.keys(); },
    fork: () => jump(stops.findLastIndex(({ position }) => position <= fork)),
  };
  root.addEventListener("click", (event) => {
    const action = event.target.closest("[data-do]")?.dataset.do;
    const token = event.target.closest("[data-step]");
    if (action) actions[action]();
    else if (token) jump(stopOf(sideOf(token), Number(token.dataset.step)));
  });
  const sideOf = (element) => [...root.querySelectorAll(".side")].indexOf(element.closest(".side"));
  scrub.addEventListener("input", () => jump(Number(scrub.value)));
  speed.addEventListener("change", () => { kept.speed = speed.value; player.setSpeed(speed.value); });
  pruned.addEventListener("change", () => {
    kept.pruned = pruned.checked;
    for (const trees of kept.trees.values()) trees.clear();
    sides.forEach((side) => side.settle());
    askAnew();
  });

  const KEYS = {
    ArrowLeft: "prev", ArrowRight: "next", Home: "home", End: "end", " ": "play", f: "fit", F: "fit",
    p: "pruned", P: "pruned", "?": "keys", Escape: "close",
  };
  function onKey(event) {
    const target = event.composedPath()[0];
    if (event.ctrlKey || event.metaKey || event.altKey || !(root.contains(target) || target === document.body)) return;
    const action = KEYS[event.key];
    const own = target.matches("select") || (event.key === " " && target.matches("button, input:not(.scrub)"));
    if (!action || own || !stops.length) return;
    event.preventDefault();
    actions[action]();
  }
  document.addEventListener("keydown", onKey);

  function close() {
    document.removeEventListener("keydown", onKey);
    clearTimeout(timer);
    clearTimeout(address);
    player.pause();
    for (const side of sides) side.close();
  }
  return view;
}
