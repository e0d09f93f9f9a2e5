// How requests were served, step by step: all moves are made here. The server is only asked for
// shares and lanes in chunks, ahead of the step that is shown.
const KEPT_CHUNKS = 24, ANSWER_AFTER_MS = 4000, ADDRESS_AFTER_MS = 350, LEAP = 20;

export default function (component) {
  return mount(component, createRequests, { facts: null, id: "", chunks: new Map(), chosen: -1, byBid: false, follow: true, speed: "1x" });
}

function createRequests(root, kept) {
  const $ = (selector) => root.querySelector(selector);
  const view = { tell: () => {}, update, close };
  const scrub = $(".scrub"), speed = $(".speed"), help = $(".keys"), follow = $(".follow input");
  const player = createPlayer({ onStop: (stop) => go(stop), onState: drawPlaying });
  const flow = createFlow($(".flow"), { onPick: (us) => jump(lastUpTo(facts.moments.begin, us)) });
  const gantt = createGantt($(".gantt"), {
    onPick: (us) => jump(lastUpTo(facts.moments.begin, us)),
    chunkOf, chunkAt: (number) => kept.chunks.get(number), onNeed: () => askForMore(),
  });
  const batch = createBatch($(".batch"), { onChoose: choose });
  const queue = createQueue($(".queue"), { onChoose: choose }), soFar = createSoFar(root);
  let facts = null, at = 0, live = false, stored = false, address = 0, opened = false;
  speed.value = kept.speed;
  player.setSpeed(kept.speed);
  follow.checked = kept.follow;

  // --- what the server says ---

  function update(data) {
    if (data.id !== kept.id || data.live) kept.chunks.clear();
    for (const [number, chunk] of Object.entries(data.chunks)) keep(Number(number), chunk);
    const known = data.facts !== null || data.id === kept.id;
    if (!known) return void view.tell("ask", { have: [] });
    stored = data.stored;
    drawState($(".state"), data.head.state, [data.head.detail, data.head.setup]);
    drawFigures($(".figures"), data.head.figures);
    if (data.facts !== null) open(data);
    else if (facts) showChunk();
    else open({ ...data, facts: kept.facts });
    asking = 0;
    askForMore();
  }

  function keep(number, chunk) {
    const { shares } = chunk, by = new Map();
    shares.moment.forEach((moment, i) => {
      if (!by.has(moment)) by.set(moment, []);
      by.get(moment).push(i);
    });
    kept.chunks.delete(number);
    kept.chunks.set(number, { ...chunk, by });
    while (kept.chunks.size > KEPT_CHUNKS) kept.chunks.delete(kept.chunks.keys().next().value);
  }

  function open(data) {
    const before = facts, same = data.id === kept.id && before !== null, was = same ? before.moments.begin[at] : 0;
    const playing = player.playing(), chosenId = same && kept.chosen >= 0 ? before.requests.id[kept.chosen] : -1;
    facts = kept.facts = data.facts;
    live = data.live;
    if (data.id !== kept.id) kept.chosen = -1;
    kept.id = data.id;
    root.dataset.run = data.id;
    const { begin } = facts.moments, load = facts.requests.id.length > 0 && Boolean(facts.moments.group);
    root.classList.toggle("lanes-only", !load);
    root.classList.toggle("live", live);
    $(".follow").hidden = !live;
    scrub.max = Math.max(0, begin.length - 1);
    place = new Map(facts.requests.id.map((id, k) => [id, k]));
    player.load({ stops: begin.length, time: (i) => (begin[i] - facts.since) / 1000, length: (facts.length - facts.since) / 1000 });
    if (load) { flow.set(facts); batch.set(facts); queue.set(facts); }
    gantt.set(facts);
    soFar.set(facts);
    $(".gantt-name").textContent = facts.derived ? "Lanes, from the stages of each step" : "Lanes";
    if (same) kept.chosen = place.get(chosenId) ?? -1;
    const first = same ? (live && kept.follow ? begin.length - 1 : Math.max(0, lastUpTo(begin, was))) : opening(data);
    flow.choose(kept.chosen);
    jump(clamp(first, 0, Math.max(0, begin.length - 1)));
    if (!same || (live && kept.follow)) gantt.near(at);
    if (playing && same) player.play();
    opened = true;
  }

  function opening(data) {
    if (live) return facts.moments.begin.length - 1;
    if (opened) return data.start;
    const asked = new URL(location.href).searchParams, step = Number(asked.get("step")), request = Number(asked.get("request"));
    const mine = data.id.startsWith(asked.get("run") ?? "");
    if (mine && request >= 1) kept.chosen = place.get(request - 1) ?? -1;
    return mine && step >= 1 ? step - 1 : data.start;
  }

  // --- moving ---

  let place = new Map();

  function jump(to) {
    const stop = clamp(to, 0, Math.max(0, facts.moments.begin.length - 1));
    player.jumped(stop);
    go(stop);
  }

  function leave() { // a move by hand: the newest step is no longer followed
    if (!live || !kept.follow) return;
    kept.follow = follow.checked = false;
  }

  function go(to) {
    at = to;
    const { begin, end } = facts.moments, total = begin.length;
    scrub.value = at;
    const before = facts.before ?? 0; // steps that are no longer held
    $(".where").textContent = total ? `step ${before + at + 1} of ${before + total} · ${(begin[at] / 1e6).toFixed(3)} s` : "no step yet";
    scrub.setAttribute("aria-valuetext", $(".where").textContent);
    for (const name of ["home", "prev"]) $(`[data-do=${name}]`).disabled = at === 0;
    for (const name of ["next", "end"]) $(`[data-do=${name}]`).disabled = at >= total - 1;
    root.dataset.step = at + 1;
    if (!total) return;
    gantt.show(at);
    if (!root.classList.contains("lanes-only")) {
      flow.show(begin[at]);
      drawMoment();
      drawStages($(".stages"), stagesOf(at));
      soFar.latency(end[at]);
    }
    soFar.use(at);
    askForMore();
    writeAddress();
  }

  function drawMoment() {
    const { waiting, seated } = present(facts, at);
    batch.show(at, seated, sharesAt(at), kept.chosen);
    queue.show(at, waiting, kept.chosen);
    drawChosen(waiting, seated);
  }

  // Shares of this step, and of the other batches' steps just before it; null where not at hand.
  function sharesAt(moment) {
    const found = new Map(), group = facts.moments.group, seen = new Set();
    for (let m = moment; m >= 0 && m > moment - 64 && seen.size < facts.groups.length; m--) {
      if (seen.has(group[m])) continue;
      seen.add(group[m]);
      const chunk = kept.chunks.get(chunkOf(m));
      if (!chunk && m === moment) return null;
      const { shares } = chunk ?? {};
      for (const i of chunk?.by.get(m) ?? []) {
        found.set(place.get(shares.request[i]), {
          nodes: shares.nodes[i], depth: shares.depth[i], bid: shares.bid[i], accepted: shares.accepted[i],
          kept: shares.kept[i], had: shares.had[i], step: shares.step[i],
        });
      }
    }
    return found;
  }

  function stagesOf(moment) {
    const m = facts.moments, wall = Math.max(1, m.end[moment] - m.begin[moment]);
    return ["draft", "score", "verify", "commit", "rest"].map((name) => (
      { name, ms: (m[name][moment] / 1000).toFixed(2), share: m[name][moment] / wall }));
  }

  // --- the chosen request ---

  function choose(request) {
    kept.chosen = request === kept.chosen ? -1 : request;
    flow.choose(kept.chosen);
    drawMoment();
    writeAddress();
  }

  function drawChosen(waiting, seated) {
    const el = $(".picked"), k = kept.chosen;
    const share = k < 0 ? null : sharesAt(at)?.get(k), step = share ? share.step : k >= 0 && facts.requests.ended[k] <= facts.moments.begin[at] ? -2 : -1;
    const said = k < 0 ? "" : [kept.id, k, storyOf(facts, at, k, { waiting, seated }), step, stored].join("|");
    if (el.dataset.said === said && el.childElementCount) return;
    el.dataset.said = said;
    el.replaceChildren();
    if (k < 0) return void htmlEl("span", "hint", el, "Choose a request in the batch or in the queue to follow it.");
    htmlEl("b", "", el, titled(facts, k));
    htmlEl("span", "", el, clientOf(facts, k));
    htmlEl("span", "story", el, storyOf(facts, at, k, { waiting, seated }));
    if (stored && facts.requests.admitted[k] >= 0 && facts.requests.kept[k] > 0) {
      const open = htmlEl("button", "", el, "Open in Replay");
      open.dataset.do = "replay";
    }
    const drop = htmlEl("button", "", el, "×");
    drop.dataset.do = "drop";
    drop.title = "Let go of it (Esc)";
    drop.setAttribute("aria-label", "Let go of the request");
  }

  // --- chunks, asked for before they are needed ---

  let asking = 0, timer = 0;

  function chunkOf(moment) { return Math.floor(moment / (facts?.chunk ?? 1)); }

  function wanted() {
    if (!facts || live) return [];
    const last = chunkOf(facts.moments.begin.length - 1), here = chunkOf(at), inside = at % facts.chunk;
    const order = [here, ...gantt.needed()];
    if (player.playing()) order.push(here + 1, here + 2);
    else if (inside > facts.chunk * 0.6) order.push(here + 1);
    if (inside < 32) order.push(here - 1);
    return [...new Set(order)].filter((number) => number >= 0 && number <= last && !kept.chunks.has(number));
  }

  function askForMore() {
    if (timer || !wanted().length) return;
    const wait = asking ? asking + ANSWER_AFTER_MS - Date.now() : 0; // answers may get lost
    timer = setTimeout(() => {
      timer = 0;
      const want = wanted();
      if (!want.length) return;
      asking = Date.now();
      view.tell("ask", { have: [kept.id], want });
    }, Math.max(20, wait));
  }

  function showChunk() {
    gantt.redraw();
    if (!root.classList.contains("lanes-only")) drawMoment();
  }

  // --- the address bar ---

  function writeAddress() {
    clearTimeout(address);
    if (live) return;
    address = setTimeout(() => {
      const url = new URL(location.href);
      if (!kept.id.startsWith(url.searchParams.get("run"))) return;
      const before = url.href;
      url.searchParams.set("step", String(at + 1));
      if (kept.chosen >= 0) url.searchParams.set("request", String(facts.requests.id[kept.chosen] + 1));
      else url.searchParams.delete("request");
      if (url.href !== before) history.replaceState(history.state, "", url);
    }, ADDRESS_AFTER_MS);
  }

  // --- what is pressed ---

  function drawPlaying(on) {
    root.classList.toggle("playing", on);
    const button = $("[data-do=play]");
    button.setAttribute("aria-label", on ? "Pause" : "Play");
    button.title = on ? "Pause (space)" : "Play (space)";
    if (on) askForMore();
  }

  function sort(byBid) {
    kept.byBid = byBid;
    batch.sort(byBid);
    $("[data-do=byslot]").setAttribute("aria-pressed", String(!byBid));
    $("[data-do=bybid]").setAttribute("aria-pressed", String(byBid));
    if (facts?.moments.group && facts.moments.begin.length) drawMoment();
  }

  function replay() {
    const k = kept.chosen, share = sharesAt(at)?.get(k);
    const ended = facts.requests.ended[k] >= 0 && facts.requests.ended[k] <= facts.moments.begin[at];
    view.tell("ask", { replay: { request: facts.requests.id[k], step: share ? share.step : ended ? -1 : 0 } });
  }

  const by = (steps) => () => { leave(); player.pause(); jump(at + steps); };
  const actions = {
    play: () => { leave(); player.toggle(); },
    home: () => { leave(); jump(0); }, end: () => jump(facts.moments.begin.length - 1),
    prev: by(-1), next: by(1), back: by(-LEAP), forward: by(LEAP),
    fin: () => flow.zoom(2), fout: () => flow.zoom(0.5), ffit: () => flow.fit(),
    gin: () => gantt.zoom(2), gout: () => gantt.zoom(0.5), gfit: () => gantt.fit(), gnear: () => gantt.near(at),
    byslot: () => sort(false), bybid: () => sort(true), bids: () => sort(!kept.byBid),
    drop: () => choose(kept.chosen),
    replay,
    keys: () => { help.hidden = !help.hidden; $("[data-do=keys]").setAttribute("aria-expanded", String(!help.hidden)); },
    close: () => { if (!help.hidden) actions.keys(); else if (kept.chosen >= 0) choose(kept.chosen); },
  };
  root.addEventListener("click", (event) => {
    const action = event.target.closest("[data-do]")?.dataset.do;
    if (action && facts?.moments.begin.length) actions[action]();
  });
  scrub.addEventListener("input", () => { leave(); jump(Number(scrub.value)); });
  speed.addEventListener("change", () => { kept.speed = speed.value; player.setSpeed(speed.value); });
  follow.addEventListener("change", () => {
    kept.follow = follow.checked;
    if (kept.follow && facts) { player.pause(); jump(facts.moments.begin.length - 1); }
  });

  const KEYS = {
    ArrowLeft: "prev", ArrowRight: "next", Home: "home", End: "end", " ": "play", b: "bids", B: "bids",
    "?": "keys", Escape: "close",
  };
  const FAR = { ArrowLeft: "back", ArrowRight: "forward" };
  function onKey(event) {
    const target = event.composedPath()[0];
    if (event.ctrlKey || event.metaKey || event.altKey || !(root.contains(target) || target === document.body)) return;
    const action = (event.shiftKey && FAR[event.key]) || KEYS[event.key];
    const own = target.matches("select") || (event.key === " " && target.matches("button, input:not(.scrub)"));
    if (!action || own || !facts?.moments.begin.length) return;
    event.preventDefault();
    actions[action]();
  }
  document.addEventListener("keydown", onKey);
  sort(kept.byBid);

  function close() {
    document.removeEventListener("keydown", onKey);
    clearTimeout(timer);
    clearTimeout(address);
    player.pause();
    flow.close();
    gantt.close();
  }
  return view;
}
