"""Every drafting method by name. A new method is one file in `drafters/` and one line here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from engine.errors import UserError
from engine.options import OptionInfo, describe_options, parse

if TYPE_CHECKING:
    from engine.drafters.base import Method

_MODULES = {
    "autoregressive": "engine.drafters.autoregressive",
    "speculative": "engine.drafters.speculative",
    "static-tree": "engine.drafters.static_tree",
    "dynamic-tree": "engine.drafters.dynamic_tree",
    "staged": "engine.drafters.staged",
    "ngram": "engine.drafters.ngram",
    "prompt-lookup": "engine.drafters.prompt_lookup",
    "suffix": "engine.drafters.suffix",
    "combine": "engine.drafters.combine",
    "universal": "engine.drafters.universal",
    "token-recycling": "engine.drafters.token_recycling",
    "early-exit": "engine.drafters.early_exit",
    "kangaroo": "engine.drafters.kangaroo",
    "layer-skip": "engine.drafters.layer_skip",
    "eagle": "engine.drafters.eagle",
    "medusa": "engine.drafters.medusa",
}


class _Methods(dict[str, "Method"]):
    """Methods by name; a method's module is imported when it is first asked for."""

    def __missing__(self, name: str) -> Method:
        if name not in _MODULES:
            raise UserError(f"Method {name!r} is unknown; there are: {', '.join(_MODULES)}.")
        self[name] = import_module(_MODULES[name]).METHOD
        return self[name]


METHODS = _Methods()


def method_names() -> list[str]:
    """All registry names, plain decoding first."""
    return list(_MODULES)


def parse_options(method: str, values: dict[str, Any]) -> Any:
    """The method's options from strings or JSON values. Raises UserError."""
    return parse(METHODS[method].options, values, method=method)


def describe(method: str) -> list[OptionInfo]:
    """The method's options, documented."""
    return describe_options(METHODS[method].options)
