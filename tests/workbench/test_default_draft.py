"""Which embedded draft model a method gets where none was named."""

from __future__ import annotations

from engine.registry import METHODS, method_names
from workbench.commands.flags import models
from workbench.comparing.result import CompareSpec
from workbench.spec import (
    EMBEDDED_DRAFT,
    EMBEDDED_TARGET,
    EMBEDDED_TEXT_DRAFT,
    RunSpec,
    embedded_draft,
)


def test_a_method_of_any_vocabulary_gets_the_draft_of_bytes():
    for method in method_names():
        wanted = EMBEDDED_DRAFT if METHODS[method].same_vocabulary else EMBEDDED_TEXT_DRAFT
        assert embedded_draft(method) == wanted
        assert RunSpec(method=method, prompt="x").draft == wanted
        expected = wanted if METHODS[method].needs_draft else None
        assert models(None, None, method=method)["draft"] == expected
    assert EMBEDDED_TEXT_DRAFT != EMBEDDED_DRAFT


def test_a_draft_that_is_named_stays():
    assert RunSpec(method="universal", prompt="x", draft=EMBEDDED_DRAFT).draft == EMBEDDED_DRAFT
    assert RunSpec(method="universal", prompt="x", draft=None).draft is None
    assert models(None, EMBEDDED_DRAFT, method="universal")["draft"] == EMBEDDED_DRAFT


def test_somebody_elses_target_has_no_default():
    assert models("./mine", None, method="universal")["draft"] is None


def test_a_comparison_has_a_draft_for_each_kind_of_method():
    spec = CompareSpec(methods=["universal"], workloads=["code"])
    assert (spec.draft, spec.text_draft) == (EMBEDDED_DRAFT, EMBEDDED_TEXT_DRAFT)
    assert CompareSpec.model_validate(spec.model_dump()) == spec
    for named in ({"draft": "./other"}, {"target": "./mine"}, {"text_draft": None}):
        spec = CompareSpec(methods=["universal"], workloads=["code"], **named)
        assert spec.text_draft is None
    assert spec.target == EMBEDDED_TARGET
