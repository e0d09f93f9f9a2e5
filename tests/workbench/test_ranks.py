"""What forms and commands refuse before any rank is started; it is what the engine refuses."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from engine.errors import UserError
from workbench.loading.again import load_command
from workbench.loading.spec import LoadSpec
from workbench.models import check_spec
from workbench.spec import RunSpec


def spec(method: str, **fields: object) -> RunSpec:
    return RunSpec(method=method, prompt="import os", ranks=2, **fields)


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("dynamic-tree", {}),
        ("dynamic-tree", {"placement": "own"}),
        ("dynamic-tree", {"parallel": "both", "placement": "split"}),
        ("dynamic-tree", {"other_drafts": ["pycode-draft"]}),
        ("dynamic-tree", {"options": {"policy": "auto"}, "parallel": "target"}),
        ("staged", {"placement": "own"}),
        ("staged", {"parallel": "both"}),
        ("prompt-lookup", {"parallel": "target"}),
        ("medusa", {"parallel": "both"}),
        ("layer-skip", {"parallel": "target"}),
    ],
)
def test_these_may_run(method, fields):
    check_spec(spec(method, **fields))


@pytest.mark.parametrize(
    ("method", "fields", "part"),
    [
        ("staged", {}, "would have nothing to do: staged drafts on one rank"),
        ("prompt-lookup", {}, "would have nothing to do: prompt-lookup has no draft model"),
        ("early-exit", {"placement": "own", "parallel": "target"}, "no draft model to place"),
        ("dynamic-tree", {"options": {"policy": "auto"}}, "policy auto weighs times"),
        ("dynamic-tree", {"placement": "own", "parallel": "both"}, "use --placement split"),
    ],
)
def test_these_make_no_sense(method, fields, part):
    with pytest.raises(UserError, match=part):
        check_spec(spec(method, **fields))
    check_spec(spec(method, **fields).model_copy(update={"ranks": 1}))


def test_a_load_on_ranks_can_be_asked_for_again_and_has_no_replicas():
    command = load_command(LoadSpec(ranks=2, placement="own"))
    assert command == "draftree load --workload code --ranks 2 --placement own --requests 40"
    with pytest.raises(ValidationError, match="a replica is one process"):
        LoadSpec(ranks=2, replicas=2)
