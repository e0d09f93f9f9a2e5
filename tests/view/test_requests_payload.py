"""What the requests view is told: moments, requests, shares by chunk, lanes, percentiles so far."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scripted_load import MS, Load, scripted_load, store_load

from engine.errors import UserError
from engine.serving.trace import LaneRow
from workbench.figures import requests as figures
from workbench.loading.metrics import of_rows
from workbench.store import RunEntry, RunStatus
from workbench.view import requests as module
from workbench.view.requests import Served, history_of
from workbench.view.requests_latency import QUANTILES
from workbench.view.requests_payload import StoredServing, payload, shows_requests, start_of
from workbench.view.requests_series import (
    latency_law,
    load_over_time,
    nodes_by_load,
    throughput,
)
from workbench.view.requests_table import clients_frame, fairness, requests_frame


@pytest.fixture(scope="module")
def load() -> Load:
    return scripted_load(30, ranks=2)


@pytest.fixture(scope="module")
def served(load: Load) -> Served:
    return Served(history_of(*load), identity="run")


def all_shares(served: Served) -> list[dict[str, int]]:
    """Shares of all chunks as rows."""
    rows = []
    for number in range(served.num_chunks):
        columns = served.chunk(number)["shares"]
        rows += [
            dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
        ]
    return rows


def test_it_is_plain_json(served: Served) -> None:
    told = {"facts": served.facts, "chunks": [served.chunk(n) for n in range(served.num_chunks)]}
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_moments_are_the_ticks_in_the_order_in_which_they_began(load: Load, served: Served) -> None:
    moments = served.facts["moments"]
    assert len(moments["begin"]) == len(load.ticks) == served.num_moments
    assert moments["begin"] == [round(tick.row.begin_ns / 1e3) for tick in load.ticks]
    assert moments["waiting"] == [tick.row.waiting for tick in load.ticks]
    wall = np.subtract(moments["end"], moments["begin"])
    stages = sum(np.array(moments[s]) for s in ("draft", "score", "verify", "commit", "rest"))
    assert (np.abs(wall - stages) <= 3).all(), "rounded to microseconds"


def test_who_waits_and_who_sits_agrees_with_what_the_ticks_say(served: Served) -> None:
    """The view derives both from the requests' times alone; the scheduler counted them itself."""
    moments, r = served.facts["moments"], served.facts["requests"]
    for at, begin in enumerate(moments["begin"]):
        here = [
            k for k in range(len(r["id"]))
            if r["arrival"][k] <= begin and not 0 <= r["ended"][k] <= begin
        ]  # fmt: skip
        seated = [k for k in here if 0 <= r["admitted"][k] <= begin]
        assert len(seated) == moments["active"][at]
        assert sorted(r["slot"][k] for k in seated) == sorted({r["slot"][k] for k in seated})
        if at and moments["begin"][at - 1] == begin:
            continue
        assert abs(len(here) - len(seated) - moments["waiting"][at]) <= 1  # came during prefill


