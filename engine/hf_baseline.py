"""Hugging Face `generate` as second baseline of comparisons: plain, assisted, prompt lookup.

It stands beside the engine so that our own plain decoding cannot be a straw man. What is timed:

- *prefill*: a pass of the target over all prompt tokens but the last. Plain `generate` continues
  the cache it fills. Assisted `generate` cannot (transformers 5.23 would read the prompt into it
  twice), so there the pass is made and timed apart, and its time, with that of the draft's first
  pass, which reads the prompt too, is taken off the wall time.
- *decode*: the rest of the wall time of `generate`, in which every new token is made: the work our
  engine does after its prefill. What is taken off errs by less than a pass, in its favour.

Without a cache nothing can be prefilled: prefill is 0 and all time is decoding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache, GenerationConfig, StoppingCriteriaList
from transformers.utils import logging as transformers_logging

from engine.errors import UserError
from engine.models import LoadedModel
from engine.options import option
from engine.records import FinishReason, RequestRecord, StageTimes
from engine.repetition import repetition
from engine.requests import Request
from engine.sampling import Sampling
from engine.text import decode


@dataclass(frozen=True, slots=True)
class Assistance:
    """How assisted generation drafts: names and meanings are transformers' own.

    `confidence` above 0 ends a draft early, when its token's probability falls below it.
    """

    tokens: int = option(5, "draft tokens per target pass", min=1, max=256)
    schedule: str = option("constant", "how that number moves", choices=("constant", "heuristic"))
    confidence: float = option(0.0, "end a draft below this probability", min=0.0, max=1.0)

    def __str__(self) -> str:
        confidence = f",confidence={self.confidence:g}" if self.confidence else ""
        return f"tokens={self.tokens},schedule={self.schedule}{confidence}"


#: Settings worth trying when none is asked for; the last is what transformers ships.
SETTINGS = (
    Assistance(tokens=3),
    Assistance(tokens=4),
    Assistance(tokens=5),
    Assistance(tokens=5, schedule="heuristic"),
    Assistance(tokens=20, confidence=0.4),
)


@dataclass(frozen=True, slots=True)
class Lookup:
    """How prompt lookup drafts: names and meanings are transformers' own."""

    tokens: int = option(10, "draft tokens per target pass", min=1, max=256)
    ngram: int = option(2, "longest run of last tokens that is looked up", min=1, max=16)

    def __str__(self) -> str:
        return f"tokens={self.tokens},ngram={self.ngram}"


#: As `SETTINGS`; the last is what transformers ships.
LOOKUP_SETTINGS = (Lookup(tokens=3), Lookup(tokens=5), Lookup(tokens=10, ngram=3), Lookup())


class Decoded(NamedTuple):
    """One request decoded by Hugging Face `generate`."""

    record: RequestRecord
    times: StageTimes  # totals over the request; on a GPU all is `unaccounted` (launches are async)
    draft_passes: int


