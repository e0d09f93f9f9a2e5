"""When requests come and what they are: laws by their moments, seeds, closed loops, cancels."""

from __future__ import annotations

from itertools import pairwise, takewhile
from typing import Any

import numpy as np
import pytest

from engine.errors import UserError
from workbench.loading.arrivals import gamma, on_off, poisson
from workbench.loading.generate import Source, Wanted
from workbench.loading.mixes import parse_mix
from workbench.loading.spec import LoadSpec
from workbench.loading.trace_file import Line

S = 1_000_000_000


def all_of(spec: LoadSpec, **more: Any) -> list[Wanted]:
    """Every request, with a clock that runs far ahead; they end when they come."""
    source, found = Source(spec, **more), []
    while not source.exhausted:
        when = source.next_ns()
        assert when is not None
        came = source.due(when)
        source.cancels(when)
        found += came
        for one in came:
            source.ended(one.index, when)
    return found


def gaps(stream: Any, count: int) -> np.ndarray:
    times = [0.0, *(next(stream) for _ in range(count))]
    return np.diff(times)


def test_open_loops_keep_the_mean_rate_and_differ_in_how_they_bunch() -> None:
    even = gaps(poisson(4.0, np.random.default_rng(0)), 20_000)
    bunched = gaps(gamma(4.0, 0.25, np.random.default_rng(0)), 20_000)
    assert even.mean() == pytest.approx(0.25, rel=0.05)
    assert bunched.mean() == pytest.approx(0.25, rel=0.08)
    assert even.std() / even.mean() == pytest.approx(1.0, rel=0.05)
    assert bunched.std() / bunched.mean() == pytest.approx(2.0, rel=0.08)  # 1 / sqrt(0.25)


def test_on_off_rests_and_keeps_the_mean_rate() -> None:
    times = list(takewhile(lambda at: at < 2000, on_off(3.0, 2.0, 6.0, np.random.default_rng(1))))
    assert len(times) / 2000 == pytest.approx(3.0, rel=0.05)
    assert all(at % 8.0 < 2.0 for at in times)
    assert all(b >= a for a, b in pairwise(times))


def test_the_same_seed_gives_the_same_requests_and_another_one_others() -> None:
    def make(seed: int) -> list[Wanted]:
        return all_of(
            LoadSpec(
                requests=30, rate=5, seed=seed, clients=3, prompt_tokens="uniform:5-50",
                answer_tokens="lognormal:20:0.5", cancel_fraction=0.4, deadline_s="uniform:1-2",
                timeout_s=9.0,
            )
        )  # fmt: skip

    assert make(3) == make(3)
    assert make(3) != make(4)
    assert make(-1) == make(-1)
    wanted = make(3)
    assert [one.index for one in wanted] == list(range(30))
    assert all(1 <= one.max_new_tokens <= 128 for one in wanted)
    assert all(5 <= (one.num_prompt or 0) <= 50 for one in wanted)
    assert all(one.timeout_ns == one.arrival_ns + 9 * S for one in wanted)
    assert all(S <= (one.deadline_ns or 0) - one.arrival_ns <= 2 * S for one in wanted)
    assert 3 < sum(one.cancel_ns is not None for one in wanted) < 22
    assert {one.client for one in wanted} == {"client-1", "client-2", "client-3"}


def test_one_setting_never_shifts_what_others_draw() -> None:
    plain = all_of(LoadSpec(requests=20, prompt_tokens="uniform:5-50"))
    busy = all_of(
        LoadSpec(requests=20, prompt_tokens="uniform:5-50", cancel_fraction=0.5, clients=4,
                 deadline_s="2")
    )  # fmt: skip
    assert [one.num_prompt for one in plain] == [one.num_prompt for one in busy]
    assert [one.arrival_ns for one in plain] == [one.arrival_ns for one in busy]


def test_what_is_drawn_for_one_thing_says_nothing_of_another() -> None:
    same = "uniform:5-100"
    wanted = all_of(LoadSpec(requests=200, rate=100, prompt_tokens=same, answer_tokens=same))
    prompts, answers = zip(*((one.num_prompt, one.max_new_tokens) for one in wanted), strict=True)
    assert abs(np.corrcoef(prompts, answers)[0, 1]) < 0.3


def test_weights_are_the_clients_shares() -> None:
    wanted = all_of(LoadSpec(requests=2000, rate=100, clients=2, weights=[3, 1]))
    first = sum(one.client == "client-1" for one in wanted)
    assert first / 2000 == pytest.approx(0.75, abs=0.04)


def test_requests_stop_with_their_number_or_the_time() -> None:
    assert len(all_of(LoadSpec(requests=7, rate=9))) == 7
    timed = all_of(LoadSpec(duration_s=20, rate=5))
    assert 60 < len(timed) < 140
    assert max(one.arrival_ns for one in timed) < 20 * S
    both = all_of(LoadSpec(duration_s=20, rate=5, requests=11))
    assert len(both) == 11


def test_nothing_comes_before_its_time() -> None:
    source = Source(LoadSpec(requests=5, rate=1))
    first = source.next_ns()
    assert first is not None
    assert source.due(first - 1) == []
    assert [one.arrival_ns for one in source.due(first)] == [first]
    assert source.due(first) == []


def test_late_looks_find_the_times_at_which_requests_came() -> None:
    source = Source(LoadSpec(requests=5, rate=10))
    found = source.due(1000 * S)
    assert len(found) == 5
    assert len({one.arrival_ns for one in found}) == 5
    assert source.exhausted


