"""A draft model with another tokenizer: the two meet in text.

Universal assisted generation (Timor et al., 2502.05202, and Hugging Face's form of it): what was
emitted becomes text and then tokens of the draft model; its continuation becomes text and then
tokens of the target. Tokens at the seam may come out otherwise in either direction, so both are
read again from a few tokens before it, and aligned by the longest run they share. What goes wrong
there costs acceptance and nothing else: the target's own draws decide (rule 1).

A draft of bytes takes three or four passes for one token of the target. So it stops where it is
unsure of the whole, and what stood in the text before is run along as a guess and kept as far as
the draft model would have written it: the same words in fewer passes. Where it stops may be the
middle of a token of the target's; so the last draft token is a witness: a word that it would
lengthen is not drafted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import takewhile
from math import log
from typing import TYPE_CHECKING

from engine.candidates import DraftRows
from engine.drafters.base import DrafterContext, Method, Sequence
from engine.drafters.common import AdaptiveExit, ModelBased
from engine.growth import Candidates
from engine.options import option
from engine.runner import Nodes
from engine.seams import append_aligned, common_prefix, encode, followed, spelled
from engine.text import REPLACEMENT, decode
from engine.tree import Children, TokenTree, root_only, tree_from_lists

if TYPE_CHECKING:
    from engine.records import Verdict
    from engine.target import Scores

#: draft tokens that a pass takes in before the first it writes; more are read by a prefill
_PENDING = 24


@dataclass(frozen=True, slots=True)
class Options(ModelBased):
    """How far the draft model writes, and how much is read again at a seam."""

    length: int = option(24, "most tokens of the draft model per step", min=1, max=128)
    floor: float = option(
        0.4, "it stops where its chance of all it wrote falls below this; 0: off", min=0, max=1
    )
    ahead: int = option(
        3, "draft tokens copied from the text so far and run along in a pass; 0: off", min=0, max=32
    )
    most: int = option(4, "most drafted tokens of the target's", min=1, max=64)
    context: int = option(
        512, "draft tokens of text that it reads; 0: as many as it can", min=0, tune=False
    )
    look_behind: int = option(10, "tokens read again before a seam", min=1, max=64)


@dataclass(slots=True)
class _Side:
    """A request as the draft model has it."""

    ids: list[int]  # the text in draft tokens, from some point on
    num_read: int  # target tokens whose text is in `ids`
    cached: list[int]  # what the cache holds: the text, then what the draft model wrote of late
    letters: str  # `ids` with a letter each, in which runs are looked up
    written: list[int] = field(default_factory=list)  # the last one is a witness, or ends the text
    logprob: float = 0.0  # of all of `written`
    passes: int = 0
    exit: AdaptiveExit | None = None


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
        self._draft_rows = DraftRows(
            self._runner.loaded,
            kind=Children.FIXED,
            sampling=context.sampling,
            vocab_size=self._runner.loaded.vocab_size,
            on_device=context.on_device if context.kernels else False,
        )
        self._log_floor = log(options.floor) if options.floor else -float("inf")
        self._sides: dict[int, _Side] = {}

    def admit(self, *sequences: Sequence) -> None:
        texts = {
            s.slot: self._fit(encode(self._theirs, decode(self._ours, s.tokens))) for s in sequences
        }
        self._runner.admit_all({slot: ids[:-1] for slot, ids in texts.items()})
        for sequence, ids in zip(sequences, texts.values(), strict=True):
            side = _Side(ids, len(sequence.tokens), ids[:-1], spelled(ids))
            if self._options.exit:
                side.exit = AdaptiveExit(self._options)
            self._sides[sequence.slot] = side

    def release(self, slot: int) -> None:
        self._runner.release(slot)
        self._sides.pop(slot, None)

    def propose(self, sequences: list[Sequence]) -> list[TokenTree]:
        drafting = [s for s in sequences if s.max_depth > 0 and self._catch_up(s)]
        self._write([s.slot for s in drafting])
        trees = {s.slot: self._tree(s) for s in drafting}
        return [trees.get(s.slot) or root_only(s.tokens[-1]) for s in sequences]

    def observe(
        self, sequence: Sequence, tree: TokenTree, verdict: Verdict, scores: Scores
    ) -> None:
        """What was emitted is read when it is drafted from."""
        side = self._sides[sequence.slot]
        if side.exit is not None:
            side.exit.adapt(accepted=verdict.num_accepted, drafted=tree.num_drafted)

    # -- the text so far -----------------------------------------------------------------------

    def _fit(self, ids: list[int]) -> list[int]:
        """The last part of a text that the draft model's context has room for."""
        room = self._runner.capacity - self._options.length - 2
        room = min(room, self._options.context or room)
        return ids if len(ids) <= room else ids[-max(room // 2, 1) :]

    def _catch_up(self, sequence: Sequence) -> bool:
        """Read what was emitted, and keep of the cache what still fits; False without any text."""
        side, slot, behind = self._sides[sequence.slot], sequence.slot, self._options.look_behind
        new = self._text_since(sequence.tokens, side.num_read)
        if new.endswith(REPLACEMENT):  # in the middle of a character: wait for its end
            return False
        side.num_read = len(sequence.tokens)
        tail = side.ids[-behind:]
        again = encode(self._theirs, decode(self._theirs, tail) + new)
        whole = append_aligned(side.ids, again, behind)
        ids = self._fit(whole)
        if not ids:
            return False
        same = max(0, len(side.ids) - behind) if len(ids) == len(whole) else 0
        same = min(same, len(side.cached), len(ids) - 1)
        shared = same + common_prefix(side.cached[same:], ids[same:-1])
        self._runner.truncate(slot, shared)
        if len(ids) - shared > _PENDING:
            self._runner.extend(slot, ids[shared:-1])
            shared = len(ids) - 1
        side.letters = side.letters[:same] + spelled(ids[same:])
        side.ids, side.cached = ids, ids[:shared]
        return True

    def _text_since(self, tokens: list[int], start: int) -> str:
        """Text of `tokens[start:]`, decoded with its left neighbours."""
        first = max(0, start - self._options.look_behind)
        before = decode(self._ours, tokens[first:start])
        whole = decode(self._ours, tokens[first:])
        return whole[len(before) :] if whole.startswith(before) else whole

    # -- drafting ------------------------------------------------------------------------------

    def _write(self, slots: list[int]) -> None:
        """Greedy continuations by the draft model, all requests in step."""
        for slot in slots:
            side = self._sides[slot]
            side.written, side.logprob, side.passes = [], 0.0, 0
        writing = list(slots)
        while writing:
            new = {slot: self._unread(self._sides[slot]) for slot in writing}
            guess = {slot: self._guess(self._sides[slot]) for slot in writing}
            batch = {}
            for slot in writing:
                run = new[slot] + guess[slot]
                batch[slot] = Nodes(run, list(range(-1, len(run) - 1)))
            found = self._runner.forward(batch)
            rows = self._draft_rows.of(found, {})
            going = []
            for slot in writing:
                first, count = len(new[slot]) - 1, len(guess[slot]) + 1
                at = found.first[slot] + first
                best = [row.likeliest(1) for row in rows[at : at + count]]
                right, goes_on = self._take(self._sides[slot], best, guess[slot])
                run = (new[slot] + guess[slot])[: first + 1 + right]
                self._runner.keep(slot, list(range(len(run))))
                self._sides[slot].cached.extend(run)
                going += [slot] if goes_on else []
            writing = going

    def _unread(self, side: _Side) -> list[int]:
        """Of the text and what was written since, what has not run yet."""
        return side.ids[len(side.cached) :] if not side.written else side.written[-1:]

    def _guess(self, side: _Side) -> list[int]:
        """What followed the last letters when they stood in the text before."""
        room = min(self._options.ahead, self._room(side) - 1)
        return [ord(letter) for letter in followed(side.letters + spelled(side.written), room)]

    def _room(self, side: _Side) -> int:
        """Tokens that may still be written, the witness included."""
        most = min(self._options.length + 1, self._runner.capacity - len(side.ids))
        return most - len(side.written)

    def _take(self, side: _Side, best: list[Candidates], guess: list[int]) -> tuple[int, bool]:
        """Write the draft model's tokens as far as the guess led; how far that was, and whether
        to go on.
        """
        side.passes += 1
        for at, one in enumerate(best):
            token, logprob = int(one.tokens_K[0]), float(one.logprobs_K[0])
            side.logprob += logprob
            side.written.append(token)
            stops = side.exit is not None and side.exit.stops([logprob])
            if stops or side.logprob < self._log_floor or self._room(side) < 1:
                return at, False
            if token in self._runner.loaded.eos_ids:
                return at, False
            if at == len(guess) or token != guess[at]:
                return at, True
        raise AssertionError("a pass has a row more than guesses")

    def _tree(self, sequence: Sequence) -> TokenTree:
        """The draft's words as a chain of the target's tokens."""
        side = self._sides[sequence.slot]
        chain: list[int] = []
        *written, witness = side.written
        if witness in self._runner.loaded.eos_ids:
            chain = self._found(sequence, self._text_of(side, written))
        elif written:
            text = self._text_of(side, written)
            chain = self._found(sequence, text)
            may_go_on = text[-1:].isalnum() or text[-1:].isspace()
            if may_go_on and len(chain) <= self._options.most:
                longer = self._found(sequence, self._text_of(side, side.written))
                if chain != longer[: len(chain)]:
                    chain = chain[:-1]
        chain = chain[: min(self._options.most, sequence.max_depth)]
        tree = tree_from_lists(
            [sequence.tokens[-1], *chain],
            list(range(-1, len(chain))),
            [0.0, *[float("nan")] * len(chain)],
        )
        tree.draft_passes = side.passes
        return tree

    def _text_of(self, side: _Side, written: list[int]) -> str:
        """What the draft model wrote, behind the text so far."""
        tail = side.ids[-self._options.look_behind :]
        before, whole = decode(self._theirs, tail), decode(self._theirs, tail + written)
        new = whole[len(before) :] if whole.startswith(before) else ""
        return new.rstrip(REPLACEMENT)  # half a character says nothing

    def _found(self, sequence: Sequence, new: str) -> list[int]:
        """Tokens of the target that a text has beyond what was emitted."""
        ours = sequence.tokens[-self._options.look_behind :]
        again = encode(self._ours, decode(self._ours, ours) + new)
        found = append_aligned(ours, again, self._options.look_behind)[len(ours) :]
        return list(takewhile(lambda token: token < self._vocab_size, found))


def draft_capacity(options: Options, longest: int) -> int:
    """What the draft model reads at most; its whole context where that is not bounded."""
    return options.context + options.length + 2 if options.context else 1 << 30


METHOD = Method(
    name="universal",
    summary="A chain from a draft model of another tokenizer, by way of text.",
    options=Options,
    build=Universal,
    max_nodes=lambda options: options.most + 1,
    max_draft_rows=lambda options: _PENDING + options.ahead,
    draft_capacity=draft_capacity,
    needs_draft=True,
    same_vocabulary=False,
    chain=lambda options: True,
)
