"""From a run spec to engine objects: the model pair, kept loaded between runs, and the method."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from engine.errors import UserError
from workbench import ranks
from workbench.spec import RunSpec

if TYPE_CHECKING:
    from engine.models import LoadedModel

_MAX_KEPT = 4
#: models loaded in this process, the one used last at the end
_kept: dict[tuple[str, str, str], tuple[LoadedModel, float]] = {}
_for_display: dict[int, tuple[Any, Any]] = {}


class Models(TypedDict):
    """Keyword arguments of what takes the models of a run."""

    target: LoadedModel
    draft: LoadedModel | None
    other_drafts: tuple[LoadedModel, ...]


class Pair(NamedTuple):
    """What decodes. `draft` is None for methods without one; trees of `others` join its own."""

    target: LoadedModel
    draft: LoadedModel | None
    others: tuple[LoadedModel, ...] = ()

    @property
    def drafts(self) -> list[LoadedModel]:
        """All draft models, in order."""
        return [] if self.draft is None else [self.draft, *self.others]

    def as_models(self) -> Models:
        """The models by the names under which engines and environments take them."""
        return {"target": self.target, "draft": self.draft, "other_drafts": self.others}


def check_spec(spec: RunSpec) -> Any:
    """The method's parsed options, after all checks that need no model.

    Raises:
        UserError: unknown method or option, a value out of bounds, a missing draft, ranks that
            would have nothing to do.
    """
    from engine.registry import METHODS, parse_options
    from engine.sampling import Sampling

    method = METHODS[spec.method]
    options = parse_options(spec.method, spec.options)
    method.max_nodes(options)  # refuses shapes that are malformed
    Sampling(spec.temperature, spec.top_k, spec.top_p, spec.seed)
    if method.needs_draft and spec.draft is None:
        raise UserError(
            f"Method {spec.method} drafts with a second model; name one with --draft (its "
            "vocabulary must be the target's)."
        )
    if method.needs_draft and spec.other_drafts:
        _check_several(spec, options)
    reason = ranks.why_not(
        spec.ranks,
        method=spec.method,
        options=options,
        num_drafts=len(spec.drafts) if method.needs_draft else 0,
        parallel=spec.parallel,
        placement=spec.placement,
    )
    if reason:
        raise UserError(reason)
    return options


def _check_several(spec: RunSpec, options: Any) -> None:
    """Raises UserError where the trees of several draft models cannot be merged."""
    from engine.drafters.merged import why_one_draft
    from engine.registry import METHODS
    from engine.sampling import Sampling

    reason = why_one_draft(
        METHODS[spec.method],
        options,
        sampling=Sampling(spec.temperature, spec.top_k, spec.top_p, spec.seed),
        verify=spec.verify,
        children=spec.children,
    )
    if reason:
        raise UserError(reason)


def resolve_references(spec: RunSpec, runs: Path | None = None) -> RunSpec:
    """`acceptance=run:RUN` becomes the acceptance measured on that run, by rank.

    Of heads that guess each depth by itself, by depth too.

    Raises UserError for a run that is not there or reached no drafted node.
    """
    wanted = spec.options.get("acceptance")
    if not isinstance(wanted, str) or not wanted.startswith("run:"):
        return spec
    from workbench import metrics
    from workbench.store.index import read_entry, resolve_run

    run_id = resolve_run(wanted.removeprefix("run:"), runs)
    if spec.method == "medusa":
        from workbench.guesses import measured_guesses

        resolved = measured_guesses(run_id, runs)
        return spec.model_copy(update={"options": spec.options | {"acceptance": resolved}})
    entry = read_entry(run_id, runs)
    vector = metrics.acceptance_vector(metrics.summary_from_json(entry.summary if entry else {}))
    if not any(vector):
        raise UserError(f"Run {run_id} accepted no drafted token; it gives no acceptance vector.")
    resolved = ",".join(f"{share:.4f}" for share in vector)
    return spec.model_copy(update={"options": spec.options | {"acceptance": resolved}})


def load_pair(spec: RunSpec, *, on_progress: Callable[[str, float | None], None]) -> Pair:
    """Load what the spec names, or take it from the last runs of this process.

    `on_progress` is told a sentence and, where known, the share done.

    Raises:
        UserError: a model that cannot be loaded, or a draft that speaks other tokens.
    """
    from engine.models import resolve_device
    from engine.pairing import check_same_vocabulary
    from engine.registry import METHODS

    device = resolve_device(spec.device)
    needs_draft = METHODS[spec.method].needs_draft
    names = [spec.target] + (spec.drafts if needs_draft else [])
    loaded = []
    for at, name in enumerate(names):
        if not _is_kept(name, spec.dtype, device):
            on_progress(f"Loading {name}", at / len(names))
        loaded.append(load(name, dtype=spec.dtype, device=device))
    pair = Pair(loaded[0], loaded[1] if len(loaded) > 1 else None, tuple(loaded[2:]))
    if METHODS[spec.method].same_vocabulary:
        for draft in pair.drafts:
            check_same_vocabulary(pair.target, draft)
    return pair


def load(name: str, *, dtype: str, device: str) -> LoadedModel:
    """A model, from this process's memory where it was loaded before and has not changed since."""
    from transformers.utils.logging import disable_progress_bar

    from engine.models import load_model

    disable_progress_bar()  # progress is told by events
    key = (name, dtype, device)
    kept = _kept.pop(key, None)
    if kept is None or kept[1] != _changed_at(kept[0].path):
        kept = None
        while len(_kept) >= _MAX_KEPT:
            _kept.pop(next(iter(_kept)))
        try:
            loaded = load_model(name, dtype=dtype, device=device)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise UserError(
                f"{name} in {dtype} does not fit into the memory of {device}; take a smaller model "
                "or --dtype bfloat16."
            ) from None
        kept = (loaded, _changed_at(loaded.path))
    _kept[key] = kept
    return kept[0]


def _is_kept(name: str, dtype: str, device: str) -> bool:
    kept = _kept.get((name, dtype, device))
    return kept is not None and kept[1] == _changed_at(kept[0].path)


def _changed_at(path: str) -> float:
    """When a local model folder last changed; 0 for a hub id."""
    folder = Path(path)
    if not folder.is_dir():
        return 0.0
    return max((entry.stat().st_mtime for entry in os.scandir(folder)), default=0.0)


def out_of_memory(error: BaseException) -> bool:
    """Whether this is what torch or Python raise where memory runs out."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )


def display_tokenizer(loaded: LoadedModel) -> Any:
    """A copy of the tokenizer for threads that only show text.

    Encoding changes a tokenizer for a moment, and a second thread that decodes with it just then
    gets an error; so threads that show text have their own.
    """
    known = _for_display.get(id(loaded.tokenizer))
    if known is None or known[0] is not loaded.tokenizer:
        _for_display.clear()
        known = (loaded.tokenizer, copy.deepcopy(loaded.tokenizer))
        _for_display[id(loaded.tokenizer)] = known
    return known[1]
