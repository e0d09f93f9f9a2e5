"""Losslessness on the embedded pair in float32: every method and policy, greedy and sampled.

The output must equal plain decoding token for token; greedy also Hugging Face `generate`.
"""

from __future__ import annotations

import json

import pytest
import torch

from engine.models import load_model
from engine.paths import data_folder
from engine.registry import METHODS, method_names
from engine.requests import Request
from engine.sampling import Sampling
from tests.engine.test_contract import SETTINGS
from tests.engine.tiny import decode_all, engine_for, tokens_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("drafting_pays")]
NEW_TOKENS = 32
GREEDY, WARM = Sampling(), Sampling(temperature=0.8, seed=3)
#: options other than the default are tried greedy with several and sampled alone, which the tiny
#: models of test_contract.py have in every combination
CASES = [
    pytest.param(
        batch, sampling, method, options,
        id=f"{batch}-{'t0.8' if sampling.temperature else 'greedy'}-{method}-"
        f"{'-'.join(map(str, options.values())) or 'default'}",
    )
    for method in method_names()
    for options in [{}, *SETTINGS.get(method, [])]
    for batch, sampling in ((1, WARM), (4, GREEDY), (1, GREEDY), (4, WARM))[: 2 if options else 4]
]  # fmt: skip


@pytest.fixture(scope="module")
def pair():
    return [load_model(name, device="cpu") for name in ("pycode-target", "pycode-draft")]


@pytest.fixture(scope="module")
def draft_of(pair):
    """The embedded draft model for a method: bytes, where it meets the target in text."""
    of_bytes = load_model("pycode-bytes", device="cpu")
    return lambda method: pair[1] if METHODS[method].same_vocabulary else of_bytes


@pytest.fixture(scope="module")
def wanted(pair):
    """Held-out code, cut to different lengths."""
    lines = (data_folder() / "prompts" / "code.jsonl").read_text().splitlines()
    prompts = [json.loads(line)["turns"][0] for line in lines[:4]]
    ids = [pair[0].tokenizer.encode(prompt) for prompt in prompts]
    return [
        Request(i, "", tuple(tokens[-(40 + 25 * i) :]), NEW_TOKENS) for i, tokens in enumerate(ids)
    ]


@pytest.fixture(scope="module")
def plain(pair, wanted):
    return {
        sampling: tokens_of(
            decode_all(engine_for("autoregressive", {}, *pair, sampling=sampling), wanted)[0]
        )
        for sampling in (GREEDY, WARM)
    }


@pytest.mark.parametrize(("batch", "sampling", "method", "options"), CASES)
def test_same_tokens_as_plain_decoding(
    pair, draft_of, wanted, plain, batch, sampling, method, options
):
    engine = engine_for(
        method, options, pair[0], draft_of(method), sampling=sampling, batch=batch,
        ignore_eos=True, capacity=256,
    )  # fmt: skip
    done, steps = decode_all(engine, wanted)
    assert tokens_of(done) == plain[sampling]
    if method != "autoregressive":
        assert len(steps) < 4 * NEW_TOKENS


def test_bytes_spell_what_the_target_says(pair, draft_of, wanted):
    """By way of text, some of what is drafted is right, and guesses from the text save passes."""
    passes = {}
    for ahead in (0, 7):
        engine = engine_for(
            "universal", {"ahead": ahead}, pair[0], draft_of("universal"), ignore_eos=True,
            capacity=256,
        )  # fmt: skip
        _, steps = decode_all(engine, wanted)
        passes[ahead] = sum(step.tree.draft_passes for step in steps)
        accepted = sum(step.verdict.num_accepted for step in steps)
        assert accepted > 0.25 * sum(step.tree.num_drafted for step in steps) > 0
    assert passes[7] < passes[0]


def test_greedy_equals_hugging_face_generate(pair, wanted, plain):
    for request in wanted:
        prompt = torch.tensor([request.prompt_ids])
        out = pair[0].model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, eos_token_id=None,
            max_new_tokens=NEW_TOKENS, pad_token_id=0,
        )  # fmt: skip
        assert plain[GREEDY][request.index] == out[0, prompt.shape[1] :].tolist()
