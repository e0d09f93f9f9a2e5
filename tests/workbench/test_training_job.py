"""Trainings of heads as jobs: a tiny target is trained, stopped, gone on with; what goes wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.errors import UserError
from engine.training.heads_log import read_log
from workbench.events import Event, MeasuringFinished, MeasuringStarted, Progress
from workbench.jobs import execute
from workbench.measuring import MeasuringState
from workbench.spec import RunSpec
from workbench.training.run import train, train_command
from workbench.training.spec import OUT, TrainSpec, read_spec
from workbench.view.heads_cards import heads, trial_spec
from workbench.view.heads_runs import accuracy_frame, heads_folder, ngram_shares, state, trainings


@pytest.fixture
def spec(tiny_pair: Any, tmp_path: Path) -> TrainSpec:
    text = tmp_path / "text"
    text.mkdir()
    for at in range(3):
        lines = (f"def f{at}_{n}(a):\n    return a + {n}\n" for n in range(120))
        (text / f"part{at}.py").write_text("".join(lines))
    return TrainSpec(
        kind="medusa", name="tiny", target=tiny_pair.target, texts=[str(text)], written=0,
        tokens=6144, device="cpu", threads=1, options={"num_heads": 2},
        recipe={"length": 64, "rows": 4},
    )  # fmt: skip


def no_stop() -> bool:
    return False


def test_a_training_ends_in_a_head_that_its_target_takes(spec: TrainSpec) -> None:
    events: list[Event] = []
    execute(spec, events.append, no_stop)
    folder = heads_folder() / "tiny"
    assert events[0] == MeasuringStarted("tiny")
    assert events[-1] == MeasuringFinished("tiny", "finished")
    shares = [one.fraction for one in events if isinstance(one, Progress)
              and one.phase == "measure"]  # fmt: skip
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    (run,) = trainings()
    assert (run.folder, state(run)) == (folder, "finished")
    assert (
        set(accuracy_frame(run, "held_out")["offset"]) == {2, 3} == set(ngram_shares(run, "top1"))
    )
    assert read_spec(folder) == spec
    from workbench.discovery import find

    model = find(spec.target, [])
    assert model is not None
    (head,) = [one for one in heads([run], [model]) if one.folder.parent.name != "heads"]
    assert (head.kind, head.problem, head.title) == ("medusa", "", "tiny")
    tried = RunSpec.model_validate_json(trial_spec(head))
    assert tried.options == {"head": str(folder / OUT)}
    assert tried.target == spec.target


def test_stopped_it_goes_on_where_it_was(spec: TrainSpec) -> None:
    state_of = MeasuringState()
    state_of.begin("train", spec)

    def fold(event: Event) -> None:
        state_of.fold(event)

    end = train(spec, fold, lambda: state_of.snapshot().fraction > 0.3)
    assert end == MeasuringFinished("tiny", "cancelled")
    folder = heads_folder() / "tiny"
    stopped = read_log(folder)
    assert stopped is not None
    assert state(stopped) == "stopped"
    assert 0.3 < state_of.snapshot().fraction < 0.9
    assert train(spec, fold, no_stop) == MeasuringFinished("tiny", "finished")
    found = read_log(folder)
    assert found is not None
    assert stopped.end is not None
    assert found.start["tokens"] == stopped.end["tokens"] > 0, "not from the beginning"
    assert found.steps[-1]["tokens"] == 6144


def test_a_loss_that_is_no_number_is_a_sentence_and_the_end(
    spec: TrainSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.training.medusa import MedusaObjective

    loss = MedusaObjective.loss
    monkeypatch.setattr(MedusaObjective, "loss", lambda *given: loss(*given) * float("nan"))
    end = train(spec, lambda event: None, no_stop)
    assert end.status == "failed"
    assert "training has stopped" in end.message
    found = read_log(heads_folder() / "tiny")
    assert found is not None
    assert state(found) == "failed"


def test_a_full_disk_is_a_sentence(spec: TrainSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("engine.training.checkpoint.torch.save", full)
    end = train(spec, lambda event: None, no_stop)
    assert end.status == "failed"
    assert "No space left on device" in end.message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"texts": ["/no/such/text"]}, "No such file or folder: /no/such/text"),
        ({"target": "/no/such/model"}, "no model folder '/no/such/model'"),
        ({"options": {"colour": 3}}, "no such option"),
        ({"recipe": {"length": 5000}}, "5000"),
        ({"device": "cuda:9"}, "CUDA"),
        ({"workload": "absent", "texts": []}, "absent"),
    ],
)
def test_wrong_input_is_refused_with_a_sentence(
    spec: TrainSpec, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        train(spec.model_copy(update=changes), lambda event: None, no_stop)
    if changes.get("target"):
        assert not (heads_folder() / "tiny").exists(), "its name stays free"


def test_the_library_is_put_into_tokens_once_and_a_stop_does_not_wait_for_it(
    spec: TrainSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.training import make_head
    from engine.training.corpus import SourceFile

    files = [SourceFile(f"m{at}.py", f"def f{at}(a):\n    return a\n" * 40) for at in range(140)]
    monkeypatch.setattr(make_head, "read_sources", lambda texts: files)
    library = spec.model_copy(update={"texts": [], "tokens": 512})
    told: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, Progress):
            told.append(event.message)

    end = train(library, note, lambda: any("into tokens" in one for one in told))
    assert end.status == "cancelled"
    assert sum("into tokens" in one for one in told) == 1
    assert train(library, note, no_stop).status == "finished"
    assert any("into tokens: 4" in one for one in told), "how far it is"
    (folder,) = (heads_folder() / ".library").glob("*/corpus")
    made = folder.stat().st_mtime_ns
    other = library.model_copy(update={"name": "second"})
    assert train(other, note, no_stop).status == "finished"
    assert folder.stat().st_mtime_ns == made


def test_another_head_does_not_go_on_in_its_folder(spec: TrainSpec) -> None:
    train(spec, lambda event: None, no_stop)
    with pytest.raises(UserError, match="training of another head"):
        train(spec.model_copy(update={"options": {"num_heads": 3}}), lambda event: None, no_stop)


def test_the_same_from_a_terminal(spec: TrainSpec, tmp_path: Path) -> None:
    typed = train_command(spec, tmp_path / "w", tmp_path / "t")
    assert typed.startswith(f"draftree train medusa --target {spec.target} --text {spec.texts[0]}")
    for part in (
        "--tokens 6144", "--length 64", "--option num_heads=2", "--written 0", "--name head",
        f"--work-dir {tmp_path / 'w'}", f"--text-dir {tmp_path / 't'}",
    ):  # fmt: skip
        assert part in typed
