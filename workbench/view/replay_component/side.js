// One run in the replay: its text, tree, times and strip, drawn for a step of it.
function createSide(section, { label, facts, fork, tree: treeOf, onPick, onFold, onRange }) {
  const $ = (selector) => section.querySelector(selector);
  const prose = createProse($(".prose"));
  const tree = createTree($(".stage"), { onFold });
  const strip = createStrip($(".strip svg"), { onPick });
  const timeline = createTimeline($(".times"), { onPick, onRange });
  const most = Math.max(4, ...facts.accepted);
  const before = [0]; // tokens written before each step
  for (const count of facts.kept) before.push(before[before.length - 1] + count);
  const total = facts.num_steps, last = total - 1;
  const length = facts.start[last] + facts.wall[last];
  let at = -1, drawn;
  drawKey($(".key"));
  prose.reset(facts.prompt, []);
  for (let i = 0; i < total; i++) prose.add(i, words(i));
  if (fork !== null) markFork();

  // The tokens of a step, those of one origin together: thousands of elements fewer. The token at
  // the fork stands by itself.
  function words(i) {
    const joined = [];
    for (let token = before[i]; token < before[i + 1]; token++) {
      const last = joined[joined.length - 1], origin = facts.mark[token];
      const apart = token === fork || token - 1 === fork;
      if (last && last[1] === origin && !apart) last[0] += facts.text[token];
      else joined.push([facts.text[token], origin, token]);
    }
    return joined;
  }

  // The step that wrote the token at an output position, the last one beyond the end.
  function stepAt(position) {
    let low = 0, high = last;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (before[middle] <= position) low = middle; else high = middle - 1;
    }
    return low;
  }

  // Recorded milliseconds when a token began to be worked on: within a step they share its time.
  function timeAt(position) {
    const i = stepAt(position), done = (position - before[i]) / Math.max(1, facts.kept[i]);
    return (facts.start[i] + Math.min(1, done) * facts.wall[i]) / 1000;
  }

  function stages(i) {
    const wall = facts.wall[i] || 1;
    return Object.entries(facts.stages).map(([name, spent]) => (
      { name, ms: (spent[i] / 1000).toFixed(2), share: spent[i] / wall }));
  }

  function show(step, { time = 0 } = {}) {
    const moved = step !== at;
    at = step;
    if (moved) {
      prose.mark(at, { into: true });
      const spent = stages(at);
      drawStages($(".stages"), spent);
      if (label) section.querySelectorAll(".lanes b").forEach((cell, k) => { cell.textContent = spent[k].ms; });
      strip.draw({ first: 0, total, at, accepted: (i) => facts.accepted[i], origin: (i) => facts.origin[i], most });
      timeline.show(at);
      const name = label ? `${label}, step` : "Draft tree of step";
      $(".which").textContent = `${name} ${at + 1} of ${total}: ${facts.words[facts.word[at]]}`;
      $(".stage svg").setAttribute("aria-label", $(".which").textContent);
    }
    showTree(time);
  }

  // While its tree is on the way the one before stays, dimmed; null says that there is none.
  function showTree(time) {
    const told = treeOf(at);
    $(".stage").classList.toggle("late", told === undefined);
    if (told !== undefined && told !== drawn) {
      tree.show(told, { time });
      drawn = told;
    }
    const note = $(".note");
    note.hidden = told !== null;
    note.textContent = "The tree of this step was not recorded.";
  }

  // Marks the first token that differs from the other run's.
  function markFork() {
    const step = stepAt(fork), at = words(step).findIndex(([, , token]) => token === fork);
    prose.at(step)[at]?.classList.add("fork");
  }

  return {
    show, showTree, stepAt, timeAt, before, total, length, tree, timeline,
    settle: () => showTree(0), // after trees have come, or gone
    close: () => { prose.close(); tree.close(); strip.close(); timeline.close(); },
  };
}
