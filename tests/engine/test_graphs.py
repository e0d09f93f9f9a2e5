"""Passes through graphs: padding, reuse, bounds and tokens, with a stand-in that reruns the step.

The stand-in runs over the very buffers a graph would read and overwrites the very outputs, so all
that a graph could get wrong but the recording itself is tested here without a GPU.
"""

from __future__ import annotations

import contextlib
import logging

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from engine import graphs
from engine.envelopes import Buffers, Envelope, Inputs, columns_up, envelope_of, round_up
from engine.errors import UserError
from engine.forward import EagerForward
from engine.graphs import Rerun, graph_forward
from engine.packing import Packing, can_pack
from engine.replaying import Counts, EnvelopeForward
from engine.room import kv_shapes
from engine.runner import Nodes, TreeRunner
from engine.sampling import Sampling
from tests.engine.tiny import CONFIGS, decode_all, engine_for, near, requests, tiny, tokens_of

CAPACITY = 150


class Recorder(Rerun):
    """The stand-in, which keeps what it was asked for and counts replays."""

    def __init__(self, failing: frozenset[int] = frozenset()):
        self.made = []
        self.replays = 0
        self._failing = failing  # widths that cannot be made

    def __call__(self, step, inputs):
        if inputs.masks[0].shape[2] in self._failing:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        replay = super().__call__(step, inputs)
        self.made.append(inputs)

        def counted():
            self.replays += 1
            return replay()

        return counted


@pytest.fixture
def stand_in(monkeypatch):
    """Execution graph without a GPU; gives the makers by the model they record."""
    makers = {}
    monkeypatch.setattr(
        graphs, "maker_for", lambda loaded: makers.setdefault(loaded.name, Recorder())
    )
    return makers


def forward_over(loaded, maker, **how):
    return EnvelopeForward(
        EagerForward(loaded.model, windowed_dict=loaded.windowed_dict), maker, num_slots=1, **how
    )


def runners(loaded, forward, *, max_tree=12):
    """One through `forward`, one eager, both behind the same prefix."""
    pair = [
        TreeRunner(loaded, num_slots=1, capacity=CAPACITY, max_tree=max_tree, forward=each)
        for each in (forward, None)
    ]
    for runner in pair:
        runner.admit(0, [3, 1, 4, 1, 5])
    return pair


def pass_over(runner, size):
    """Logits of a root and its children, forgotten again."""
    found = runner.forward({0: Nodes(list(range(size)), [-1] + [0] * (size - 1))})
    runner.keep(0, [])
    return found.logits_RV[:size].clone(), found.log_norm_R[:size].clone()


def test_sizes_are_rounded_up_to_a_short_list():
    assert [round_up(n) for n in (1, 2, 3, 5, 9, 33, 64, 65, 129)] == [
        1, 2, 4, 8, 16, 64, 64, 128, 192,
    ]  # fmt: skip
    assert [columns_up(n, 1000) for n in (16, 256, 257, 600, 900)] == [256, 256, 512, 1000, 1000]


def test_an_envelope_holds_what_is_no_larger_in_any_way():
    wide = Envelope(slots=2, width=8, packed=16, columns=256, cache=1)
    assert wide.holds(wide._replace(width=4, packed=8))
    assert not wide._replace(packed=8).holds(wide)
    assert not wide.holds(wide._replace(cache=2)), "another cache lies elsewhere"
    assert not wide.holds(wide._replace(packed=0)), "padded nodes are no packed ones"


@pytest.mark.parametrize("architecture", sorted(CONFIGS))
def test_logits_equal_eager_ones_whatever_ran_before_in_the_same_buffers(architecture):
    loaded = tiny(architecture)
    graph, eager = runners(loaded, forward_over(loaded, Recorder()))
    for size in (7, 5, 8, 3, 6, 1, 7):
        ours, theirs = pass_over(graph, size), pass_over(eager, size)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, atol=2e-4, rtol=0)


