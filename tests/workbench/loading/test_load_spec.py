"""Load specs: defaults, what goes together, JSON, files, and the command that does one again."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import ValidationError

from engine.errors import UserError
from workbench.commands.load import load, spec_from
from workbench.jobs import KINDS, LOAD, kind_of, under_way
from workbench.loading.again import load_command
from workbench.loading.files import load_spec_text, merged, read_load_spec, write_load_spec
from workbench.loading.spec import LoadSpec, stored_spec
from workbench.report.again import run_command
from workbench.spec import RunSpec

RICH: dict[str, Any] = {
    "arrivals": "bursty",
    "burstiness": 0.5,
    "rate": 2.5,
    "duration_s": 12.0,
    "clients": 3,
    "weights": [2, 1, 1],
    "prompt_tokens": "uniform:16-90",
    "answer_tokens": "lognormal:30:0.4",
    "cancel_fraction": 0.25,
    "deadline_s": "uniform:1-4",
    "timeout_s": 20.0,
    "slots": 4,
    "policy": "deadline",
    "budgets": "proportional:24",
    "max_waiting": 9,
    "slo": {"ttft": 500, "tpot": 50.5},
    "options": {"nodes": 6},
    "stop": ["\n\n"],
    "chat_template": False,
    "ignore_eos": True,
}


def test_it_is_a_run_spec_with_defaults_that_follow() -> None:
    spec = LoadSpec(slots=5)
    assert isinstance(spec, RunSpec)
    assert (spec.batch, spec.workload, spec.requests, spec.draft) == (5, "code", 40, "pycode-draft")
    assert LoadSpec(duration_s=3).requests is None
    assert LoadSpec(trace="t").arrivals == "trace"
    assert LoadSpec(prompt="x").workload is None
    assert kind_of(spec) == LOAD
    assert KINDS[LOAD] is LoadSpec
    assert under_way(spec) == "A load run of dynamic-tree is under way"


@pytest.mark.parametrize("values", [{}, RICH, {"trace": "t", "requests": 3}])
def test_json_and_back(values: dict[str, Any]) -> None:
    spec = LoadSpec(**values)
    assert LoadSpec.model_validate_json(spec.model_dump_json()) == spec
    assert stored_spec(spec.model_dump_json()) == spec
    assert stored_spec(spec.model_dump(mode="json")) == spec


def test_a_stored_run_is_read_as_what_it_was() -> None:
    assert type(stored_spec(RunSpec(prompt="x").model_dump_json())) is RunSpec


def test_every_field_is_described() -> None:
    assert all(field.description for field in LoadSpec.model_fields.values())


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"policy": "lifo"}, "first-come, shortest-first, deadline, fair"),
        ({"budgets": "fixed"}, "fixed:N"),
        ({"budgets": "auction:3"}, "fixed:N"),
        ({"rate": 0}, "greater than 0"),
        ({"rate": float("inf")}, "finite"),
        ({"slots": 0}, "greater than or equal to 1"),
        ({"max_waiting": 0}, "greater than or equal to 1"),
        ({"arrivals": "sometimes"}, "poisson"),
        ({"arrivals": "trace"}, "need its file"),
        ({"arrivals": "closed", "trace": "t"}, "a trace says when"),
        ({"prompt_tokens": "long"}, "workload, a number, uniform:LOW-HIGH"),
        ({"think_s": "-1"}, "numbers above 0"),
        ({"cancel_fraction": 1.5}, "less than or equal to 1"),
        ({"clients": 2, "weights": [1]}, "1 weights do not fit 2 clients"),
        ({"clients": 2, "weights": [1, -1]}, "none below 0"),
        ({"clients": 2, "weights": [1, 1], "arrivals": "closed"}, "not by weights"),
        ({"slo": {"ttft": 0}}, "milliseconds above 0"),
        ({"slo": {"speed": 1}}, "ttft"),
        ({"repeats": 2}, "no repeats"),
        ({"cache": False}, "needs the cache"),
        ({"batch": 3, "slots": 4}, "give slots alone"),
        ({"pairs": [{"name": "a", "target": "x"}, {"name": "a", "target": "y"}]}, "same name"),
        ({"pairs": [{"name": "", "target": "x"}]}, "pattern"),
        ({"colour": 1}, "not permitted"),
    ],
)
def test_what_does_not_go_together(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        LoadSpec(**values)
    assert sentence in str(caught.value)


def test_several_pairs_each_have_their_run() -> None:
    pairs = [{"name": "big", "target": "t", "draft": "d"}, {"name": "small", "target": "d"}]
    spec = LoadSpec(pairs=pairs, method="autoregressive", slots=3)
    assert (spec.target, spec.draft) == ("t", "d")
    one, other = (spec.run_of(pair) for pair in spec.pair_specs)
    assert (one.target, one.draft, one.batch) == ("t", "d", 3)
    assert (other.target, other.draft) == ("d", None)
    assert stored_spec(spec.model_dump_json()) == spec
    (alone,) = LoadSpec().pair_specs
    assert (alone.name, alone.target) == ("", "pycode-target")


def test_files(tmp_path: Path) -> None:
    spec = LoadSpec(**RICH)
    file = write_load_spec(spec, tmp_path / "load.json")
    assert LoadSpec.model_validate(read_load_spec(file)) == spec
    assert '"rate"' not in load_spec_text(LoadSpec())
    file.write_text('{"rate": 0}')
    with pytest.raises(UserError, match=r"load.json: rate is 0; use greater than 0"):
        read_load_spec(file)
    file.write_text('{"speed": 0}')
    with pytest.raises(UserError, match="'speed' is no field of a load spec; there are method"):
        read_load_spec(file)
    file.write_text("[]")
    with pytest.raises(UserError, match="holds a list"):
        read_load_spec(file)
    with pytest.raises(UserError, match="cannot be written"):
        write_load_spec(spec, tmp_path / "none" / "load.json")


def test_flags_override_a_file() -> None:
    stored = {"rate": 3.0, "duration_s": 5.0, "method": "dynamic-tree", "options": {"nodes": 4}}
    values = LoadSpec(requests=9, options={"depth": 2}).model_dump(exclude={"batch"})
    found = merged(stored, values, {"requests", "options"})
    assert (found["rate"], found["requests"], found["duration_s"]) == (3.0, 9, None)
    assert found["options"] == {"nodes": 4, "depth": 2}


@pytest.mark.parametrize(
    "values",
    [
        RICH,
        {"trace": "my trace.csv", "trace_speed": 2.0},
        {"arrivals": "closed", "clients": 8, "think_s": "lognormal:2:1"},
        {"pairs": [{"name": "a", "target": "x", "draft": "y"}, {"name": "b", "target": "y"}],
         "workload": "edit"},
        {"draft": "one", "other_drafts": ["two"], "method": "static-tree"},
    ],
)  # fmt: skip
def test_the_command_does_it_again(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    spec = LoadSpec(**values)
    words = shlex.split(load_command(spec))
    assert run_command(spec) == load_command(spec)
    asked: list[LoadSpec] = []
    monkeypatch.setattr(
        "workbench.commands.loading.load_and_print",
        lambda spec, **rest: asked.append(spec) or 0,
    )
    app = typer.Typer()
    app.command()(load)
    typer.main.get_command(app).main(args=words[2:], standalone_mode=False)
    assert asked[0].model_dump(exclude={"options"}) == spec.model_dump(exclude={"options"})
    assert {k: str(v) for k, v in spec.options.items()} == asked[0].options


def test_wrong_flags_are_named() -> None:
    with pytest.raises(UserError, match=r"--timeout is 0.0; use greater than 0"):
        spec_from({"timeout_s": 0.0})
    with pytest.raises(UserError, match=r"--policy is 'lifo'; use first-come, shortest-first"):
        spec_from({"policy": "lifo"})
