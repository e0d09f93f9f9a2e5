"""A draft model with another tokenizer: the two meet in text.

Universal assisted generation (Timor et al., 2502.05202, and Hugging Face's form of it): what was
emitted becomes text and then tokens of the draft model; its continuation becomes text and then
tokens of the target. Tokens at the seam may come out otherwise in either direction, so both are
read again from a few tokens before it, and aligned by the longest run they share. What goes wrong
there costs acceptance and nothing else: the target's own draws decide (rule 1).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.drafters.base import DrafterContext, Method, Sequence
from engine.drafters.common import Common
from engine.drafters.model_drafter import PENDING_ROWS
from engine.options import option
from engine.runner import Nodes, to_numpy
from engine.text import REPLACEMENT, decode
from engine.tree import Children, TokenTree, root_only, tree_from_lists

if TYPE_CHECKING:
    from engine.records import Verdict
    from engine.target import Scores


@dataclass(frozen=True, slots=True)
class Options(Common):
    """How far the draft model writes, and how much is read again at a seam."""

    length: int = option(5, "tokens of the draft model per step", min=1, max=64)
    look_behind: int = option(10, "tokens read again before a seam", min=1, max=64)
    most: int = option(8, "most drafted tokens of the target's", min=1, max=64)


@dataclass(slots=True)
class _Side:
    """A request as the draft model has it."""

    ids: list[int]  # the text in draft tokens, from some point on
    num_read: int  # target tokens whose text is in `ids`
    cached: list[int] = field(default_factory=list)  # draft tokens in the cache, tree rows included
    num_committed: int = 0  # of `cached`


class Universal:
    """Chains from a draft model of any vocabulary."""

    children = Children.FIXED

    def __init__(self, options: Options, context: DrafterContext) -> None:
        assert context.draft is not None
        self._options = options
        self._runner = context.draft
        self._theirs = context.draft.loaded.tokenizer
        self._ours = context.target.loaded.tokenizer
        self._vocab_size = context.vocab_size
        self._sides: dict[int, _Side] = {}

    def admit(self, sequence: Sequence) -> None:
        ids = self._fit(encode(self._theirs, decode(self._ours, sequence.tokens)))
        self._runner.admit(sequence.slot, ids[:-1])
        known = ids[:-1]
        self._sides[sequence.slot] = _Side(ids, len(sequence.tokens), list(known), len(known))

    def release(self, slot: int) -> None:
        self._runner.release(slot)
        self._sides.pop(slot, None)

    def propose(self, sequences: list[Sequence]) -> list[TokenTree]:
        drafting = [s for s in sequences if s.max_depth > 0 and self._catch_up(s)]
        written = self._write([s.slot for s in drafting])
        trees = {s.slot: self._tree(s, written[s.slot]) for s in drafting}
        return [trees.get(s.slot) or root_only(s.tokens[-1]) for s in sequences]

    def observe(
        self, sequence: Sequence, tree: TokenTree, verdict: Verdict, scores: Scores
    ) -> None:
        """What was emitted is read when it is drafted from."""

    # -- inside --------------------------------------------------------------------------------

    def _fit(self, ids: list[int]) -> list[int]:
        """The last part of a text that the draft model's context has room for."""
        room = self._runner.capacity - self._options.length - PENDING_ROWS - 1
        return ids if len(ids) <= room else ids[-max(room // 2, 1) :]

    def _catch_up(self, sequence: Sequence) -> bool:
        """Read what was emitted, and keep of the cache what still fits; False without any text."""
        side = self._sides[sequence.slot]
        new = self._text_since(sequence.tokens, side.num_read)
        if new.endswith(REPLACEMENT):  # in the middle of a character: wait for its end
            return False
        side.num_read = len(sequence.tokens)
        tail = side.ids[-self._options.look_behind :]
        again = encode(self._theirs, decode(self._theirs, tail) + new)
        ids = self._fit(append_aligned(side.ids, again, self._options.look_behind))
        if not ids:
            return False
        shared = common_prefix(side.cached, ids[:-1])
        slot = sequence.slot
        self._runner.keep(slot, list(range(max(0, shared - side.num_committed))))
        self._runner.truncate(slot, shared)
        if len(ids) - shared > PENDING_ROWS:
            self._runner.extend(slot, ids[shared:-1])
            shared = len(ids) - 1
        side.ids, side.cached, side.num_committed = ids, ids[:shared], shared
        return True

    def _text_since(self, tokens: list[int], start: int) -> str:
        """Text of `tokens[start:]`, decoded with its left neighbours."""
        first = max(0, start - self._options.look_behind)
        before = decode(self._ours, tokens[first:start])
        whole = decode(self._ours, tokens[first:])
        return whole[len(before) :] if whole.startswith(before) else whole

    def _write(self, slots: list[int]) -> dict[int, list[int]]:
        """Greedy continuations by the draft model, all requests in step."""
        written: dict[int, list[int]] = {slot: [] for slot in slots}
        if not slots:
            return written
        size = self._runner.loaded.vocab_size
        for number in range(self._options.length):
            batch = {}
            for slot in slots:
                side = self._sides[slot]
                first = int(self._runner.count_B[slot])
                new = side.ids[len(side.cached) :] if number == 0 else written[slot][-1:]
                batch[slot] = Nodes(new, list(range(first - 1, first - 1 + len(new))))
                side.cached = side.cached + new
            logits = to_numpy(self._runner.forward(batch)[0])
            for slot in slots:
                last = len(batch[slot].tokens_N) - 1
                written[slot].append(int(logits[slot, last, :size].argmax()))
        return written

    def _tree(self, sequence: Sequence, written: list[int]) -> TokenTree:
        """The draft's words as a chain of the target's tokens."""
        behind = self._options.look_behind
        tail = self._sides[sequence.slot].ids[-behind:]
        before, whole = decode(self._theirs, tail), decode(self._theirs, tail + written)
        new = whole[len(before) :] if whole.startswith(before) else ""
        new = new.rstrip(REPLACEMENT)  # half a character says nothing
        ours = sequence.tokens[-behind:]
        again = encode(self._ours, decode(self._ours, ours) + new)
        found = append_aligned(ours, again, behind)[len(ours) :]
        found = [token for token in found if token < self._vocab_size]
        chain = found[: min(self._options.most, sequence.max_depth)]
        tree = tree_from_lists(
            [sequence.tokens[-1], *chain],
            list(range(-1, len(chain))),
            [0.0, *[float("nan")] * len(chain)],
        )
        tree.draft_passes = len(written)
        return tree


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a piece of text, nothing added."""
    return list(tokenizer.encode(text, add_special_tokens=False)) if text else []


def append_aligned(known: list[int], again: list[int], behind: int) -> list[int]:
    """`known` continued by what `again` has beyond it.

    `again` is the last `behind` of `known` and what follows, encoded anew. The longest run shared
    with the end of `known` says where it goes on; known tokens after that run are replaced. Without
    any, all of it is appended.
    """
    tail = known[-behind:]
    best = (0, 0, 0)  # length of the run, its end in the tail, its end in `again`
    for shift in range(-len(tail) + 1, len(again)):
        run = 0
        for at in range(max(0, -shift), min(len(tail), len(again) - shift)):
            run = run + 1 if tail[at] == again[at + shift] else 0
            if (run, at + 1) > best[:2]:
                best = (run, at + 1, at + shift + 1)
    run, end, place = best
    if not run:
        return known + again
    return known[: len(known) - len(tail) + end] + again[place:]


def common_prefix(one: list[int], other: list[int]) -> int:
    """How many tokens both begin with."""
    count = min(len(one), len(other))
    differ = np.flatnonzero(np.asarray(one[:count]) != np.asarray(other[:count]))
    return int(differ[0]) if len(differ) else count


METHOD = Method(
    name="universal",
    summary="A chain from a draft model of another tokenizer, by way of text.",
    options=Options,
    build=Universal,
    max_nodes=lambda options: options.most + 1,
    max_draft_rows=lambda options: options.length,
    needs_draft=True,
    same_vocabulary=False,
    chain=True,
)
