"""A target cut over ranks, layer by layer, by the plan that transformers has for its architecture.

`apply_tensor_parallelism` shards a loaded model over a device mesh: heads and the MLP's width are
divided, an all-reduce follows each. Each rank loads the weights on its host first and keeps its
share; that needs memory there, and works for any set of ranks, where `from_pretrained(...,
distributed_config=)` wants all of them.

What differs between versions of transformers: up to 5.17 the function reads the model's plan by
itself and takes (model, mesh); later it is given the plan with its layers' numbers filled in. A
head whose vocabulary the ranks do not divide stays whole under the former.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

from torch import nn

from engine.errors import UserError
from engine.models import LoadedModel

_SIZES = {
    "num_attention_heads": "attention heads",
    "num_key_value_heads": "key-value heads",
    "intermediate_size": "units in its MLP",
}


def why_not_cut(loaded: LoadedModel, num_ranks: int) -> str:
    """Why this model cannot be cut over so many ranks; empty where it can."""
    if num_ranks == 1:
        return ""
    kind = loaded.model.config.model_type
    if not loaded.model.tp_plan:
        return (
            f"{loaded.name} is a {kind} model, and transformers has no tensor-parallel plan for it;"
            " divide the draft instead (--parallel draft)."
        )
    config = loaded.model.config.get_text_config(decoder=True)
    for name, words in _SIZES.items():
        size = getattr(config, name, None)
        if isinstance(size, int) and size % num_ranks:
            return (
                f"{loaded.name} has {size} {words}, which cannot be divided by {num_ranks} ranks; "
                f"it can be cut over {_listed(degrees(loaded, size))}."
            )
    return ""


def degrees(loaded: LoadedModel, most: int) -> list[int]:
    """Numbers of ranks, up to `most`, over which this model can be cut; 1 is always one."""
    if not loaded.model.tp_plan:
        return [1]
    config = loaded.model.config.get_text_config(decoder=True)
    sizes = [getattr(config, name, None) for name in _SIZES]
    known = [size for size in sizes if isinstance(size, int)]
    return [n for n in range(1, most + 1) if all(size % n == 0 for size in known)]


def cut(loaded: LoadedModel, mesh: Any, device: str) -> LoadedModel:
    """The model with this rank's share of its weights, on `device`. Changes `loaded.model`.

    All ranks of the mesh must then run it together. Raises UserError where it cannot be cut.
    """
    from transformers.distributed.tensor_parallel import apply_tensor_parallelism

    reason = why_not_cut(loaded, mesh.size())
    if reason:
        raise UserError(reason)
    model = loaded.model
    _untie(model)
    if "tp_plan" in inspect.signature(apply_tensor_parallelism).parameters:
        apply_tensor_parallelism(model, mesh, _numbered(model))
    else:
        if loaded.vocab_size % mesh.size():  # it cannot gather slices of unequal length
            plan = {name: how for name, how in model.tp_plan.items() if "gather" not in how}
            model.tp_plan = plan  # type: ignore[misc]
        apply_tensor_parallelism(model, mesh)  # type: ignore[call-arg]
    model.to(device)  # type: ignore[arg-type]
    model.requires_grad_(False)
    return dataclasses.replace(loaded, model=model, device=device)


def _untie(model: Any) -> None:
    """Give modules that share a weight one each: of a tied head a slice is cut, not of its twin."""
    seen: set[int] = set()
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if id(weight) in seen:
                setattr(module, name, nn.Parameter(weight.detach().clone(), requires_grad=False))
            seen.add(id(weight))


def _numbered(model: Any) -> dict[str, str]:
    """The model's plan with a rule for each module or parameter that it names."""
    names = [name for name, _ in (*model.named_modules(), *model.named_parameters())]
    found = {}
    for name in names:
        style = model.tp_plan.get(re.sub(r"\.\d+(?=\.|$)", ".*", name))
        if style is not None:
            found[name] = style
    # a module's rule stands for its parameters too
    parameters = [name for name, _ in model.named_parameters() if name not in found]
    found |= {name: found[name.rpartition(".")[0]] for name in parameters
              if name.rpartition(".")[0] in found}  # fmt: skip
    return found


def _listed(numbers: list[int]) -> str:
    usable = [str(number) for number in numbers if number > 1]
    if not usable:
        return "no number of ranks but 1"
    return f"{', '.join(usable)} ranks"
