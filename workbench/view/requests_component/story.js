// What became of a request up to a step, in a line.
function storyOf(facts, at, k, { waiting, seated }) {
  const r = facts.requests, t = facts.moments.begin[at], parts = [];
  const end = r.ended[k], admitted = r.admitted[k];
  if (r.arrival[k] > t) parts.push(`comes in ${seconds(r.arrival[k] - t)}`);
  else if (waiting.includes(k)) parts.push(`waits for ${seconds(t - r.arrival[k])}`);
  else if (seated.includes(k)) parts.push(`in slot ${r.slot[k] + 1}, waited ${seconds(admitted - r.arrival[k])}`);
  else parts.push(ending(r.reason[k], r.kept[k]));
  if (r.first[k] >= 0 && r.first[k] <= t) parts.push(`first token after ${seconds(r.first[k] - r.arrival[k])}`);
  if (end >= 0 && end <= t) parts.push(`${seconds(end - r.arrival[k])} in all`);
  if (r.deadline[k] >= 0) parts.push(r.deadline[k] < (end >= 0 && end <= t ? end : t) ? "past its deadline" : `wanted within ${seconds(r.deadline[k] - r.arrival[k])}`);
  if (r.attempts[k] > 1) parts.push(`begun ${r.attempts[k]} times`);
  if (end >= 0 && end <= t && r.message[k]) parts.push(r.message[k]);
  return parts.join(" · ");
}

function ending(reason, tokens) {
  if (SERVED.has(reason)) return `served, ${tokens} tokens`;
  return reason ? `${reason.replace("-", " ")}${tokens ? ` after ${tokens} tokens` : ""}` : "never ended";
}
