"""The benchmark of all methods: its arms, what it leaves out, and a small run of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))  # as for a script that lies there

import methods  # noqa: E402
import training_costs  # noqa: E402

sys.path.remove(str(ROOT / "benchmarks"))

from engine.models import load_model  # noqa: E402
from engine.registry import method_names  # noqa: E402
from tests.engine.heads_fixture import untrained, write_head  # noqa: E402
from tests.engine.tiny import tiny  # noqa: E402
from workbench.compare import CompareSpec  # noqa: E402
from workbench.comparing.arms import parse_arm, parse_arms  # noqa: E402

SPEC = CompareSpec(methods=["speculative"], workloads=["code"])


def test_every_method_has_an_arm():
    arms = [parse_arm(text) for text in methods.SETS["all"]]
    assert {arm.method for arm in arms} == set(method_names()) - {"autoregressive"}


def test_arms_without_a_head_are_left_out_with_the_reason():
    target = tiny()
    assert "no embedded medusa head" in training_costs.why_not(parse_arm("medusa"), target)
    assert training_costs.why_not(parse_arm("speculative"), target) == ""
    head = write_head(untrained("medusa", target), target)
    assert training_costs.why_not(parse_arm(f"medusa:head={head}"), target) == ""


def test_costs_are_read_from_cards():
    target = tiny()
    trained = {"seconds": 150.0, "tokens": 70_000}
    head = write_head(untrained("medusa", target), target, training=trained, written_tokens=20_000)
    arms = parse_arms([f"medusa:head={head}", "suffix", "speculative", "universal"], ())
    found = training_costs.costs(arms, SPEC, target)
    assert set(found) == {"medusa", "speculative", "universal"}, "lookups are not trained"
    assert found["medusa"] == training_costs.Cost(head.name, 2.5, 70_000, 20_000)
    assert found["speculative"].part == "pycode-draft"
    assert found["speculative"].minutes == pytest.approx(19.0, abs=0.5)
    assert found["universal"].part == "pycode-bytes"
    unknown = SPEC.model_copy(update={"draft": "./no-such-model"})
    cost = training_costs.cost_of(parse_arm("speculative"), unknown, target)
    assert cost == training_costs.Cost("./no-such-model", None, None, None)


def test_a_small_run(tmp_path, monkeypatch, capsys):
    from tests.workbench.tiny_pair import write_pair

    monkeypatch.setenv("DRAFTREE_CACHE", str(tmp_path / "cache"))
    pair = write_pair(tmp_path / "pair")
    target = load_model(str(pair.target), device="cpu")
    head = write_head(untrained("medusa", target), target)
    prompts = tmp_path / "few.jsonl"
    prompts.write_text('{"question_id": "a", "category": "c", "turns": ["def f(x):"]}\n')
    arms = f"medusa:head={head},nodes=16,medusa:head={head},tree=medusa,verify=typical,suffix"
    monkeypatch.setattr(
        sys, "argv",
        ["methods.py", "--methods", arms, "--workload", str(prompts), "--repeats", "1",
         "--max-new-tokens", "10", "--execution", "eager", "--threads", "1",
         "--target", str(pair.target), "--draft", str(pair.draft), "--device", "cpu"],
    )  # fmt: skip
    assert methods.main() == 0
    printed = capsys.readouterr().out
    told = json.loads(printed.splitlines()[-1])
    rows = {row["method"].partition(":")[0]: row for row in told["rows"]}
    assert rows["medusa"]["matched_requests"] == 1
    assert rows["medusa"]["nodes_per_step"] > 4
    assert set(told["trained"]) == {"medusa"}
    assert "best trained head / plain" in told["ratios"]
    assert "less drafting" in printed
    assert told["trained"]["medusa"]["minutes"] is None, "its card tells none"
