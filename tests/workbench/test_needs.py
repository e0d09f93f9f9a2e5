"""What methods need, told from the registry itself."""

from engine.registry import METHODS, method_names
from workbench.comparing.needs import COLUMNS, Needs, needs


def test_every_method_of_the_registry_has_a_row():
    found = needs(reversed(method_names()))
    assert [row.method for row in found] == method_names()
    assert len(COLUMNS) == len(Needs._fields)
    for row in found:
        assert (row.draft_model != "no") is METHODS[row.method].needs_draft
        assert (row.draft_model == "one or more") is METHODS[row.method].merges
        assert row.lossless_under.startswith("match")


def test_rules_for_draws_stand_only_where_children_may_be_drawn():
    by_method = {row.method: row.lossless_under for row in needs(method_names())}
    for drafts_chains in ("speculative", "early-exit", "kangaroo", "layer-skip"):
        assert "block" in by_method[drafts_chains]
    assert "traversal" in by_method["static-tree"]
    assert "block" not in by_method["static-tree"]
    assert by_method["suffix"] == by_method["prompt-lookup"] == "match"


def test_baselines_and_repeats_are_left_out():
    assert [row.method for row in needs(["suffix", "hf-generate", "suffix"])] == ["suffix"]
