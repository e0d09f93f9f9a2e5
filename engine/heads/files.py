"""Heads on disk: a folder with model.safetensors and head.json, which says what they are.

`load_head` also takes the layouts that the methods' authors publish (each kind's `read_published`).
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from engine.errors import UserError
from engine.heads import KINDS, head_kind
from engine.models import DTYPES, LoadedModel, first_line
from engine.paths import data_folder

WEIGHTS, CARD = "model.safetensors", "head.json"
VERSION = 1


def save_head(folder: Path, module: nn.Module, card: dict[str, Any]) -> None:
    """Write what was trained in float16, and its card; each file appears whole or not at all.

    `card` holds `target` ({"name", "content_hash"}) and whatever else is worth knowing; `kind`,
    `sizes` and `version` are added. Raises OSError where the disk is full; what lay there stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: tensor.detach().cpu().to(torch.float16).contiguous()
        for name, tensor in module.state_dict().items()
    }
    kind, sizes = module.kind, module.sizes()  # type: ignore[operator]
    text = json.dumps({"version": VERSION, "kind": kind, "sizes": sizes} | card, indent=2)
    partial = {name: folder / f"{name}.partial" for name in (WEIGHTS, CARD)}
    try:
        save_file(state, partial[WEIGHTS])
        partial[CARD].write_text(text + "\n")
        for name, path in partial.items():
            path.replace(folder / name)
    except SafetensorError as error:  # what its writer makes of a full disk
        raise OSError(f"{folder} cannot be written to: {first_line(error)}") from error
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)


def resolve_head(name_or_path: str) -> Path:
    """The folder of an embedded head or of a local one. Raises UserError."""
    embedded = data_folder() / "heads" / name_or_path
    if "/" not in name_or_path and embedded.is_dir():
        return embedded
    local = Path(name_or_path).expanduser()
    if local.is_dir():
        return local
    known = ", ".join(sorted(path.name for path in (data_folder() / "heads").glob("*"))) or "none"
    raise UserError(
        f"There is no folder of heads {name_or_path!r}, nor embedded heads of that name (there are:"
        f" {known}); train some with `draftree train medusa`."
    )


def find_head(kind: str, target: LoadedModel) -> Path | None:
    """Embedded heads of a kind that were trained for this target, by its content hash."""
    for card in sorted((data_folder() / "heads").glob(f"*/{CARD}")):
        found = read_card(card.parent)
        made_for = found.get("target", {}).get("content_hash")
        if found["kind"] == kind and made_for == target.content_hash:
            return card.parent
    return None


def read_card(folder: Path) -> dict[str, Any]:
    """What head.json says. Raises UserError where it cannot be read."""
    try:
        card = json.loads((folder / CARD).read_text())
        if not isinstance(card, dict) or not isinstance(card.get("sizes"), dict):
            raise ValueError("it has no sizes")
        head_kind(card.get("kind", ""))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / CARD} cannot be read as a head's card: {error}") from None
    return card


def load_head(name_or_path: str, target: LoadedModel, *, kind: str | None = None) -> nn.Module:
    """Heads ready to draft for `target`: on its device, in its dtype, frozen.

    Raises UserError for a folder that holds none, heads of another `kind` or size, heads that were
    made for another target, and damaged files.
    """
    folder = resolve_head(name_or_path)
    module = _own(folder, target) if (folder / CARD).is_file() else _published(folder, target, kind)
    if kind is not None and module.kind != kind:
        raise UserError(f"{folder} holds a head of kind {module.kind}, and {kind} is asked for.")
    module.path = str(folder)
    module.to(device=target.device, dtype=DTYPES[target.dtype])
    return module.eval().requires_grad_(False)


def read_config(folder: Path) -> dict[str, Any] | None:
    """The config.json beside a published checkpoint; None where there is none.

    Raises UserError for one that cannot be read.
    """
    try:
        found = json.loads((folder / "config.json").read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / 'config.json'} cannot be read: {error}") from None
    return found if isinstance(found, dict) else None


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a .safetensors file, or of a .pt/.bin file of nothing but tensors.

    Raises UserError for a file that is damaged or cut short.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} holds more than tensors, or is cut short; only tensors are loaded."
        ) from None
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} is damaged or cut short ({first_line(error)}); fetch or train it again."
        ) from None


def fill(module: nn.Module, state: dict[str, torch.Tensor], where: Path) -> None:
    """Load a state dict. Raises UserError for tensors that are missing, unknown or misshapen."""
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    for name, shape in wanted.items():
        if name not in state:
            raise UserError(f"{where} lacks the tensor {name}; the file is of another head.")
        if tuple(state[name].shape) != shape:
            raise UserError(
                f"{name} in {where} is {tuple(state[name].shape)} and should be {shape}: the head "
                "has other sizes, or belongs to another target."
            )
    if unknown := sorted(set(state) - set(wanted)):
        raise UserError(f"{where} has the tensor {unknown[0]}, which a {module.kind} head has not.")
    module.load_state_dict(state)


def _own(folder: Path, target: LoadedModel) -> Any:
    card = read_card(folder)
    made_for = card.get("target", {})
    if made_for.get("content_hash") != target.content_hash:
        raise UserError(
            f"The {card['kind']} head in {folder} was trained for {made_for.get('name', 'another')}"
            f" ({made_for.get('content_hash', 'unknown')}), and the target is {target.name} "
            f"({target.content_hash}). A head fits the very weights it was trained on; train one "
            f"with `draftree train {card['kind']} --target {target.name}`."
        )
    module = head_kind(card["kind"]).module_class().build(card["sizes"], target)
    fill(module, read_tensors(folder / WEIGHTS), folder / WEIGHTS)
    return module


def _published(folder: Path, target: LoadedModel, kind: str | None) -> Any:
    for name in [kind] if kind else KINDS:
        try:
            module_class = head_kind(name).module_class()
        except ModuleNotFoundError:
            continue
        module = module_class.read_published(folder, target)
        if module is not None:
            return module
    raise UserError(
        f"{folder} holds no {CARD} and no layout of published heads that is known here."
    )
