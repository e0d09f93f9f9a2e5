"""Reports: one file, no network, nothing from a model taken for markup."""

from __future__ import annotations

import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tiny_pair import write_pair

from engine.errors import UserError
from workbench.compare import CompareSpec, Comparison, compare
from workbench.losslessness import Difference
from workbench.report import render
from workbench.report.again import compare_command, run_command
from workbench.report.files import check_writable, gather, write, write_report
from workbench.report.from_comparison import report_on_comparison
from workbench.report.from_runs import report_on_runs
from workbench.spec import RunSpec

HOSTILE = (
    "</script><script>window.owned=1</script><img src=x onerror=window.owned=1>"
    '<a href="https://evil.example">{{ 7*7 }} | `x` ```\n\x1b[31m\u202e'
)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    folder = tmp_path_factory.mktemp("report")
    pair = write_pair(folder)
    prompts = folder / "<b>prompts.jsonl"
    rows = [
        {"question_id": "<i>q</i>", "category": "</style>", "turns": [HOSTILE]},
        {"question_id": "b|c", "category": "", "turns": ["class Tree:"]},
    ]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = CompareSpec(
        methods=["speculative:length=3", "dynamic-tree:nodes=6"],
        workloads=[str(prompts)],
        target=str(pair.target),
        draft=str(pair.draft),
        max_new_tokens=20,
        repeats=1,
        executions=["eager"],
        device="cpu",
        threads=1,
    )
    found = compare(spec, runs=folder / "runs", command=compare_command(spec))
    return found, folder / "runs"


@pytest.fixture(scope="module")
def page(measured) -> str:
    return render.to_html(report_on_comparison(*measured))


