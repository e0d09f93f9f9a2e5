"""From what a person filled in to a run spec, with sentences where it does not fit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from engine.errors import UserError
from engine.options import OptionInfo
from workbench.spec import RunSpec
from workbench.view.visible import safe_text

WORKLOAD_LABELS = {"code": "Code", "docstring": "Prose", "edit": "Edit"}
#: models take some thousands of tokens; more text than this was not meant for them
MOST_PROMPT_BYTES = 64_000
_PREVIEW = 40
_FUNCTION = re.compile(r"(?:async )?(?:def \w+\(|class \w+[(:])[^:]*")


class Prompt(NamedTuple):
    """One prompt of the gallery."""

    name: str
    preview: str
    text: str


def gallery(workload: str) -> list[Prompt]:
    """The prompts of an embedded workload: first turns, with a line that tells them apart."""
    from workbench.workloads import load_workload

    prompts = []
    for question in load_workload(workload):
        text = question.turns[0]
        prompts.append(Prompt(question.question_id, preview(text), text))
    return prompts


def preview(text: str) -> str:
    """A short line that tells a prompt from others: the function it is in, or its last words."""
    lines = [line.strip() for line in safe_text(text).splitlines()]
    functions = [match.group() for line in lines if (match := _FUNCTION.match(line))]
    telling = [line for line in lines if sum(map(str.isalpha, line)) > 3]
    line = (functions or telling or lines or [""])[-1]
    return line if len(line) <= _PREVIEW else line[: _PREVIEW - 1] + "…"


def changed_options(infos: Iterable[OptionInfo], values: Mapping[str, Any]) -> dict[str, Any]:
    """The options that differ from their defaults: a spec stays short and says what was chosen."""
    return {
        info.name: values[info.name]
        for info in infos
        if info.name in values and values[info.name] != info.default
    }


def build_spec(**fields: Any) -> RunSpec:
    """A checked spec. Raises UserError with a sentence for people."""
    from engine.registry import METHODS
    from workbench.models import check_spec

    if not METHODS[fields["method"]].needs_draft:
        fields["draft"] = None
    for name in ("target", "draft"):
        value = fields[name]
        if value is not None and not value.strip():
            raise UserError(f"The {name} model is empty; give a local folder or a hub id.")
    prompt = fields.get("prompt") or ""
    if not (prompt or fields.get("workload")):
        raise UserError("The prompt is empty; type one or choose one from the gallery.")
    if len(prompt.encode(errors="replace")) > MOST_PROMPT_BYTES:
        raise UserError(
            f"The prompt has {len(prompt.encode(errors='replace')) / 1e3:.0f} kB; at most "
            f"{MOST_PROMPT_BYTES / 1e3:.0f} kB are taken here. Shorten it, or give it to `draftree "
            "run` as a file."
        )
    try:
        spec = RunSpec(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "The run"
        raise UserError(f"{where}: {first['msg']} (it is {first.get('input')!r}).") from error
    check_spec(spec)
    return spec


def escape_markdown(text: str) -> str:
    """For messages that quote input: nothing in them becomes markup."""
    return "".join(f"\\{char}" if char in _SPECIAL else char for char in safe_text(text))


_SPECIAL = frozenset("\\`*_{}[]()#+-.!|<>~$:^=&")
