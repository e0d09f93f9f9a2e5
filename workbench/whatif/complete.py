"""The draft's rank of every true token: one teacher-forced pass over prompt and output.

Runs in the worker's stead: on the command line, or as a child of the app
(`python -m workbench.whatif.complete RUN`), never inside it. The ranks are cached, since they can
be made again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import DecodeError, UserError
from engine.tree import Children
from workbench.spec import EMBEDDED_DRAFT, EMBEDDED_TARGET, RunSpec
from workbench.store.reader import open_run
from workbench.whatif.cache import cached_ranks, write_ranks
from workbench.whatif.ranks import NEVER, RunRanks, read_ranks

if TYPE_CHECKING:
    from engine.runner import TreeRunner

_CHUNK = 64  # tokens in one pass
OnProgress = Callable[[str, float], None]


def default_draft(spec: RunSpec) -> str | None:
    """The run's draft model, or the one that belongs to its target."""
    from engine.registry import METHODS

    if spec.draft and METHODS[spec.method].same_vocabulary:
        return spec.draft
    return EMBEDDED_DRAFT if spec.target == EMBEDDED_TARGET else None


def ranks_of(
    run: str,
    *,
    children: Children | None = None,
    draft: str | None = None,
    folder: Path | None = None,
) -> RunRanks:
    """A run's ranks: the measured ones where they lie in the cache, else what the run recorded.

    Raises UserError where the run cannot answer.
    """
    with open_run(run, folder) as reader:
        recorded = read_ranks(reader, children)
        wanted = draft or default_draft(reader.info.spec)
        measured = cached_ranks(reader, recorded, wanted)
    if measured is not None:
        return measured
    if draft is not None and recorded.draft not in (None, draft):
        raise UserError(
            f"Run {recorded.run_id} drafted with {recorded.draft}; ranks of {draft} are not "
            "measured yet: complete them first."
        )
    return recorded


def complete(
    run: str,
    *,
    draft: str | None = None,
    folder: Path | None = None,
    on_progress: OnProgress = lambda message, share: None,
) -> None:
    """Measure the ranks of every kept token and cache them.

    Raises UserError for a run without a draft model, or models that are not there any more.
    """
    with open_run(run, folder) as reader:
        recorded = read_ranks(reader)
        spec, run_id = reader.info.spec, reader.run_id
        requests = reader.requests().query("repeat == 0")
        prompts = dict(zip(requests["request"], requests["prompt"], strict=True))
    wanted = draft or default_draft(spec)
    if wanted is None:
        raise UserError(
            f"Run {run_id} drafted with no model; name one whose ranks to take with --draft."
        )
    on_progress(f"Loading {wanted}", 0.0)
    measure = _Measure(spec, wanted)
    found: dict[str, Any] = {}
    done = 0
    for request in recorded.requests:
        prompt = measure.encode(prompts[request.request], request.num_prompt)
        found[str(request.request)] = measure.ranks(request.request, prompt, request.tokens_L)
        done += len(request.tokens_L)
        share = done / recorded.num_tokens
        on_progress(f"Ranked {done} of {recorded.num_tokens} tokens", share)
    write_ranks(run_id, wanted, found)


