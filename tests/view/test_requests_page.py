"""The Requests page on a scripted handle: start, live, cancel, the stored run, wrong input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from measuring_page import opened, said
from scripted_load import Load, scripted_load, store_load
from scripted_serving import RUN_ID, ServingHandle
from streamlit.testing.v1 import AppTest

from engine.cluster.choosing import CHOOSERS
from engine.errors import UserError
from engine.paths import runs_folder
from workbench.loading.state import Loading
from workbench.store import list_runs
from workbench.view.requests_form import ROUTER_LABELS, auction_note, build_load, cost
from workbench.view.requests_live import ended, live_payload, told


@pytest.fixture(autouse=True)
def handle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ServingHandle:
    import streamlit as st

    monkeypatch.setenv("DRAFTREE_RUNS", str(tmp_path / "runs"))
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2]))
    from pages.parts import settings as module

    fake = ServingHandle(steps=3, step_s=0.01, load_s=0.0)
    monkeypatch.setattr(module.settings, "make_handle", lambda: fake)
    st.cache_resource.clear()
    st.cache_data.clear()
    return fake


def page(**address: str) -> AppTest:
    return opened("requests", **address)


def started(at: AppTest) -> AppTest:
    at.number_input(key="requests/number").set_value(12)
    at.button(key="requests/start").click().run()
    assert not at.exception
    return at


def test_first_sight_says_what_to_press_and_what_comes() -> None:
    at = page()
    assert "No load run is stored yet" in said(at)
    assert "40 requests of at most 64 tokens, coming over 20 s or so." in said(at)
    assert at.button(key="requests/stop").disabled
    assert not at.button(key="requests/start").disabled


def test_replicas_share_the_requests(handle: ServingHandle) -> None:
    at = page()
    assert at.selectbox(key="requests/router").disabled
    at.number_input(key="requests/replicas").set_value(2)
    at.run()
    assert "40 requests of at most 64 tokens for 2 replicas of 8 slots each, coming" in said(at)
    at.selectbox(key="requests/router").set_value("shortest-queue")
    at.number_input(key="requests/restarts").set_value(1)
    started(at)
    (spec,) = handle.specs
    assert (spec.replicas, spec.router, spec.restarts) == (2, "shortest-queue", 1)


def test_every_router_has_a_name_on_the_page() -> None:
    assert set(ROUTER_LABELS) == set(CHOOSERS)


def test_from_start_to_the_stored_run(handle: ServingHandle) -> None:
    at = started(page())
    (spec,) = handle.specs
    assert (spec.method, spec.arrivals, spec.rate) == ("dynamic-tree", "poisson", 2.0)
    assert (spec.requests, spec.slots, spec.batch, spec.budgets) == (12, 8, 8, "auction")
    assert spec.options == {"policy": "auto"}
    assert "Load run of dynamic-tree: Poisson at 2 per second" in said(at)
    assert at.button(key="requests/start").disabled
    handle.go_on(0.5)
    at.run()
    assert "% done" in said(at)
    assert not at.dataframe, "tables are of stored runs"
    handle.go_on(1.0)
    at.run()
    assert not at.exception
    (entry,) = list_runs(runs_folder())
    assert entry.run_id in at.query_params["run"]
    assert len(at.dataframe) == 2
    assert "Jain's index" in said(at)
    assert not at.button(key="requests/start").disabled


def test_cancel_keeps_what_was_served(handle: ServingHandle) -> None:
    at = started(page())
    handle.go_on(0.6)
    at.run()
    at.button(key="requests/stop").click().run()
    at.run()
    assert not at.exception
    assert "Stopped. What was served until then is kept." in said(at)
    (entry,) = list_runs(runs_folder())
    assert str(entry.status) == "cancelled"
    assert len(at.dataframe) == 2


def test_another_page_says_where_the_load_run_is(handle: ServingHandle) -> None:
    at = started(page())
    for name in ("run", "compare", "tune"):
        at.switch_page(f"pages/{name}.py").run()
        assert not at.exception
        assert "A load run of dynamic-tree is under way" in said(at)
        assert "See the Requests page" in said(at)


def test_wrong_input_is_a_sentence_and_nothing_is_started(handle: ServingHandle) -> None:
    at = page()
    at.text_input(key="requests/prompt-tokens").set_value("several")
    at.run()
    assert "Prompt tokens is 'several'; it takes workload, a number" in said(at)
    at.button(key="requests/start").click().run()
    assert not at.exception
    assert not handle.specs
    assert at.error[0].value.startswith("Prompt tokens is")


def test_a_closed_loop_has_clients_and_no_rate(handle: ServingHandle) -> None:
    at = page()
    at.selectbox(key="requests/arrivals").set_value("closed").run()
    at.selectbox(key="requests/budgets").set_value("fixed").run()
    at.number_input(key="requests/nodes").set_value(5)
    at.button(key="requests/start").click().run()
    (spec,) = handle.specs
    assert (spec.arrivals, spec.clients, spec.budgets) == ("closed", 8, "fixed:5")


def test_the_run_of_the_address_is_shown_and_a_damaged_one_is_told_of() -> None:
    first = store_load(runs_folder(), scripted_load(8), clients=4)
    store_load(runs_folder(), scripted_load(9, seed=1))
    at = page(run=first)
    assert at.selectbox(key="run/picked").value == first
    assert len(at.dataframe[0].value) == 8
    (runs_folder() / f"{first}.duckdb").write_bytes(b"nothing")
    at = page(run=first)
    assert not at.exception
    assert "cannot be read" in said(at)


def test_a_run_that_served_nothing_is_a_sentence() -> None:
    store_load(runs_folder(), Load([], [], []))
    assert "holds no step of requests and no lanes" in said(page())


def test_live_steps_are_a_window_and_its_first_begins_the_clock(handle: ServingHandle) -> None:
    handle.start(build_load(FIELDS | {"requests": 120}))
    handle.go_on(0.9)
    loading = handle.snapshot().loading
    assert loading.num_ticks > 256, "else this shows nothing"
    payload = json.loads(json.dumps(live_payload(loading), allow_nan=False))
    facts = payload["facts"]
    assert len(facts["moments"]["begin"]) == 256
    assert facts["before"] == loading.num_ticks - 256
    assert facts["since"] == facts["moments"]["begin"][0]
    assert (payload["id"], payload["live"], list(payload["chunks"])) == (RUN_ID, True, ["0"])
    busy = facts["busy"][0][-1] / (facts["moments"]["end"][-1] - facts["since"])
    assert 0.3 < busy <= 1.0
    shares = payload["chunks"]["0"]["shares"]
    assert sorted(set(shares["moment"])) == list(range(256))
    assert set(shares["request"]) <= set(facts["requests"]["id"])
    whole = loading.latencies["e2el"]
    assert facts["latency"]["e2el"] == {
        "at": [0], "count": [whole.count], "ms": [[whole.median, whole.p90, whole.p99]]
    }  # fmt: skip
    assert live_payload(loading) is live_payload(loading), "made once for all who look"


def test_words_of_a_run_under_way_and_of_how_it_ended() -> None:
    assert told(Loading(status="starting")).detail == "Starting the worker …"
    assert told(Loading(), stopping=True).detail == "Stopping after this step …"
    assert ended(Loading(status="finished", run_id="r")) is None
    assert ended(Loading(status="failed", error="No model.", wrong_input=True)) == (
        "error", "The load run was not started", "No model."
    )  # fmt: skip
    died = ended(Loading(status="interrupted", run_id="r", error="It died of SIGKILL."))
    assert died.text == "It died of SIGKILL. What was served until then is kept."


FIELDS = {"method": "dynamic-tree", "workload": "code", "target": "pycode-target",
          "draft": "pycode-draft", "arrivals": "poisson", "rate": 4.0, "requests": 20, "slots": 4,
          "budgets": "auction", "max_new_tokens": 32, "trace": "", "deadline_s": "",
          "timeout_s": 0.0}  # fmt: skip


def test_an_auction_is_held_by_the_policy_that_can() -> None:
    held = build_load(FIELDS, auctions=True)
    assert held.options == {"policy": "auto"}
    assert "held by the policy auto of dynamic-tree" in auction_note(FIELDS, held)
    chosen = build_load(FIELDS | {"options": {"policy": "opt-tree"}}, auctions=True)
    assert chosen.options == {"policy": "opt-tree"}
    assert "The policy opt-tree holds no auction" in auction_note(FIELDS, chosen)
    other = build_load(FIELDS | {"method": "speculative"})
    assert "speculative holds no auction" in auction_note(FIELDS, other)
    own = FIELDS | {"budgets": "own"}
    assert build_load(own, auctions=True).options == {}
    assert auction_note(own, build_load(own)) == ""


def test_the_form_makes_a_spec_or_a_sentence() -> None:
    spec = build_load(FIELDS)
    assert (spec.slots, spec.batch, spec.timeout_s, spec.deadline_s) == (4, 4, None, None)
    assert cost(spec) == "20 requests of at most 32 tokens, coming over 5 s or so."
    assert (
        build_load(FIELDS | {"budgets": "proportional", "nodes": 12}).budgets == "proportional:12"
    )
    assert build_load(FIELDS | {"budgets": "own"}, auctions=True).budgets == "auction"
    closed = build_load(FIELDS | {"arrivals": "closed", "clients": 3})
    assert "3 clients ask again when they are answered" in cost(closed)
    with pytest.raises(UserError, match="The target model is empty"):
        build_load(FIELDS | {"target": " "})
    with pytest.raises(UserError, match="The trace is empty"):
        build_load(FIELDS | {"arrivals": "trace"})
    with pytest.raises(UserError, match="Deadline is 'soon'; it takes a number"):
        build_load(FIELDS | {"deadline_s": "soon"})
    with pytest.raises(UserError, match="A load run needs the cache"):
        build_load(FIELDS | {"cache": False})
