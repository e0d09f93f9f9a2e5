"""Which ranks hold the target and which the draft model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from engine.errors import UserError

#: draft: trees are drafted by several ranks together; target: its layers are cut over ranks
Divided = Literal["draft", "target", "both"]
#: beside: where the target is; own: on ranks of its own; split: ranks shared out by measured times
Placement = Literal["beside", "own", "split"]

OWN_OF_BOTH = (
    "Placement own divides one of the two and leaves the other a rank; with both, use --placement"
    " split."
)


class Layout(NamedTuple):
    """Ranks by what they hold. Rank 0 always has the target."""

    target: tuple[int, ...]
    draft: tuple[int, ...]

    @property
    def overlaps(self) -> bool:
        """Whether drafting and scoring are on ranks of their own and can go on at once."""
        return not set(self.target) & set(self.draft)

    def __str__(self) -> str:
        return f"target on {_ranks(self.target)}, draft on {_ranks(self.draft)}"


class PassTimes(NamedTuple):
    """Milliseconds of one step on one rank."""

    target: float  # one pass over a whole tree
    draft: float  # all passes that grow it


def layout_of(
    num_ranks: int,
    *,
    divided: Divided,
    placement: Placement,
    most_drafting: int | None = None,
    times: PassTimes | None = None,
    degrees: Iterable[int] = (),
) -> Layout:
    """Who holds what. `most_drafting`: ranks that can have a part in drafting, None: all.

    `degrees`: numbers of ranks the target can be cut over, for `split`; `times` too.

    Raises UserError for a combination that has no meaning.
    """
    everyone = tuple(range(num_ranks))
    if num_ranks == 1:
        return Layout(everyone, everyone)
    if placement == "beside":
        return Layout(
            everyone if divided != "draft" else (0,),
            everyone[:most_drafting] if divided != "target" else (0,),
        )
    if placement == "own":
        if divided == "both":
            raise UserError(OWN_OF_BOTH)
        cut = 1 if divided == "draft" else num_ranks - 1
        return Layout(everyone[:cut], everyone[cut:][:most_drafting])
    assert times is not None
    cut = balanced(times, num_ranks, degrees, most_drafting=most_drafting)
    return Layout(everyone[:cut], everyone[cut:][:most_drafting])


def balanced(
    times: PassTimes, num_ranks: int, degrees: Iterable[int], *, most_drafting: int | None = None
) -> int:
    """Ranks for the target, the rest for the draft, so that neither waits long for the other.

    Both are taken to shrink in proportion to their ranks, the draft's to no more than can have a
    part in it. The longer of the two counts, as they overlap; then their sum, for when they do not.
    """
    possible = [count for count in degrees if 1 <= count < num_ranks]
    if not possible:
        raise UserError(
            f"The target cannot be cut so that one of {num_ranks} ranks is left for the draft."
        )

    def cost(count: int) -> tuple[float, float]:
        left = num_ranks - count
        target, draft = times.target / count, times.draft / min(left, most_drafting or left)
        return max(target, draft), target + draft

    return min(possible, key=cost)


def _ranks(ranks: tuple[int, ...]) -> str:
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    return f"ranks {ranks[0]} to {ranks[-1]}"
