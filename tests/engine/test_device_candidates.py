"""Draft rows that stay on the device: the host's candidates, ties and all, and the same trees."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine import candidates as module
from engine.candidates import DraftRows, Place
from engine.device_candidates import DevicePass, DeviceRow, NoiseAt, top_of_rows
from engine.device_sampling import NoiseTable
from engine.errors import DecodeError
from engine.growth import Candidates, Chooser, Growth, Noise, Row
from engine.registry import METHODS, method_names
from engine.runner import NodeLogits
from engine.sampling import Sampling, gumbel
from engine.tree import Children
from tests.engine.test_contract import BOLD, SETTINGS
from tests.engine.tiny import VOCAB, decode_all, engine_for, near, requests, tiny, tokens_of

WARM = Sampling(temperature=0.8, seed=3)
CUT = Sampling(temperature=0.7, top_k=40, top_p=0.9, seed=5)
POSITION = 17
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
GPU = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    ],
)


def logits_of(rows: int, width: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """Logits with ties at every rank: in half precision by themselves, in float32 by rounding."""
    logits = 3 * torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    logits = (8 * logits).round() / 8
    logits[0, 1::2] = logits[0, ::2][: width // 2]
    logits[-1] = 0.0
    logits[-1, ::2] = -0.0  # equals
    return logits.to(dtype)


def both(
    logits: torch.Tensor, kind: Children, sampling: Sampling, *, vocab_size: int
) -> tuple[list[Row], list[Row], Chooser]:
    """Rows on the host and on the device of one pass, a row of it each 3 positions further."""
    noise = Noise(sampling, request=2, vocab_size=vocab_size)
    found = NodeLogits(logits, torch.logsumexp(logits.float(), -1), {1: 0})
    places = {1: Place(noise, [POSITION + 3 * row for row in range(len(logits))])}
    made = [
        DraftRows(tiny(), kind=kind, sampling=sampling, vocab_size=vocab_size, on_device=there).of(
            found, places
        )
        for there in (False, True)
    ]
    assert all(isinstance(row, DeviceRow) for row in made[1])
    return *made, Chooser(kind, sampling, noise, POSITION, kernels=False)


def children(row: Row, number: int, count: int, chooser: Chooser) -> Candidates:
    """Of the row of that number, as a policy asks for them."""
    growth = Growth([0])
    growth.depth[0] = 3 * number
    return chooser.choose(growth, 0, row, count)


def assert_same(ours: Candidates, theirs: Candidates, *, exact: bool) -> None:
    assert ours.tokens_K.tolist() == theirs.tokens_K.tolist()
    assert ours.tokens_K.dtype == np.int64
    for one, other in zip(ours[1:], theirs[1:], strict=True):
        if exact:
            assert one.tolist() == other.tolist()
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("kind", "sampling"),
    [(Children.FIXED, Sampling()), (Children.COUPLED, WARM), (Children.COUPLED, CUT)],
    ids=["fixed", "coupled", "coupled, cut"],
)
@pytest.mark.parametrize("width", [VOCAB, 152_064])
def test_candidates_are_the_hosts(device, dtype, kind, sampling, width):
    logits = logits_of(4, width, dtype).to(device)
    host, there, chooser = both(logits, kind, sampling, vocab_size=width)
    for count in (1, 3, 8, 9, 64):  # more than were found at first are looked for again
        for row in range(4):
            ours, theirs = (children(of[row], row, count, chooser) for of in (there, host))
            exact = kind is Children.FIXED and device == "cpu"
            assert_same(ours, theirs, exact=exact)


def test_passes_of_many_rows_are_looked_through_in_parts():
    logits = logits_of(75, VOCAB, torch.bfloat16)
    host, there, chooser = both(logits, Children.COUPLED, WARM, vocab_size=VOCAB)
    for row in range(75):
        ours, theirs = (children(of[row], row, 3, chooser) for of in (there, host))
        assert_same(ours, theirs, exact=False)


@pytest.mark.parametrize("kind", [Children.FIXED, Children.COUPLED])
@pytest.mark.parametrize("padding", [-3, 5])
def test_a_draft_of_another_width_and_more_children_than_tokens(kind, padding):
    """Families pad their vocabularies to different sizes: what the target lacks is no child."""
    logits = logits_of(3, 20 + padding, torch.float32)
    logits[1, 4:] = -torch.inf
    host, there, chooser = both(logits, kind, WARM, vocab_size=20)
    for count in (2, 30):
        for row in range(3):
            ours, theirs = (children(of[row], row, count, chooser) for of in (there, host))
            assert_same(ours, theirs, exact=kind is Children.FIXED)
            assert len(ours.tokens_K) <= 20
    assert len(children(there[1], 1, 30, chooser).tokens_K) == 4


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_of_equal_scores_the_lower_token_wins_whatever_topk_takes(dtype):
    scores = torch.tensor([[1, 2, 2, 0, 2, 2], [0, 0, 0, 0, 0, 0], [3, 1, 3, 1, 1, 5]], dtype=dtype)
    index, best = top_of_rows(scores, 3)
    assert index.tolist() == [[1, 2, 4], [0, 1, 2], [5, 0, 2]]
    assert best.tolist() == [[2, 2, 2], [0, 0, 0], [5, 3, 3]]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_row_that_is_not_finite_ends_the_run_with_the_hosts_words(bad):
    logits = torch.randn(3, VOCAB)
    logits[1, 5] = bad
    said = []
    for on_device in (False, True):
        rows = DraftRows(
            tiny(), kind=Children.FIXED, sampling=Sampling(), vocab_size=VOCAB, on_device=on_device
        )
        found = NodeLogits(logits, torch.logsumexp(logits, -1), {0: 0})
        with pytest.raises(DecodeError) as raised:
            rows.of(found, {})[0].likeliest(2)
        said.append(str(raised.value))
    assert said[0] == said[1]


def test_one_copy_and_one_wait_serve_a_pass():
    logits = torch.randn(6, VOCAB)
    found = NodeLogits(logits, torch.logsumexp(logits, -1), {0: 0})
    copied, waits = [], []

    def copy(values):
        host = torch.full_like(values, torch.nan)  # not there yet
        copied.append(tuple(values.shape))

        def arrive():
            waits.append(1)
            host.copy_(values)

        return host, arrive

    whole = DevicePass(found, tiny(), vocab_size=VOCAB, sampling=Sampling(), copy=copy)
    assert not copied, "nobody has asked"
    for row in (3, 0, 5):
        for count in (1, 3, 8):
            wanted = logits[row].sort(descending=True).indices[:count].tolist()
            assert whole.best(row, count).tokens_K.tolist() == wanted
    assert copied == [(6, 2 * 8 + 1)]
    assert len(waits) == 1


@pytest.mark.parametrize("coupled", [False, True])
def test_everything_but_the_copy_stays_on_the_device(coupled):
    """On the meta device a tensor left on the host cannot be mixed in without an error."""
    logits = torch.zeros(5, VOCAB, device="meta", dtype=torch.bfloat16)
    found = NodeLogits(logits, torch.zeros(5, device="meta"), {0: 0})
    table = torch.zeros(2, VOCAB, device="meta", dtype=torch.float64)
    row_R = torch.zeros(5, device="meta", dtype=torch.int64)
    noise = NoiseAt(table, row_R) if coupled else None
    copied = []

    def copy(values):
        copied.append((tuple(values.shape), values.dtype, values.device.type))
        return torch.zeros(values.shape, dtype=values.dtype), lambda: None

    whole = DevicePass(found, tiny(), vocab_size=VOCAB, sampling=CUT, noise=noise, copy=copy)
    whole.best(0, 3)
    assert copied == [((5, (3 if coupled else 2) * 8 + 1), torch.float64, "meta")]


def test_noise_is_copied_once_and_rows_of_the_past_are_used_again(monkeypatch):
    table, drawn = NoiseTable(torch.device("cpu")), []
    at = Noise.at
    monkeypatch.setattr(Noise, "at", lambda self, p: drawn.append(p) or at(self, p))
    noises = [Noise(WARM, request=request, vocab_size=11) for request in range(3)]
    for root in range(100, 160, 3):
        for noise in noises:
            noise.forget_before(root)
            for _ in ("drafting", "verification"):
                for position in range(root, root + 5):
                    row = table.row(noise, position)
                    fresh = gumbel(WARM, request=noise.request, position=position, vocab_size=11)
                    assert (table.table_RV[row].numpy() == fresh).all()
    assert len(drawn) == 3 * (160 - 100 + 2)
    assert len(table.table_RV) <= 32
    del noise, noises
    for request in range(40):  # requests that are over hold nothing
        table.row(Noise(WARM, request=request, vocab_size=11), 5)
    assert len(table.table_RV) <= 32


#: methods that ask a model pass after pass; medusa's heads guess all in one, on the device
DRAFTING = [
    name
    for name in method_names()
    if METHODS[name].needs_draft or Children.COUPLED in METHODS[name].children
]
CASES = [
    pytest.param(name, options, id=f"{name}-{'-'.join(map(str, options.values())) or 'default'}")
    for name in DRAFTING
    for options in [BOLD.get(name, {}), *SETTINGS.get(name, [])]
]


def decoded(method, options, pair, **how):
    engine = engine_for(method, options, *pair, batch=3, **how)
    return decode_all(engine, requests(4, max_new_tokens=12))


@pytest.fixture(scope="module")
def pair():
    target = tiny()
    return target, near(target)


@pytest.mark.usefixtures("drafting_pays")
@pytest.mark.parametrize(("method", "options"), CASES)
@pytest.mark.parametrize("sampling", [Sampling(), CUT], ids=["greedy", "t0.7"])
def test_trees_are_the_same_node_for_node(pair, method, options, sampling, monkeypatch):
    done, steps = decoded(method, options, pair, sampling=sampling, kernels="off")
    monkeypatch.setattr(module, "to_width", None)  # rows on the host have no other way
    own_done, own_steps = decoded(method, options, pair, sampling=sampling, on_device=True)
    assert tokens_of(done) == tokens_of(own_done)
    if options.get("policy") != "auto":  # its trees follow the clock
        assert_same_trees(steps, own_steps)


def assert_same_trees(steps, own_steps) -> None:
    for one, other in zip(steps, own_steps, strict=True):
        for column in ("tokens_M", "parents_M", "rank_M", "source_M", "round_pruned_M"):
            assert getattr(one.tree, column).tolist() == getattr(other.tree, column).tolist()
        np.testing.assert_allclose(
            one.tree.draft_logprob_M, other.tree.draft_logprob_M, rtol=0, atol=1e-6
        )
        assert one.tree.draft_passes == other.tree.draft_passes


@pytest.mark.parametrize("rule", ["multi-step", "without-replacement", "traversal"])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("static-tree", {}),
        ("dynamic-tree", {"policy": "best-first"}),
        ("staged", {"policy": "best-first"}),
    ],
)
def test_sampled_children_are_drawn_from_whole_rows(pair, method, options, rule):
    runs = [
        decoded(method, options, pair, sampling=CUT, verify=rule, on_device=there)
        for there in (False, True)
    ]
    assert tokens_of(runs[0][0]) == tokens_of(runs[1][0])
    assert_same_trees(runs[0][1], runs[1][1])
