"""Sets of sublayers that are left out while drafting: how they are typed, begun with, and kept.

`a3+m4-6` leaves out the attention of layer 3 and the MLPs of layers 4 to 6; `l2` both of layer 2.
Commas do as well, but not in a list of methods, where they part those.
What a search has found lies as JSON beside the model, or in the user's folder where that cannot be
written to, and bears the model's content hash.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import UserError
from engine.models import LoadedModel
from engine.parts import Sublayer
from engine.paths import data_folder, skips_folder

SkipSet = frozenset[Sublayer]
AUTO = "auto"
FOLDER = "layer-skip"  # beside the model
_PIECE = re.compile(r"([aml])(\d+)(?:-(\d+))?")
_KINDS = {"a": ("attention",), "m": ("mlp",), "l": ("attention", "mlp")}
_HOW = "write sublayers such as a3+m4-6 (a: attention, m: MLP, l: both)"


def parse_set(text: str) -> SkipSet | None:
    """The sublayers that a text stands for; None where it is not written as a set.

    Raises UserError for a range that runs backwards.
    """
    pieces = [piece for piece in re.split(r"[+,\s]+", text.strip().lower()) if piece]
    found: set[Sublayer] = set()
    for piece in pieces:
        match = _PIECE.fullmatch(piece)
        if match is None:
            return None
        first = int(match[2])
        last = int(match[3]) if match[3] else first
        if last < first:
            raise UserError(f"The range {piece} runs backwards; {_HOW}.")
        kinds: Any = _KINDS[match[1]]
        found |= {Sublayer(kind, layer) for kind in kinds for layer in range(first, last + 1)}
    return frozenset(found)


def set_text(skipped: Iterable[Sublayer]) -> str:
    """The set as it is typed, in its shortest form; `parse_set` is the way back."""
    chosen = set(skipped)
    attention = {layer for kind, layer in chosen if kind == "attention"}
    mlp = {layer for kind, layer in chosen if kind == "mlp"}
    both = attention & mlp
    apart = "+".join(_runs("a", attention) + _runs("m", mlp))
    joined = "+".join(_runs("l", both) + _runs("a", attention - both) + _runs("m", mlp - both))
    return min(joined, apart, key=len)


def starting_points(num_layers: int) -> dict[str, SkipSet]:
    """Sets that are known to be worth a try, by what they are; the first is the default.

    Draft & Verify (Zhang et al., 2309.08168, section 4 and appendix) found the first and last
    layers to matter most, and about half of the sublayers of the others to be spared.
    """
    middle = list(range(1, num_layers - 1)) or [num_layers - 1]
    half = middle[len(middle) // 4 : len(middle) // 4 + -(-len(middle) // 2)]
    of: dict[str, tuple[str, list[int]]] = {
        "every other middle layer": ("l", middle[::2]),
        "the other middle layers": ("l", middle[1::2] or middle),
        "all middle attentions": ("a", middle),
        "all middle MLPs": ("m", middle),
        "the middle half of the layers": ("l", half),
        "one middle layer": ("l", [middle[len(middle) // 2]]),
    }
    found = {
        name: frozenset(
            Sublayer(kind, layer)  # type: ignore[arg-type]
            for kind in _KINDS[letter]
            for layer in layers
        )
        for name, (letter, layers) in of.items()
    }
    later = frozenset(Sublayer("mlp", layer) for layer in middle[1::2])
    found["all middle attentions and every other middle MLP"] = (
        found["all middle attentions"] | later
    )
    return found


def check_set(skipped: SkipSet, num_layers: int, *, name: str) -> SkipSet:
    """The set as it came. Raises UserError for one that skips nothing, or layers not there."""
    if not skipped:
        raise UserError(
            f"skip leaves nothing out: drafting would cost what the target costs. {_HOW[0].upper()}"
            f"{_HOW[1:]}, or use --method autoregressive."
        )
    beyond = sorted({layer for _, layer in skipped if layer >= num_layers})
    if beyond:
        raise UserError(
            f"skip names layer {beyond[0]}, and {name} has {num_layers}, counted from 0 to "
            f"{num_layers - 1}."
        )
    return skipped


@dataclass(frozen=True, slots=True)
class SavedSet:
    """A set that a search has found, and how."""

    skip: str
    target: str  # name of the model
    target_hash: str
    num_layers: int
    made: str  # ISO time
    #: study, workload, figures; whatever the search says of itself
    how: dict[str, Any] = field(default_factory=dict)
    kind: str = FOLDER

    @property
    def skipped(self) -> SkipSet:
        return parse_set(self.skip) or frozenset()


def folders(path: str) -> list[Path]:
    """Where results for a model at `path` may lie, the first one first."""
    beside = [Path(path) / FOLDER] if path and Path(path).is_dir() else []
    return [*beside, skips_folder(), data_folder() / FOLDER]


def save(found: SavedSet, name: str, *, path: str) -> Path:
    """Keep a result beside the model at `path`, else in the user's folder.

    Embedded models stay as they are shipped. Raises UserError where it can be kept nowhere.
    """
    beside = Path(path) / FOLDER if path and Path(path).is_dir() else None
    if beside is not None and data_folder().resolve() in beside.resolve().parents:
        beside = None
    text = json.dumps(asdict(found), indent=2) + "\n"
    for folder in filter(None, [beside, skips_folder()]):
        file = folder / f"{name}.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            half = file.with_suffix(".json.new")
            half.write_text(text)
            half.replace(file)
        except OSError as error:
            reason = error.strerror or str(error)
            continue
        return file
    raise UserError(
        f"The set {found.skip} cannot be kept in {file.parent}: {reason}. Give it as it is, "
        f"-o skip={found.skip}, or set DRAFTREE_SKIPS to another folder."
    )


def load(file: Path) -> SavedSet:
    """Read a saved result. Raises UserError for what is none."""
    try:
        known = json.loads(file.read_text())
        saved = SavedSet(**known)
        whole = isinstance(known, Mapping) and saved.kind == FOLDER and bool(saved.skipped)
    except (OSError, ValueError, TypeError, UserError):
        whole = False
    if not whole:
        raise UserError(
            f"{file} is no saved set of sublayers, or damaged; `draftree tune layer-skip` makes "
            "one."
        )
    return saved


@dataclass(frozen=True, slots=True)
class Resolved:
    """The set that an option stands for, and where it came from."""

    skipped: SkipSet
    source: str

    @property
    def told(self) -> str:
        """For people."""
        return f"skips {set_text(self.skipped)} ({self.source})"


def resolve(skip: str, loaded: LoadedModel, num_layers: int) -> Resolved:
    """What option `skip` means for this target.

    Raises UserError for what is neither a set nor a saved result, a result of another target, or
    a set that the target does not have.
    """
    text = skip.strip()
    if text.lower() == AUTO:
        saved = _newest_for(loaded)
        if saved is not None:
            name, one = saved
            return Resolved(check_set(one.skipped, num_layers, name=loaded.name), f"saved: {name}")
        name, skipped = next(iter(starting_points(num_layers).items()))
        return Resolved(skipped, f"{name}; nothing was searched for {loaded.name}")
    typed = parse_set(text)
    if typed is not None:
        return Resolved(check_set(typed, num_layers, name=loaded.name), "as given")
    file = _file_named(text, loaded)
    one = load(file)
    if one.target_hash != loaded.content_hash:
        raise UserError(
            f"{text} was found for {one.target} ({one.target_hash}), and the target is "
            f"{loaded.name} ({loaded.content_hash}). To skip the same sublayers all the same, give "
            f"them: -o skip={one.skip}."
        )
    return Resolved(check_set(one.skipped, num_layers, name=loaded.name), f"saved: {file.stem}")


def _file_named(name: str, loaded: LoadedModel) -> Path:
    typed = Path(name).expanduser()
    if typed.suffix == ".json" or "/" in name:
        if typed.is_file():
            return typed
        raise UserError(f"skip is {name!r}, and there is no such file.")
    known: dict[str, Path] = {}
    for folder in folders(loaded.path):
        for file in sorted(folder.glob("*.json")):
            known.setdefault(file.stem, file)
    if name not in known:
        there = f"there are: {', '.join(known)}" if known else "there is none yet"
        raise UserError(
            f"skip is {name!r}, which is neither a set nor the name of a saved one ({there}); "
            f"{_HOW}, or search with `draftree tune layer-skip`."
        )
    return known[name]


def _newest_for(loaded: LoadedModel) -> tuple[str, SavedSet] | None:
    """The last result for a target, of the first folder that has any; damaged ones are passed."""
    for folder in folders(loaded.path):
        found = []
        for file in folder.glob("*.json"):
            try:
                one = load(file)
            except UserError:
                continue
            if one.target_hash == loaded.content_hash:
                found.append((one.made, file.stem, one))
        if found:
            _, name, one = max(found, key=lambda each: each[:2])
            return name, one
    return None


def _runs(letter: str, layers: set[int]) -> list[str]:
    """`a1-3`, `a7`: neighbours together."""
    found: list[list[int]] = []
    for layer in sorted(layers):
        if found and layer == found[-1][1] + 1:
            found[-1][1] = layer
        else:
            found.append([layer, layer])
    return [f"{letter}{a}" if a == b else f"{letter}{a}-{b}" for a, b in found]
