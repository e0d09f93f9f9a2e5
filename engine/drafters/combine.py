"""A lookup and a draft model by turns: whichever promises more for what it costs.

As users of suffix decoding do (Oliaro et al., 2411.04975, section 4, hybrid): a good match is
better than any draft model and free; without one the draft model drafts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.drafters import dynamic_tree, prompt_lookup, suffix
from engine.drafters.base import Drafter, DrafterContext, Method, Sequence
from engine.drafters.lookup import Branches, LookupDrafter
from engine.drafters.model_drafter import ModelDrafter
from engine.drafters.policies import POLICIES
from engine.options import option
from engine.tree import Children, TokenTree

if TYPE_CHECKING:
    from engine.records import Verdict
    from engine.target import Scores

#: weight of the past in the running means
_DECAY = 0.9
_LOOKUPS = ("suffix", "prompt-lookup")


@dataclass(frozen=True, slots=True)
class Options(dynamic_tree.Options):
    """Those of `dynamic-tree` for the draft model, and when the lookup goes first."""

    policy: str = option(
        "eagle2", "how the tree grows; see docs/methods.md", choices=tuple(POLICIES)
    )
    lookup: str = option("suffix", "what looks continuations up", choices=_LOOKUPS)
    longest: int = option(12, "most nodes of a looked-up tree", min=1, max=64)
    draft_cost: float = option(
        0.4,
        "accepted tokens that pay for a draft by the model",
        min=0,
        max=8,
    )


class Promise:
    """How many tokens a source brings for each that it expected, as a running mean."""

    def __init__(self, start: float) -> None:
        self.mean = start

    def learn(self, value: float) -> None:
        self.mean += (1 - _DECAY) * (value - self.mean)


class Combine:
    """Asks the lookup first; drafts with the model unless the lookup promises more.

    Before it knows better it takes a lookup's expectation at half its word: matches repeat less
    often than they occurred.
    """

    def __init__(
        self, options: Options, *, lookup: LookupDrafter, model: ModelDrafter, children: Children
    ) -> None:
        self.children = children
        self._options, self._lookup, self._model = options, lookup, model
        self._kept_word = Promise(0.5)  # accepted / expected tokens of lookups
        self._model_brings = Promise(1.0)  # accepted tokens of the model's trees
        self._expected: dict[int, float] = {}  # slots whose tree was looked up

    def admit(self, *sequences: Sequence) -> None:
        self._lookup.admit(*sequences)
        self._model.admit(*sequences)

    def release(self, slot: int) -> None:
        self._lookup.release(slot)
        self._model.release(slot)
        self._expected.pop(slot, None)

    def propose(self, sequences: list[Sequence]) -> list[TokenTree]:
        self._expected = {}
        trees: dict[int, TokenTree] = {}
        for sequence in sequences:
            if sequence.max_depth < 1:
                continue
            found = self._lookup.branches(sequence)
            expected = expected_tokens(found)
            least = self._model_brings.mean - self._options.draft_cost
            if len(found) > 1 and expected * self._kept_word.mean > least:
                self._expected[sequence.slot] = expected
                trees[sequence.slot] = found.tree(self._lookup.source)
        drafting = [s for s in sequences if s.slot not in trees]
        if drafting:
            drafted = self._model.propose(drafting)
            trees |= {s.slot: tree for s, tree in zip(drafting, drafted, strict=True)}
        return [trees[s.slot] for s in sequences]

    def observe(
        self, sequence: Sequence, tree: TokenTree, verdict: Verdict, scores: Scores
    ) -> None:
        expected = self._expected.pop(sequence.slot, None)
        if expected is not None:
            self._kept_word.learn(verdict.num_accepted / expected)
        elif tree.num_drafted:
            self._model_brings.learn(verdict.num_accepted)
        self._lookup.observe(sequence, tree, verdict, scores)
        self._model.observe(sequence, tree, verdict, scores)


def expected_tokens(branches: Branches) -> float:
    """The sum of path probabilities; without any, a chain that fades by a fifth each token."""
    reach = [1.0]
    for node in range(1, len(branches)):
        logprob = branches.logprobs[node]
        chance = 0.8 if math.isnan(logprob) else math.exp(logprob)
        reach.append(reach[branches.parents[node]] * chance)
    return sum(reach[1:])


def build(options: Options, context: DrafterContext) -> Drafter:
    """Both drafters over one request."""
    lookup: LookupDrafter
    if options.lookup == "suffix":
        lookup = suffix.Suffix(suffix.Options(nodes=options.longest), context)
    else:
        length = options.longest
        lookup = prompt_lookup.PromptLookup(prompt_lookup.Options(length=length), context)
    model = ModelDrafter(dynamic_tree.grow_by(options, context.children), options, context)
    return Combine(options, lookup=lookup, model=model, children=context.children)


METHOD = Method(
    name="combine",
    summary="Looks continuations up, and drafts with a model where that promises more.",
    options=Options,
    build=build,
    max_nodes=lambda options: max(options.nodes, options.longest) + 1,
    max_draft_rows=dynamic_tree.max_draft_rows,
    needs_draft=True,
    children=(Children.COUPLED, Children.FIXED),
)
