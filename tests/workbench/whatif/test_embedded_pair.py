"""The claim of the what-if on the embedded pair: predicted steps are the real ones."""

from __future__ import annotations

import pytest

from engine.shapes import from_paths
from engine.tree import Children
from workbench import job
from workbench.spec import RunSpec
from workbench.store import open_run
from workbench.whatif.complete import complete, ranks_of
from workbench.whatif.predict import predict

pytestmark = pytest.mark.slow
PROMPT = 'def read_lines(path):\n    """Read the lines of a file."""\n    with open('
PATHS = "0.0.0;0.1;1.0;2"


def decode(**changes) -> str:
    spec = RunSpec(
        **{"prompt": PROMPT, "max_new_tokens": 48, "execution": "eager", "ignore_eos": True}
        | changes
    )
    finished = job.execute(spec, lambda event: None, lambda: False)
    assert finished.status == "finished", finished.message
    return finished.run_id


@pytest.mark.parametrize(
    ("sampling", "children"),
    [({}, "fixed"), ({"temperature": 0.8, "seed": 4}, "fixed"), ({"temperature": 0.8}, "coupled")],
    ids=["greedy", "warm-fixed", "warm-coupled"],
)
def test_predicted_is_measured_step_by_step(sampling, children):
    logged = decode(method="dynamic-tree", **sampling)
    complete(logged)
    found = predict(from_paths(PATHS), ranks_of(logged, children=Children(children)))
    real = decode(
        method="static-tree", options={"paths": PATHS},
        children=children if sampling else "auto", **sampling,
    )  # fmt: skip
    with open_run(real) as run:
        accepted = run.steps()["num_accepted"].tolist()
    assert found.exact
    assert found.walks[0].low.accepted_S == accepted
    assert sum(accepted) > 10
