"""The tokens of a request are the same whatever else is in the batch, whoever is next, and when.

Every request alone against random arrivals, cancels, timeouts and all policies and budgets: tiny
random models of one architecture after another, then the embedded pair. float32.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from engine.models import load_model
from engine.paths import data_folder
from engine.registry import METHODS
from engine.requests import Request
from engine.sampling import Sampling
from engine.serving.budgets import budget_names
from engine.serving.policies import POLICIES
from engine.serving.scheduler import Scheduler
from engine.serving.trace import Order
from tests.engine.tiny import VOCAB, decode_all, engine_for, near, tiny, tokens_of

pytestmark = pytest.mark.usefixtures("drafting_pays")
GREEDY, WARM = Sampling(), Sampling(temperature=0.8, seed=3)
METHODS_AND_OPTIONS = [
    ("autoregressive", {}),
    ("speculative", {"length": 4}),
    ("static-tree", {"expansion": "2,2,1"}),
    ("dynamic-tree", {"policy": "best-first", "nodes": 8, "depth": 4, "top_k": 3}),
    ("dynamic-tree", {"policy": "auto", "most": 10, "depth": 4}),
    ("suffix", {}),
]


@pytest.fixture(scope="module")
def pair():
    target = tiny()
    return target, near(target)


def wanted(count: int) -> list[Request]:
    rng = np.random.default_rng(1)
    return [
        Request(
            i, "", tuple(rng.integers(VOCAB, size=rng.integers(1, 40)).tolist()),
            int(rng.integers(3, 26)),
        )
        for i in range(count)
    ]  # fmt: skip


def serve(engines, requests, *, policy, budgets, seed: int, disturb: bool):
    """Tokens by request, and the reasons for which they ended."""
    rng = np.random.default_rng(seed)
    scheduler = Scheduler(engines, policy=policy, budgets=budgets)
    coming = [requests[at] for at in rng.permutation(len(requests))]
    tokens: dict[int, list[int]] = {}
    reasons: dict[int, str] = {}
    while coming or scheduler.busy:
        for _ in range(int(rng.integers(0, 3))):
            if coming:
                request = coming.pop()
                now = scheduler.now()
                scheduler.submit(Order(
                    request, now, pair=str(rng.choice(list(engines))),
                    client=str(request.index % 3), deadline_ns=now + int(rng.integers(10**9)),
                    timeout_ns=now + 3 * 10**7 if disturb and rng.random() < 0.2 else None,
                ))  # fmt: skip
        if disturb and rng.random() < 0.15:
            scheduler.cancel(int(rng.integers(len(requests))))
        told = scheduler.step()
        scheduler.check_integrity()
        for record in told.finished:
            tokens[record.request] = record.token_ids
        for row in told.arrivals:
            if row.reason:
                assert row.request not in reasons
                reasons[row.request] = row.reason
    return tokens, reasons


def check(alone, served, reasons, requests):
    assert set(reasons) == {request.index for request in requests}
    for index, reason in reasons.items():
        tokens = served.get(index, [])  # none where it never began
        if reason == "length":
            assert tokens == alone[index], f"request {index}"
        else:
            assert reason in ("cancelled", "timed-out")
            assert tokens == alone[index][: len(tokens)], f"request {index}"


@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "t0.8"])
@pytest.mark.parametrize(("method", "options"), METHODS_AND_OPTIONS, ids=str)
def test_tiny_models(pair, method, options, sampling):
    requests = wanted(14)
    alone = tokens_of(decode_all(engine_for("autoregressive", {}, *pair, sampling=sampling),
                                 requests)[0])  # fmt: skip
    shares = ["auction", "proportional:14", "fixed:3", "round-robin:9"]
    for seed, (policy, budgets) in enumerate(zip(POLICIES, shares, strict=True)):
        engines = {"": engine_for(method, options, *pair, sampling=sampling, batch=2 + seed % 3)}
        served, reasons = serve(
            engines, requests, policy=policy, budgets=budgets, seed=seed, disturb=seed % 2 == 1
        )
        if seed % 2 == 0:
            assert set(reasons.values()) == {"length"}
        check(alone, served, reasons, requests)


def test_two_pairs_under_one_scheduler(pair):
    """The same target with other drafts: which pair serves a request changes no token of it."""
    requests = wanted(16)
    alone = tokens_of(decode_all(engine_for("autoregressive", {}, *pair, sampling=WARM),
                                 requests)[0])  # fmt: skip
    engines = {
        "tree": engine_for("dynamic-tree", {"nodes": 6}, *pair, sampling=WARM, batch=2),
        "chain": engine_for("speculative", {}, *pair, sampling=WARM, batch=3),
    }
    served, reasons = serve(
        engines, requests, policy="fair", budgets="round-robin:7", seed=2, disturb=False
    )
    assert set(reasons.values()) == {"length"}
    check(alone, served, reasons, requests)


def test_budget_names_are_those_that_are_tried():
    assert budget_names() == ["auction", "fixed", "proportional", "round-robin"]


def test_a_request_that_breaks_the_model_is_lost_and_its_slot_is_used_again(pair):
    """NaN from some step on: the batch of that step ends with a sentence, later ones are right."""
    requests = wanted(6)
    alone = tokens_of(decode_all(engine_for("autoregressive", {}, *pair), requests)[0])
    engine = engine_for("speculative", {"length": 3}, *pair, batch=2)
    runner = engine._target.runner
    real, calls = runner.run, 0

    class Damaged:
        def __getattr__(self, name):
            return getattr(real, name)

        def __call__(self, *inputs):
            nonlocal calls
            calls += 1
            out = real(*inputs)
            if calls == 3:
                return type(out)(*(torch.full_like(part, torch.nan) for part in out))
            return out

    runner.run = Damaged()
    scheduler = Scheduler({"": engine})
    for request in requests:
        scheduler.submit(Order(request, 0))
    rows, tokens = {}, {}
    while scheduler.busy:
        told = scheduler.step()
        scheduler.check_integrity()
        rows.update({row.request: row for row in told.arrivals})
        tokens.update({record.request: record.token_ids for record in told.finished})
    lost = [index for index, row in rows.items() if row.reason == "lost"]
    assert 1 <= len(lost) <= 2
    assert "NaN or infinite logits" in rows[lost[0]].message
    for index in set(alone) - set(lost):
        assert tokens[index] == alone[index]
    for index in lost:
        assert tokens[index] == alone[index][: len(tokens[index])]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("method", ["speculative", "eagle", "suffix"])
def test_a_prefill_that_fails_takes_no_slot_along(pair, method, batch, monkeypatch):
    """Nor the requests that were read together with it."""
    requests = wanted(5)
    alone = tokens_of(decode_all(engine_for("autoregressive", {}, *pair), requests)[0])
    engine = engine_for(method, {}, *pair, batch=batch)
    real, asked = engine._drafter.admit, []

    def admit(*sequences):
        asked.append([sequence.noise.request for sequence in sequences])
        if 2 in asked[-1]:
            raise MemoryError("no room for the prefix")
        real(*sequences)

    monkeypatch.setattr(engine._drafter, "admit", admit)
    scheduler = Scheduler({"": engine})
    for request in requests:
        scheduler.submit(Order(request, 0))
    served, rows = {}, {}
    while scheduler.busy:
        told = scheduler.step()
        scheduler.check_integrity()
        rows.update({row.request: row for row in told.arrivals})
        served.update({record.request: record.token_ids for record in told.finished})
    assert asked[0] == list(range(batch))
    assert [rows[index].reason == "lost" for index in range(5)] == [False, False, True] + [
        False
    ] * 2
    assert served == {index: alone[index] for index in alone if index != 2}
    assert engine.num_free == batch


@pytest.fixture(scope="module")
def embedded():
    return [load_model(name, device="cpu") for name in ("pycode-target", "pycode-draft")]


@pytest.mark.slow
@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "t0.8"])
@pytest.mark.parametrize("method", ["dynamic-tree", "static-tree"])
def test_the_embedded_pair(embedded, method, sampling):
    models = embedded
    lines = (data_folder() / "prompts" / "code.jsonl").read_text().splitlines()
    ids = [models[0].tokenizer.encode(json.loads(line)["turns"][0]) for line in lines[:6]]
    requests = [Request(i, "", tuple(t[-(20 + 15 * i) :]), 8 + 2 * i) for i, t in enumerate(ids)]
    plain = engine_for("autoregressive", {}, *models, sampling=sampling, capacity=256)
    alone = tokens_of(decode_all(plain, requests)[0])
    assert METHODS[method].needs_draft
    for seed, (policy, budgets) in enumerate(
        [("shortest-first", "auction"), ("fair", "proportional:12")]
    ):
        engine = engine_for(method, {}, *models, sampling=sampling, capacity=256, batch=3)
        served, reasons = serve(
            {"": engine}, requests, policy=policy, budgets=budgets, seed=seed, disturb=bool(seed)
        )
        check(alone, served, reasons, requests)
