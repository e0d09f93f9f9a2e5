"""Traces of arrivals as files: both forms, names of others, and what is said of wrong lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import UserError
from workbench.loading.trace_file import Line, read_trace


def written(folder: Path, text: str | bytes) -> Path:
    file = folder / "arrivals"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def test_jsonl(tmp_path: Path) -> None:
    text = (
        '{"arrival": 0, "prompt": "def f(", "max_new_tokens": 8}\n\n'
        '{"arrival": 1.5, "question": 81, "client": "ann", "pair": "big", "deadline": null}\n'
        '{"timestamp": 2, "prompt_tokens": 20, "deadline": 3, "timeout": 4.5, "cancel": 0}\n'
    )
    assert read_trace(written(tmp_path, text)) == [
        Line(0.0, prompt="def f(", max_new_tokens=8),
        Line(1.5, question="81", client="ann", pair="big"),
        Line(2.0, prompt_tokens=20, deadline=3.0, timeout=4.5, cancel=0.0),
    ]


def test_csv_with_names_of_other_traces(tmp_path: Path) -> None:
    head = "\ufeffTIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    text = head + '0.5,374,44\r\n\r\n0.75,"396",109\r\n1,,7\n'
    assert read_trace(written(tmp_path, text)) == [
        Line(0.5, prompt_tokens=374, max_new_tokens=44),
        Line(0.75, prompt_tokens=396, max_new_tokens=109),
        Line(1.0, max_new_tokens=7),
    ]


def test_dates_count_from_the_earliest(tmp_path: Path) -> None:
    text = (
        "TIMESTAMP,ContextTokens\n2023-11-16 18:17:05.1250000,5\n2023-11-16 18:17:03.5,6\n"
        "2023-11-16T18:17:04Z,7\n"
    )
    found = read_trace(written(tmp_path, text))
    assert [line.arrival for line in found] == pytest.approx([1.625, 0.0, 0.5], abs=1e-5)


def test_csv_prompts_may_hold_lines(tmp_path: Path) -> None:
    text = 'arrival,prompt\n0,"def f(a,\n  b):"\n1,"say ""hi"""\n'
    assert [line.prompt for line in read_trace(written(tmp_path, text))] == [
        "def f(a,\n  b):", 'say "hi"',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("arrival,prompt\n", "a header and no requests"),
        ("when,prompt\n0,x\n", "line 1: no column is called arrival"),
        ("arrival,prompt\n0,x\n1\n", "line 3: 1 values do not fit 2 columns"),
        ("arrival,prompt\n0,x\nsoon,y\n", "line 3: arrival is 'soon'; give seconds, 0 or more"),
        ("arrival\n0\n-1\n", "line 3: arrival is '-1'"),
        ('arrival,prompt\n0,"x\n', "not CSV"),
        ('{"arrival": 0}\n{"arrival": 1,}\n', "line 2: not JSON that can be read"),
        ('{"arrival": 0}\n[1]\n', "line 2: an object is expected"),
        ('{"prompt": "x"}\n', "line 1: arrival is missing"),
        (
            '{"arrival": 0, "colour": 1}\n',
            "line 1: 'colour' is no field; there are arrival, prompt",
        ),
        (
            '{"arrival": 0, "max_new_tokens": 0}',
            "line 1: max_new_tokens is 0; give a number of tok",
        ),
        ('{"arrival": 0, "max_new_tokens": 1.5}', "max_new_tokens is 1.5"),
        ('{"arrival": 0, "max_new_tokens": true}', "max_new_tokens is True"),
        ('{"arrival": NaN}', "arrival is nan"),
        ('{"arrival": 0, "timeout": 0}', "timeout is 0; give seconds, more than 0"),
        ('{"arrival": 0, "prompt": ""}', "prompt is empty"),
        ('{"arrival": 0, "prompt": ["x"]}', "give a text"),
        ('{"arrival": 0, "prompt": "x", "question": "q"}', "give one of prompt, question and"),
        ('{"arrival": 0, "timestamp": 1}', "arrival is given twice"),
        (b'{"arrival": 0}\n{"arrival": 1, "client": "\xff"}', "line 2: not UTF-8"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str | bytes, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        read_trace(written(tmp_path, text))
    assert sentence in str(caught.value)
    assert str(tmp_path) in str(caught.value), "the file is named"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_trace(tmp_path / "none.jsonl")