def test_an_envelope_is_made_once_and_replayed_ever_after():
    loaded = tiny()
    maker = Recorder()
    forward = forward_over(loaded, maker)
    graph, _ = runners(loaded, forward)
    for size in (5, 6, 8, 3, 5):
        pass_over(graph, size)
    assert len(maker.made) == 2, "widths 8 and 4"
    assert maker.replays == 5
    assert forward.counts == Counts(made=2, replayed=5)
    graph.forward({0: Nodes([1], [-1])})
    assert len(maker.made) == 3
    assert forward.said() == "3 made, 6 replayed, 0 replayed wider, 0 eager"


def test_padding_touches_spare_rows_alone_and_is_never_nan():
    loaded = tiny()
    graph, eager = runners(loaded, forward_over(loaded, Recorder()))
    for runner in (graph, eager):
        pass_over(runner, 8)
        runner.forward({0: Nodes([7, 8, 9, 10, 11], [-1, 0, 0, 1, 1])})
    for ours, theirs in zip(graph.keys + graph.values, eager.keys + eager.values, strict=True):
        torch.testing.assert_close(ours[:, :-1], theirs[:, :-1], atol=2e-5, rtol=0)
        assert torch.isfinite(ours).all()


def test_logits_outlive_the_next_replay():
    loaded = tiny()
    graph, eager = runners(loaded, forward_over(loaded, Recorder()))
    kept = graph.forward({0: Nodes([1, 2, 3], [-1, 0, 0])}).logits_RV
    graph.keep(0, [])
    graph.forward({0: Nodes([9, 8, 7], [-1, 0, 1])})
    wanted = eager.forward({0: Nodes([1, 2, 3], [-1, 0, 0])}).logits_RV
    torch.testing.assert_close(kept[:3], wanted, atol=2e-4, rtol=0)


def test_beyond_the_bound_a_wider_envelope_serves_and_eager_where_there_is_none():
    loaded = tiny()
    maker = Recorder()
    forward = forward_over(loaded, maker, most=2)
    graph, eager = runners(loaded, forward, max_tree=40)
    for size in (6, 12, 3, 1, 20):  # envelopes 8 and 16, then no more: 4 and 1 in 8, 32 in none
        for one, other in zip(pass_over(graph, size), pass_over(eager, size), strict=True):
            torch.testing.assert_close(one, other, atol=2e-4, rtol=0)
    assert forward.counts == Counts(made=2, replayed=2, replayed_wider=2, eager=1)


def test_packed_nodes_fit_into_a_wider_envelope():
    loaded = tiny()
    packing = TreeRunner(loaded, num_slots=3, capacity=CAPACITY, max_tree=12)
    forward = EnvelopeForward(packing.eager, Recorder(), num_slots=3, most=1)
    pair = [
        TreeRunner(loaded, num_slots=3, capacity=CAPACITY, max_tree=12, forward=each)
        for each in (forward, None)
    ]
    for runner in pair:
        for slot in range(3):
            runner.admit(slot, list(range(2 + 3 * slot)))
    for sizes in ((8, 5, 3), (1, 2, 4), (2, 0, 1), (0, 0, 3), (7, 7, 2)):
        nodes = {
            slot: Nodes(list(range(size)), [-1, *range(size - 1)])
            for slot, size in enumerate(sizes)
            if size
        }
        found = [runner.forward(nodes) for runner in pair]
        for slot, new in nodes.items():
            ours, theirs = (
                f.logits_RV[f.first[slot] : f.first[slot] + len(new.tokens_N)] for f in found
            )
            torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0)
            for runner in pair:
                runner.keep(slot, [])
    assert forward.counts == Counts(made=1, replayed=2, replayed_wider=3)


def test_what_cannot_be_made_runs_eagerly_and_is_not_tried_again(caplog):
    loaded = tiny()
    maker = Recorder(failing=frozenset({4}))
    forward = forward_over(loaded, maker)
    graph, eager = runners(loaded, forward)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            torch.testing.assert_close(pass_over(graph, 3)[0], pass_over(eager, 3)[0])
    assert forward.counts == Counts(eager=3)
    assert len([r for r in caplog.records if "not permitted" in r.message]) == 1
    pass_over(graph, 8)
    pass_over(graph, 3)
    assert forward.counts == Counts(made=1, replayed=1, replayed_wider=1, eager=3)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gemma3", "gpt2", "mistral"])
