"""The run shown before there is any: a real one, stored with the package.

`example_run.json` holds records, not drawings, so that it follows every change of the view.
`python -m workbench.view.example [RUN-SPEC.json]` decodes and stores it anew, by its own spec or
another.
"""

from __future__ import annotations

import functools
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from engine.records import Origin, StageTimes, StepRecord, Verdict
from engine.tree import Children, TokenTree
from workbench import metrics
from workbench.events import StepDone
from workbench.spec import RunSpec
from workbench.view.live import EXAMPLE, Live

_FILE = "example_run.json"


@functools.cache
def example() -> Live:
    """The stored example, or an idle view where the package has none."""
    file = files("workbench.view") / _FILE
    return decode(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else Live()


def encode(live: Live) -> dict[str, Any]:
    """A finished run as plain JSON: enough for `decode`."""
    assert live.spec is not None
    return {
        "spec": live.spec.model_dump(mode="json", exclude_defaults=True),
        "mode": live.mode,
        "prompt": live.prompt,
        "plain_step_ns": live.plain_step_ns,
        "steps": [_encode_step(step) for step in live.steps],
    }


def decode(stored: dict[str, Any]) -> Live:
    """The run of `encode`, as an example."""
    steps = [_decode_step(number, step) for number, step in enumerate(stored["steps"])]
    return Live(
        status=EXAMPLE,
        run_id=EXAMPLE,
        spec=RunSpec(**stored["spec"]),
        mode=stored["mode"],
        prompt=stored["prompt"],
        plain_step_ns=stored["plain_step_ns"],
        steps=steps,
        num_steps=len(steps),
        summary=metrics.summarise([step.record for step in steps]),
    )


_TREE = {
    "tokens_M": np.int64,
    "parents_M": np.int32,
    "rank_M": np.int32,
    "draft_logprob_M": np.float32,
    "source_M": np.uint8,
    "round_added_M": np.int16,
    "round_pruned_M": np.int16,
}
_VERDICT = {"fate_N": np.uint8, "accept_prob_N": np.float32}
_RECORD = {"target_logprob_M": np.float32, "emitted_logprob": np.float32, "top2_gap": np.float32}


def _encode_step(step: StepDone) -> dict[str, Any]:
    record, tree, verdict = step.record, step.record.tree, step.record.verdict
    stored: dict[str, Any] = {name: _plain(getattr(tree, name)) for name in _TREE}
    stored |= {name: _plain(getattr(verdict, name)) for name in _VERDICT}
    stored |= {name: _plain(getattr(record, name)) for name in _RECORD}
    return stored | {
        "num_nodes": tree.num_nodes,
        "children": str(tree.children),
        "draft_passes": tree.draft_passes,
        "path": verdict.path_A,
        "origin": int(verdict.origin),
        "emitted": record.emitted,
        "num_kept": record.num_kept,
        "position": record.position,
        "times": list(record.times),
        "pieces": step.pieces_M,
        "text": step.emitted_text,
    }


def _decode_step(number: int, stored: dict[str, Any]) -> StepDone:
    arrays: dict[str, Any] = {
        name: _array(stored[name], dtype) for name, dtype in (_TREE | _VERDICT | _RECORD).items()
    }
    depth = np.zeros(len(arrays["parents_M"]), np.int32)
    for node in range(1, len(depth)):
        depth[node] = depth[arrays["parents_M"][node]] + 1
    tree = TokenTree(
        **{name: arrays[name] for name in _TREE},
        depth_M=depth,
        num_nodes=stored["num_nodes"],
        children=Children(stored["children"]),
        draft_passes=stored["draft_passes"],
    )
    verdict = Verdict(
        path_A=stored["path"],
        next_token=stored["emitted"][-1],
        origin=Origin(stored["origin"]),
        **{name: arrays[name] for name in _VERDICT},
    )
    record = StepRecord(
        request=0,
        step=number,
        position=stored["position"],
        tree=tree,
        verdict=verdict,
        emitted=stored["emitted"],
        num_kept=stored["num_kept"],
        times=StageTimes(*stored["times"]),
        batch_step=number,
        **{name: arrays[name] for name in _RECORD},
    )
    return StepDone(record, stored["pieces"], stored["text"])


def _plain(values: np.ndarray) -> list[Any]:
    if values.dtype.kind == "f":
        return [None if np.isnan(value) else round(float(value), 4) for value in values]
    return values.tolist()


def _array(values: list[Any], dtype: Any) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype)


def main(spec: RunSpec) -> None:
    """Decode `spec` and store the run as the example."""
    from workbench.view.live import from_snapshot
    from workbench.worker import WorkerHandle

    handle = WorkerHandle()
    handle.start(spec)
    handle.wait()
    live = from_snapshot(handle.snapshot())
    handle.close()
    if live.error or not live.steps:
        raise SystemExit(live.error or "The run decoded nothing.")
    text = json.dumps(encode(live), ensure_ascii=False, separators=(",", ":"))
    Path(__file__).with_name(_FILE).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    import sys

    stored = example().spec
    assert stored is not None
    if len(sys.argv) > 1:
        stored = RunSpec.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    main(stored)
