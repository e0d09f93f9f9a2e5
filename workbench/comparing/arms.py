"""Arms of a comparison: what `--methods` names, parsed and checked before anything is loaded.

An arm is a method and, after a colon, its options: `dynamic-tree:policy=eagle2,nodes=8`. Beside
the registry's methods there are the baselines of every comparison: Hugging Face `generate`, plain
(`hf-generate`), assisted (`hf-assisted`) and with its prompt lookup (`hf-prompt-lookup`), and the
draft model alone (`draft-alone`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, get_args

from engine.errors import UserError
from engine.tree import MOST_DRAFTS
from engine.verify_paths import TYPICAL, Typical
from workbench.comparing.expand import expand, read_arm, split_methods
from workbench.ranks import MOST_RANKS, PARALLEL, PLACEMENTS
from workbench.spec import Kernels, Verify

PLAIN = "autoregressive"
HF_GENERATE = "hf-generate"
HF_ASSISTED = "hf-assisted"
HF_LOOKUP = "hf-prompt-lookup"
DRAFT_ALONE = "draft-alone"
BASELINES = {
    HF_GENERATE: "Hugging Face generate, plain",
    HF_ASSISTED: "Hugging Face generate, assisted by the draft model",
    HF_LOOKUP: "Hugging Face generate with its prompt lookup",
    DRAFT_ALONE: "the draft model decoding alone: another text, a bound on speed",
}
#: those that are measured where nothing else is asked for
USUAL = (HF_GENERATE, HF_ASSISTED, DRAFT_ALONE)
#: settings of a run, not of a method, that an arm may set
_RUN_SETTINGS = {
    "verify": get_args(Verify),
    "children": ("auto", "fixed", "coupled", "sampled"),
    "drafts": ("all", *map(str, range(1, MOST_DRAFTS + 1))),
    "ranks": tuple(map(str, range(1, MOST_RANKS + 1))),
    "parallel": PARALLEL,
    "placement": PLACEMENTS,
    "kernels": get_args(Kernels),
}
_THRESHOLDS = ("typical_epsilon", "typical_alpha")


@dataclass(frozen=True, slots=True)
class Arm:
    """One way of decoding. `label` names it in tables: as it was asked for."""

    label: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    verify: str = "match"
    children: str = "auto"
    typical: Typical = TYPICAL
    drafts: str = "all"  # draft models whose trees it merges: the first so many
    #: of several ranks; empty: as the comparison says
    ranks: str = ""
    parallel: str = ""
    placement: str = ""
    kernels: str = "auto"

    @property
    def is_hugging_face(self) -> bool:
        """Decoded by `generate` and not by our engine."""
        return self.method in (HF_GENERATE, HF_ASSISTED, HF_LOOKUP)

    @property
    def needs_draft(self) -> bool:
        """Whether it takes a draft model."""
        from engine.registry import METHODS

        if self.method in BASELINES:
            return self.method in (HF_ASSISTED, DRAFT_ALONE)
        return METHODS[self.method].needs_draft

    @property
    def takes_any_vocabulary(self) -> bool:
        """Whether its draft model may have another tokenizer."""
        from engine.registry import METHODS

        return self.method not in BASELINES and not METHODS[self.method].same_vocabulary


def parse_arms(methods: str | Iterable[str], baselines: Iterable[str] = USUAL) -> list[Arm]:
    """Return the arms, plain decoding first and the baselines last, each once.

    An option that is a list stands for an arm for each of its values.

    Raises:
        UserError: an unknown method or option, or a value it does not take.
    """
    texts = split_methods(methods) if isinstance(methods, str) else list(methods)
    arms = {arm.label: arm for arm in [Arm(PLAIN, PLAIN), *map(parse_arm, expand(texts))]}
    asked = {arm.method for arm in arms.values()}
    arms |= {name: Arm(name, name) for name in baselines if name not in asked}
    last = [arm for arm in arms.values() if arm.method in BASELINES]
    return [arm for arm in arms.values() if arm.method not in BASELINES] + last


def parse_arm(text: str) -> Arm:
    """Parse and check one arm. Raises UserError."""
    name, typed = read_arm(text)
    values: dict[str, Any] = dict(typed)
    settings = {key: values.pop(key) for key in _RUN_SETTINGS if key in values}
    for key, value in settings.items():
        if value not in _RUN_SETTINGS[key]:
            known = f"1 to {MOST_RANKS}" if key == "ranks" else ", ".join(_RUN_SETTINGS[key])
            raise UserError(f"{key} of {name} is {value!r}; use one of {known}.")
    given = {key: _threshold(name, key, values.pop(key)) for key in _THRESHOLDS if key in values}
    typical = TYPICAL._replace(**{key.removeprefix("typical_"): given[key] for key in given})
    check_options(name, values)
    if given and settings.get("verify") != "typical":
        raise UserError(f"{name} has {' and '.join(given)}, which go with verify=typical.")
    if settings and name in BASELINES:
        raise UserError(f"{name} takes no {' or '.join(settings)}; its verification is its own.")
    tail = text.strip().partition(":")[2].strip()
    arm = Arm(f"{name}:{tail}" if tail else name, name, values, typical=typical, **settings)
    if arm.drafts != "all" and not arm.needs_draft:
        raise UserError(f"{name} has drafts={arm.drafts}, and drafts without a draft model.")
    return arm


def _threshold(method: str, name: str, typed: str) -> float:
    try:
        value = float(typed)
    except ValueError:
        value = -1.0
    if not 0.0 < value <= 1.0:
        raise UserError(f"{name} of {method} is {typed!r}; use a number above 0, at most 1.")
    return value


def check_options(name: str, values: dict[str, Any]) -> Any:
    """The parsed options of a method or baseline. Raises UserError."""
    from engine.hf_baseline import Assistance, Lookup
    from engine.options import parse
    from engine.registry import METHODS, method_names, parse_options

    if name in (HF_ASSISTED, HF_LOOKUP):
        return parse(Assistance if name == HF_ASSISTED else Lookup, values, method=name)
    if name in BASELINES:
        if values:
            raise UserError(f"{name} has no options; it was given {', '.join(values)}.")
        return None
    if name not in method_names():
        known = ", ".join([*method_names(), *BASELINES])
        raise UserError(f"Method {name!r} is unknown; there are: {known}.")
    METHODS[name]
    return parse_options(name, values)