def test_tokens_equal_eager_ones(architecture, batch, stand_in):
    target = tiny(architecture)
    draft = near(target)
    outcomes = {}
    for execution in ("eager", "graph"):
        engine = engine_for(
            "dynamic-tree", {}, target, draft, batch=batch, execution=execution, capacity=CAPACITY
        )
        assert engine.mode == execution
        outcomes[execution] = tokens_of(decode_all(engine, requests())[0])
    assert outcomes["graph"] == outcomes["eager"]
    for maker in stand_in.values():
        assert len({envelope_of(made) for made in maker.made}) == len(maker.made), "made again"
        assert maker.replays > 2 * len(maker.made)


@pytest.mark.parametrize(("method", "options"), [
    ("autoregressive", {}), ("speculative", {}), ("static-tree", {}), ("token-recycling", {}),
])  # fmt: skip
def test_sampled_tokens_equal_eager_ones_in_other_methods(method, options, stand_in):
    target = tiny()
    draft = near(target)
    outcomes = [
        tokens_of(decode_all(
            engine_for(method, options, target, draft, batch=2, execution=execution,
                       sampling=Sampling(temperature=0.8, seed=3)),
            requests(4),
        )[0])
        for execution in ("eager", "graph")
    ]  # fmt: skip
    assert outcomes[0] == outcomes[1]


def test_packed_nodes_run_packed_in_graphs_too(stand_in):
    target = tiny()
    engine = engine_for("prompt-lookup", {}, target, None, batch=4, execution="graph")
    decode_all(engine, requests(8))
    made = stand_in[target.name].made
    assert any(inputs.packing is not None for inputs in made), "nodes were padded, not packed"


class _Watch(TorchDispatchMode):
    """Notes operations that wait for the device or copy from the host: neither can be recorded."""

    FORBIDDEN = (
        "aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.equal",
        "aten.lift_fresh", "aten._unique2", "aten.is_nonzero",
    )  # fmt: skip

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func).rpartition(".")[0]
        if name in self.FORBIDDEN:
            self.seen.add(name)
        if name.startswith("aten.index") and any(
            isinstance(at, torch.Tensor) and at.dtype is torch.bool
            for at in (args[1] if isinstance(args[1], list | tuple) else ())
        ):
            self.seen.add("boolean index")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("architecture", sorted(CONFIGS))
def test_a_pass_never_asks_the_device_for_anything(architecture):
    loaded = tiny(architecture)
    forward = forward_over(loaded, maker := Recorder())
    graph, _ = runners(loaded, forward)
    pass_over(graph, 8)
    step = EagerForward(loaded.model, windowed_dict=loaded.windowed_dict).step
    with torch.inference_mode(), _Watch() as watch:
        step(*maker.made[0])
    assert not watch.seen


def test_the_watch_sees_what_a_recording_would_refuse():
    with _Watch() as watch:
        values = torch.arange(4)
        values[values > 2]
        float(values[0])
    assert watch.seen >= {"boolean index", "aten._local_scalar_dense"}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("architecture", sorted(CONFIGS))
def test_a_pass_in_its_buffers_stays_on_the_models_device(architecture, packed):
    """On the meta device a tensor left on the host cannot be mixed in without an error."""
    loaded = tiny(architecture)
    if packed and not can_pack(loaded.attention):
        pytest.skip("does not run packed")
    shapes = kv_shapes(loaded)
    model = loaded.model.to("meta", torch.bfloat16)

    def zeros(*sizes, dtype=torch.int64):
        return torch.zeros(sizes, dtype=dtype, device="meta")

    shape = (1, 5) if packed else (2, 3)
    keys, values = (
        [zeros(4, 128, each[0], each[which], dtype=torch.bfloat16) for each in shapes]
        for which in (1, 2)
    )
    masks = [zeros(2, 1, 3, 32, dtype=torch.bfloat16)] * (2 if loaded.window else 1)
    packing = Packing(zeros(2, 3), zeros(5)) if packed else None
    given = Inputs(zeros(*shape), zeros(*shape), zeros(*shape), masks, keys, values, packing)
    buffers = Buffers(Envelope(2, 4, 8 if packed else 0, 128, cache=0), given)
    buffers.fill(given)
    with torch.inference_mode():
        step = EagerForward(model, windowed_dict=loaded.windowed_dict).step
        logits, log_norm = step(*buffers.inputs)
    assert logits.device.type == log_norm.device.type == "meta"
    assert logits.shape[:2] == log_norm.shape == ((1, 8) if packed else (2, 4))


