"""Differences from plain decoding: found, measured, judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_pair import write_pair

from engine.models import LoadedModel, load_model
from engine.records import FinishReason, RequestRecord
from engine.requests import Request
from engine.sampling import Sampling
from workbench.losslessness import _Compared, first_difference, judge

GREEDY = Sampling()


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = write_pair(tmp_path_factory.mktemp("pair")).target
    return load_model(str(folder), dtype="float32", device="cpu")


def record(prompt_ids: list[int], token_ids: list[int], request: int = 3) -> RequestRecord:
    return RequestRecord(
        request=request,
        question_id="q",
        category="",
        turn=0,
        repeat=0,
        prompt="",
        prompt_ids=prompt_ids,
        token_ids=token_ids,
        text="",
        finish_reason=FinishReason.LENGTH,
        num_steps=0,
        num_emitted=0,
        num_drafted=0,
        num_accepted=0,
        prefill_ns=0,
        decode_ns=0,
        repetition=0.0,
    )


def logits(target: LoadedModel, ids: list[int]) -> np.ndarray:
    with torch.inference_mode():
        return target.model(torch.tensor([ids])).logits[0, -1].double().numpy()


@pytest.mark.parametrize(
    ("one", "other", "at"),
    [
        ([1, 2, 3], [1, 2, 3], None),
        ([1, 2], [1, 3], 1),
        ([1, 2], [1], 1),
        ([], [5], 0),
        ([], [], None),
    ],
)
def test_first_difference(one: list[int], other: list[int], at: int | None) -> None:
    assert first_difference(one, other) == at


def test_equal_outputs_have_no_difference(target: LoadedModel) -> None:
    same = record([5, 6], [7, 8])
    assert judge(same, replace(same), target=target, sampling=GREEDY) is None


def test_a_token_that_is_no_contender_is_a_bug(target: LoadedModel) -> None:
    prompt = [40, 41, 42]
    order = np.argsort(logits(target, [*prompt, 9]))
    best, worst = int(order[-1]), int(order[0])
    found = judge(
        record(prompt, [9, best]), record(prompt, [9, worst]), target=target, sampling=GREEDY
    )
    assert found is not None
    assert (found.position, found.expected, found.got) == (1, best, worst)
    assert found.verdict == "bug"
    values = np.sort(logits(target, [*prompt, 9]))
    assert found.top2_gap == pytest.approx(values[-1] - values[-2], abs=1e-5)
    assert found.shortfall == pytest.approx(values[-1] - values[0], abs=1e-5)
    assert found.tolerance < 2e-3


def test_a_tie_is_numerics_and_a_third_token_never(target: LoadedModel) -> None:
    prompt = [40, 41, 42]
    *_, third, second, best = np.argsort(logits(target, prompt)).tolist()
    weight = target.model.lm_head.weight
    before = weight[second].clone()
    try:
        weight[second] = weight[best]  # now both score the same
        tied = judge(
            record(prompt, [best]), record(prompt, [second]), target=target, sampling=GREEDY
        )
        other = judge(
            record(prompt, [best]), record(prompt, [third]), target=target, sampling=GREEDY
        )
    finally:
        weight[second] = before
    assert tied is not None
    assert tied.verdict == "numerics"
    assert tied.top2_gap <= tied.tolerance
    assert other is not None
    assert other.verdict == "bug"
    assert other.top2_gap == pytest.approx(0.0, abs=1e-6)


def test_an_output_that_ends_early_is_a_bug(target: LoadedModel) -> None:
    found = judge(record([40], [9, 9]), record([40], [9]), target=target, sampling=GREEDY)
    assert found is not None
    assert (found.got, found.got_text, found.verdict) == (None, "(end)", "bug")


def test_when_sampling_noise_decides_and_is_compared(target: LoadedModel) -> None:
    from engine.engine import EngineConfig, build_engine
    from engine.registry import parse_options

    sampling = Sampling(temperature=0.9, seed=11)
    config = EngineConfig(
        method="autoregressive",
        options=parse_options("autoregressive", {}),
        sampling=sampling,
        ignore_eos=True,
        capacity=64,
    )
    engine = build_engine(config, target=target)
    engine.add(Request(index=3, prompt="", prompt_ids=(40, 41, 42), max_new_tokens=6))
    finished: list[RequestRecord] = []
    while not finished:
        finished = engine.step().finished
    (plain,) = finished
    got = [*plain.token_ids[:4], (plain.token_ids[4] + 1) % 257]
    found = judge(plain, record([40, 41, 42], got), target=target, sampling=sampling)
    assert found is not None
    assert found.position == 4
    assert found.verdict == "bug"
    # the plain token wins under its noise, so what is short is the other one, by the whole gap
    assert found.shortfall >= found.top2_gap > 0
    prefix = [40, 41, 42, *plain.token_ids[:4]]
    compared = _Compared(logits(target, prefix), sampling, request=3, position=len(prefix))
    assert int(compared.score_V.argmax()) == plain.token_ids[4]
    again = judge(plain, record([40, 41, 42], plain.token_ids), target=target, sampling=sampling)
    assert again is None


def test_a_token_behind_the_cut_is_measured_by_its_distance_to_it(target: LoadedModel) -> None:
    prompt = [40, 41, 42]
    *_, third, second, best = np.argsort(logits(target, prompt)).tolist()
    sampling = Sampling(temperature=1.0, top_k=2, seed=1)
    found = judge(record(prompt, [best]), record(prompt, [third]), target=target, sampling=sampling)
    assert found is not None
    values = logits(target, prompt)
    assert found.cut_distance == pytest.approx(values[second] - values[third], abs=1e-4)
    assert found.shortfall == float("inf")
    assert found.verdict == "bug"


def test_a_prompt_of_one_token_can_be_judged(tmp_path: Path, target: LoadedModel) -> None:
    assert judge(record([40], [1]), record([40], [2]), target=target, sampling=GREEDY) is not None
