"""Heads on disk: what is written is read again, and what does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.errors import UserError
from engine.heads import KINDS, head_kind
from engine.heads.files import CARD, WEIGHTS, load_head, read_card, save_head
from engine.heads.medusa import MedusaHeads
from tests.engine.heads_fixture import untrained, write_head
from tests.engine.tiny import tiny


@pytest.fixture
def target():
    return tiny()


@pytest.fixture
def folder(target, tmp_path: Path) -> Path:
    return write_head(untrained("medusa", target), target, tmp_path / "head", held_out={})


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read_again(kind: str, target, tmp_path: Path) -> None:
    module = untrained(kind, target)
    with torch.no_grad():
        for weight in module.parameters():
            weight.uniform_(-1.0, 1.0).copy_(weight.half())
    read: Any = load_head(str(write_head(module, target, tmp_path / "head")), target, kind=kind)
    assert read.sizes() == module.sizes()
    assert not read.training
    for name, value in module.state_dict().items():
        assert torch.equal(value, read.state_dict()[name]), name
    assert not any(weight.requires_grad for weight in read.parameters())


@pytest.mark.parametrize(("tied", "projection"), [(True, False), (True, True), (False, False)])
def test_untrained_medusa_heads_say_what_the_target_says(
    tied: bool, projection: bool, target
) -> None:
    sizes = {"num_heads": 3, "tied": tied, "projection": projection}
    heads = MedusaHeads.build(sizes, target)
    hidden = torch.randn(2, 5, 32)
    expected = target.model.lm_head(hidden)
    for logits in heads(hidden):
        torch.testing.assert_close(logits, expected)
    count = sum(weight.numel() for weight in heads.parameters())
    own = 32 * 32 * projection + (0 if tied else 61 * 32)
    assert count == 3 * (32 * 32 + 32 + own)


def test_heads_of_one_list_are_trained_apart(target) -> None:
    """A list made as [module] * n would move every head by every head's gradient."""
    heads = MedusaHeads.build({"num_heads": 3, "num_layers": 2, "tied": False}, target)
    heads.logits(torch.randn(4, 32), 1).sum().backward()
    for name, weight in heads.named_parameters():
        moved = weight.grad is not None and bool(weight.grad.abs().sum() > 0)
        assert moved == (name.split(".")[1] == "1"), name


def test_a_head_of_another_target_is_refused(target, folder: Path) -> None:
    other = tiny(seed=1)
    other.name, other.content_hash = "other", "1"
    with pytest.raises(UserError) as refused:
        load_head(str(folder), other)
    assert "was trained for llama (0), and the target is other (1)" in str(refused.value)
    assert "draftree train medusa --target other" in str(refused.value)


def test_a_head_of_another_kind_is_refused(target, folder: Path) -> None:
    with pytest.raises(UserError, match="of kind medusa, and eagle is asked for"):
        load_head(str(folder), target, kind="eagle")


def _cut(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])


def _shrink(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    save_file({name: value[:5].clone() for name, value in state.items()}, folder / WEIGHTS)


def _lose(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    state.pop("blocks.2.0.linear.weight")
    save_file(state, folder / WEIGHTS)


def _add(folder: Path) -> None:
    save_file(load_file(folder / WEIGHTS) | {"more": torch.zeros(1)}, folder / WEIGHTS)


def _card(**changes: Any):
    def change(folder: Path) -> None:
        card = json.loads((folder / CARD).read_text())
        card["sizes"] |= changes
        (folder / CARD).write_text(json.dumps(card))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, "damaged or cut short"),
        (_shrink, r"is \(5,.* should be"),
        (_lose, r"lacks the tensor blocks\.2"),
        (_add, "has the tensor more"),
        (lambda folder: (folder / WEIGHTS).unlink(), "damaged or cut short"),
        (lambda folder: (folder / CARD).write_text("{"), "cannot be read as a head's card"),
        (lambda folder: (folder / CARD).write_text("[]"), "cannot be read as a head's card"),
        (lambda folder: (folder / CARD).unlink(), "no layout of published heads"),
        (_card(hidden_size=64), "hidden_size of 64, and llama one of 32"),
        (_card(vocab_size=99), "vocab_size of 99, and llama one of 61"),
        (_card(num_heads=0), "num_heads is 0"),
        (_card(num_heads=5), "lacks the tensor blocks.3"),
    ],
)
def test_damaged_files_are_refused(target, folder: Path, damage, message: str) -> None:
    damage(folder)
    with pytest.raises(UserError, match=message):
        load_head(str(folder), target)


