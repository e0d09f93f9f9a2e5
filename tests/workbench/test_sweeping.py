"""Sweeps: what is measured, what is kept, what is not measured again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_comparisons import gain, make_comparison

from engine.errors import DecodeError, UserError
from workbench.comparing import result
from workbench.comparing.result import CompareSpec, Comparison
from workbench.events import MeasuringStarted, Progress
from workbench.sweeping import keeping
from workbench.sweeping.frame import axes, best_over_rest, cell_frame, sweep_rows
from workbench.sweeping.keeping import load_sweep, save_sweep, sweep_names
from workbench.sweeping.run import sweep
from workbench.sweeping.spec import EXAMPLE, SweepSpec, build_sweep, read_sweep


class Bench:
    """Stands in for `compare`: known speedups at once, and a note of what was asked for."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.parts: list[list[str]] = []
        self.before: Callable[[], None] = lambda: None
        self.status = "finished"
        self.broken: list[str] = []

    def __call__(self, spec: CompareSpec, emit: Any, should_stop: Any, **known: Any) -> Comparison:
        self.before()
        self.parts.append(spec.methods)
        assert spec.baselines == []
        emit(MeasuringStarted("compare-x"))
        emit(Progress("warm-up", "Warming up a", 0.5))
        emit(Progress("measure", "code: prompt 1 of 3, a", 0.5))
        found = make_comparison(spec, sweep=known["sweep"], status=self.status, broken=self.broken)
        result.save(found, self.runs)
        return found

    @property
    def measured(self) -> list[str]:
        return [label for part in self.parts for label in part]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def bench(runs: Path) -> Bench:
    return Bench(runs)


def spec(**changes: Any) -> SweepSpec:
    values = {
        "name": "tree-size",
        "methods": ["dynamic-tree:nodes=[4,6,8],depth=[3,4]"],
        "workloads": ["code"],
        "max_new_tokens": 20,
        "baselines": [],
        "together": 2,
    }
    return SweepSpec(**values | changes)


def test_all_cells_are_measured_once_in_parts(runs: Path, bench: Bench) -> None:
    events: list[Any] = []
    found = sweep(spec(baselines=["hf-generate"]), events.append, runs=runs, measure=bench)
    assert bench.measured == ["hf-generate", *spec().cells()]
    assert max(map(len, bench.parts)) == 2
    assert (found.status, found.left) == ("finished", [])
    starts = [event for event in events if isinstance(event, MeasuringStarted)]
    assert starts == [MeasuringStarted("tree-size")]
    fractions = [e.fraction for e in events if isinstance(e, Progress) and e.phase == "measure"]
    assert fractions == sorted(fractions)
    assert 0 < fractions[0] < fractions[-1] < 1
    messages = [event.message for event in events if isinstance(event, Progress)]
    assert messages[0].startswith("Cell 1 of 7: Warming up")
    stored = load_sweep("tree-size", runs)
    assert stored.cells == found.cells
    assert result.load(stored.cells["hf-generate"], runs).sweep == "tree-size"


def test_a_stopped_sweep_goes_on_without_what_is_done(runs: Path, bench: Bench) -> None:
    stop: list[bool] = []

    def stop_in_the_second_part() -> None:
        if len(bench.parts) == 1:
            bench.status = "cancelled"

    bench.before = stop_in_the_second_part
    found = sweep(spec(), runs=runs, measure=bench)
    assert found.status == "cancelled"
    assert len(found.left) == 4, "the part that was cut short does not count"
    again = Bench(runs)
    found = sweep(spec(), lambda event: None, lambda: bool(stop), runs=runs, measure=again)
    assert found.status == "finished"
    assert again.measured == spec().cells()[2:]
    third = Bench(runs)
    assert sweep(spec(), runs=runs, measure=third).status == "finished"
    assert third.parts == []


def test_a_crash_loses_one_part_and_no_more(runs: Path, bench: Bench) -> None:
    def crash() -> None:
        if len(bench.parts) == 2:
            raise DecodeError("out of memory")

    bench.before = crash
    with pytest.raises(DecodeError):
        sweep(spec(), runs=runs, measure=bench)
    stored = load_sweep("tree-size", runs)
    assert (stored.status, len(stored.cells)) == ("failed", 4)
    again = Bench(runs)
    sweep(spec(), runs=runs, measure=again)
    assert again.measured == spec().cells()[4:]


def test_a_killed_process_reads_as_interrupted(runs: Path, bench: Bench) -> None:
    found = sweep(spec(), runs=runs, measure=bench)
    found.status, found.pid, found.pid_started = "running", 2**22 - 1, 1.0
    found.cells = dict(list(found.cells.items())[:2])
    save_sweep(found, runs)
    assert load_sweep("tree-size", runs).status == "interrupted"
    again = Bench(runs)
    assert sweep(spec(), runs=runs, measure=again).status == "finished"
    assert again.measured == spec().cells()[2:]


def test_a_sweep_under_way_elsewhere_is_left_alone(runs: Path, bench: Bench) -> None:
    found = sweep(spec(), runs=runs, measure=bench)
    found.status, found.pid, found.pid_started = "running", os.getppid(), None
    save_sweep(found, runs)
    with pytest.raises(UserError, match=f"under way in process {os.getppid()}"):
        sweep(spec(), runs=runs, measure=bench)


