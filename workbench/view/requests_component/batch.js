// The batch of one moment: who sits in which slot, what each was given of the step's nodes and
// what came of it; and who waits outside.
const MOST_SEATS = 48, CELL = 11, QUEUE_ROWS = 60;

const titled = (facts, k) => `#${facts.requests.id[k] + 1}`;
const clientOf = (facts, k) => facts.clients[facts.requests.client[k]];

// Places of the requests that wait and that sit in slots while moment `at` begins.
function present(facts, at) {
  const { begin } = facts.moments, r = facts.requests, t = begin[at], waiting = [], seated = [];
  for (let k = 0; k < r.id.length && r.arrival[k] <= t; k++) {
    if (r.ended[k] >= 0 && r.ended[k] <= t) continue;
    if (r.admitted[k] >= 0 && r.admitted[k] <= t) seated.push(k);
    else waiting.push(k);
  }
  return { waiting, seated };
}

function createBatch(section, { onChoose }) {
  const place = section.querySelector(".rows"), which = section.querySelector(".which");
  const more = section.querySelector(".more"), card = section.querySelector(".card");
  const rows = [];
  let facts = null, shown = [], byBid = false, widest = 1;

  function makeRow() {
    const el = htmlEl("div", "seat", place), row = { el };
    el.setAttribute("role", "row");
    const cell = (name, parent = el) => { const made = htmlEl("span", name, parent); made.setAttribute("role", "cell"); return made; };
    row.slot = cell("slot");
    row.who = htmlEl("button", "who", cell("name"));
    row.number = htmlEl("b", "", row.who);
    row.client = htmlEl("small", "", row.who);
    const answer = cell("answer");
    row.track = htmlEl("i", "", htmlEl("span", "track", answer));
    row.had = htmlEl("small", "", answer);
    const nodes = cell("nodes");
    row.drafted = htmlEl("i", "cells", nodes);
    row.took = htmlEl("i", "cells took", nodes);
    row.count = htmlEl("small", "", nodes);
    row.kept = cell("num kept");
    row.bid = cell("num bid");
    const at = rows.length;
    row.who.addEventListener("click", () => onChoose(shown[at].request));
    for (const event of ["pointerenter", "focusin"]) el.addEventListener(event, () => explain(at));
    for (const event of ["pointerleave", "focusout"]) el.addEventListener(event, () => { card.hidden = true; });
    rows.push(row);
    return row;
  }

  function set(told) {
    facts = told;
    const count = facts.groups.reduce((sum, { slots }) => sum + slots, 0);
    widest = 1;
    place.style.minHeight = `${Math.min(count, MOST_SEATS) * 31}px`; // a smaller batch moves nothing below it
  }

  // `shares` by the request's place: {nodes, depth, accepted, kept, had, bid}, or null while under way.
  function show(at, seated, shares, chosen) {
    const own = facts.moments.group[at], total = facts.groups.reduce((sum, { slots }) => sum + slots, 0);
    const all = total <= MOST_SEATS, seats = [];
    facts.groups.forEach(({ slots }, group) => {
      if (!all && group !== own) return;
      for (let slot = 0; slot < slots; slot++) seats.push({ group, slot, request: -1, share: null, rank: 0 });
    });
    for (const k of seated) {
      const seat = seats.find(({ group, slot }) => group === facts.requests.group[k] && slot === facts.requests.slot[k]);
      if (seat) Object.assign(seat, { request: k, share: shares?.get(k) ?? null });
    }
    const bids = seats.filter(({ share, group }) => share && group === own && share.bid !== null).sort((a, b) => b.share.bid - a.share.bid);
    bids.forEach((seat, rank) => { seat.rank = rank + 1; });
    if (byBid) seats.sort((a, b) => (b.share?.bid ?? -1) - (a.share?.bid ?? -1) || (b.share?.nodes ?? -1) - (a.share?.nodes ?? -1));
    shown = seats.slice(0, MOST_SEATS);
    for (const { share } of shown) if (share) widest = Math.max(widest, share.nodes);
    while (rows.length < shown.length) makeRow();
    rows.forEach((row, k) => fill(row, shown[k], at, bids.length, chosen));
    more.hidden = seats.length <= MOST_SEATS;
    more.textContent = `${seats.length - shown.length} more slots are not shown.`;
    section.classList.toggle("late", shares === null);
    head(at);
    if (!card.hidden) card.hidden = true;
  }

  function head(at) {
    const m = facts.moments, { label } = facts.groups[m.group[at]], budget = m.budget[at];
    const nodes = `${m.nodes[at]} nodes scored`, passes = m.draft_passes[at];
    which.textContent = `${label ? `${label}: ` : ""}${m.active[at]} in the batch, ${budget === null ? nodes : `${nodes} of ${budget} allowed`}, ${passes} draft ${passes === 1 ? "pass" : "passes"}`;
  }

  function fill(row, seat, at, bidders, chosen) {
    row.el.hidden = !seat;
    if (!seat) return;
    const { request, share, slot, group } = seat, r = facts.requests, free = request < 0;
    row.el.classList.toggle("free", free);
    row.el.classList.toggle("chosen", !free && request === chosen);
    row.el.classList.toggle("other", group !== facts.moments.group[at]);
    const { label } = facts.groups[group];
    row.slot.textContent = label ? `${label} · ${slot + 1}` : String(slot + 1);
    row.who.disabled = free;
    row.number.textContent = free ? "free" : titled(facts, request);
    row.client.textContent = free ? "" : clientOf(facts, request);
    const had = share ? share.had : 0, most = free ? 0 : r.most[request];
    row.track.style.width = most ? `${Math.min(100, (100 * had) / most)}%` : "0";
    const earlier = !free && r.first[request] >= 0 && r.first[request] < facts.since ? "+" : ""; // some came before what is known
    row.had.textContent = free ? "" : share ? `${had}${earlier} of ${most}` : "prefill";
    const nodes = share?.nodes ?? 0, accepted = share?.accepted ?? 0, unit = Math.min(CELL, 190 / widest);
    for (const [part, count] of [[row.drafted, nodes], [row.took, accepted]]) {
      part.style.width = `${count * unit}px`;
      part.style.setProperty("--unit", `${unit}px`);
    }
    row.count.textContent = share ? (nodes ? `${accepted} of ${nodes}` : "none") : "";
    row.kept.textContent = share ? `+${share.kept}` : "";
    row.bid.textContent = !share ? "" : share.bid === null ? "–" : share.bid.toFixed(2);
    row.el.dataset.rank = seat.rank || "";
    row.bid.title = seat.rank ? `${seat.rank} of ${bidders}` : "";
  }

  // Why a request got what it got, in words, beside its row.
  function explain(at) {
    const seat = shown[at];
    card.hidden = !seat || seat.request < 0 || !seat.share;
    if (card.hidden) return;
    const { share, request, rank } = seat, same = shown.filter(({ share: other, group }) => other && group === seat.group);
    const total = same.reduce((sum, { share: other }) => sum + other.nodes, 0), bidders = same.filter(({ share: other }) => other.bid !== null).length;
    card.replaceChildren();
    htmlEl("b", "", card, `${titled(facts, request)} `);
    htmlEl("span", "", card, clientOf(facts, request));
    const list = htmlEl("dl", "", card);
    const fact = (name, value) => { htmlEl("dt", "", list, name); htmlEl("dd", "", list, value); };
    fact("nodes scored", `${share.nodes} of ${total}${share.nodes ? `, to depth ${share.depth}` : ""}`);
    fact("accepted, kept", `${share.accepted}, ${share.kept}`);
    fact("expected of its nodes", share.bid === null ? "–" : `${share.bid.toFixed(2)} tokens`);
    htmlEl("p", "", card, reason(share, rank, bidders, total, facts.auction));
    const top = rows[at].el.offsetTop + rows[at].el.offsetHeight + 4;
    card.style.top = `${Math.min(top, section.clientHeight - 40)}px`;
  }

  return {
    set, show,
    sort: (by) => { byBid = by; },
    close: () => {},
  };
}

