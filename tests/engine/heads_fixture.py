"""Heads for tiny targets, made on the fly: untrained, or taught a text by heart.

`tests.engine.tiny.engine_for` gives them to methods that need one, so tests over the registry run
those like any other. A kind of head that cannot be drafted with untrained has a line in `SIZES`.
"""

from __future__ import annotations

import atexit
import itertools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from engine.heads import KINDS, head_kind
from engine.heads.files import find_head, save_head
from engine.inside import capture
from engine.models import LoadedModel
from engine.parts import NORMED

#: what `build` of each kind is told beyond what it reads off the target
SIZES: dict[str, dict[str, Any]] = {"medusa": {"num_heads": 3}}

_root: list[Path] = []
_number = itertools.count()
_made: dict[tuple[str, str, str], Path] = {}


def needs_head(method: str) -> bool:
    """Whether a method drafts with a trained head; it is the head's kind."""
    return method in KINDS


def with_head(method: str, options: dict[str, Any], target: LoadedModel) -> dict[str, Any]:
    """The options, with an untrained head where the method needs one and the target has none."""
    if not needs_head(method) or "head" in options or find_head(method, target):
        return options
    key = (method, target.name, target.content_hash)
    if key not in _made:
        _made[key] = write_head(untrained(method, target), target)
    return options | {"head": str(_made[key])}


def untrained(kind: str, target: LoadedModel, **sizes: Any) -> Any:
    """A head of this kind as training begins with it; the same one each time."""
    torch.manual_seed(3)
    return head_kind(kind).module_class().build(SIZES.get(kind, {}) | sizes, target)


def write_head(module: Any, target: LoadedModel, folder: Path | None = None, **card: Any) -> Path:
    """Save a head as made for `target`; without a folder, in one that is gone at exit."""
    if folder is None:
        if not _root:
            _root.append(Path(tempfile.mkdtemp(prefix="draftree-test-heads-")))
            atexit.register(shutil.rmtree, _root[0], ignore_errors=True)
        folder = _root[0] / f"{module.kind}-{next(_number)}"
    made_for = {"name": target.name, "content_hash": target.content_hash}
    save_head(folder, module, {"target": made_for} | card)
    return folder


def medusa_by_heart(
    target: LoadedModel, tokens: list[int], *, num_heads: int = 3, shift: int = 0
) -> Any:
    """Medusa heads that know what follows where in `tokens`, by least squares; no training.

    Head i says the token i + 2 + `shift` places on; with a shift they are off by so many. Exact for
    no more tokens than the target's hidden states have dimensions.
    """
    with torch.inference_mode():
        _, states = capture(target.model, (NORMED,), input_ids=torch.tensor([tokens]))
    hidden_ND = states[NORMED][0].double()
    heads = untrained("medusa", target, num_heads=num_heads, tied=False)
    for at, head in enumerate(heads.heads):
        following = torch.tensor(tokens[at + 2 + shift :])
        wanted_MV = torch.nn.functional.one_hot(following, target.vocab_size).double()
        weight_DV = torch.linalg.lstsq(hidden_ND[: len(following)], 8.0 * wanted_MV).solution
        with torch.no_grad():
            head.weight.copy_(weight_DV.T)
    return heads
