"""The Replay page as a script: what is chosen, what is said, what the address names."""

from __future__ import annotations

from pathlib import Path

import pytest
from stored_runs import random_steps, steps_writing, store_run
from streamlit.testing.v1 import AppTest

from workbench.store.schema import RunStatus

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DRAFTREE_RUNS", str(tmp_path))
    return tmp_path


def page(**address: str) -> AppTest:
    app = AppTest.from_file(str(ROOT / "pages" / "replay.py"), default_timeout=60)
    for name, value in address.items():
        app.query_params[name] = value
    return app.run()


def labels(app: AppTest) -> list[str]:
    return [box.label for box in app.selectbox]


def test_with_nothing_stored_it_says_what_to_do(folder: Path):
    app = page()
    assert not app.exception
    assert any("press Run" in text.value for text in app.markdown)
    assert not app.selectbox


def test_one_request_needs_no_choice_of_it(folder: Path):
    store_run(folder, [random_steps(3)])
    app = page()
    assert not app.exception
    assert labels(app) == ["Run", "Side by side with"]
    assert app.selectbox[1].disabled


def test_the_request_of_the_address_is_chosen_and_a_wrong_one_is_the_first(folder: Path):
    run = store_run(folder, [random_steps(3), random_steps(4, seed=1)])
    app = page(run=run, request="2")
    assert labels(app) == ["Run", "Side by side with", "Request"]
    assert app.selectbox[2].value.request == 1
    assert page(run=run, request="7").selectbox[2].value.request == 0


def test_the_second_run_of_the_address_stands_beside_the_first(folder: Path):
    tokens = [1000, 2000, 3000, 4000]
    left = store_run(folder, [steps_writing(tokens, [4])])
    right = store_run(folder, [steps_writing(tokens, [2, 2])], method="static-tree")
    app = page(run=left, **{"with": right})
    assert not app.exception
    assert app.selectbox[1].value == right
    app.selectbox[1].set_value(None).run()
    assert "with" not in app.query_params


def test_a_request_that_the_second_run_lacks_is_a_sentence(folder: Path):
    steps = steps_writing([1000, 2000], [2])
    left = store_run(folder, [steps, steps])
    right = store_run(folder, [steps], method="static-tree")
    app = page(run=left, request="2", **{"with": right})
    assert not app.exception
    assert f"Run {right} has no steps of request 2" in app.error[0].value.replace("\\", "")


def test_a_run_without_steps_is_a_sentence(folder: Path):
    run = store_run(folder, [[]], status=RunStatus.FAILED)
    app = page(run=run)
    assert not app.exception
    assert "holds no steps" in app.error[0].value.replace("\\", "")