class _Measure:
    """The draft model over given text."""

    def __init__(self, spec: RunSpec, draft: str) -> None:
        from engine.models import resolve_device
        from engine.pairing import check_same_vocabulary
        from engine.sampling import Sampling
        from workbench import models

        device = resolve_device(spec.device)
        self._spec = spec
        self._sampling = Sampling(spec.temperature, spec.top_k, spec.top_p, spec.seed)
        self._target = models.load(spec.target, dtype=spec.dtype, device=device)
        self._draft = models.load(draft, dtype=spec.dtype, device=device)
        check_same_vocabulary(self._target, self._draft)

    def encode(self, prompt: str, num_prompt: int) -> list[int]:
        """The prompt's tokens again. Raises UserError if the tokenizer has changed since."""
        tokenizer = self._target.tokenizer
        templated = self._spec.chat_template and bool(getattr(tokenizer, "chat_template", None))
        ids = tokenizer(prompt, add_special_tokens=not templated, verbose=False)["input_ids"]
        if len(ids) != num_prompt:
            raise UserError(
                f"The prompt has {len(ids)} tokens now and had {num_prompt} in the run: the "
                "tokenizer has changed since, so its ranks cannot be measured."
            )
        return list(ids)

    def ranks(self, request: int, prompt: list[int], tokens_L: np.ndarray) -> dict[str, list]:
        """Ranks of the output tokens given the true prefix, and their log q."""
        from engine.runner import Nodes, TreeRunner

        known = self._known([*prompt, *tokens_L.tolist()])
        total = len(known)
        limit = self._draft.context_length
        runner: TreeRunner = TreeRunner(
            self._draft, num_slots=1, capacity=total + 1, max_tree=_CHUNK
        )
        runner.admit(0, known[: len(prompt) - 1])
        out: dict[str, list] = {"tokens": tokens_L.tolist(), "fixed": [], "logprob": []}
        coupled: list[int] | None = None if self._sampling.greedy else []
        chain = known[len(prompt) - 1 : -1]  # the row after chain[j] is the law of output j
        for start in range(0, len(chain), _CHUNK):
            part = chain[start : start + _CHUNK]
            if len(prompt) + start + len(part) > limit:
                raise UserError(
                    f"The text is longer than {self._draft.name} takes ({limit} tokens)."
                )
            found = runner.forward({0: Nodes(part, list(range(-1, len(part) - 1)))})
            logits, norms = found.on_host()
            rows = self._wide(logits[: len(part)])
            if not np.isfinite(norms[: len(part)]).all():
                raise DecodeError(f"{self._draft.name} gave NaN or infinite logits.")
            for j, row in enumerate(rows):
                token = int(tokens_L[start + j])
                out["fixed"].append(rank_among(row, token))
                out["logprob"].append(float(row[token] - norms[j]))
                if coupled is not None:
                    coupled.append(self._coupled(row, token, request, len(prompt) + start + j))
            runner.keep(0, list(range(len(part))))
        out["coupled"] = coupled if coupled is not None else []
        return out

    def _coupled(self, row: np.ndarray, token: int, request: int, position: int) -> int:
        """Rank by log q + g, with the noise that the target used at that position."""
        from engine.sampling import gumbel, warp

        noise = gumbel(
            self._sampling, request=request, position=position, vocab_size=self._vocab_size
        )
        return rank_among(warp(row, self._sampling) + noise, token)

    @property
    def _vocab_size(self) -> int:
        return self._target.vocab_size

    def _known(self, tokens: list[int]) -> list[int]:
        """As a drafter feeds them: what a smaller vocabulary lacks reads as token 0."""
        size = self._draft.vocab_size
        if size >= self._vocab_size:
            return tokens
        return [token if token < size else 0 for token in tokens]

    def _wide(self, rows: np.ndarray) -> np.ndarray:
        from engine.growth import to_width

        return to_width(rows, self._vocab_size)


def rank_among(scores_V: np.ndarray, token: int) -> int:
    """How many tokens a drafter would choose before this one (ties: lower ids first)."""
    own = scores_V[token]
    if not np.isfinite(own):
        return NEVER
    return int((scores_V > own).sum() + (scores_V[:token] == own).sum())


def main() -> int:
    """Entry of the child process: a JSON line per progress, the last one says how it ended."""
    run, draft = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None

    def tell(**values: Any) -> None:
        sys.stdout.write(json.dumps(values) + "\n")
        sys.stdout.flush()

    try:
        complete(run, draft=draft, on_progress=lambda m, s: tell(message=m, share=s))
    except (UserError, DecodeError) as error:
        tell(error=str(error))
        return 1
    tell(done=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
