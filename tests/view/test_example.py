"""The run that ships with the package: real, complete, and stored without loss."""

import json

import numpy as np
from scripted_runs import scripted_steps

from workbench import metrics
from workbench.spec import RunSpec
from workbench.view.example import decode, encode, example
from workbench.view.live import EXAMPLE, Live
from workbench.view.presenter import Cursor, Presenter


def test_the_shipped_example_is_a_whole_run():
    run = example()
    assert run.status == EXAMPLE
    assert run.spec is not None
    assert run.num_steps == len(run.steps) > 10
    for step in run.steps:
        step.record.tree.check_integrity()
        assert len(step.pieces_M) == len(step.record.tree.tokens_M)
    assert run.summary.kept == run.spec.max_new_tokens
    assert run.summary.tokens_per_step > 1


def test_the_example_opens_on_a_step_with_much_to_see():
    payload = Presenter().payload(example(), Cursor())
    kinds = set(payload["steps"][payload["show"]]["tree"]["kind"])
    assert {"root", "accepted", "rejected", "not-reached"} <= kinds
    assert "Press Run" in payload["state"]


def test_storing_and_reading_loses_nothing_the_view_shows():
    steps = scripted_steps(6)
    live = Live(status="finished", run_id="r", spec=RunSpec(prompt="p"), mode="eager", prompt="p",
                steps=steps, num_steps=6, plain_step_ns=5,
                summary=metrics.summarise([step.record for step in steps]))  # fmt: skip
    back = decode(json.loads(json.dumps(encode(live), allow_nan=False)))
    assert back.summary == live.summary
    for old, new in zip(live.steps, back.steps, strict=True):
        assert new.pieces_M == old.pieces_M
        assert new.emitted_text == old.emitted_text
        assert new.record.verdict.path_A == old.record.verdict.path_A
        np.testing.assert_array_equal(new.record.tree.depth_M, old.record.tree.depth_M)
        np.testing.assert_allclose(
            new.record.tree.draft_logprob_M, old.record.tree.draft_logprob_M, atol=1e-4
        )