@pytest.mark.parametrize("name", ["no-such-head", "./no/such/folder"])
def test_a_name_that_is_none_is_refused(name: str, target) -> None:
    with pytest.raises(UserError, match="no folder of heads"):
        load_head(name, target)


def test_a_kind_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UserError, match="there are medusa"):
        head_kind("hydra")


def test_a_disk_that_fills_keeps_the_former_head(target, folder: Path, monkeypatch) -> None:
    import errno

    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        save_head(folder, untrained("medusa", target, num_heads=2), {})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert read_card(folder)["sizes"]["num_heads"] == 3


def _published(
    folder: Path,
    *,
    heads: int = 2,
    layers: int = 1,
    vocab: int = 61,
    file: str = "medusa_lm_head.pt",
) -> dict[str, torch.Tensor]:
    """A checkpoint as FasterDecoding/Medusa writes it."""
    state = {}
    for head in range(heads):
        for layer in range(layers):
            state[f"{head}.{layer}.linear.weight"] = torch.randn(32, 32)
            state[f"{head}.{layer}.linear.bias"] = torch.randn(32)
        state[f"{head}.{layers}.weight"] = torch.randn(vocab, 32)
    folder.mkdir(exist_ok=True)
    write = save_file if file.endswith(".safetensors") else torch.save
    write(state, folder / file)
    config = {"medusa_num_heads": heads, "medusa_num_layers": layers}
    config["base_model_name_or_path"] = "lmsys/vicuna-7b-v1.3"
    (folder / "config.json").write_text(json.dumps(config))
    return state


@pytest.mark.parametrize("file", ["medusa_lm_head.pt", "medusa_lm_head.safetensors"])
@pytest.mark.parametrize("layers", [1, 2])
def test_published_medusa_heads_compute_what_their_authors_do(
    file: str, layers: int, target, tmp_path: Path
) -> None:
    state = _published(tmp_path / "medusa", layers=layers, file=file)
    heads: Any = load_head(str(tmp_path / "medusa"), target)
    hidden = torch.randn(5, 32)
    for head in range(2):
        x = hidden
        for layer in range(layers):
            linear = f"{head}.{layer}.linear"
            x = x + torch.nn.functional.silu(
                x @ state[f"{linear}.weight"].T + state[f"{linear}.bias"]
            )
        torch.testing.assert_close(heads(hidden)[head], x @ state[f"{head}.{layers}.weight"].T)


def test_published_heads_of_another_size_are_refused(target, tmp_path: Path) -> None:
    _published(tmp_path / "medusa", vocab=32000)
    with pytest.raises(UserError, match="vocab_size of 32000, and llama one of 61"):
        load_head(str(tmp_path / "medusa"), target)


def test_published_files_that_are_odd_are_refused(target, tmp_path: Path) -> None:
    folder = tmp_path / "medusa"
    state = _published(folder)
    whole = (folder / "medusa_lm_head.pt").read_bytes()
    (folder / "medusa_lm_head.pt").write_bytes(whole[:1000])
    with pytest.raises(UserError, match="damaged or cut short"):
        load_head(str(folder), target)
    torch.save(state | {"0.1.gate": torch.zeros(1)}, folder / "medusa_lm_head.pt")
    with pytest.raises(UserError, match=r"0\.1\.gate, which no Medusa checkpoint has"):
        load_head(str(folder), target)
    torch.save({"state": Path("x")}, folder / "medusa_lm_head.pt")
    with pytest.raises(UserError, match="only tensors are loaded"):
        load_head(str(folder), target)
    torch.save(state, folder / "medusa_lm_head.pt")
    (folder / "config.json").write_text(json.dumps({"medusa_num_heads": 5}))
    with pytest.raises(UserError, match="holds 2 of the 5"):
        load_head(str(folder), target)
    (folder / "config.json").write_text(json.dumps({"medusa_num_heads": 1}))
    heads: Any = load_head(str(folder), target)
    assert heads.num_heads == 1
