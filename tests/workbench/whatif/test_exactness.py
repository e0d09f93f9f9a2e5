"""A predicted static tree accepts, step by step, what the real one then does."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.shapes import from_paths
from engine.tree import Children
from workbench.store import open_run
from workbench.whatif.complete import complete, ranks_of
from workbench.whatif.predict import predict

SHAPES = ["0;1;0.0;0.1;1.0", "0.0.0.0.0.0", "1;3", "0;1;2;3;0.0;0.2;0.0.1;2.0"]
GREEDY = {"temperature": 0.0}
WARM = {"temperature": 0.8, "seed": 5}
TOP = {"temperature": 0.8, "seed": 9, "top_k": 30, "top_p": 0.9}

QUESTIONS = (
    '{"question_id": "a", "category": "chat", "turns": ["def f(x):", "and now g"]}\n'
    '{"question_id": "b", "category": "code", "turns": ["import os"]}\n'
)


def accepted_in(run_id: str) -> dict[int, list[int]]:
    with open_run(run_id) as run:
        steps = run.steps()
    return {int(r): rows["num_accepted"].tolist() for r, rows in steps.groupby("request")}


def predicted_on(run_id: str, paths: str, children: Children) -> tuple[dict[int, list[int]], bool]:
    ranks = ranks_of(run_id, children=children)
    found = predict(from_paths(paths), ranks)
    return {
        request.request: walk.low.accepted_S
        for request, walk in zip(ranks.requests, found.walks, strict=True)
    }, found.exact


@pytest.mark.parametrize("paths", SHAPES)
@pytest.mark.parametrize(
    ("sampling", "children"),
    [(GREEDY, "fixed"), (WARM, "fixed"), (TOP, "fixed"), (WARM, "coupled"), (TOP, "coupled")],
    ids=["greedy", "warm-fixed", "cut-fixed", "warm-coupled", "cut-coupled"],
)
def test_a_completed_run_predicts_the_real_one(decode, paths, sampling, children):
    logged = decode(**sampling)
    complete(logged)
    predicted, exact = predicted_on(logged, paths, Children(children))
    assert exact
    chosen = "auto" if sampling is GREEDY else children
    real = decode(method="static-tree", options={"paths": paths}, children=chosen, **sampling)
    assert predicted == accepted_in(real)
    assert sum(map(sum, predicted.values())) > 0 or paths == "1;3"


def test_several_requests_and_turns(decode, tiny_pair, tmp_path: Path):
    workload = tmp_path / "questions.jsonl"
    workload.write_text(QUESTIONS)
    common = {"workload": str(workload), "batch": 2, **WARM}
    logged = decode(method="autoregressive", draft=None, **common)
    complete(logged, draft=tiny_pair.draft)
    ranks = ranks_of(logged, children=Children.FIXED, draft=tiny_pair.draft)
    assert len(ranks.requests) == 3
    found = predict(from_paths(SHAPES[0]), ranks)
    real = decode(method="static-tree", options={"paths": SHAPES[0]}, children="fixed", **common)
    accepted = accepted_in(real)
    assert found.exact
    for request, walk in zip(ranks.requests, found.walks, strict=True):
        assert walk.low.accepted_S == accepted[request.request]


@pytest.mark.parametrize("logged_with", ["autoregressive", "speculative", "dynamic-tree"])
@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "warm"])
def test_bounds_hold_what_is_true_without_completion(decode, logged_with, sampling):
    changes = {"draft": None} if logged_with == "autoregressive" else {"children": "fixed"}
    logged = decode(method=logged_with, **(changes | sampling))
    ranks = ranks_of(logged, children=Children.FIXED)
    for paths in SHAPES:
        real = decode(method="static-tree", options={"paths": paths}, children="fixed", **sampling)
        (accepted,) = accepted_in(real).values()
        found = predict(from_paths(paths), ranks)
        assert found.high.steps <= len(accepted) <= found.low.steps
        if found.exact:
            assert found.walks[0].low.accepted_S == accepted


def test_eos_ends_the_prediction_with_the_text(decode):
    hot = {"temperature": 4.0, "ignore_eos": False, "max_new_tokens": 120}
    for seed in range(20):
        logged = decode(seed=seed, **hot)
        ranks = ranks_of(logged)
        if 20 < len(ranks.requests[0].rank_L) < 120:
            break
    else:
        pytest.fail("no seed ended with EOS")
    complete(logged)
    paths = "0;1;0.0;0.1;1.0"
    found = predict(from_paths(paths), ranks_of(logged))
    real = decode(method="static-tree", options={"paths": paths}, seed=seed, **hot)
    (accepted,) = accepted_in(real).values()
    assert found.walks[0].low.accepted_S[:-1] == accepted[:-1]
    assert found.low.steps == len(accepted)
