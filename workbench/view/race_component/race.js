// Recorded runs of one prompt typed out side by side, by their own clocks. One payload, no server.
const PLACES = ["1st", "2nd", "3rd", "4th"];

export default function (component) {
  return mount(component, createRace, { identity: null, at: 0, speed: 1, prefill: false });
}

function createRace(root, kept) {
  const $ = (selector) => root.querySelector(selector);
  const seek = $(".seek"), speed = $(".speed"), prefill = $(".prefill");
  let data = null, lanes = [], end = 0, frame = 0, last = 0;
  speed.value = String(kept.speed);
  prefill.checked = kept.prefill;

  function update(next) {
    if (data?.identity === next.identity) return;
    stop();
    data = next;
    if (kept.identity !== data.identity) Object.assign(kept, { identity: data.identity, at: 0 });
    $(".lanes").style.setProperty("--lanes", data.lanes.length);
    $(".lanes").replaceChildren();
    lanes = data.lanes.map((lane) => createLane(lane, data.prompt, $(".lanes")));
    $(".parting").hidden = !data.difference;
    $(".parting").textContent = data.difference;
    measure();
    go(kept.at);
  }

  // Finishing times and places depend on whether prefill counts.
  function measure() {
    for (const lane of lanes) lane.measure(kept.prefill);
    end = Math.max(...lanes.map((lane) => lane.finish));
    const times = lanes.map((lane) => lane.finish);
    for (const lane of lanes) lane.rank(times.filter((time) => time < lane.finish).length);
  }

  function go(at) {
    kept.at = Math.min(Math.max(0, at), end);
    for (const lane of lanes) lane.show(kept.at);
    $(".clock b").textContent = (kept.at / 1000).toFixed(2);
    seek.value = end ? Math.round((1000 * kept.at) / end) : 0;
    seek.setAttribute("aria-valuetext", `${(kept.at / 1000).toFixed(1)} seconds`);
    root.dataset.at = kept.at.toFixed(1);
    root.dataset.state = frame ? "playing" : kept.at >= end ? "over" : "paused";
  }

  function tick(now) {
    const passed = now - last;
    last = now;
    frame = kept.at >= end ? 0 : requestAnimationFrame(tick);
    go(kept.at + passed * kept.speed);
    if (kept.at >= end) stop();
  }

  function play() {
    if (frame) return stop();
    if (kept.at >= end) go(0);
    last = performance.now();
    frame = requestAnimationFrame(tick);
    return label();
  }

  function stop() {
    cancelAnimationFrame(frame);
    frame = 0;
    label();
  }

  function label() {
    const over = kept.at >= end && end > 0, button = $('[data-do="play"]');
    const name = frame ? "Pause" : over ? "Again" : "Play";
    button.querySelector("span").textContent = frame ? "❚❚" : "▶";
    button.querySelector("b").textContent = name;
    button.setAttribute("aria-label", name);
    root.dataset.state = frame ? "playing" : over ? "over" : "paused";
    if (over && !frame) $(".said").textContent = lanes.map((lane) => lane.said).join("; ");
  }

  const actions = { play, restart: () => { const playing = frame; stop(); go(0); if (playing) play(); else label(); } };
  root.addEventListener("click", (event) => actions[event.target.closest("[data-do]")?.dataset.do]?.());
  speed.addEventListener("change", () => { kept.speed = Number(speed.value); });
  prefill.addEventListener("change", () => {
    kept.prefill = prefill.checked;
    measure();
    go(kept.at);
    label();
  });
  seek.addEventListener("input", () => { go((end * seek.value) / 1000); label(); });

  function onKey(event) {
    const target = event.composedPath()[0];
    if (event.ctrlKey || event.metaKey || event.altKey || !(root.contains(target) || target === document.body)) return;
    if (target.closest?.("button, select, input")) return;
    const action = { " ": "play", k: "play", r: "restart", R: "restart" }[event.key];
    if (!action) return;
    event.preventDefault();
    actions[action]();
  }
  document.addEventListener("keydown", onKey);

  function close() {
    cancelAnimationFrame(frame);
    frame = 0;
    document.removeEventListener("keydown", onKey);
  }
  return { update, close };
}

function createLane(lane, prompt, parent) {
  const el = htmlEl("section", "panel lane", parent);
  const who = htmlEl("div", "who", el), name = htmlEl("h3", "", who, lane.label);
  htmlEl("small", "", name, lane.detail);
  const mark = htmlEl("span", "place", who);
  const bar = htmlEl("i", "", htmlEl("div", "track", el));
  const facts = htmlEl("dl", "", el), values = {};
  for (const [key, label] of Object.entries({ tokens: `of ${lane.tokens} tokens`, second: "tokens/s", tau: "tokens/step" })) {
    values[key] = htmlEl("dd", "", facts);
    htmlEl("dt", "", facts, label);
  }
  const box = htmlEl("div", "prose tok", el), prose = createProse(box);
  const { bursts } = lane;
  let offset = 0, drawn = -1, tokens = 0;
  const view = { finish: 0, said: "", measure, rank, show };

  function measure(counted) {
    offset = counted ? lane.prefill : 0;
    view.finish = offset + (bursts.length ? bursts[bursts.length - 1][0] : 0);
    drawn = -1;
  }

  function rank(place) {
    const time = `${(view.finish / 1000).toFixed(view.finish < 995 ? 3 : 2)} s`;
    mark.textContent = `${PLACES[place]} · ${time}`;
    view.said = `${lane.label} ${PLACES[place]} in ${time}`;
    el.classList.toggle("first", place === 0);
  }

  // All that was written up to `at` milliseconds of the race.
  function show(at) {
    let count = 0; // steps that are done: few come between two frames
    if (drawn >= 0 && (!drawn || bursts[drawn - 1][0] + offset <= at)) count = drawn;
    while (count < bursts.length && bursts[count][0] + offset <= at + 1e-6) count += 1;
    if (count !== drawn) write(count);
    const done = count === bursts.length;
    el.classList.toggle("done", done);
    const since = (done ? view.finish : at) - offset;
    values.second.textContent = since > 0 && count ? ((1000 * tokens) / since).toFixed(0) : "–";
  }

  function write(count) {
    if (drawn < 0 || count < drawn) {
      prose.reset(prompt, []);
      drawn = tokens = 0;
    }
    for (const fresh of box.querySelectorAll(".new")) fresh.classList.remove("new");
    const few = count - drawn < 4;
    for (; drawn < count; drawn++) {
      prose.add(drawn, bursts[drawn][1]);
      if (few) for (const span of prose.at(drawn)) span.classList.add("new");
      tokens += bursts[drawn][1].length;
    }
    prose.toEnd();
    bar.style.width = `${lane.tokens ? (100 * tokens) / lane.tokens : 0}%`;
    values.tokens.textContent = tokens;
    values.tau.textContent = count ? (tokens / count).toFixed(2) : "–";
    el.dataset.tokens = tokens;
  }

  return view;
}
