"""Loaders: each form told by its content, each malformed line named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from engine.errors import UserError
from workbench.workloads import list_workloads, load_workload

QUESTION = {"question_id": 81, "category": "writing", "turns": ["Hello", "And then?"]}
SHAREGPT = {
    "id": "abc_0",
    "conversations": [
        {"from": "human", "value": "first"},
        {"from": "gpt", "value": "answer"},
        {"from": "human", "value": "second"},
    ],
}


@pytest.fixture
def write(tmp_path: Path):
    def write(content: str | bytes, name: str = "some.file") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def lines(*values: object) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def test_question_jsonl(write) -> None:
    (question,) = load_workload(write(lines(QUESTION)))
    assert question.question_id == "81"
    assert question.category == "writing"
    assert question.turns == ["Hello", "And then?"]


def test_humaneval(write) -> None:
    rows = [{"task_id": f"HumanEval/{n}", "prompt": f"def f{n}():\n", "test": ""} for n in (0, 1)]
    first, second = load_workload(write(lines(*rows)))
    assert first.question_id == "HumanEval/0"
    assert first.category == "humaneval"
    assert second.turns == ["def f1():\n"]


@pytest.mark.parametrize("indent", [None, 2])
def test_sharegpt_array_takes_human_turns_and_skips_those_without(write, indent) -> None:
    orphan = {"id": "x", "conversations": [{"from": "gpt", "value": "alone"}]}
    (question,) = load_workload(write(json.dumps([orphan, SHAREGPT], indent=indent)))
    assert question.turns == ["first", "second"]
    assert question.question_id == "abc_0"


def test_sharegpt_lines(write) -> None:
    assert len(load_workload(write(lines(SHAREGPT, SHAREGPT)))) == 2


def test_json_strings(write) -> None:
    questions = load_workload(write('"one"\n\n"two\\nlines"\n'))
    assert [q.turns for q in questions] == [["one"], ["two\nlines"]]
    assert [q.question_id for q in questions] == ["1", "3"]


@pytest.mark.parametrize(
    "text",
    [
        "def f(x):\n    return x\n",
        "{\n  int x = 1;\n}\n",
        "[1, 2, 3]\n",
        "[section]\nkey = value\n",
        'He wrote {"prompt": 1} once.\nAnd went on.\nAnd on.\n',
        '"""Docstring."""\nimport os\nimport re\n',
        "<script>alert(1)</script> \x1b[31m ../../etc/passwd",
        "\u2028one prompt\u2028still the same\x85",
    ],
)
def test_anything_else_is_one_prompt_as_it_stands(write, text: str) -> None:
    (question,) = load_workload(write(text, "notes.jsonl"))
    assert question.turns == [text]
    assert question.question_id == "notes"


def test_the_name_does_not_decide_the_form(write) -> None:
    assert load_workload(write(lines(QUESTION), "questions.txt"))[0].category == "writing"


def test_a_line_separator_inside_a_json_string_is_no_line_end(write) -> None:
    row = json.dumps({"question_id": 1, "turns": ["a\u2028b"]}, ensure_ascii=False)
    assert load_workload(write(row + "\n" + row + "\n"))[1].turns == ["a\u2028b"]


def test_byte_order_mark_and_crlf(write) -> None:
    text = lines(QUESTION, QUESTION).replace("\n", "\r\n")
    assert len(load_workload(write(b"\xef\xbb\xbf" + text.encode()))) == 2


def test_one_record_over_several_lines(write) -> None:
    assert load_workload(write(json.dumps(QUESTION, indent=2)))[0].turns == QUESTION["turns"]


def test_limit(write) -> None:
    file = write(lines(*[QUESTION] * 5))
    assert len(load_workload(file, limit=2)) == 2
    assert len(load_workload(file, limit=99)) == 5
    with pytest.raises(UserError, match="limit is 0"):
        load_workload(file, limit=0)


GOOD = json.dumps(QUESTION)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ('{"question_id": 82, "turns": ["x"', "not valid JSON"),
        ("not json at all", "not valid JSON"),
        ('{"question_id": 82, "turns": "x"}', "not a list"),
        ('{"question_id": 82, "turns": []}', "at least one"),
        ('{"question_id": 82, "turns": ["a", 3]}', "turn 2 is not a text but 3"),
        ('{"question_id": 82, "turns": [" "]}', "turn 1 is empty"),
        ('{"question_id": 82, "category": "c"}', 'none of "turns"'),
        ('{"question_id": 82, "turns": ["\\ud800"]}', "surrogate"),
        ('{"id": 1, "conversations": 5}', "conversations"),
        ('{"task_id": "a", "prompt": null}', "turn 1 is not a text but null"),
        ("17", "not 17"),
        ("[" * 100_000, "JSON"),
        ('{"turns": [' + "1" * 5000 + "]}", "not usable JSON"),
    ],
)
@pytest.mark.parametrize("at", [1, 3])
def test_a_malformed_line_is_named(write, bad: str, reason: str, at: int) -> None:
    rows = [GOOD] * 3
    rows.insert(at - 1, bad)
    with pytest.raises(UserError, match=f"line {at}: ") as caught:
        load_workload(write("\n".join(rows)))
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_malformed_string_line_is_named(write) -> None:
    with pytest.raises(UserError, match="line 2: not valid JSON"):
        load_workload(write('"one"\n"two\n"three"\n'))


def test_a_cut_off_sharegpt_file_is_named_with_its_line(write) -> None:
    text = json.dumps([SHAREGPT, SHAREGPT], indent=1)[:-30]
    with pytest.raises(UserError, match=r"line \d+: not valid JSON"):
        load_workload(write(text))


def test_a_malformed_sharegpt_entry_is_named(write) -> None:
    with pytest.raises(UserError, match="entry 2: "):
        load_workload(write(json.dumps([SHAREGPT, {"id": 2}])))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b" \n\n ", "is empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"\x7fELF\0\0\1", "binary"),
        (b"fine\nbad \xff here", "line 2: byte 0xff is not UTF-8"),
        (b"[]", "holds no prompt"),
        (b'[{"conversations": []}]', "holds no prompt"),
    ],
)
def test_unusable_files_get_a_sentence(write, content: bytes, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        load_workload(write(content))


@pytest.mark.parametrize(
    "name", ["", "  ", "nope", "a\0b", "x" * 5000, "~nobody-here/x", "/dev/null"]
)
def test_names_that_lead_nowhere(name: str) -> None:
    with pytest.raises(UserError) as caught:
        load_workload(name)
    assert len(str(caught.value)) < 600


def test_folder_and_unreadable_file(tmp_path: Path, write) -> None:
    with pytest.raises(UserError, match="is a folder"):
        load_workload(tmp_path)
    if os.geteuid() != 0:
        file = write(GOOD)
        file.chmod(0)
        with pytest.raises(UserError, match="cannot be read"):
            load_workload(file)


def test_embedded_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "code.jsonl").write_text(lines(QUESTION))
    (tmp_path / "code").write_text("a file that bears the same name")
    monkeypatch.setenv("DRAFTREE_DATA", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert list_workloads() == ["code"]
    assert load_workload("code")[0].category == "writing"
    assert load_workload("./code")[0].turns == ["a file that bears the same name"]
    with pytest.raises(UserError, match=r"named 'prose'. Use an embedded workload \(code\)"):
        load_workload("prose")


def test_shipped_workloads_load() -> None:
    for name in list_workloads():
        assert all(question.turns for question in load_workload(name))