class HFBaseline:
    """Decodes one request at a time with `generate`. The models are shared, never changed."""

    def __init__(
        self,
        *,
        target: LoadedModel,
        draft: LoadedModel | None = None,
        sampling: Sampling | None = None,
        cache: bool = True,
        ignore_eos: bool = False,
        assistance: Assistance | Lookup | None = None,
    ) -> None:
        """Plain without `draft`, assisted with it, or drafting by prompt lookup.

        Raises:
            UserError: assistance without a cache, or between models of different vocabulary.
        """
        if (draft is not None or isinstance(assistance, Lookup)) and not cache:
            raise UserError(
                "Assisted generation needs the cache; hf-assisted and hf-prompt-lookup run with"
                " --cache on."
            )
        if draft is not None and draft.vocab_size != target.vocab_size:
            raise UserError(
                f"{target.name} has {target.vocab_size} tokens and {draft.name} "
                f"{draft.vocab_size}; assisted generation needs one vocabulary."
            )
        self.target, self.draft = target, draft
        self.sampling = sampling or Sampling()
        self.cache, self.ignore_eos = cache, ignore_eos
        self.assistance = assistance or Assistance()

    @property
    def drafts(self) -> bool:
        """Whether passes of the target check drafted tokens."""
        return self.draft is not None or isinstance(self.assistance, Lookup)

    def decode(
        self, request: Request, *, should_stop: Callable[[], bool] = lambda: False
    ) -> Decoded:
        """Decode one request; exactly `max_new_tokens` where EOS is ignored.

        `should_stop` is asked once per pass; a stopped request is marked cancelled.

        Raises:
            UserError: an empty prompt, or one that leaves no room in the context.
        """
        self._check(request)
        model: Any = self.target.model
        ids = torch.tensor([request.prompt_ids], device=model.device)
        stopped = False

        def criterion(input_ids: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
            nonlocal stopped
            stopped = stopped or should_stop()
            return torch.full((1,), stopped, device=input_ids.device)

        with self._quiet(request), torch.inference_mode():
            past, prefill_ns = self._prefill(ids)
            fused_ns = prefill_ns if self.drafts else 0
            with _Watch(model) as scoring, _Watch(self.draft and self.draft.model) as drafting:
                begin = self._clock()
                output = model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    past_key_values=None if self.drafts else past,
                    use_cache=self.cache,
                    assistant_model=self.draft.model if self.draft else None,
                    stopping_criteria=StoppingCriteriaList([criterion]),  # type: ignore[list-item]
                )
                wall_ns = self._clock() - begin
        new_ids = output[0, ids.shape[1] :].tolist()
        first_draft_ns = drafting.passes[0].ns if drafting.passes else 0
        fused_ns += first_draft_ns
        drafted = 0
        if self.drafts and scoring.passes:  # the first pass reads the prompt as well
            drafted = sum(watched.rows - 1 for watched in scoring.passes) - (ids.shape[1] - 1)
        record = self._record(
            request,
            new_ids,
            cancelled=stopped,
            num_steps=len(scoring.passes),
            num_drafted=drafted,
            prefill_ns=prefill_ns + first_draft_ns,
            decode_ns=max(wall_ns - fused_ns, 1),
        )
        spent = _Spent(
            score=sum(watched.ns for watched in scoring.passes) - (fused_ns - first_draft_ns),
            draft=sum(watched.ns for watched in drafting.passes) - first_draft_ns,
        )
        times = self._stages(record.decode_ns, spent)
        return Decoded(record, times, len(drafting.passes))

    def _check(self, request: Request) -> None:
        length, room = len(request.prompt_ids), self.target.context_length
        if not length:
            raise UserError("The prompt is empty; give at least one token to continue.")
        if length + request.max_new_tokens > room:
            raise UserError(
                f"A prompt of {length} tokens and {request.max_new_tokens} new ones do not fit "
                f"into the context of {room}; shorten the prompt or lower --max-new-tokens."
            )

    def _prefill(self, ids: torch.Tensor) -> tuple[DynamicCache | None, int]:
        if not self.cache:
            return None, 0
        past = DynamicCache(config=self.target.model.config)
        begin = self._clock()
        if ids.shape[1] > 1:
            model: Any = self.target.model
            keep = {"logits_to_keep": 1} if model._supports_logits_to_keep() else {}
            model(ids[:, :-1], past_key_values=past, use_cache=True, **keep)
        return past, self._clock() - begin

    def _clock(self) -> int:
        """Nanoseconds, once the device has done all it was given."""
        if self.target.model.device.type == "cuda":
            torch.cuda.synchronize(self.target.model.device)
        return time.perf_counter_ns()

    def _record(
        self,
        request: Request,
        token_ids: list[int],
        *,
        cancelled: bool,
        num_drafted: int,
        **fields: int,
    ) -> RequestRecord:
        text = decode(self.target.tokenizer, token_ids)
        reason = FinishReason.LENGTH
        if cancelled:
            reason = FinishReason.CANCELLED
        elif not self.ignore_eos and token_ids and token_ids[-1] in self.target.eos_ids:
            reason = FinishReason.EOS
        return RequestRecord(
            request=request.index,
            question_id=request.question_id,
            category=request.category,
            turn=request.turn,
            repeat=request.repeat,
            prompt=request.prompt,
            prompt_ids=list(request.prompt_ids),
            token_ids=token_ids,
            text=text,
            finish_reason=reason,
            num_emitted=len(token_ids),
            num_drafted=num_drafted,
            # every pass emits what it accepted and one token more
            num_accepted=len(token_ids) - fields["num_steps"] if self.drafts else 0,
            repetition=repetition(token_ids),
            **fields,
        )

    def _stages(self, decode_ns: int, spent: _Spent) -> StageTimes:
        if self.target.model.device.type == "cuda":
            return StageTimes(unaccounted=decode_ns)
        rest = decode_ns - spent.score - spent.draft
        return StageTimes(draft=spent.draft, score=spent.score, unaccounted=rest)

    @contextmanager
    def _quiet(self, request: Request) -> Iterator[None]:
        """Both models with our generation settings and none of their own; seeded randomness.

        Swapped on the models because `generate` fills what a call leaves open, EOS for one,
        from the model's own settings, and the assistant reads nothing else. No padding token: the
        assistant would take prompt tokens of that id for padding and draft from the rest.
        """
        sampled = {"temperature": self.sampling.temperature, "top_p": self.sampling.top_p}
        config = GenerationConfig(
            max_new_tokens=request.max_new_tokens,
            do_sample=not self.sampling.greedy,
            eos_token_id=None if self.ignore_eos else sorted(self.target.eos_ids) or None,
            use_cache=self.cache,
            **({} if self.sampling.greedy else sampled | {"top_k": self.sampling.top_k}),
        )
        models = [self.target.model] + ([self.draft.model] if self.draft else [])
        before = [model.generation_config for model in models]
        devices = [self.target.model.device] if self.target.model.device.type == "cuda" else []
        verbosity = transformers_logging.get_verbosity()
        try:
            transformers_logging.set_verbosity_error()  # its assistant warns about itself
            for model in models:
                model.generation_config = GenerationConfig.from_dict(config.to_dict())
            models[-1].generation_config.update(**self._drafting())
            with torch.random.fork_rng(devices=devices):
                torch.manual_seed(self.sampling.seed * 1_000_003 + request.index)
                yield
        finally:
            transformers_logging.set_verbosity(verbosity)
            for model, config_before in zip(models, before, strict=True):
                model.generation_config = config_before

    def _drafting(self) -> dict[str, Any]:
        """Settings of transformers for what drafts."""
        how = self.assistance
        if isinstance(how, Lookup):
            return {"prompt_lookup_num_tokens": how.tokens, "max_matching_ngram_size": how.ngram}
        return {
            "num_assistant_tokens": how.tokens,
            "num_assistant_tokens_schedule": how.schedule,
            "assistant_confidence_threshold": how.confidence,
        }


class _Spent(NamedTuple):
    score: int  # ns
    draft: int


class _Pass(NamedTuple):
    rows: int  # tokens fed
    ns: int


class _Watch:
    """Times and counts the forward passes of a model while open; of None, nothing."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.passes: list[_Pass] = []
        self._hooks: list[Any] = []
        self._begun = 0

    def __enter__(self) -> _Watch:
        if self.model is not None:
            before = self.model.register_forward_pre_hook(self._before)
            after = self.model.register_forward_hook(self._after, with_kwargs=True)
            self._hooks = [before, after]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _before(self, *_: Any) -> None:
        self._begun = time.perf_counter_ns()

    def _after(self, _model: Any, args: tuple[Any, ...], kwargs: dict[str, Any], _out: Any) -> None:
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        self.passes.append(_Pass(ids.shape[1], time.perf_counter_ns() - self._begun))