@pytest.mark.parametrize("size", [1, 7, 256])
def test_chunks_hold_every_share_once(
    load: Load, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(module, "CHUNK", size)
    served = Served(history_of(*load))
    rows = all_shares(served)
    told = [(tick.row.tick, *share) for tick in load.ticks for share in tick.shares]
    assert [(r["moment"], r["request"], r["slot"], r["nodes"], r["accepted"]) for r in rows] == [
        (at, s[0], s[1], s[2], s[5]) for at, *s in told
    ]
    stretches = [served.chunk(n)["lanes"] for n in range(served.num_chunks)]
    assert sum(len(part["begin"]) for part in stretches) == len(load.lanes)
    begins = [begin for part in stretches for begin in part["begin"]]
    assert begins == sorted(begins)


def test_steps_and_tokens_of_a_request_are_counted_through(load: Load, served: Served) -> None:
    last = {}
    for row in all_shares(served):
        step, had = last.get(row["request"], (-1, 0))
        assert row["step"] == step + 1
        assert row["had"] == had + row["kept"]
        last[row["request"]] = (row["step"], row["had"])
    kept = {row.request: row.num_kept for row in load.arrivals if row.num_kept}
    assert {request: had for request, (_, had) in last.items()} == kept


def test_a_bid_that_nobody_made_is_null() -> None:
    load = scripted_load(4)
    ticks = [
        tick._replace(shares=[share._replace(bid=float("nan")) for share in tick.shares])
        for tick in load.ticks
    ]
    bids = Served(history_of(load.arrivals, ticks)).chunk(0)["shares"]["bid"]
    assert set(bids) == {None}


def test_percentiles_so_far_end_as_the_metrics_of_the_run(load: Load, served: Served) -> None:
    told = of_rows(load.arrivals, load.ticks).latencies
    for name, running in served.facts["latency"].items():
        whole = told[name]
        assert running["ms"][-1] == pytest.approx([whole.median, whole.p90, whole.p99], abs=1e-3)
        assert running["count"][-1] == whole.count
        assert running["at"] == sorted(running["at"])
    first = served.facts["latency"]["e2el"]
    ends = sorted((row.ended_ns, row) for row in load.arrivals if row.reason == "length")
    row = ends[0][1]
    assert first["at"][0] == round(row.ended_ns / 1e3)
    assert first["ms"][0] == pytest.approx(
        [(row.ended_ns - row.arrival_ns) / MS] * len(QUANTILES), abs=1e-3
    )


def test_busy_time_of_lanes_counts_overlaps_once() -> None:
    lanes = [
        LaneRow(0, "target", "score", 0, 0, 4 * MS),
        LaneRow(0, "target", "score", 0, 2 * MS, 6 * MS),
        LaneRow(0, "target", "score", 1, 8 * MS, 10 * MS),
        LaneRow(1, "draft", "expand", 0, 1 * MS, 2 * MS),
    ]
    served = Served(history_of([], [], lanes))
    facts = served.facts
    assert facts["lanes"] == [{"rank": 0, "lane": "target"}, {"rank": 1, "lane": "draft"}]
    assert facts["moments"]["begin"] == [0, 8000]
    assert facts["moments"]["end"] == [6000, 10000]
    assert facts["busy"] == [[6000, 8000], [1000, 1000]]
    assert served.lanes.busy_until(np.array([3000, 9000])) == [[3000, 7000], [1000, 1000]]
    overview = np.array(facts["overview"][0])
    assert overview[0] == 100
    assert overview[len(overview) * 7 // 10] == 0
    assert overview.mean() == pytest.approx(80, abs=1)
    assert "group" not in facts["moments"], "the view shows lanes alone"


def test_the_clock_of_lanes_alone_is_set_to_zero() -> None:
    boot = 90_000_000_000_123  # nanoseconds since the machine came up
    lanes = [row._replace(begin_ns=row.begin_ns + boot, end_ns=row.end_ns + boot)
             for row in scripted_load(3, ranks=2).lanes]  # fmt: skip
    served = Served(history_of([], [], lanes))
    last = max(row.end_ns for row in lanes) - min(row.begin_ns for row in lanes)
    assert served.facts["moments"]["begin"][0] == 0
    assert served.facts["length"] == round(last / 1e3)
    assert served.chunk(0)["lanes"]["begin"][0] == 0


def test_without_lanes_the_stages_of_the_steps_are_drawn(load: Load) -> None:
    served = Served(history_of(load.arrivals, load.ticks))
    assert served.facts["derived"]
    assert [lane["lane"] for lane in served.facts["lanes"]] == ["target", "draft", "host"]
    scored = sum(tick.row.score_ns for tick in load.ticks) / 1e3
    read = [row for row in load.arrivals if row.admitted_ns is not None]
    read_us = sum(row.prefilled_ns - row.admitted_ns for row in read) / 1e3
    assert served.facts["busy"][0][-1] == pytest.approx(scored + read_us, abs=len(load.ticks))


def test_several_pairs_and_replicas_are_batches_of_their_own() -> None:
    one, two = scripted_load(8, pair="large"), scripted_load(8, seed=1, pair="small", first=8)
    other = scripted_load(8, seed=2, pair="large", replica=1, first=16)
    ticks = [tick._replace(row=tick.row._replace(tick=tick.row.tick + 1000)) for tick in two.ticks]
    served = Served(
        history_of(one.arrivals + two.arrivals + other.arrivals, one.ticks + ticks + other.ticks)
    )
    labels = [group["label"] for group in served.facts["groups"]]
    assert labels == ["Replica 1 · large", "Replica 1 · small", "Replica 2 · large"]
    group = served.facts["moments"]["group"]
    assert [group.count(at) for at in range(3)] == [
        len(one.ticks), len(two.ticks), len(other.ticks)
    ]  # fmt: skip
    of_request = dict(
        zip(served.facts["requests"]["id"], served.facts["requests"]["group"], strict=True)
    )
    for row in all_shares(served):
        assert group[row["moment"]] == of_request[row["request"]]
    assert set(requests_frame(served)["where"]) == set(labels)


def test_names_and_messages_are_made_safe(served: Served) -> None:
    names = served.facts["clients"]
    assert "bob <b>x</b>" in names, "markup is text and stays"
    assert "\\x1b[2Jcarol \\u202e" in names
    frame = requests_frame(served)
    assert not any("\x1b" in name or "\u202e" in name for name in frame["client"])


def test_tables_agree_with_the_rows(load: Load, served: Served) -> None:
    frame = requests_frame(served)
    assert len(frame) == len(load.arrivals)
    assert frame["tokens"].sum() == sum(row.num_kept for row in load.arrivals)
    refused = frame[frame["ended"] == "refused"]
    assert len(refused) == 2
    assert refused["e2el"].isna().all()
    assert set(refused["message"]) == {"The queue is full."}
    assert set(frame["deadline"]) == {"", "met", "missed"}
    clients = clients_frame(served)
    assert clients["share"].sum() == pytest.approx(100)
    assert clients["tokens"].sum() == frame["tokens"].sum()
    assert 0.25 <= fairness(clients) <= 1
    assert clients["wait"].notna().all()


def test_a_stored_run_answers_as_asked(tmp_path: Path, load: Load) -> None:
    run = store_load(tmp_path, load, slots=4, rate=16.0, options={"policy": "auto"})
    stored = StoredServing(run, tmp_path)
    first = payload(stored, {}, start=0)
    assert first["facts"]["moments"] == Served(history_of(*load)).facts["moments"]
    assert list(first["chunks"]) == [0]
    assert (
        "Poisson at 16 per second · 4 slots · first-come · nodes by auction"
        in first["head"]["setup"]
    )
    reasons = [row.reason for row in load.arrivals]
    done, gone = reasons.count("length"), reasons.count("cancelled")
    said = f"{done} of 30 requests served, {gone} cancelled, 2 refused in 2."
    assert first["head"]["state"].startswith(said)
    more = payload(stored, {"have": [run], "want": [0, 7, "x", -1]}, start=0)
    assert more["facts"] is None
    assert list(more["chunks"]) == [0]
    assert start_of("12", stored.served) == 11
    assert start_of("99999", stored.served) == stored.served.num_moments - 1
    assert start_of("x", stored.served) == 0


def test_a_run_without_a_step_is_refused_in_words(tmp_path: Path) -> None:
    run = store_load(tmp_path, Load([], [], []))
    with pytest.raises(UserError, match="holds no step of requests and no lanes"):
        StoredServing(run, tmp_path)


def test_which_runs_are_offered() -> None:
    def entry(status: RunStatus = RunStatus.FINISHED, **spec: object) -> RunEntry:
        return RunEntry("r", status, "", spec)

    assert shows_requests(entry(arrivals="poisson"))
    assert shows_requests(entry(RunStatus.CANCELLED, arrivals="closed"))
    assert shows_requests(entry(ranks=2))
    assert not shows_requests(entry(ranks=1))
    assert not shows_requests(entry())
    assert not shows_requests(entry(RunStatus.RUNNING, arrivals="poisson"))


def test_series_agree_with_the_rows(load: Load, served: Served) -> None:
    over = load_over_time(served)
    assert over[["waiting", "active"]].iloc[-1].tolist() == [0, 0], "all have ended"
    assert over["active"].max() == max(tick.row.active for tick in load.ticks)
    assert (over["waiting"] >= 0).all()
    kept = sum(share.kept for tick in load.ticks for share in tick.shares)
    told = throughput(served)
    width = told["second"].diff().iloc[1]
    assert (told["tokens_per_second"] * width).sum() == pytest.approx(kept)
    law = latency_law(served)
    whole = law[law["figure"] == "e2el"]
    assert whole["share"].iloc[-1] == 100
    assert whole["ms"].is_monotonic_increasing
    trees = nodes_by_load(served)
    assert trees["steps"].sum() == len(load.ticks)
    assert (trees["nodes"].diff().dropna() < 0).all(), "24 nodes are divided among more"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_figures_are_drawn_of_much_and_of_nothing(served: Served, theme: str) -> None:
    nothing = Served(history_of([], []))
    for draw, series in (
        (figures.queue_and_batch, load_over_time),
        (figures.throughput, throughput),
        (figures.latency_law, latency_law),
        (figures.nodes_by_load, nodes_by_load),
    ):
        assert len(draw(series(served), theme=theme).data) >= 1
        empty = draw(series(nothing), theme=theme)
        assert not empty.data
        assert empty.layout.annotations[0].text.startswith("No ")
