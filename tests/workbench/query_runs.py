"""Small stored runs with scripted records, for tests of queries and pages."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent / "store"))

from store_records import done, request, step, texts

from workbench.store import Recorder, RunStatus


def write_run(
    folder: Path, *, method: str, steps: int, options: dict[str, Any] | None = None, **spec: Any
) -> str:
    """One finished run of one request; its id."""
    asked = {"method": method, "options": options or {}, "prompt": "once", "target": "tiny"} | spec
    recorder = Recorder(asked, texts=texts(), folder=folder)
    recorder.begin(mode="eager", plain_step_ns=4_000, environment={})
    recorder.request_started(request())
    for number in range(steps):
        recorder.append(step(number), 0)
    recorder.request_done(done())
    recorder.finish(RunStatus.FINISHED)
    return recorder.run_id