class Outline(HTMLParser):
    """Tags with their attributes, text outside scripts and styles, and what scripts hold."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self._open[-1:] == ["script"]:
            self.scripts.append(data)
        elif self._open[-1:] != ["style"]:
            self.text.append(data)


def test_nothing_in_the_page_calls_out(page: str) -> None:
    outline = Outline(page)
    for tag, attributes in outline.tags:
        assert tag not in ("link", "iframe", "object", "embed", "img", "base", "form", "a"), tag
        assert not {"src", "href", "action", "srcset", "data", "ping"} & set(attributes), tag
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
    styles = "".join(re.findall(r"<style>(.*?)</style>", page, re.DOTALL))
    assert "url(" not in styles
    assert "@import" not in styles
    own = [text for text in outline.scripts if "plotly.js v" not in text[:2000]]
    for text in own:
        assert not re.search(r"fetch\(|XMLHttpRequest|WebSocket|import\(|sendBeacon", text)
        assert "http" not in text
    policy = next(a["content"] for t, a in outline.tags if a.get("http-equiv"))
    assert "default-src 'none'" in (policy or "")
    assert page.count("plotly.js v") <= 2
    assert len(page) < 8_000_000


def test_hostile_text_stays_text(page: str) -> None:
    outline = Outline(page)
    scripts = [attributes for tag, attributes in outline.tags if tag == "script"]
    assert len(scripts) == 4
    assert not any(tag in ("b", "i") for tag, _ in outline.tags)
    shown = "".join(outline.text)
    assert "<script>window.owned=1</script>" in shown
    assert "{{ 7*7 }}" in shown
    assert "\x1b" not in page
    assert "\u202e" not in page
    for text in outline.scripts[:2]:
        assert "<" not in text
        json.loads(text)


def test_the_verdict_comes_first_and_the_order_is_kept(page: str) -> None:
    headings = re.findall(r"<h[12]>(.*?)</h[12]>", page)
    assert "as fast as plain decoding" in headings[0]
    assert re.search(r"\[\d\.\d\d, \d\.\d\d\]", headings[0])
    assert headings[1:] == [
        "What was measured, and how",
        "Results",
        "Charts",
        "Losslessness",
        "Prompt by prompt",
        "Sample output",
        "Draft trees",
        "Run it again",
    ]


def test_a_report_holds_what_measuring_asks_for(measured) -> None:
    report = report_on_comparison(*measured)
    assert [heading for heading, _ in report.about] == [
        "Environment",
        "Models",
        "Workload",
        "Protocol",
    ]
    about = dict(report.about)
    assert len(dict(about["Models"])["target"].split("content ")[1].split(",")[0]) == 16
    assert "2 prompts" in about["Workload"][0][1]
    assert len(report.tables[0].rows) == 6
    assert report.tables[0].rows[0][0] == "autoregressive"
    assert report.lossless.startswith("All 8 outputs equal")
    assert [chart.heading for chart in report.charts] == [
        "Speedup",
        "From ideal to measured",
        "Frontier: speedup against tree size",
        "Tokens per step",
        "Predicted against measured",
        "Stages of a step",
        "Accepted per step",
        "Acceptance by depth",
        "Acceptance by rank",
        "Does the draft know when it is right?",
        "Score time against nodes",
        "Speed along a request",
        "Speed against context length",
    ]
    assert all(chart.reading.endswith(".") for chart in report.charts)
    assert 1 <= len(report.trees) <= 3
    assert report.sample is not None
    assert {piece.origin for piece in report.sample.pieces} <= {"draft", "bonus", "correction"}
    assert len(report.sample.pieces) == 20


def test_differences_and_failures_are_told_at_the_top(measured) -> None:
    found, runs = measured
    changed = Comparison.from_json(json.loads(json.dumps(found.as_json())))
    changed.arms[1].error = "NaN logits <b>"
    changed.arms[1].differences = [
        Difference(0, "q", 3, 5, 6, 2.5, 2.5, None, 1e-4, "bug", "·x", "</td>")
    ]
    changed.status = "cancelled"
    report = report_on_comparison(changed, runs)
    assert len(report.warnings) == 3
    html = render.to_html(report)
    assert "NaN logits &lt;b&gt;" in html
    assert "First differences" in html
    assert "&lt;/td&gt;" in html


def test_markdown_is_escaped_and_complete(measured) -> None:
    text = render.to_markdown(report_on_comparison(*measured))
    assert text.startswith("# Comparison of decoding methods")
    assert "| method | finding | tokens/s |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert "b\\|c" in text
    assert "\\<i\\>q" in text
    outside = re.sub(r"^(`{3,})\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert "<script" not in outside
    tables = [len(re.findall(r"(?<!\\)\|", row)) for row in rows]
    assert min(tables) >= 3
    assert "draftree compare" in text


def test_fences_are_longer_than_what_they_hold() -> None:
    assert render.markdown_fence("a ```` b") == "`````\na ```` b\n`````"


def test_runs_alone_get_no_speedup(measured) -> None:
    found, runs = measured
    one = found.arms[2].run_id
    report = report_on_runs([one], runs)
    assert "by an estimate" in report.verdict
    assert report.tone == "open"
    assert len(report.tables[0].rows) == 1
    assert report.trees
    several = report_on_runs([found.arms[1].run_id, one, found.arms[0].run_id], runs)
    assert "not measured against each other" in several.verdict
    assert "×" not in several.verdict
    assert len(several.commands) == 3
    html = render.to_html(several)
    assert html.count('class="plot"') == len(several.charts)
    assert html.count('<svg xmlns="http://www.w3.org/2000/svg" viewBox=') == len(several.trees) >= 1
    plain = report_on_runs([found.arms[0].run_id], runs)
    assert "estimate" not in plain.verdict


def test_a_run_without_steps_can_be_reported(measured) -> None:
    found, runs = measured
    arm = next(arm for arm in found.arms if arm.method == "hf-generate")
    report = report_on_runs([arm.run_id], runs)
    assert "1.00 tokens per step" in report.verdict
    render.to_html(report)
    render.to_markdown(report)


def test_files(measured, tmp_path: Path) -> None:
    found, runs = measured
    html = write_report([found.comparison_id], tmp_path / "a.html", runs=runs)
    assert html.read_text().startswith("<!doctype html>")
    markdown = write_report([found.arms[1].run_id], tmp_path / "a.md", runs=runs)
    assert markdown.read_text().startswith("# Report on a run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "a.md"]
    with pytest.raises(UserError, match="one comparison or sweep alone"):
        gather([found.comparison_id, found.arms[0].run_id], runs)
    with pytest.raises(UserError, match="no comparison"):
        gather(["compare-nope"], runs)
    with pytest.raises(UserError, match="no run"):
        gather(["29990101"], runs)
    with pytest.raises(UserError, match="is a folder"):
        check_writable(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        check_writable(tmp_path / "no" / "where.html")
    with pytest.raises(UserError, match="cannot be written"):
        write(report_on_runs([found.arms[0].run_id], runs), tmp_path / "no" / "where.md")


def test_commands_say_what_is_not_the_default() -> None:
    spec = CompareSpec(
        methods=["dynamic-tree:policy=eagle2,nodes=8", "speculative"],
        workloads=["code", "my file.jsonl"],
        dtypes=["float32", "bfloat16"],
        caches=[True, False],
        draft=None,
        temperature=0.8,
        chat_template=False,
    )
    words = shlex.split(compare_command(spec))
    assert words == [
        "draftree", "compare", "--workload", "code", "--workload", "my file.jsonl",
        "--methods", "dynamic-tree:policy=eagle2,nodes=8,speculative",
        "--dtypes", "float32,bfloat16", "--cache", "on,off", "--temperature", "0.8",
        "--no-chat-template",
    ]  # fmt: skip
    run = RunSpec(
        method="speculative", options={"length": 4}, prompt="it's", cache=False, ignore_eos=True
    )
    assert shlex.split(run_command(run)) == [
        "draftree", "run", "--option", "length=4", "--method", "speculative", "--prompt", "it's",
        "--ignore-eos", "--no-cache",
    ]  # fmt: skip


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_draws_all_charts_without_a_request(
    chromium, page: str, scheme: str, tmp_path: Path
) -> None:
    file = tmp_path / "report.html"
    file.write_text(page, encoding="utf-8")
    requests: list[str] = []
    problems: list[str] = []
    context = chromium.new_context(color_scheme=scheme)
    tab = context.new_page()
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    tab.goto(file.as_uri())
    drawn = "[...document.querySelectorAll('.plot')].every((p) => p.querySelector('.main-svg'))"
    tab.wait_for_function(drawn)
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    wide = tab.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    owned = tab.evaluate("window.owned")
    links = tab.evaluate("document.querySelectorAll('a[href]').length")
    context.close()
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert problems == []
    assert owned is None
    assert links == 0
    assert wide <= 0
    assert (ground == "rgb(18, 21, 28)") == (scheme == "dark")
