// Figures up to the end of the step that is shown: latencies of requests, utilisation of lanes.
const LATENCY_NAMES = { queue: "Waiting", ttft: "First token", tpot: "Each further token", e2el: "Whole answer" };
const LATENCY_HELP = {
  queue: "queue: from arrival until its prompt begins to be read",
  ttft: "ttft: from arrival to the end of the step that brought the first token",
  tpot: "tpot: (whole answer − first token) / (tokens − 1)",
  e2el: "e2el: from arrival to the end of the answer",
};

function createSoFar(root) {
  const $ = (selector) => root.querySelector(selector);
  let facts = null, cells = {}, bars = [];

  function set(told) {
    facts = told;
    const body = $(".latency tbody"), list = $(".use dl");
    body.replaceChildren();
    list.replaceChildren();
    cells = {};
    bars = [];
    for (const [name, label] of Object.entries(LATENCY_NAMES)) {
      const row = htmlEl("tr", "", body), head = htmlEl("th", "", row, label);
      head.scope = "row";
      head.title = LATENCY_HELP[name];
      cells[name] = [0, 1, 2].map(() => htmlEl("td", "", row, "–"));
    }
    const ranks = new Set(facts.lanes.map(({ rank }) => rank)).size;
    const names = facts.lanes.map(({ rank, lane }) => (ranks > 1 ? `${lane} ${rank}` : lane));
    if (facts.moments.group) names.push("slots");
    for (const name of names) {
      htmlEl("dt", "", list, name);
      const bar = htmlEl("i", name === "slots" ? "slots" : `l-${name.split(" ")[0]}`, htmlEl("span", "track", htmlEl("dd", "", list)));
      bars.push({ bar, value: htmlEl("dd", "num", list) });
    }
    $(".use h2").textContent = facts.since ? "Utilisation of these steps" : "Utilisation so far";
  }

  function latency(until) {
    const done = lastUpTo(facts.latency.e2el.at, until);
    $(".so-far").textContent = done < 0 ? "Latency so far: nobody is served yet" : `Latency so far: ${facts.latency.e2el.count[done]} served`;
    for (const [name, row] of Object.entries(cells)) {
      const { at, ms } = facts.latency[name], i = lastUpTo(at, until);
      row.forEach((cell, q) => { cell.textContent = i < 0 ? "–" : seconds(ms[i][q] * 1000); });
    }
  }

  function use(moment) {
    const passed = Math.max(1, facts.moments.end[moment] - facts.since);
    bars.forEach(({ bar, value }, k) => {
      const share = k < facts.lanes.length ? facts.busy[k][moment] / passed : facts.moments.seats[moment] / 100;
      bar.style.width = `${Math.min(100, 100 * share)}%`;
      value.textContent = `${Math.round(100 * share)} %`;
    });
  }

  return { set, latency, use };
}
