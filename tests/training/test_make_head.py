"""From text to a head's files, on a tiny target that has a tokenizer of its own."""

from __future__ import annotations

import dataclasses
import errno
import json
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from engine.errors import UserError
from engine.heads.files import load_head
from engine.models import load_model
from engine.training.heads import HeadRecipe
from engine.training.heads_log import HeadLog, read_log
from engine.training.heads_text import Encoded, write_text
from engine.training.make_head import HeadJob, make_head
from engine.training.models import ModelShape, build_model
from engine.training.progress import Budget, TrainingFailed, TrainingStopped

RECIPE = HeadRecipe(
    budget=Budget(tokens=12 * 4 * 32), length=32, rows=4, lr=1e-2, evaluate_every=0.25,
    evaluate_tokens=256,
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny_target(tiny, tmp_path_factory) -> Path:
    """An untrained model in the tiny corpus's tokens."""
    folder = tmp_path_factory.mktemp("target")
    tokenizer = tiny.tokenizer
    shape = ModelShape(layers=2, hidden=32, heads=2, intermediate=64)
    model = build_model(
        shape, vocab_size=len(tokenizer), context=128, end_of_text=tokenizer.eos_token_id, seed=1
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def text(tiny_split, tmp_path: Path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    for file in [*tiny_split.train, *tiny_split.held_out]:
        (folder / file.path).write_text(file.text)
    return folder


@pytest.fixture
def job(tiny_target: Path, text: Path) -> HeadJob:
    return HeadJob(
        kind="medusa", recipe=RECIPE, target=str(tiny_target), options={"num_heads": 2},
        texts=(text,), written_tokens=3000,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["medusa", "kangaroo", "eagle"])
def test_every_kind_is_trained_saved_and_loaded(kind: str, job: HeadJob, tmp_path: Path) -> None:
    job = dataclasses.replace(job, kind=kind, options={})
    work, out = tmp_path / "work", tmp_path / "out"
    card = make_head(job, work_dir=work, out=out, command="draftree train")
    target = load_model(job.target, device="cpu")
    assert load_head(str(out), target, kind=kind) is not None
    stored = json.loads((out / "head.json").read_text())
    assert stored["command"] == "draftree train"
    assert stored["target"]["content_hash"] == target.content_hash
    assert stored["training"]["steps"] == 12
    assert card["written_tokens"] >= 3000
    assert {"2"} <= set(card["held_out"]) & set(card["written"]) & set(card["ngram"])
    assert 0 <= card["ngram"]["2"]["top1"] <= card["ngram"]["2"]["top5"] <= 1
    run = read_log(work)
    assert run is not None
    assert run.end is not None
    assert run.end["state"] == "finished"
    assert run.start["out"] == str(out)
    assert [line["fraction"] for line in run.accuracy] == [0.25, 0.5, 0.75, 1.0]
    assert run.steps[-1]["step"] == 12


def test_a_training_that_was_stopped_goes_on_and_its_log_too(job: HeadJob, tmp_path: Path) -> None:
    work, seen = tmp_path / "work", []
    calls = {"on_progress": seen.append, "should_stop": lambda: getattr(seen[-1], "step", 0) == 5}
    with pytest.raises(TrainingStopped):
        make_head(job, work_dir=work, out=tmp_path / "out", **calls)
    run = read_log(work)
    assert run is not None
    assert run.end is not None
    assert run.end["state"] == "stopped"
    assert not (tmp_path / "out").exists()
    make_head(job, work_dir=work, out=tmp_path / "out")
    make_head(job, work_dir=tmp_path / "whole", out=tmp_path / "whole-out")
    target = load_model(job.target, device="cpu")
    broken, whole = (load_head(str(tmp_path / name), target) for name in ("out", "whole-out"))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, broken.state_dict()[name]), name
    run = read_log(work)
    assert run is not None
    assert run.start["step"] == 5
    assert run.steps[-1]["step"] == 12


def test_the_seed_decides_the_weights(job: HeadJob, tmp_path: Path) -> None:
    job = dataclasses.replace(job, kind="eagle", options={}, written_tokens=0)
    target = load_model(job.target, device="cpu")
    heads = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.rand(len(heads) + 1)  # whatever ran before
        recipe = dataclasses.replace(RECIPE, budget=Budget(tokens=1), seed=seed)
        one = dataclasses.replace(job, recipe=recipe)
        make_head(one, work_dir=tmp_path / f"work-{name}", out=tmp_path / name)
        heads.append(load_head(str(tmp_path / name), target).state_dict())
    first, again, other = heads
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert any(not torch.equal(value, other[name]) for name, value in first.items())


def test_a_work_folder_serves_one_training(job: HeadJob, tmp_path: Path) -> None:
    work = tmp_path / "work"
    make_head(job, work_dir=work, out=tmp_path / "out")
    other = dataclasses.replace(job, options={"num_heads": 3})
    with pytest.raises(ValueError, match="with other options"):
        make_head(other, work_dir=work, out=tmp_path / "out")


def test_a_disk_that_fills_at_the_end_keeps_the_training(
    job: HeadJob, tmp_path: Path, monkeypatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("engine.training.make_head.save_head", full)
    with pytest.raises(TrainingFailed, match=r"No space left.*work is kept.*more room"):
        make_head(job, work_dir=tmp_path / "work", out=tmp_path / "out")
    run = read_log(tmp_path / "work")
    assert run is not None
    assert run.end is not None
    assert run.end["state"] == "failed"
    monkeypatch.undo()
    make_head(job, work_dir=tmp_path / "work", out=tmp_path / "out")


@pytest.mark.parametrize("when", ["writing", "logging"])
def test_a_disk_that_fills_before_or_while_training_is_told(
    job: HeadJob, tmp_path: Path, monkeypatch, when: str
) -> None:
    """The target's text and the log; checkpoints are in test_head_training.py."""
    log = HeadLog.write

    def no_room(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    def no_line(self: HeadLog, event: str, **fields: object) -> None:
        if event in ("step", "end"):
            raise OSError(errno.ENOSPC, "No space left on device")
        log(self, event, **fields)

    if when == "writing":
        monkeypatch.setattr("engine.training.store.save_file", no_room)
    else:
        monkeypatch.setattr(HeadLog, "write", no_line)
    with pytest.raises(TrainingFailed, match=r"No space left.*more room"):
        make_head(job, work_dir=tmp_path / "work", out=tmp_path / "out")
    monkeypatch.undo()
    make_head(job, work_dir=tmp_path / "work", out=tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"options": {"num_heads": 0}}, UserError, "num_heads is 0"),
        ({"options": {"colour": 1}}, ValueError, "no such option"),
        ({"kind": "hydra"}, UserError, "no kind of head"),
        ({"target": "no/such/model/here"}, UserError, "no model folder"),
        ({"texts": (), "prompts": ("only one",)}, ValueError, "at least 2"),
    ],
)
def test_wrong_input_is_explained(job: HeadJob, tmp_path: Path, change, error, message) -> None:
    with pytest.raises(error, match=message):
        make_head(dataclasses.replace(job, **change), work_dir=tmp_path / "w", out=tmp_path / "o")


def test_empty_text_is_explained(job: HeadJob, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for name in ("a.txt", "b.txt"):
        (empty / name).write_text("")
    with pytest.raises(ValueError, match="hold no UTF-8 text"):
        make_head(
            dataclasses.replace(job, texts=(empty,)), work_dir=tmp_path / "w", out=tmp_path / "o"
        )


def test_what_the_target_writes_depends_on_the_seed_alone(
    job: HeadJob, tiny, tmp_path: Path
) -> None:
    target = load_model(job.target, device="cpu")
    corpus = Encoded(tiny.library, tiny.held_out)
    found = [
        write_text(target, corpus, RECIPE, tokens=3 * 64 * 32, folder=tmp_path / name)
        for name in ("a", "b")
    ]
    for train, held_out in found:
        assert train.shape == (3 * 64, 32)
        assert held_out.shape == (64, 32)
    assert (found[0][0] == found[1][0]).all()
    # what follows the prompt of a greedy row is the target's own choice
    row = torch.from_numpy(found[0][1][0].astype("int64"))
    choices = target.model(row[None]).logits[0].argmax(-1)
    assert torch.equal(row[5:], choices[4:-1])
