"""Sizes of an EAGLE head, and whether they fit a target."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from torch import nn
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from engine.errors import UserError
from engine.inside import Inside
from engine.models import LoadedModel
from engine.parts import Part


@dataclass(frozen=True, kw_only=True)
class EagleShape:
    """Sizes of a head, and where in the target it reads."""

    points: tuple[int, ...]
    """Places between the target's layers whose states make a feature, the lowest first."""
    target_hidden: int
    """Width of the target's states."""
    embedding: int
    """Width of the target's token embeddings."""
    hidden: int
    """Width of the head; its LM head, where that is the target's, needs the target's width."""
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    rope: dict[str, Any]
    """Rotary positions, as transformers takes them."""
    context: int = 2048
    eps: float = 1e-6
    normed_states: bool = True
    """Whether states of each depth are brought to one scale first; published heads do not."""
    draft_vocab: int = 0
    """Tokens that an LM head of its own knows; 0: the target's LM head serves."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", tuple(self.points))  # a list, where it comes from JSON
        for name in (
            "target_hidden", "embedding", "hidden", "heads", "kv_heads", "head_dim", "intermediate",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.heads % self.kv_heads or self.head_dim % 2:
            raise ValueError(
                f"heads ({self.heads}) must divide by kv_heads ({self.kv_heads}), and head_dim"
                f" ({self.head_dim}) by 2"
            )
        kinds = {"default", *ROPE_INIT_FUNCTIONS}
        if self.rope.get("rope_type") not in kinds:
            raise ValueError(f"rope_type {self.rope.get('rope_type')!r} is none of {sorted(kinds)}")
        if not self.points:
            raise ValueError("a head reads the target at one point at least")


def default_points(num_layers: int) -> tuple[int, ...]:
    """Low, middle and high, as EAGLE-3 has them; of a shallow target, its last layer too."""
    if num_layers >= 12:
        return 2, num_layers // 2, num_layers - 3
    return num_layers // 4, 5 * num_layers // 8, num_layers


def shape_for(sizes: dict[str, Any], target: LoadedModel) -> EagleShape:
    """A shape from sizes, the others from the target. Raises UserError for impossible ones."""
    inside = Inside.of(target.model)
    text = target.model.config.get_text_config(decoder=True)
    known = {field.name for field in fields(EagleShape)}
    if unknown := sorted(set(sizes) - known):
        raise UserError(f"An EAGLE head has no size {unknown[0]!r}; it has {', '.join(known)}.")
    try:
        hidden = int(sizes.get("hidden", inside.hidden_size))
        heads = int(sizes.get("heads", text.num_attention_heads))
        given: dict[str, Any] = {
            "points": default_points(inside.num_layers),
            "target_hidden": inside.hidden_size,
            "embedding": _width(inside.embed),
            "hidden": hidden,
            "heads": heads,
            "kv_heads": heads,
            "head_dim": hidden // max(heads, 1),
            "intermediate": 2 * hidden,
            "rope": {"rope_type": "default", "rope_theta": 10000.0},
            "context": target.context_length,
        }
        return EagleShape(**given | sizes)
    except (ValueError, TypeError) as error:
        raise UserError(f"These sizes make no EAGLE head: {error}.") from None


def check_fits(shape: EagleShape, target: LoadedModel) -> None:
    """Raises UserError for a head of a target of other sizes."""
    inside = Inside.of(target.model)
    wanted = {
        "target_hidden": inside.hidden_size,
        "embedding": _width(inside.embed),
    }
    if not shape.draft_vocab:  # the target's LM head reads what it gives
        wanted["hidden"] = _width(inside.lm_head)
    for name, want in wanted.items():
        have = getattr(shape, name)
        if have != want:
            raise UserError(
                f"This EAGLE head has a {name} of {have}, and {target.name} one of {want}: it was"
                " trained for another target."
            )
    if shape.draft_vocab > target.vocab_size:
        raise UserError(
            f"This EAGLE head knows {shape.draft_vocab} tokens, and {target.name} only"
            f" {target.vocab_size}: it was trained for another target."
        )
    inside.check(Part(taps=shape.points))


def _width(matrix: nn.Module) -> int:
    """Columns of an embedding or of an LM head."""
    weight: Any = matrix.weight
    return int(weight.shape[1])
