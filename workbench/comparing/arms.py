"""Arms of a comparison: what `--methods` names, parsed and checked before anything is loaded.

An arm is a method and, after a colon, its options: `dynamic-tree:policy=eagle2,nodes=8`. Beside
the registry's methods there are the baselines of every comparison: Hugging Face `generate`, plain
(`hf-generate`) and assisted (`hf-assisted`), and the draft model alone (`draft-alone`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from engine.errors import UserError

PLAIN = "autoregressive"
HF_GENERATE = "hf-generate"
HF_ASSISTED = "hf-assisted"
DRAFT_ALONE = "draft-alone"
BASELINES = {
    HF_GENERATE: "Hugging Face generate, plain",
    HF_ASSISTED: "Hugging Face generate, assisted by the draft model",
    DRAFT_ALONE: "the draft model decoding alone: another text, a bound on speed",
}
#: settings of a run, not of a method, that an arm may set
_RUN_SETTINGS = {
    "verify": ("match", "multi-step", "without-replacement"),
    "children": ("auto", "fixed", "coupled", "sampled"),
}
_METHOD_LIKE = re.compile(r"[A-Za-z][\w-]*\s*(:|$)")


@dataclass(frozen=True, slots=True)
class Arm:
    """One way of decoding. `label` names it in tables: as it was asked for."""

    label: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    verify: str = "match"
    children: str = "auto"

    @property
    def is_hugging_face(self) -> bool:
        """Decoded by `generate` and not by our engine."""
        return self.method in (HF_GENERATE, HF_ASSISTED)

    @property
    def needs_draft(self) -> bool:
        """Whether it takes a draft model."""
        from engine.registry import METHODS

        if self.method in BASELINES:
            return self.method != HF_GENERATE
        return METHODS[self.method].needs_draft


def parse_arms(methods: str | Iterable[str]) -> list[Arm]:
    """Return the arms, plain decoding first and the baselines last, each once.

    Raises:
        UserError: an unknown method or option, or a value it does not take.
    """
    texts = split_methods(methods) if isinstance(methods, str) else list(methods)
    arms = {arm.label: arm for arm in [Arm(PLAIN, PLAIN), *map(parse_arm, texts)]}
    asked = {arm.method for arm in arms.values()}
    arms |= {name: Arm(name, name) for name in BASELINES if name not in asked}
    last = [arm for arm in arms.values() if arm.method in BASELINES]
    return [arm for arm in arms.values() if arm.method not in BASELINES] + last


def split_methods(text: str) -> list[str]:
    """Split at the commas that begin a method: options and their values may hold commas too."""
    parts: list[str] = []
    for piece in text.split(","):
        begins = _METHOD_LIKE.match(piece.strip()) and "=" not in piece.partition(":")[0]
        if begins or not parts:
            parts.append(piece.strip())
        else:
            parts[-1] += f",{piece.strip()}"
    return [part for part in parts if part]


def parse_arm(text: str) -> Arm:
    """Parse and check one arm. Raises UserError."""
    name, _, tail = text.strip().partition(":")
    name = name.strip()
    values = _options(tail, name)
    settings = {key: values.pop(key) for key in _RUN_SETTINGS if key in values}
    for key, value in settings.items():
        if value not in _RUN_SETTINGS[key]:
            raise UserError(
                f"{key} of {name} is {value!r}; use one of {', '.join(_RUN_SETTINGS[key])}."
            )
    check_options(name, values)
    if settings and name in BASELINES:
        raise UserError(f"{name} takes no {' or '.join(settings)}; its verification is its own.")
    label = name if not tail.strip() else f"{name}:{tail.strip()}"
    return Arm(label, name, values, **settings)


def check_options(name: str, values: dict[str, Any]) -> Any:
    """The parsed options of a method or baseline. Raises UserError."""
    from engine.hf_baseline import Assistance
    from engine.options import parse
    from engine.registry import METHODS, method_names, parse_options

    if name == HF_ASSISTED:
        return parse(Assistance, values, method=name)
    if name in BASELINES:
        if values:
            raise UserError(f"{name} has no options; it was given {', '.join(values)}.")
        return None
    if name not in method_names():
        known = ", ".join([*method_names(), *BASELINES])
        raise UserError(f"Method {name!r} is unknown; there are: {known}.")
    METHODS[name]
    return parse_options(name, values)


def _options(text: str, method: str) -> dict[str, Any]:
    """`a=1,b=2,3` as {a: "1", b: "2,3"}: a piece without a name belongs to the value before."""
    values: dict[str, Any] = {}
    last = ""
    for piece in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = piece.partition("=")
        if equals:
            last = key.strip().replace("-", "_")
            values[last] = value.strip()
        elif last:
            values[last] += f",{piece}"
        else:
            raise UserError(f"{piece!r} of {method} is no option; write {method}:name=value,...")
    return values
