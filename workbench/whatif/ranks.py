"""The draft's rank of each true token of a run: all that a static tree of ranks depends on.

Under rule 1 (and greedily) the text is the same for every method, and the draft's choices after a
prefix depend on nothing but that prefix; with COUPLED children also on the noise of the position,
which is keyed. So a node whose rank path spells the true ranks is accepted, and no other is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from engine.errors import UserError
from engine.tree import Children
from workbench.spec import RunSpec
from workbench.store.reader import RunReader

#: the rank is not known
UNKNOWN = -1
#: the draft can never propose the token (it is outside its vocabulary, or cut by top-k or top-p)
NEVER = 1 << 30


@dataclass(slots=True)
class RequestRanks:
    """One request: L kept output tokens, first repeat of the workload."""

    request: int
    question_id: str
    num_prompt: int
    #: most tokens it may emit; a node deeper than what is left is never drafted
    limit: int
    tokens_L: np.ndarray  # int64
    texts_L: list[str]
    rank_L: np.ndarray  # int32: 0 the draft's first choice; UNKNOWN; NEVER
    #: ranks that an UNKNOWN position is known not to have
    excluded: dict[int, frozenset[int]] = field(default_factory=dict)
    #: the run's own steps: output position of their first token, and nodes accepted
    starts_S: list[int] = field(default_factory=list)
    accepted_S: list[int] = field(default_factory=list)

    @property
    def num_known(self) -> int:
        return int((self.rank_L != UNKNOWN).sum())


@dataclass(slots=True)
class RunRanks:
    """The ranks of a run under one way of choosing children."""

    run_id: str
    children: Children  # FIXED or COUPLED
    draft: str | None  # whose ranks they are
    requests: list[RequestRanks]

    @property
    def num_tokens(self) -> int:
        return sum(len(request.rank_L) for request in self.requests)

    @property
    def num_known(self) -> int:
        return sum(request.num_known for request in self.requests)

    @property
    def complete(self) -> bool:
        """Whether every rank is known, so that every answer is exact."""
        return self.num_known == self.num_tokens


def kinds_of(spec: RunSpec) -> tuple[Children, ...]:
    """Ways of choosing children for which the run's ranks decide, its own or default one first.

    Raises UserError where the text depends on the drafts, so that no rank could decide.
    """
    if spec.temperature == 0.0:
        return (Children.FIXED,)
    if spec.verify != "match":
        raise UserError(
            f"This run sampled under the rule {spec.verify}: its text depends on what was drafted, "
            "so no other tree can be judged on it. Make one with --verify match or greedily."
        )
    if spec.children == Children.FIXED:
        return (Children.FIXED, Children.COUPLED)
    return (Children.COUPLED, Children.FIXED)


def read_ranks(reader: RunReader, children: Children | None = None) -> RunRanks:
    """What the run itself recorded of its draft's ranks.

    `children` None takes the run's own way. A token's rank is known where the draft proposed it
    after the true prefix, be it accepted or pruned again; where it did not, the ranks proposed
    are excluded; after an unexpanded leaf nothing is known. `completed` fills the gaps.

    Raises UserError for a run that holds no tokens, or whose text depends on the drafts.
    """
    spec = reader.info.spec
    kinds = kinds_of(spec)
    kind = children or kinds[0]
    if kind not in kinds:
        words = " or ".join(k.value for k in kinds)
        raise UserError(f"Children are {kind.value}; this run can be asked about {words} ones.")
    tokens, steps, nodes = reader.tokens(repeat=0), reader.steps(repeat=0), reader.nodes(repeat=0)
    if tokens.empty:
        raise UserError(f"Run {reader.run_id} holds no tokens; choose one that decoded something.")
    known = _after_last_accepted(nodes, steps, kind)
    found = []
    for row in reader.requests().query("repeat == 0").itertuples():
        mine = tokens[(tokens["request"] == row.request) & tokens["kept"]]
        if len(mine):
            found.append(_request(row, mine, steps[steps["request"] == row.request], known, spec))
    drafts = spec.draft if bool((steps["num_drafted"] > 0).any()) else None
    return RunRanks(reader.run_id, kind, drafts, found)


def with_ranks(ranks: RunRanks, rank_of: dict[int, np.ndarray], draft: str) -> RunRanks:
    """The same run with measured ranks by request, int (L), in place of what it recorded."""
    requests = [
        replace(r, rank_L=np.asarray(rank_of[r.request], np.int32), excluded={})
        for r in ranks.requests
    ]
    return replace(ranks, requests=requests, draft=draft)


class _Proposed:
    """What the draft proposed after the last accepted node of one step."""

    __slots__ = ("accepted", "by_token")

    def __init__(self, accepted: list[int], by_token: dict[int, int]) -> None:
        self.accepted = accepted  # ranks of the accepted nodes by depth
        self.by_token = by_token


def _after_last_accepted(
    nodes: pd.DataFrame, steps: pd.DataFrame, kind: Children
) -> dict[tuple[int, int], _Proposed]:
    """By request and step; steps that drafted otherwise are left out."""
    usable = steps[steps["children"] == kind.value]
    wanted = set(zip(usable["request"], usable["step"], strict=True))
    names = ("request", "step", "node", "parent", "depth", "rank", "token", "fate", "source")
    columns = [nodes[name].to_numpy() for name in names]
    merged = nodes["drafts"].notna().to_numpy() if "drafts" in nodes else np.zeros(len(nodes), bool)
    bounds = [*np.flatnonzero(columns[2] == 0).tolist(), len(nodes)]
    found = {}
    for start, end in pairwise(bounds):
        key = (int(columns[0][start]), int(columns[1][start]))
        if key not in wanted:
            continue
        _, _, node, parent, depth, rank, token, fate, source = (c[start:end] for c in columns)
        if end - start > 1 and not (source[1:] == "draft").all():
            continue  # a lookup's ranks are not the draft model's
        if merged[start:end].any():
            continue  # nor are those of several draft models
        path = np.flatnonzero(fate == "accepted")
        path = path[np.argsort(depth[path])]
        last = int(node[path[-1]]) if len(path) else 0
        below = parent == last
        found[key] = _Proposed(
            rank[path].tolist(),
            dict(zip(token[below].tolist(), rank[below].tolist(), strict=True)),
        )
    return found


def _request(
    row: Any,
    tokens: pd.DataFrame,
    steps: pd.DataFrame,
    known: dict[tuple[int, int], _Proposed],
    spec: RunSpec,
) -> RequestRanks:
    length, first = len(tokens), int(tokens["position"].iloc[0])
    out = RequestRanks(
        request=int(row.request),
        question_id=str(row.question_id or ""),
        num_prompt=int(row.num_prompt),
        limit=length if row.finish_reason == "length" else max(spec.max_new_tokens, length),
        tokens_L=tokens["token"].to_numpy(np.int64),
        texts_L=tokens["text"].tolist(),
        rank_L=np.full(length, UNKNOWN, np.int32),
    )
    for step in steps.to_dict("records"):
        start = int(step["position"]) - first
        if start >= length:
            continue
        out.starts_S.append(start)
        out.accepted_S.append(int(step["num_accepted"]))
        proposed = known.get((out.request, int(step["step"])))
        if proposed is None:
            continue
        for at, rank in enumerate(proposed.accepted, start):
            if at < length:
                out.rank_L[at] = rank
        last = start + len(proposed.accepted)
        if last < length:
            token = int(out.tokens_L[last])
            if token in proposed.by_token:  # it was pruned while the tree grew
                out.rank_L[last] = proposed.by_token[token]
            else:
                out.excluded[last] = frozenset(proposed.by_token.values())
    return out