def test_cells_may_join_but_not_other_settings(runs: Path, bench: Bench) -> None:
    sweep(spec(), runs=runs, measure=bench)
    more = Bench(runs)
    wider = spec(methods=["dynamic-tree:nodes=[4,6,8,12],depth=[3,4]"])
    found = sweep(wider, runs=runs, measure=more)
    assert more.measured == ["dynamic-tree:nodes=12,depth=3", "dynamic-tree:nodes=12,depth=4"]
    assert len(found.cells) == 8
    with pytest.raises(UserError, match=r"max_new_tokens 20, and now it is 24.*another name"):
        sweep(spec(max_new_tokens=24), runs=runs, measure=more)
    fresh = Bench(runs)
    sweep(spec(max_new_tokens=24), runs=runs, fresh=True, measure=fresh)
    assert fresh.measured == spec().cells()


def test_an_arm_that_breaks_off_is_told_and_tried_again(runs: Path, bench: Bench) -> None:
    bench.broken = ["dynamic-tree:nodes=6,depth=3"]
    found = sweep(spec(), runs=runs, measure=bench)
    assert found.failed == {"dynamic-tree:nodes=6,depth=3": "It broke."}
    assert found.left == ["dynamic-tree:nodes=6,depth=3"]
    again = Bench(runs)
    assert sweep(spec(), runs=runs, measure=again).failed == {}
    assert again.measured == ["dynamic-tree:nodes=6,depth=3"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"methods": ["dynamic-tree:nodes=[4,x]"]}, "nodes of dynamic-tree is 'x'"),
        ({"methods": ["nope:a=[1,2]"]}, "Method 'nope' is unknown"),
        ({"methods": ["static-tree:expansion=[2,2|0]"]}, "vector '0' is malformed"),
        ({"methods": []}, "names no method"),
    ],
)
def test_wrong_cells_are_found_before_anything_is_measured(
    runs: Path, bench: Bench, change: dict, reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        sweep(spec(**change), runs=runs, measure=bench)
    assert bench.parts == []
    assert sweep_names(runs) == []


# --- frames ---------------------------------------------------------------------------------


def test_cells_as_a_frame_with_those_that_are_left(runs: Path, bench: Bench) -> None:
    bench.before = lambda: setattr(bench, "status", "cancelled" if bench.parts else "finished")
    found = sweep(spec(), runs=runs, measure=bench)
    rows = sweep_rows(found, runs)
    cells = cell_frame(found, rows)
    assert len(cells) == 6
    assert cells["measured"].tolist() == [True, True, False, False, False, False]
    assert cells["option.nodes"].tolist() == [4, 4, 6, 6, 8, 8]
    assert axes(cells) == ["nodes", "depth"]
    assert cells.loc[0, "speedup"] == pytest.approx(gain(cells.loc[0, "arm"]), rel=0.05)
    assert cells["speedup"].isna().sum() == 4
    assert cell_frame(found, [])["measured"].tolist() == [False] * 6


def test_the_best_over_the_rest(runs: Path, bench: Bench) -> None:
    found = sweep(spec(), runs=runs, measure=bench)
    cells = cell_frame(found, sweep_rows(found, runs))
    best = best_over_rest(cells, ["nodes"], "speedup")
    assert best["option.nodes"].tolist() == [4, 6, 8]
    assert best["option.depth"].tolist() == [4, 4, 4], "depth 4 is made to be the fastest"
    both = best_over_rest(cells, ["nodes", "depth"], "speedup")
    assert len(both) == 6


# --- files ----------------------------------------------------------------------------------


def test_the_example_is_a_sweep(tmp_path: Path) -> None:
    file = tmp_path / "example.toml"
    file.write_text(EXAMPLE)
    found = read_sweep(file)
    assert found.name == "tree-size"
    assert len(found.cells()) == 1 + 9 + 3


def test_json_and_tables_of_options(tmp_path: Path) -> None:
    file = tmp_path / "sweep.txt"
    values = spec().model_dump(mode="json")
    file.write_text(json.dumps(values))
    assert read_sweep(file) == spec()
    values["methods"] = [
        {"method": "dynamic-tree", "nodes": [4, 6, 8], "depth": [3, 4]},
        {"method": "static-tree", "expansion": ["2,2", "3,1"]},
    ]
    cells = build_sweep(values).cells()
    assert cells[:6] == spec().cells()
    assert cells[6:] == ["static-tree:expansion=2,2", "static-tree:expansion=3,1"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('name = 3\nmethods=["speculative"]\nworkloads=["code"]', "name is 3"),
        ('name = "a/b"\nmethods=["speculative"]\nworkloads=["code"]', "letters, digits"),
        ('name = "a"\nmethods = ["speculative"]', "workloads is missing"),
        ('name="a"\nmethods=["x"]\nworkloads=["code"]\nlimt=3', "'limt' is no setting"),
        ("name = ", "neither TOML nor JSON"),
        ('{"name": ', "neither TOML nor JSON"),
    ],
)
def test_files_that_are_wrong_are_told_in_a_sentence(
    tmp_path: Path, text: str, reason: str
) -> None:
    file = tmp_path / "sweep.toml"
    file.write_text(text)
    with pytest.raises(UserError, match=reason) as told:
        read_sweep(file)
    assert str(file) in str(told.value)


def test_names_cannot_leave_the_folder(runs: Path) -> None:
    with pytest.raises(UserError, match="no name of a sweep"):
        load_sweep("../../etc/passwd", runs)
    with pytest.raises(UserError, match="There is no sweep 'a'"):
        load_sweep("a", runs)
    (runs / "sweeps").mkdir(parents=True)
    (runs / "sweeps" / "bad.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be read as a sweep"):
        load_sweep("bad", runs)
    assert keeping.sweep_names(runs) == ["bad"]
