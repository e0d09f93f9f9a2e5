"""Passes by torch.compile: eager's tokens, a code object for each envelope."""

from __future__ import annotations

import shutil

import pytest

from engine import inductor
from engine.errors import UserError
from engine.forward import EagerForward
from tests.engine.tiny import decode_all, engine_for, requests, tiny, tokens_of

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="no C++ compiler: nothing can be compiled here"
)


@needs_compiler
@pytest.mark.slow
def test_tokens_equal_eager_ones():
    loaded = tiny()
    outcomes = {}
    for execution in ("eager", "inductor"):
        engine = engine_for("autoregressive", {}, loaded, None, execution=execution)
        assert engine.mode == execution
        outcomes[execution] = tokens_of(decode_all(engine, requests(2))[0])
    assert outcomes["eager"] == outcomes["inductor"]
    counts = engine._target.runner.run.counts
    assert counts.replayed > counts.made > 0
    assert not counts.eager, "it fell back to eager silently"


def test_every_envelope_has_code_of_its_own():
    """Of shared code the compiler drops what is beyond the eighth shape, without a word."""
    loaded = tiny()
    step = EagerForward(loaded.model, windowed_dict=False).step
    one, other = inductor._own_code(step), inductor._own_code(step)
    assert one.__func__.__code__ is not other.__func__.__code__
    assert one.__func__.__code__.co_code == type(step).forward.__code__.co_code
    assert one.__self__ is step


def test_without_a_compiler_it_says_so(monkeypatch):
    monkeypatch.setattr(inductor.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="install g\\+\\+ for --execution inductor"):
        engine_for("autoregressive", {}, tiny(), None, execution="inductor")


def test_what_cannot_be_compiled_as_a_whole_is_refused(monkeypatch):
    def refuse(*arguments, **how):
        raise inductor.torch._dynamo.exc.Unsupported("graph break in the model")

    monkeypatch.setattr(inductor.torch, "compile", lambda *a, **k: refuse)
    monkeypatch.setattr(inductor.shutil, "which", lambda name: "/usr/bin/g++")
    with pytest.raises(UserError, match=r"cannot compile llama \(graph break"):
        engine_for("autoregressive", {}, tiny(), None, execution="inductor")
