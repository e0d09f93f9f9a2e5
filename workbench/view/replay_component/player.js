// Playing: a clock that says which stop is due, in recorded time or at a fixed pace.
// `stops` is the number of stops, `time(i)` when stop i begins in recorded milliseconds.
const FRAME_MS = 1000 / 24; // stops are not shown faster than this; faster ones are skipped

function createPlayer({ onStop, onState }) {
  let script = { stops: 0, time: () => 0, length: 0 };
  let speed = { times: 0, pace: 2 }, frame = 0, at = 0, origin = 0, base = 0;
  const playing = () => frame !== 0;

  const recorded = (i) => (i < script.stops ? script.time(i) : script.length);
  const due = (now) => {
    const gone = (now - origin) / 1000;
    if (speed.pace) return base + Math.floor(gone * speed.pace);
    const t = recorded(base) + gone * 1000 * speed.times;
    let low = base, high = script.stops;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (recorded(middle) <= t) low = middle; else high = middle - 1;
    }
    return low;
  };

  // How many stops pass between two that are shown: trees are asked for accordingly.
  function stride() {
    if (!playing()) return 1;
    const mean = speed.pace ? 1000 / speed.pace : script.length / Math.max(1, script.stops) / speed.times;
    return Math.max(1, Math.ceil(FRAME_MS / Math.max(mean, 1e-6)));
  }

  function tick(now) {
    const step = stride(), reached = due(now), over = reached >= script.stops;
    const shown = over ? script.stops - 1 : base + Math.floor((reached - base) / step) * step;
    if (shown > at) {
      at = shown;
      onStop(at);
    }
    if (over) pause();
    else frame = requestAnimationFrame(tick);
  }

  function restart() { // counts from here: after a jump, a new speed, a new run
    base = at;
    origin = performance.now();
  }

  function play() {
    if (playing() || script.stops < 2) return;
    if (at >= script.stops - 1) {
      at = 0;
      onStop(0);
    }
    restart();
    frame = requestAnimationFrame(tick);
    onState(true);
  }

  function pause() {
    cancelAnimationFrame(frame);
    frame = 0;
    onState(false);
  }

  return {
    play, pause, playing, stride,
    toggle: () => (playing() ? pause() : play()),
    load: (told) => { if (playing()) pause(); script = told; at = 0; },
    jumped: (to) => { at = to; restart(); },
    setSpeed: (word) => { // "2x": twice as recorded; "5": five stops a second
      speed = word.endsWith("x") ? { times: parseFloat(word), pace: 0 } : { times: 0, pace: parseFloat(word) };
      restart();
    },
  };
}
