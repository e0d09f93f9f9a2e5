"""What a drafting method is: it proposes trees and is told what became of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from engine.costs import Known, no_profile
from engine.device_sampling import DeviceNoise
from engine.growth import Noise
from engine.parts import Part, Uses
from engine.sampling import Sampling
from engine.tree import Children, TokenTree

if TYPE_CHECKING:
    from engine.forward import Forward
    from engine.models import LoadedModel
    from engine.records import Verdict
    from engine.runner import TreeRunner
    from engine.target import Scores


@dataclass(slots=True)
class Sequence:
    """One request under way, as a drafter sees it."""

    slot: int
    tokens: list[int]  # prompt and everything emitted; the last one is the root of the next tree
    remaining: int  # tokens that may still be emitted, at least 1
    noise: Noise
    #: most drafted nodes of the next tree, as a scheduler shares them out; None: the options' own
    budget: int | None = None

    @property
    def position(self) -> int:
        """Position of the next token to be emitted."""
        return len(self.tokens)

    @property
    def max_depth(self) -> int:
        """A deeper node could never be emitted: the bonus takes the last place."""
        return self.remaining - 1


class Drafter(Protocol):
    """Proposes a tree per request. `children` says how its children were chosen.

    A drafter that chooses for itself what people would want to know says so in a `setting`.
    """

    children: Children

    def admit(self, *sequences: Sequence) -> None:
        """Requests start, each in its `slot`; their prompts are in `tokens`."""

    def propose(self, sequences: list[Sequence]) -> list[TokenTree]:
        """A tree for each request, its root being the request's last token."""

    def observe(
        self, sequence: Sequence, tree: TokenTree, verdict: Verdict, scores: Scores
    ) -> None:
        """What became of the tree; `sequence.tokens` already ends with what was emitted.

        `scores` has the target's logits after every scored node, the rejected ones too.
        """

    def release(self, slot: int) -> None:
        """The request in `slot` is over."""


class DrafterContext(NamedTuple):
    """What a method is built from.

    `draft` is there if the method says `needs_draft`, or drafts with a part of the target.
    """

    sampling: Sampling
    children: Children
    with_replacement: bool
    draft: TreeRunner | None
    target: TreeRunner
    vocab_size: int
    #: what is known of the pair on this machine; asked only by methods that weigh costs
    profile: Callable[[], Known] = no_profile
    #: whether compiled code, or the device, looks for the best children; they find the same
    kernels: bool = True
    #: whether draft rows stay on the device with kernels on; None: where the logits are on one
    on_device: bool | None = None
    #: noise on devices, shared with verification
    noise: DeviceNoise | None = None
    #: the forward of a part or of a head in the engine's mode of execution; None: eager
    forward_for: Callable[[LoadedModel, Part], Forward | None] = lambda loaded, part: None


_NOTHING = Uses()


@dataclass(frozen=True, slots=True)
class Method:
    """A registry entry."""

    name: str
    summary: str
    options: type
    build: Callable[[Any, DrafterContext], Drafter]
    #: most nodes (root included) of a tree under these options: the envelope of the target
    max_nodes: Callable[[Any], int]
    #: most rows the draft cache needs behind the prefix
    max_draft_rows: Callable[[Any], int] = lambda options: 0
    #: tokens that the draft cache needs room for, of (options, longest prompt and output)
    draft_capacity: Callable[[Any, int], int] = lambda options, longest: longest
    needs_draft: bool = False
    #: what must be trained for it; empty: nothing
    training: str = ""
    #: whether it reads the target's hidden states
    hidden_states: bool = False
    #: what it takes from the target's inside: parts that draft and verify, states that are kept
    uses: Callable[[Any, LoadedModel], Uses] = lambda options, target: _NOTHING
    #: whether a token must mean the same to target and draft model
    same_vocabulary: bool = True
    #: whether its trees are chains under these options
    chain: Callable[[Any], bool] = lambda options: False
    #: whether trees of several draft models are merged into one
    merges: bool = False
    #: why there can be only one draft model under these options; empty: there may be more
    one_draft_because: Callable[[Any], str] = lambda options: ""
    #: ways to choose children that keep the method lossless, the default when sampling first
    children: tuple[Children, ...] = field(default=(Children.FIXED,))
    #: like `children`, where that depends on the options
    children_for: Callable[[Any], tuple[Children, ...]] | None = None

    def allowed_children(self, options: Any) -> tuple[Children, ...]:
        """Ways to choose children under these options."""
        return self.children_for(options) if self.children_for else self.children
