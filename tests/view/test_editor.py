"""What the tree editor is sent, on runs whose ranks are known by construction."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from ranked_runs import RANKS, write_ranks, write_run

from engine.errors import UserError
from engine.shapes import from_expansion, from_paths
from engine.tree import Children
from workbench.snapshot import Snapshot
from workbench.store import list_runs, open_run
from workbench.view.editor import askable, editor_payload, kinds, prediction
from workbench.view.trial import Trial, figures, trial_spec
from workbench.whatif import trees
from workbench.whatif.complete import ranks_of
from workbench.whatif.oracle import oracle
from workbench.whatif.predict import predict
from workbench.whatif.ranks import UNKNOWN

OWN = "0;1;0.0;0.1"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DRAFTREE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def run(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DRAFTREE_RUNS", str(tmp_path / "runs"))
    return write_run(tmp_path / "runs", OWN)


def test_ranks_recorded_are_the_true_ones_or_unknown(run: str):
    (request,) = ranks_of(run).requests
    for at, rank in enumerate(request.rank_L.tolist()):
        assert rank in (UNKNOWN, RANKS[at])
        assert RANKS[at] not in request.excluded.get(at, ())
    assert 0 < request.num_known < len(RANKS)
    assert request.excluded


def test_a_run_predicts_its_own_steps_without_completion(run: str):
    found = predict(from_paths(OWN), ranks_of(run))
    with open_run(run) as reader:
        accepted = reader.steps()["num_accepted"].tolist()
    assert found.exact
    assert found.walks[0].low.accepted_S == accepted


def test_measured_ranks_take_the_place_of_recorded_ones(run: str, cache: Path):
    write_ranks(cache, run)
    ranks = ranks_of(run)
    assert ranks.complete
    assert ranks.requests[0].rank_L.tolist() == RANKS
    found = predict(from_expansion("1,1"), ranks)
    assert found.exact
    by_hand = [2, 1, 2, 0, 0, 1, 2, 2, 1, 1, 1]  # the last step may draft one node only
    assert found.walks[0].low.accepted_S == by_hand
    assert found.low.histogram == [2, 5, 4]
    assert found.low.emitted == len(RANKS)


def test_ranks_of_another_text_are_not_taken(run: str, cache: Path):
    write_ranks(cache, run, ranks=RANKS[:-1])
    assert not ranks_of(run).complete


def test_the_acceptance_vector_is_the_share_of_each_rank(run: str, cache: Path):
    write_ranks(cache, run)
    vector = trees.acceptance_vector(ranks_of(run))
    assert vector[:3] == pytest.approx([RANKS.count(b) / len(RANKS) for b in range(3)])
    shape = trees.optimal_for(vector, 6)
    assert shape.num_nodes == 7


def test_oracle_and_regret_by_hand(run: str, cache: Path):
    write_ranks(cache, run, ranks=RANKS)
    with open_run(run) as reader:
        best = oracle(reader, ranks_of(run))
        steps = reader.steps()
    assert best is not None
    assert best.top_k == 2
    assert best.exact
    expected = []
    for at, drafted in zip(steps["position"] - 5, steps["num_drafted"], strict=True):
        cap = min(2, drafted, len(RANKS) - at - 1)
        reach = 0
        while reach < cap and RANKS[at + reach] < 2:
            reach += 1
        expected.append(reach)
    assert best.steps["low"].tolist() == expected
    low, high = best.regret
    assert low == high == pytest.approx((sum(expected) - steps["num_accepted"].sum()) / len(steps))


def test_payload_is_json_with_all_that_the_page_reckons_with(run: str, cache: Path):
    write_run(Path(cache.parent / "runs"), "", step_ms=6.0)
    payload = json.loads(json.dumps(editor_payload(run)))
    assert payload["tokens"] == len(RANKS)
    assert payload["known"] < len(RANKS)
    assert payload["own"]["paths"] == trees.paths_text(from_paths(OWN))
    assert payload["start"] == payload["own"]["paths"]
    (request,) = payload["requests"]
    assert request["limit"] == len(RANKS)
    assert sum(request["accepted"]) + len(request["starts"]) == len(RANKS)
    times = payload["times"]
    assert times["plain"] == pytest.approx(6.0, rel=0.05)
    assert times["score"][4] == pytest.approx(6.0, rel=0.05)
    assert len(payload["optimal"]) == trees.MOST_NODES


def test_own_speed_is_predicted_from_its_own_times(run: str):
    """Own medians, own tree: the predicted step is the recorded one."""
    found = prediction(run, from_paths(OWN), children=None)
    assert found.step is not None
    assert found.step.ms == pytest.approx(10.0, rel=0.03)
    assert found.how_timed == "measured"


def test_hostile_text_is_made_safe(tmp_path: Path, cache: Path):
    run = write_run(tmp_path / "runs", words=["<b>x</b>", "\x1b[2J", "\u202e", "é"])
    (request,) = editor_payload(run, folder=tmp_path / "runs")["requests"]
    assert request["texts"][:4] == ["<b>x</b>", "\\x1b[2J", "\\u202e", "é"]


def test_a_run_whose_text_depends_on_its_drafts_is_refused(tmp_path: Path, cache: Path):
    run = write_run(tmp_path / "runs", temperature=0.8, verify="multi-step")
    with pytest.raises(UserError, match="multi-step"):
        editor_payload(run, folder=tmp_path / "runs")
    (entry,) = list_runs(tmp_path / "runs")
    assert not askable(entry)


def test_kinds_of_children(tmp_path: Path, cache: Path):
    greedy = write_run(tmp_path / "runs")
    warm = write_run(tmp_path / "runs", temperature=0.8)
    assert kinds(greedy, tmp_path / "runs")[1] == (Children.FIXED,)
    assert kinds(warm, tmp_path / "runs")[1] == (Children.COUPLED, Children.FIXED)


def test_a_trial_follows_its_run_and_compares_step_by_step(run: str, cache: Path):
    write_ranks(cache, run)
    shape = from_paths(OWN)
    spec = trial_spec(run, shape, Children.FIXED)
    assert (spec.method, spec.children, spec.prompt) == ("static-tree", "auto", "import os\n")
    trial = Trial(spec, prediction(run, shape, children=Children.FIXED))
    before = figures(trial)
    assert before["Tokens per step"].tolist()[1] == "–"
    with open_run(run) as reader:
        info = reader.info
    from workbench.metrics import summary_from_json

    summary = summary_from_json(info.summary)
    trial.take(Snapshot(status="finished", spec=spec, run_id=run, summary=summary))
    assert trial.words.startswith("Every one of")
    frame = figures(trial)
    assert isinstance(frame, pd.DataFrame)
    assert frame["Tokens per step"].nunique() == 1
    assert frame["Accepted 0, 1, 2, …"].nunique() == 1
