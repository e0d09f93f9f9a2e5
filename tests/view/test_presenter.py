"""Increments: a view that gets every other update still ends up with everything."""

import json

import numpy as np
from scripted_runs import FakeHandle, random_step, scripted_steps

from workbench import metrics
from workbench.spec import RunSpec
from workbench.view.live import Live
from workbench.view.presenter import TREES_PER_UPDATE, WINDOW_STEPS, Cursor, Presenter
from workbench.view.steps import step_layout

SPEC = RunSpec(prompt="def f():", max_new_tokens=500)


def at(steps: list, *, active: bool = True, kept: int = 400, run_id: str = "r1") -> Live:
    tokens = [(text, 1) for step in steps for text in step.emitted_text]
    return Live(
        status="running" if active else "finished", active=active, run_id=run_id, spec=SPEC,
        prompt="def f():", steps=steps[-kept:], num_steps=len(steps), tokens=tokens,
        summary=metrics.summarise([step.record for step in steps]),
    )  # fmt: skip


def test_a_lost_update_is_made_good_by_the_next():
    steps = scripted_steps(60)
    presenter, cursor = Presenter(), Cursor()
    seen: dict[int, dict] = {}
    for count in range(0, 61, 3):
        payload = presenter.payload(at(steps[:count]), cursor)
        if (count // 3) % 2 == 0:  # every other one is lost
            seen |= {step["i"]: step for step in payload["steps"]}
    assert sorted(seen) == list(range(60))


def test_updates_are_small_once_the_view_is_up_to_date():
    steps = scripted_steps(50)
    presenter, cursor = Presenter(), Cursor()
    for _ in range(3):
        presenter.payload(at(steps), cursor)
    payload = presenter.payload(at(steps), cursor)
    assert payload["steps"] == []
    assert payload["prompt"] == ""
    assert payload["total"] == 50


def test_forgetting_sends_everything_again():
    presenter, cursor = Presenter(), Cursor()
    for _ in range(4):
        presenter.payload(at(scripted_steps(30)), cursor)
    cursor.ask({})
    payload = presenter.payload(at(scripted_steps(30)), cursor)
    assert payload["full"]
    assert payload["prompt"] == "def f():"
    assert [step["i"] for step in payload["steps"]] == list(range(30))
    assert all(step["tree"] for step in payload["steps"])


def test_a_view_can_ask_for_pruned_nodes_and_whole_trees():
    steps = [random_step(np.random.default_rng(n), n, 250, num_pruned=3) for n in range(3)]
    presenter, cursor = Presenter(), Cursor()
    presenter.payload(at(steps), cursor)
    cursor.ask({"unfold": 1})
    folds = [
        step["tree"]["kind"].count("fold") for step in presenter.payload(at(steps), cursor)["steps"]
    ]
    assert folds[0] > 0
    assert folds[1] == 0
    cursor.ask({"pruned": True})
    trees = [step["tree"] for step in presenter.payload(at(steps), cursor)["steps"]]
    assert trees[1]["kind"].count("pruned") == 3


def test_another_run_starts_anew():
    presenter, cursor = Presenter(), Cursor()
    for _ in range(4):
        presenter.payload(at(scripted_steps(30)), cursor)
    payload = presenter.payload(at(scripted_steps(2), run_id="r2"), cursor)
    assert payload["full"]
    assert payload["run"] == "r2"


def test_a_fast_run_sends_few_trees_but_all_tokens():
    steps = scripted_steps(150)
    presenter, cursor = Presenter(), Cursor()
    for _ in range(3):
        presenter.payload(at(steps[:20]), cursor)
    payload = presenter.payload(at(steps), cursor)
    assert len(payload["steps"]) >= 130
    assert sum(step["tree"] is not None for step in payload["steps"]) == TREES_PER_UPDATE
    assert payload["steps"][-1]["tree"]
    assert not any(step["gone"] for step in payload["steps"])


def test_the_window_is_bounded_and_says_what_is_gone():
    steps = scripted_steps(500, num_nodes=4)
    payload = Presenter().payload(at(steps, active=False), Cursor())
    assert payload["first"] == 100
    with_tree = [step["i"] for step in payload["steps"] if step["tree"]]
    assert with_tree == list(range(500 - WINDOW_STEPS, 500))
    assert all(step["gone"] for step in payload["steps"] if not step["tree"])
    told = [text for text, _ in payload["earlier"]]
    told += [text for step in payload["steps"] for text, _ in step["tokens"]]
    assert told == [text for step in steps for text in step.emitted_text]


def test_large_trees_shorten_the_window():
    steps = [random_step(np.random.default_rng(n), n, 320) for n in range(80)]
    payload = Presenter().payload(at(steps, active=False), Cursor())
    assert 1 <= sum(step["tree"] is not None for step in payload["steps"]) <= 60


def test_cut_off_tokens_are_not_shown_as_text():
    steps = scripted_steps(3)
    steps[-1].record.num_kept = 0
    payload = Presenter().payload(at(steps), Cursor())
    assert payload["steps"][-1]["tokens"] == []


def test_a_finished_run_opens_on_its_last_draft():
    steps = scripted_steps(8)
    steps.append(random_step(np.random.default_rng(0), 8, 1))
    payload = Presenter().payload(at(steps, active=False), Cursor())
    assert payload["total"] == 9
    assert payload["show"] == 7


def test_payloads_are_json_with_hostile_text_kept_as_text():
    steps = scripted_steps(4)
    steps[0].pieces_M[0] = "</script><img onerror=1>\x1b\u202e"
    steps[0].emitted_text[0] = "\x00<b>"
    payload = Presenter().payload(at(steps), Cursor())
    text = json.dumps(payload, allow_nan=False)
    assert "\\u202e" not in text.replace("\\\\u202e", "")
    assert payload["steps"][0]["tokens"][0][0] == "\\x00<b>"


def test_stage_shares_add_up():
    payload = Presenter().payload(at(scripted_steps(1)), Cursor())
    stages = payload["steps"][0]["stages"]
    assert [stage["name"] for stage in stages] == list(metrics.STAGES)
    assert abs(sum(stage["share"] for stage in stages) - 1) < 1e-3


def test_the_fake_handle_is_like_the_real_one():
    from workbench.worker import WorkerHandle

    for name in ("start", "stop", "snapshot", "active"):
        assert hasattr(WorkerHandle, name)
        assert hasattr(FakeHandle, name)


def test_an_emitted_token_without_text_is_shown_by_its_name():
    """The end of the text adds nothing to it, and must not read as a bare number."""
    step = random_step(np.random.default_rng(0), 0, 8)
    step = step._replace(emitted_text=[*step.emitted_text[:-1], ""])
    assert "#999999" in step_layout(step)["piece"]
    assert "<eos>" in step_layout(step._replace(next_piece="<eos>"))["piece"]
