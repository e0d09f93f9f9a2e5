"""`draftree whatif`: the table, JSON, and sentences where it cannot answer."""

from __future__ import annotations

import json

import pytest

from workbench import cli
from workbench.terminal import reset_consoles


@pytest.fixture(autouse=True)
def _consoles():
    reset_consoles()
    yield
    reset_consoles()


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.run_command(["whatif", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_table_of_trees_with_bounds_then_exact(decode, capsys):
    run_id = decode()
    code, out, _ = call(capsys, run_id, "--paths", "0.0;1")
    assert code == 0
    for words in ("paths 0.0;1", "chain of 4", "optimal, 8 nodes", "bounds", "--complete"):
        assert words in out
    code, out, _ = call(capsys, run_id, "--complete", "--optimal", "5", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["known"] == found["tokens"] == 40
    by_name = {tree["name"]: tree for tree in found["trees"]}
    assert all(tree["exact"] for tree in found["trees"])
    optimal = next(tree for name, tree in by_name.items() if "optimal, 5 nodes" in name)
    assert optimal["nodes"] == 5
    for tree in found["trees"]:
        low, high = tree["tokens_per_step"]
        assert 1.0 <= low == high


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--paths", "0.x"], "'0.x' is malformed"),
        (["--expansion", "2,0"], "'2,0' is malformed"),
        (["--children", "sampled"], "'sampled'"),
        (["--children", "coupled"], "this run can be asked about fixed ones"),
    ],
)
def test_wrong_input_is_a_sentence(decode, capsys, arguments, words):
    run_id = decode(max_new_tokens=6)
    code, _, err = call(capsys, run_id, *arguments)
    assert code == 2
    assert words in " ".join(err.split())


def test_a_run_whose_text_depends_on_its_drafts_is_refused(decode, capsys):
    run_id = decode(method="static-tree", temperature=0.8, verify="multi-step", max_new_tokens=6)
    code, _, err = call(capsys, run_id)
    assert code == 2
    assert "multi-step" in err


def test_a_plain_run_names_the_draft_to_ask_about(decode, tiny_pair, capsys):
    run_id = decode(method="autoregressive", draft=None)
    code, _, err = call(capsys, run_id, "--complete")
    assert code == 2
    assert "--draft" in err
    code, out, _ = call(capsys, run_id, "--complete", "--draft", tiny_pair.draft)
    assert code == 0
    assert "exact" in out