def test_graphs_on_a_cpu_say_what_to_do_instead():
    with pytest.raises(UserError, match=r"llama is on the cpu.*--execution compiled"):
        engine_for("autoregressive", {}, tiny(), None, execution="graph")


def test_a_model_that_cannot_be_recorded_is_refused_before_it_runs(monkeypatch):
    monkeypatch.setattr(graphs, "maker_for", lambda loaded: Recorder(failing=frozenset({1})))
    with pytest.raises(UserError, match=r"cannot be recorded.*not permitted"):
        graph_forward(tiny())


class FakeCuda:
    """torch.cuda's part in recording, as far as order and arguments can be checked without it."""

    def __init__(self, monkeypatch):
        self.calls = []
        self.pools = 0
        for name in ("device", "stream", "graph"):
            monkeypatch.setattr(torch.cuda, name, self._context(name))
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", self._pool)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda *at: FakeStream(self, "here"))
        monkeypatch.setattr(torch.cuda, "Stream", lambda *at: FakeStream(self, "side"))
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: FakeGraph(self))

    def _pool(self):
        self.pools += 1
        return "pool"

    def _context(self, name):
        @contextlib.contextmanager
        def enter(*what, **how):
            self.calls.append((name, how))
            yield
            self.calls.append((f"end of {name}", {}))

        return enter


class FakeStream:
    def __init__(self, cuda, name):
        self._cuda, self.name = cuda, name

    def wait_stream(self, other):
        self._cuda.calls.append((f"{self.name} waits for {other.name}", {}))


class FakeGraph:
    def __init__(self, cuda):
        self._cuda = cuda

    def replay(self):
        self._cuda.calls.append(("replay", {}))


def test_recording_warms_up_beside_and_shares_one_pool(monkeypatch):
    cuda = FakeCuda(monkeypatch)
    maker = graphs.CudaGraphs("cuda:1")

    def step(*inputs):
        cuda.calls.append(("step", {}))
        return torch.ones(1, 1, 3), torch.zeros(1, 1)

    replay = maker(step, [])
    maker(step, [])
    names = [name for name, _ in cuda.calls]
    assert names[: len(names) // 2] == [
        "device", "side waits for here", "stream", "step", "step", "end of stream",
        "here waits for side", "graph", "step", "end of graph", "end of device",
    ]  # fmt: skip
    assert cuda.pools == 1
    (how, _) = (how for name, how in cuda.calls if name == "graph")
    assert how["pool"] == "pool"
    assert how["stream"].name == "side", "the default one lies on the first device"
    before = len(cuda.calls)
    assert replay().logits_BNV.shape == (1, 1, 3)
    assert cuda.calls[before:] == [("replay", {})], "a replay is one launch"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("batch", [1, 3])
def test_real_graphs_give_the_tokens_of_eager_passes(batch):
    outcomes = {}
    for execution in ("eager", "graph"):
        target = tiny()
        target.model.to("cuda")
        target.device = "cuda"
        draft = near(target)
        engine = engine_for("dynamic-tree", {}, target, draft, batch=batch, execution=execution)
        outcomes[execution] = tokens_of(decode_all(engine, requests())[0])
        run = engine._target.runner.run
        assert run.mode == execution
        if execution == "graph":
            assert run.counts.made
            assert not run.counts.eager
    assert outcomes["graph"] == outcomes["eager"]