class TestClosed:
    """Clients that wait for their answers."""

    def spec(self, **more: Any) -> LoadSpec:
        return LoadSpec(arrivals="closed", clients=2, think_s="0.5", **{"requests": 5} | more)

    def test_a_client_asks_again_after_its_answer_and_a_thought(self) -> None:
        source = Source(self.spec())
        assert source.next_ns() == S // 2
        first = source.due(S)
        assert [(one.index, one.client) for one in first] == [(0, "client-1"), (1, "client-2")]
        assert source.next_ns() is None, "all wait for answers"
        assert not source.exhausted
        source.ended(1, 3 * S)
        assert source.next_ns() == 3 * S + S // 2
        (again,) = source.due(4 * S)
        assert (again.index, again.client) == (2, "client-2")
        assert again.arrival_ns == 3 * S + S // 2, "when it asked, not when it was looked at"

    def test_it_ends_with_the_number_of_requests(self) -> None:
        source = Source(self.spec(requests=2))
        source.due(S)
        source.ended(0, S)
        assert source.exhausted
        assert source.next_ns() is None
        assert source.due(100 * S) == []

    def test_it_ends_with_the_time(self) -> None:
        source = Source(self.spec(requests=None, duration_s=2.0))
        assert source.total is None
        for one in source.due(S):
            source.ended(one.index, 3 * S)
        assert source.due(10 * S) == []
        assert source.exhausted

    def test_what_a_request_is_does_not_depend_on_who_was_quick(self) -> None:
        def contents(order: list[int]) -> dict[int, tuple[int | None, int]]:
            spec = self.spec(requests=6, prompt_tokens="uniform:5-50", answer_tokens="uniform:1-90")
            source, found = Source(spec), {}
            now = S
            for who in order:
                for one in source.due(now):
                    found[one.index] = (one.num_prompt, one.max_new_tokens)
                live = sorted(source._who)
                if live:
                    source.ended(live[min(who, len(live) - 1)], now)
                now += S
            return found

        assert contents([0, 1] * 5) == contents([1, 0, 0, 1] * 3)


def test_cancels_come_in_time_and_only_for_those_that_live() -> None:
    spec = LoadSpec(requests=20, rate=100, cancel_fraction=1.0, cancel_after_s="2")
    source = Source(spec)
    came = source.due(S)
    assert came
    assert source.cancels(S) == []
    source.ended(came[0].index, S)
    given_up = source.cancels(60 * S)
    assert came[0].index not in given_up
    assert set(given_up) == {one.index for one in came[1:]}
    assert source.cancels(60 * S) == []


class TestTrace:
    """Requests from lines of a file."""

    LINES = (
        Line(2.0, prompt_tokens=9, client="ann", deadline=1.5),
        Line(0.5, question="q7", max_new_tokens=300, timeout=4.0, cancel=0.25),
        Line(2.0),
    )

    def test_they_come_in_time_and_are_known_by_their_line(self) -> None:
        spec = LoadSpec(trace="t", trace_speed=2.0, timeout_s=7.0)
        wanted = all_of(spec, trace=self.LINES)
        assert [(one.index, one.arrival_ns / S) for one in wanted] == [(1, 0.25), (0, 1), (2, 1)]
        first, second, third = wanted
        assert (first.question, first.max_new_tokens) == ("q7", 300)
        assert (first.timeout_ns, first.cancel_ns) == (round(4.25 * S), round(0.5 * S))
        assert (second.client, second.num_prompt) == ("ann", 9)
        assert second.deadline_ns == round(2.5 * S)
        assert second.timeout_ns == 8 * S, "the spec's where the line has none"
        assert (third.client, third.num_prompt, third.max_new_tokens) == ("client-1", None, 128)

    def test_a_pair_that_is_not_there_is_named(self) -> None:
        with pytest.raises(UserError, match=r"Request 1 of t is for pair 'big'; there are: none"):
            Source(LoadSpec(trace="t"), trace=[Line(0.0, pair="big")])


@pytest.mark.parametrize(
    ("text", "kind", "low", "high"),
    [
        ("64", "fixed", 64, 0),
        (" 0.5 ", "fixed", 0.5, 0),
        ("uniform:16-128", "uniform", 16, 128),
        ("lognormal:64:0.8", "lognormal", 64, 0.8),
        ("lognormal:64", "lognormal", 64, 0.5),
    ],
)
def test_mixes_are_read(text: str, kind: str, low: float, high: float) -> None:
    mix = parse_mix(text)
    assert (mix.kind, mix.low, mix.high) == (kind, low, high)


@pytest.mark.parametrize(
    "text",
    ["", "x", "uniform:5", "uniform:9-5", "0", "-3", "nan", "lognormal:0:1", "uniform:1-inf"],
)
def test_wrong_mixes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="uniform:LOW-HIGH"):
        parse_mix(text)


def test_mixes_have_their_moments() -> None:
    random = np.random.default_rng(0)
    uniform, log = parse_mix("uniform:10-20"), parse_mix("lognormal:50:0.6")
    counts = [uniform.draw_count(random, most=1000) for _ in range(6000)]
    assert (min(counts), max(counts)) == (10, 20)
    assert counts.count(10) == pytest.approx(6000 / 11, rel=0.2), "ends are as likely as the rest"
    assert np.median([log.draw(random) for _ in range(6000)]) == pytest.approx(50, rel=0.05)
    assert {uniform.draw_count(random, most=12) for _ in range(200)} == {10, 11, 12}