// `auction`: whether nodes went to whoever bid most; else the request's number was set before.
function reason(share, rank, bidders, total, auction) {
  if (!share.nodes) return auction && share.bid !== null
    ? "It won no node: more was expected of others' nodes, or of none at all, for what they cost."
    : "Nothing was drafted for it: speculation was off for this step, or it had one token left.";
  const part = `${Math.round((100 * share.nodes) / Math.max(1, total))} % of the nodes`;
  if (share.bid === null) return `It had ${part}. The method does not say what it expected of them.`;
  const met = share.accepted >= share.bid ? "They brought what was expected." : `They brought ${share.accepted}.`;
  if (!auction) return `It had ${part}; they were not auctioned. ${share.bid.toFixed(1)} tokens were expected of them. ${met}`;
  const place = bidders > 1 ? (rank === 1 ? "the highest bid" : rank === bidders ? "the lowest bid" : `bid ${rank} of ${bidders}`) : "the only bid";
  return `It won ${part} with ${place}: ${share.bid.toFixed(1)} tokens were expected of them. ${met}`;
}

function createQueue(section, { onChoose }) {
  const list = section.querySelector("ol"), title = section.querySelector(".how-many");
  const items = [];
  let facts = null, shown = [];

  function makeItem() {
    const el = htmlEl("li", "", list), button = htmlEl("button", "who", el), at = items.length;
    const item = { el, number: htmlEl("b", "", button), client: htmlEl("small", "", button) };
    item.time = htmlEl("span", "time", el);
    item.bar = htmlEl("i", "", htmlEl("span", "track", el));
    button.addEventListener("click", () => onChoose(shown[at]));
    items.push(item);
    return item;
  }

  function show(at, waiting, chosen) {
    const t = facts.moments.begin[at], r = facts.requests;
    shown = waiting.slice(0, QUEUE_ROWS);
    while (items.length < shown.length) makeItem();
    const longest = Math.max(1, ...waiting.map((k) => t - r.arrival[k]));
    items.forEach((item, i) => {
      const k = shown[i];
      item.el.hidden = k === undefined;
      if (k === undefined) return;
      item.el.classList.toggle("chosen", k === chosen);
      item.number.textContent = titled(facts, k);
      item.client.textContent = clientOf(facts, k);
      const late = r.deadline[k] >= 0 && r.deadline[k] < t;
      item.time.textContent = `${seconds(t - r.arrival[k])}${late ? " · late" : ""}`;
      item.bar.style.width = `${(100 * (t - r.arrival[k])) / longest}%`;
    });
    const rest = waiting.length - shown.length;
    title.textContent = waiting.length ? `Queue: ${waiting.length} waiting${rest ? `, ${shown.length} shown` : ""}` : "Queue: nobody waits";
  }

  return { set: (told) => { facts = told; }, show };
}
