"""Load metrics on rows whose figures were worked out by hand; live ones agree with them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from load_rows import ARRIVALS, MS, TICKS, arrival, served, tick

from engine.serving.trace import ArrivalRow
from workbench.loading import metrics
from workbench.loading.definitions import jain
from workbench.loading.metrics import metrics_from_json, of_rows
from workbench.loading.over_time import over_time
from workbench.loading.running import Quantiles, RunningLatencies
from workbench.loading.table import rendered
from workbench.loading.wording import fairness_sentence, queue_sentence, shown_ms, verdict


def test_counts_and_rates() -> None:
    found = of_rows(ARRIVALS, TICKS, slots=2)
    assert (found.requests, found.completed, found.cancelled, found.refused) == (5, 3, 1, 1)
    assert (found.timed_out, found.lost, found.unended) == (0, 0, 0)
    assert found.duration_s == pytest.approx(0.42)
    assert found.output_tokens == 12
    assert found.output_throughput == pytest.approx(12 / 0.42)
    assert found.request_throughput == pytest.approx(3 / 0.42)
    assert found.request_goodput is None
    assert found.deadlines_met == 0.5, "request 1 was late"
    assert found.ticks == 4
    assert found.tokens_per_step == pytest.approx(12 / 7)
    assert found.nodes_per_step == pytest.approx(3)


def test_latencies() -> None:
    found = of_rows(ARRIVALS, TICKS).latencies
    assert list(found) == ["queue", "ttft", "tpot", "itl", "e2el"]
    assert {name: one.count for name, one in found.items()} == {
        "queue": 3, "ttft": 3, "tpot": 3, "itl": 3, "e2el": 3,
    }  # fmt: skip
    assert found["queue"].mean == pytest.approx((0 + 10 + 120) / 3)
    assert found["ttft"].median == pytest.approx(120)  # of 120, 110 and 220
    assert found["e2el"].mean == pytest.approx((320 + 210 + 320) / 3)
    assert found["tpot"].mean == pytest.approx((200 / 4 + 100 / 3 + 100 / 2) / 3)
    # a step that brought a request nothing is no chunk: 0 had them at 120 and 320
    assert found["itl"].mean == pytest.approx((200 + 100 + 100) / 3)
    ttft = np.array([120, 110, 220])
    assert found["ttft"].p90 == pytest.approx(np.percentile(ttft, 90))
    assert found["ttft"].p99 == pytest.approx(np.percentile(ttft, 99))


@pytest.mark.parametrize(
    ("slo", "good"),
    [
        ({"ttft": 120}, 2),
        ({"ttft": 119}, 1),
        ({"tpot": 50}, 3),
        ({"tpot": 40}, 1),
        ({"e2el": 320, "ttft": 115}, 1),
        ({"e2el": 100}, 0),
    ],
)
def test_goodput_counts_what_keeps_to_every_bound(slo: dict[str, float], good: int) -> None:
    found = of_rows(ARRIVALS, TICKS, slo=slo)
    assert found.request_goodput == pytest.approx(good / 0.42)
    assert found.within_slo == pytest.approx(good / 5), "of all requests, refused ones too"


def test_one_token_has_no_time_per_token_to_bound() -> None:
    rows = [served(0, 0, 0, 10, 50, 50, 1)]
    found = of_rows(rows, [tick(0, 10, 50, {0: 1})], slo={"tpot": 1})
    assert found.within_slo == 1.0
    assert "tpot" not in found.latencies


def test_where_the_time_went() -> None:
    found = of_rows(ARRIVALS, TICKS, slots=2)
    steps = 80 + 100 + 80 + 100
    assert found.lanes == pytest.approx(
        {
            "target": 0.5 * steps / 420,
            "draft": 0.3 * steps / 420,
            "prefill": 60 / 420,
            "other": 0.2 * steps / 420,
            "idle": 0.0,
        }
    )
    assert sum(found.lanes.values()) == pytest.approx(1)
    assert found.mean_active == pytest.approx((2 * 80 + 2 * 100 + 2 * 80 + 100) / 420)
    assert found.slots_used == pytest.approx(found.mean_active / 2)


def test_the_queue() -> None:
    found = of_rows(ARRIVALS, TICKS)
    # 1 waited 10 ms, 2 waited 120 ms, 3 waited 50 ms until it was given up, 4 never waited
    assert found.mean_waiting == pytest.approx(180 / 420)
    assert found.most_waiting == 2, "2 and 3; what is refused at once was not in it"
    calm = of_rows([served(0, 0, 0, 1, 2, 3, 2), served(1, 5, 5, 6, 7, 8, 2)], [])
    assert calm.most_waiting <= 1


def test_clients_and_fairness() -> None:
    found = of_rows(ARRIVALS, TICKS)
    ann, bob = found.clients
    assert (ann.client, ann.requests, ann.completed, ann.tokens) == ("ann", 3, 2, 8)
    assert ann.tokens_per_second == pytest.approx(8 / (0.32 + 0.32 + 0.05))
    assert (bob.refused, bob.tokens, bob.ttft_ms) == (1, 4, pytest.approx(110))
    speeds = [ann.tokens_per_second, bob.tokens_per_second]
    assert found.fairness == pytest.approx(jain(speeds))
    assert of_rows(ARRIVALS[:1], TICKS[:1]).fairness is None
    assert jain([2.0, 2.0, 2.0]) == pytest.approx(1)
    assert jain([5.0, 0.0]) == pytest.approx(0.5)
    assert jain([0.0, 0.0]) is None


def test_of_a_requests_rows_the_last_one_counts() -> None:
    told = [ARRIVALS[0]._replace(reason=None, ended_ns=None, num_kept=1), *ARRIVALS]
    assert of_rows(told, TICKS) == of_rows(ARRIVALS, TICKS)


def test_requests_that_never_ended_are_said_so() -> None:
    rows = [ARRIVALS[0], arrival(1, 5)]
    found = of_rows(rows, TICKS[:1])
    assert (found.completed, found.unended) == (1, 1)
    assert "1 under way when the run ended" in verdict(found)


def test_nothing_at_all() -> None:
    found = of_rows([], [])
    assert (found.requests, found.output_throughput, found.latencies) == (0, 0.0, {})
    assert verdict(found) == "No request came."
    assert len(list(rendered(found, slots=4))) == 1


def test_only_refusals() -> None:
    rows = [arrival(n, n, ended_ns=n * MS, reason="refused") for n in range(3)]
    found = of_rows(rows, [], slo={"ttft": 5})
    assert (found.refused, found.within_slo, found.latencies) == (3, 0.0, {})
    assert json.loads(json.dumps(found.as_json()))["refused"] == 3


def test_over_time_sums_to_the_whole() -> None:
    frame = over_time(*metrics.frames(ARRIVALS, TICKS), bins=7)
    assert len(frame) == 7
    assert frame["tokens_per_second"].sum() * 0.06 == pytest.approx(12)
    assert frame["waiting"].max() == 1
    assert over_time(*metrics.frames(ARRIVALS, []), bins=7).empty


def test_json_and_back() -> None:
    found = of_rows(ARRIVALS, TICKS, slo={"ttft": 120}, slots=2)
    again = metrics_from_json(json.loads(json.dumps(found.as_json(), allow_nan=False)))
    assert again == found


def test_live_latencies_are_within_one_percent() -> None:
    random = np.random.default_rng(0)
    values = random.lognormal(math.log(40e6), 1.2, 5000)
    counted = Quantiles()
    for value in values:
        counted.add(float(value))
    found = counted.latency()
    assert found is not None
    assert (found.count, found.mean) == (5000, pytest.approx(values.mean() / MS))
    for share, one in ((50, found.median), (90, found.p90), (99, found.p99)):
        assert one == pytest.approx(np.percentile(values, share) / MS, rel=0.011)


def test_live_and_stored_figures_have_the_same_definitions() -> None:
    running = RunningLatencies()
    for one in TICKS:
        running.tick(one)
    for row in ARRIVALS:
        running.ended(row)
    exact, live = of_rows(ARRIVALS, TICKS).latencies, running.latencies()
    assert list(exact) == list(live)
    for name, one in exact.items():
        assert live[name].count == one.count, name
        assert live[name].mean == pytest.approx(one.mean), name


def test_sentences() -> None:
    found = of_rows(ARRIVALS, TICKS, slo={"ttft": 120, "tpot": 50}, slots=2)
    said = verdict(found)
    assert said.startswith("3 of 5 requests completed in 0.4 s: 28.6 tokens per second, first")
    assert "Others: 1 refused, 1 cancelled." in said
    assert "40% of all kept to ttft 120 ms and tpot 50 ms: 4.76 good requests per second." in said
    assert queue_sentence(found, 2).startswith("Up to 2 requests waited, 0.4 on average; 74% of")
    assert fairness_sentence(found).startswith("Fairness over 2 clients (Jain): 0.9")
    assert [shown_ms(v) for v in (1.234, 56.7, 1234, 45_678)] == [
        "1.23 ms", "57 ms", "1.23 s", "45.7 s",
    ]  # fmt: skip
    assert len(list(rendered(found, slots=2))) == 8


def test_two_replicas_share_the_time() -> None:
    rows: list[ArrivalRow] = [*ARRIVALS]
    other = [one._replace(row=one.row._replace(replica=1)) for one in TICKS]
    found = of_rows(rows, [*TICKS, *other])
    assert found.lanes["target"] == pytest.approx(of_rows(rows, TICKS).lanes["target"])
