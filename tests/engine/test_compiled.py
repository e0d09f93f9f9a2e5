"""Ahead-of-time compiled forwards: the same logits and tokens as eager, made once, kept on disk."""

from __future__ import annotations

import pytest
import torch

from engine import compiled, packages
from engine.errors import UserError
from engine.models import load_model
from engine.paths import cache_folder
from tests.engine.compiling import needs_compiler, square
from tests.engine.test_models import save
from tests.engine.tiny import decode_all, engine_for, requests, tokens_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return square(tmp_path_factory.mktemp("model")).path


@needs_compiler
@pytest.mark.slow
def test_compiled_equals_eager(folder):
    """What is made for three slots serves one slot too."""
    loaded = load_model(folder, device="cpu")
    heard = []
    for batch in (3, 1):
        outcomes = {}
        for execution in ("eager", "compiled", "auto"):
            engine = engine_for(
                "dynamic-tree", {}, loaded, loaded, batch=batch, execution=execution,
                on_progress=lambda phase, message, fraction: heard.append((phase, fraction)),
            )  # fmt: skip
            outcomes[execution] = tokens_of(decode_all(engine, requests())[0])
            assert engine.mode == ("eager" if execution == "eager" else "compiled")
            if (batch, execution) == (3, "compiled"):
                assert heard, "compiling said nothing"
                heard.clear()
            assert not heard, "what lies on disk was compiled again"
        assert outcomes["eager"] == outcomes["compiled"] == outcomes["auto"]


@needs_compiler
@pytest.mark.slow
def test_a_cancelled_compilation_leaves_nothing_behind(tmp_path):
    loaded = load_model(str(save(tmp_path / "m")), device="cpu")

    class CancelledError(Exception):
        pass

    def cancel(phase, message, fraction):
        raise CancelledError

    with pytest.raises(CancelledError):
        compiled.forward_for(loaded, 1, cancel)
    assert not packages.at_hand(loaded, 1)


@needs_compiler
def test_a_damaged_package_is_dropped_and_eager_serves(folder, monkeypatch):
    loaded = load_model(folder, device="cpu")
    for module in (compiled, packages):
        monkeypatch.setattr(
            module, "package_path", lambda m, kind, part=None: cache_folder() / f"bad-{kind}.pt2"
        )
    for kind in packages.kinds_for(1):
        path = packages.package_path(loaded, kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not a package")
    engine = engine_for("autoregressive", {}, loaded, None, execution="auto")
    assert engine.mode == "eager"
    assert not packages.at_hand(loaded, 1)


def test_without_a_compiler_eager_serves_and_asking_says_why(folder, monkeypatch):
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    monkeypatch.setattr(packages, "at_hand", lambda loaded, batch, part=None: False)
    for module in (compiled, packages):
        monkeypatch.setattr(
            module, "package_path", lambda m, kind, part=None: cache_folder() / f"none-{kind}.pt2"
        )
    loaded = load_model(folder, device="cpu")
    assert engine_for("autoregressive", {}, loaded, None, execution="auto").mode == "eager"
    with pytest.raises(UserError, match="install g\\+\\+"):
        engine_for("autoregressive", {}, loaded, None, execution="compiled")


def test_the_name_of_a_package_follows_what_its_code_depends_on(folder, monkeypatch):
    loaded = load_model(folder, device="cpu")
    base = packages.package_path(loaded, "tree")
    assert packages.package_path(loaded, "single") != base
    loaded.content_hash = "other"
    assert packages.package_path(loaded, "tree") != base
    loaded = load_model(folder, device="cpu")
    monkeypatch.setattr(torch, "__version__", "9.9")
    assert packages.package_path(loaded, "tree") != base
