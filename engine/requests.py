"""One request to decode: a prompt in tokens, and when to stop."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Request:
    """`index` keys randomness: stable in the workload, never a slot or a run id."""

    index: int
    prompt: str
    prompt_ids: tuple[int, ...]
    max_new_tokens: int
    question_id: str = ""
    category: str = ""
    turn: int = 0
    repeat: int = 0
    stop: tuple[str, ...] = ()
