// Walks a static tree over true ranks: what workbench/whatif/walk.py does, for an answer at once.
// A tree is a list of nodes { path, parent, rank, depth, kids: Map(rank -> node) }, the root first.

function treeOf(paths) {
  const order = [...paths].map((path) => path.split(".").map(Number));
  order.sort(inOrder);
  const nodes = [{ path: "", parent: -1, rank: 0, depth: 0, kids: new Map() }];
  const at = new Map([["", 0]]);
  for (const ranks of order) {
    const path = ranks.join("."), above = at.get(ranks.slice(0, -1).join("."));
    const rank = ranks[ranks.length - 1];
    at.set(path, nodes.length);
    nodes[above].kids.set(rank, nodes.length);
    nodes.push({ path, parent: above, rank, depth: ranks.length, kids: new Map() });
  }
  return nodes;
}

// Level by level, siblings by rank.
function inOrder(a, b) {
  if (a.length !== b.length) return a.length - b.length;
  const i = a.findIndex((rank, k) => rank !== b[k]);
  return i < 0 ? 0 : a[i] - b[i];
}

// "0.1;1" -> all paths with their prefixes
function pathsOf(text) {
  const paths = new Set();
  for (const part of text.split(";").filter(Boolean)) {
    const ranks = part.split(".");
    for (let end = 1; end <= ranks.length; end++) paths.add(ranks.slice(0, end).join("."));
  }
  return paths;
}

// only leaves: prefixes are implied
function textOf(nodes) {
  return nodes.filter((node, i) => i && !node.kids.size).map((node) => node.path).join(";");
}

// How many nodes a step from `start` may accept; one number where the ranks decide.
function possibleAccepts(nodes, request, start) {
  const { ranks, limit, excluded } = request, cap = limit - start - 1, found = [];
  let states = [0];
  for (let depth = 0; ; depth++) {
    const at = start + depth;
    if (depth >= cap || at >= ranks.length) return [...found, depth];
    const rank = ranks[at], next = [];
    let mayStop = rank < 0;
    for (const state of states) {
      const kids = nodes[state].kids;
      if (rank >= 0) {
        if (kids.has(rank)) next.push(kids.get(rank)); else mayStop = true;
      } else {
        const no = excluded[at] ?? [];
        for (const [r, kid] of kids) if (!no.includes(r)) next.push(kid);
      }
    }
    if (!next.length) return [...found, depth];
    if (mayStop) found.push(depth);
    states = next;
  }
}

// The same where every rank is known.
function acceptsAt(nodes, { ranks, limit }, start) {
  const most = Math.min(limit - start - 1, ranks.length - start);
  let depth = 0;
  for (let node = 0; depth < most; depth++) {
    node = nodes[node].kids.get(ranks[start + depth]);
    if (node === undefined) break;
  }
  return depth;
}

// Steps of one request on the course of most (low) and of fewest steps (high).
function walkRequest(nodes, request) {
  const length = request.ranks.length;
  if (request.complete === undefined) request.complete = !request.ranks.includes(-1);
  if (request.complete) {
    const course = courseOf(length, (start) => acceptsAt(nodes, request, start));
    return { low: course, high: course, exact: true };
  }
  const most = new Int32Array(length + 1), fewest = new Int32Array(length + 1);
  const least = new Int32Array(length), best = new Int32Array(length), options = new Array(length);
  for (let start = length - 1; start >= 0; start--) {
    options[start] = possibleAccepts(nodes, request, start);
    fewest[start] = 1e9;
    for (const count of options[start]) {
      const end = Math.min(start + count + 1, length);
      if (1 + most[end] >= most[start]) { most[start] = 1 + most[end]; least[start] = count; }
      if (1 + fewest[end] <= fewest[start]) { fewest[start] = 1 + fewest[end]; best[start] = count; }
    }
  }
  const low = courseOf(length, (start) => least[start]);
  const exact = low.every(([start]) => options[start].length === 1);
  return { low, high: exact ? low : courseOf(length, (start) => best[start]), exact };
}

function courseOf(length, acceptedAt) {
  const course = [];
  for (let at = 0; at < length; at += course[course.length - 1][1] + 1) course.push([at, acceptedAt(at)]);
  return course;
}

// Totals over all requests, and per node in how many steps it was tested and accepted.
function evaluate(nodes, requests) {
  const tested = new Int32Array(nodes.length), accepted = new Int32Array(nodes.length);
  const found = { exact: true, kept: 0, low: outcome(), high: outcome(), tested, accepted };
  for (const request of requests) {
    const walked = walkRequest(nodes, request);
    found.exact &&= walked.exact;
    found.kept += request.ranks.length;
    for (const bound of ["low", "high"]) for (const [, count] of walked[bound]) add(found[bound], count);
    for (const [start, count] of walked.low) countNodes(nodes, request, start, count, tested, accepted);
  }
  for (const bound of [found.low, found.high]) bound.tau = bound.steps ? bound.emitted / bound.steps : 0;
  return found;
}

const outcome = () => ({ steps: 0, emitted: 0, histogram: [] });

function add(total, count) {
  total.steps += 1;
  total.emitted += count + 1;
  total.histogram[count] = (total.histogram[count] ?? 0) + 1;
}

function countNodes(nodes, { ranks, limit }, start, count, tested, accepted) {
  let node = 0;
  for (let at = start; at <= start + count && at < ranks.length && at - start < limit - start - 1; at++) {
    for (const kid of nodes[node].kids.values()) tested[kid] += 1;
    const next = nodes[node].kids.get(ranks[at]);
    if (at - start === count || next === undefined) break;
    node = next;
    accepted[node] += 1;
  }
}

const HOW = { m: "measured", i: "interpolated", e: "extrapolated" };

// Milliseconds of a step with this tree and how they are known; null without times.
function stepTime(nodes, times) {
  if (!times || nodes.length > times.score.length) return null;
  if (nodes.length === 1) return { ms: times.plain, how: times.plain_from ? "measured" : "interpolated" };
  const passes = nodes[nodes.length - 1].depth, rows = nodes.filter((node) => node.kids.size).length;
  const known = times.draft[`${passes},${rows}`];
  const inside = passes >= times.passes[0] && passes <= times.passes[1];
  const hows = [times.score_how[nodes.length - 1], known !== undefined ? "m" : inside ? "i" : "e"];
  const draft = known ?? passes * times.per_pass + rows * times.per_row;
  return { ms: draft + times.score[nodes.length - 1] + times.rest, how: HOW[["e", "i", "m"].find((how) => hows.includes(how))] };
}

// What a course would be worth: tokens per second and the estimate against plain decoding.
function speedOf(kept, steps, time, times) {
  if (!time || !steps) return { second: null, speedup: null };
  return { second: (1000 * kept) / (steps * time.ms), speedup: (kept * times.plain) / (steps * time.ms) };
}
