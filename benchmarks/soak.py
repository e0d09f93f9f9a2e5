"""Is anything lost under a long load? Slots, file handles, threads and memory over minutes.

An open loop of requests with random lengths, cancels, deadlines, timeouts and several clients is
served for minutes and stored, as `draftree load` does it. Every second this process is asked for
its memory (RSS), file handles and threads. The first part warms up; growth is that after it: by
the medians of the first and the last tenth of the rest, and as a slope (Theil-Sen, which a spike
does not move). At the end the scheduler must hold nobody, its bookkeeping must add up, every slot
must take a request again, and each request must be in the store exactly once.

    python benchmarks/soak.py                   # ten minutes
    python benchmarks/soak.py --minutes 0.3     # to see that it works

DuckDB keeps pages of the growing file in memory, up to its limit of 512 MB: the size of the store
stands beside the memory. The last line is JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table
from scipy.stats import theilslopes

from engine.errors import UserError
from engine.requests import Request
from engine.serving.scheduler import Scheduler
from workbench.events import Event
from workbench.loading.run import execute
from workbench.loading.spec import LoadSpec
from workbench.loading.state import LoadState
from workbench.store import open_run, run_file, serving

#: share of the time that warms up, and its bounds in seconds
WARM_UP, LEAST_WARM_UP_S, MOST_WARM_UP_S = 0.2, 3.0, 120.0
EVERY_S = 1.0
#: memory that may be gained after warming up, beside what the store gained
MOST_GAIN_MB = 64.0


class Reading(NamedTuple):
    """The process at one moment."""

    second: float
    rss_mb: float
    handles: int
    threads: int
    store_mb: float
    slots: int  # in use
    ended: int  # requests


class Watch(threading.Thread):
    """Reads the process every second while the load goes on."""

    def __init__(self, runs: Path, state: LoadState) -> None:
        super().__init__(name="soak-watch", daemon=True)
        self.readings: list[Reading] = []
        self.scheduler: Scheduler | None = None
        self._runs, self._state = runs, state
        self._process = psutil.Process()
        self._begun = 0.0
        self._done = threading.Event()

    def begin(self, scheduler: Scheduler) -> None:
        """The scheduler is about to serve."""
        self.scheduler, self._begun = scheduler, time.monotonic()
        self.start()

    def finish(self) -> None:
        """Read no more."""
        self._done.set()
        if self.ident is not None:
            self.join()

    def read(self) -> Reading:
        """The process now."""
        with self._process.oneshot():
            files = sum(file.stat().st_size for file in self._runs.glob("*.duckdb*"))
            return Reading(
                time.monotonic() - self._begun,
                self._process.memory_info().rss / 2**20,
                self._process.num_fds(),
                self._process.num_threads(),
                files / 2**20,
                self.scheduler.running if self.scheduler else 0,
                self._state.snapshot().counts.ended,
            )

    def run(self) -> None:
        while not self._done.wait(EVERY_S):
            self.readings.append(self.read())


def main() -> int:
    """Serve, watch, judge, print; exit code 1 where something was lost."""
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="draftree-soak-") as scratch:
        runs = Path(scratch)
        state = LoadState()
        watch = Watch(runs, state)
        spec = spec_from(arguments)
        state.begin(spec)
        handles_before = psutil.Process().num_fds()
        try:
            finished = execute(
                spec, folded(state), lambda: False, runs=runs, on_scheduler=watch.begin
            )
        except UserError as error:
            print(f"Error: {error}", file=sys.stderr)
            return 2
        finally:
            watch.finish()
        gc.collect()
        found = judged(watch, state, finished.run_id, runs)
        found |= {
            "status": str(finished.status), "message": finished.message,
            "handles": found["handles"] | {"before_models": handles_before},
            "metrics": finished.metrics,
        }  # fmt: skip
    print_readings(watch.readings)
    print(json.dumps({"benchmark": "soak", "minutes": arguments.minutes, **found}))
    return 0 if found["kept_everything"] and finished.status == "finished" else 1


def folded(state: LoadState) -> Any:
    """Takes events in as a page would: the live state must not grow either."""
    lock = threading.Lock()

    def take(event: Event) -> None:
        with lock:
            state.fold(event)

    return take


def spec_from(arguments: argparse.Namespace) -> LoadSpec:
    """The load: as much at random as there is."""
    return LoadSpec(
        rate=arguments.rate, duration_s=60 * arguments.minutes, clients=4, weights=[4, 2, 1, 1],
        slots=arguments.slots, prompt_tokens="uniform:16-120", answer_tokens="lognormal:32:0.6",
        max_new_tokens=96, cancel_fraction=0.3, cancel_after_s="lognormal:0.5:1",
        deadline_s="uniform:0.5-5", timeout_s=20, policy="deadline",
        max_waiting=4 * arguments.slots,
        options={"policy": "auto"}, threads=arguments.threads, execution=arguments.execution,
        seed=arguments.seed,
    )  # fmt: skip


# --- judging ------------------------------------------------------------------------------


def judged(watch: Watch, state: LoadState, run_id: str, runs: Path) -> dict[str, Any]:
    """What was kept and what grew."""
    assert watch.scheduler is not None, "nothing was served"
    last = watch.read()
    readings = [*watch.readings, last]
    warm_s = min(max(WARM_UP * last.second, LEAST_WARM_UP_S), MOST_WARM_UP_S)
    warm = [reading for reading in readings if reading.second >= warm_s] or readings[-1:]
    memory = growth(warm, "rss_mb")
    store = growth(warm, "store_mb")
    slots = slots_left(watch.scheduler)
    stored = stored_once(run_id, runs, state)
    handles = {
        "warm": int(np.median([reading.handles for reading in warm])), "end": last.handles,
        "most": max(reading.handles for reading in warm),
    }  # fmt: skip
    gained = memory["gained"] - max(0.0, store["gained"])
    kept = {
        "slots": slots["in_use"] == 0 and slots["usable"] == slots["all"],
        "handles": handles["end"] <= handles["warm"],
        "threads": last.threads <= max(reading.threads for reading in warm),
        "memory": gained <= MOST_GAIN_MB,
        "requests": stored["once"],
    }
    return {
        "kept_everything": all(kept.values()), "kept": kept, "slots": slots, "handles": handles,
        "threads": {"warm": warm[0].threads, "end": last.threads}, "rss_mb": memory,
        "store_mb": store, "gained_beside_store_mb": gained, "requests": stored,
        "readings": len(readings), "warm_after_s": warm_s,
    }  # fmt: skip


def growth(readings: list[Reading], name: str) -> dict[str, float]:
    """Medians of the first and last tenth, what lies between, and the slope per minute."""
    values = np.array([getattr(reading, name) for reading in readings], float)
    seconds = np.array([reading.second for reading in readings])
    tenth = max(1, len(values) // 10)
    first, last = float(np.median(values[:tenth])), float(np.median(values[-tenth:]))
    slope = float(theilslopes(values, seconds).slope) * 60 if len(values) > 2 else 0.0
    return {"first": first, "last": last, "gained": last - first, "per_minute": slope}


def slots_left(scheduler: Scheduler) -> dict[str, int]:
    """Slots in use after the load, and how many take a request again."""
    scheduler.check_integrity()
    in_use, waiting = scheduler.running, scheduler.waiting
    (pair,) = scheduler._pairs.values()
    engine: Any = pair.decoder
    number = len(engine._slots)
    while engine.num_free:
        engine.add(Request(10_000_000, "", (1, 2, 3), 4))
    return {"in_use": in_use, "waiting": waiting, "all": number, "usable": len(engine.cancel())}


def stored_once(run_id: str, runs: Path, state: LoadState) -> dict[str, Any]:
    """Whether the store has each request that came exactly once, ended."""
    came = state.snapshot().counts.arrived
    with open_run(run_id, runs) as run:
        rows = serving.arrivals(run)
        steps = len(run.steps())
    ended = int(rows["reason"].notna().sum())
    return {
        "came": came, "stored": len(rows), "ended": ended, "steps": steps,
        "once": came == len(rows) == ended == rows["request"].nunique(),
        "store_mb": run_file(run_id, runs).stat().st_size / 2**20,
    }  # fmt: skip


# --- printing -----------------------------------------------------------------------------


def print_readings(readings: list[Reading], *, most: int = 20) -> None:
    """Some of the readings, evenly."""
    table = Table(box=None, pad_edge=False)
    for name in Reading._fields:
        table.add_column(name.replace("_mb", ", MB").replace("second", "s"), justify="right")
    step = max(1, len(readings) // most)
    for reading in readings[::step]:
        table.add_row(
            f"{reading.second:.0f}", f"{reading.rss_mb:.0f}", str(reading.handles),
            str(reading.threads), f"{reading.store_mb:.1f}", str(reading.slots),
            str(reading.ended),
        )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 100, highlight=False).print(table)


def parse_arguments() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=4.0, help="requests per second")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--execution", default="auto", help="auto, eager or compiled")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
