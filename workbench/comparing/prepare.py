"""Everything before the clock: models, prompts in tokens, engines built, compiled and warm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from engine.errors import UserError
from engine.requests import Request
from workbench import models
from workbench.comparing import decoders
from workbench.comparing.arms import BASELINES, DRAFT_ALONE, HF_ASSISTED, HF_LOOKUP, PLAIN, Arm
from workbench.comparing.decoders import Decoder, EngineDecoder, HFDecoder, Setting, Site
from workbench.comparing.result import CompareSpec
from workbench.comparing.telling import Telling
from workbench.conversation import Conversation, conversations
from workbench.job import use_threads
from workbench.models import Pair
from workbench.ranks import reserve, threads_per_rank
from workbench.spec import RunSpec
from workbench.workloads import Question

if TYPE_CHECKING:
    from engine.models import LoadedModel

_WARM_UP_TOKENS = 24
_TUNING_REQUESTS = 2


@dataclass(slots=True)
class Group:
    """Arms that are compared with each other. Plain decoding comes first."""

    site: Site
    decoders: list[Decoder]
    requests: dict[str, list[Request]]  # by workload

    def plain_step_ns(self, workload: str) -> int | None:
        """A plain pass behind the workload's first prompt; None where there is no engine."""
        plain = self.decoders[0]
        return plain.plain_step_ns(self.requests[workload][0])


def prepare(
    spec: CompareSpec,
    arms: Sequence[Arm],
    questions: Mapping[str, Sequence[Question]],
    *,
    setting: Setting,
    telling: Telling,
) -> Group:
    """A group ready to be timed. Raises UserError for what cannot be compared."""
    pair = _load(spec, setting.dtype, telling)
    wanted = _possible(arms, pair, cache=setting.cache, telling=telling)
    site = Site(
        spec=spec,
        pair=pair,
        setting=setting,
        capacity=0,
        on_progress=telling.progress,
        text_draft=_load_text_draft(spec, wanted, setting.dtype, telling),
    )
    site = _with_ranks(site, wanted, telling)
    _check_drafts(wanted, site, telling)
    talks = {
        name: list(
            conversations(
                list(asked),
                tokenizer=pair.target.tokenizer,
                spec=run_spec(site, wanted[0], name),
            )
        )
        for name, asked in questions.items()
    }
    site = site._replace(capacity=_capacity(talks, pair))
    if setting.execution == "auto":  # a comparison waits for compiled forwards, a run need not
        site = site.executing(_best_mode(pair) if setting.cache else "eager")
    built, site = _build(wanted, site, telling)
    _note_ranks(built, telling)
    requests = {name: _requests(asked, built[0], pair, telling) for name, asked in talks.items()}
    _warm_up(built, requests, telling)
    return Group(site, built, requests)


def run_spec(site: Site, arm: Arm, workload: str) -> RunSpec:
    """The arm as a run of its own."""
    spec, setting = site.spec, site.setting
    alone = arm.method == DRAFT_ALONE
    values: dict[str, Any] = {
        "method": PLAIN if alone else arm.method,
        "options": arm.options,
        "target": spec.draft if alone else spec.target,
        "draft": _draft_of(arm, spec) if arm.needs_draft and not alone else None,
        "other_drafts": spec.other_drafts[: len(site.pair_of(arm).others)],
        "workload": workload,
        "verify": arm.verify,
        "typical_epsilon": arm.typical.epsilon,
        "typical_alpha": arm.typical.alpha,
        "children": arm.children,
        "dtype": setting.dtype,
        "cache": setting.cache,
        "execution": setting.execution,
        "kernels": arm.kernels,
        "ignore_eos": True,
        "arm": arm.label,
        "ranks": site.ranks_of(arm),
        "parallel": arm.parallel or spec.parallel,
        "placement": arm.placement or spec.placement,
    }
    same = ("limit", "repeats", "max_new_tokens", "temperature", "top_k", "top_p", "seed",
            "chat_template", "device", "threads")  # fmt: skip
    return RunSpec(**values, **{name: getattr(spec, name) for name in same})


def _draft_of(arm: Arm, spec: CompareSpec) -> str | None:
    return spec.text_draft or spec.draft if arm.takes_any_vocabulary else spec.draft


def _with_ranks(site: Site, arms: Sequence[Arm], telling: Telling) -> Site:
    """All ranks that some arm needs, started once; arms on fewer use the first ones."""
    most = max(map(site.ranks_of, arms))
    for arm in arms:
        if arm.label != PLAIN and (reason := site.why_one_rank(arm)):
            telling.note(f"{arm.label} ran on one rank. {reason}")
    if most == 1:
        return site
    threads = threads_per_rank(site.spec.threads, most)
    telling.progress("ranks", f"Starting {most} ranks")
    reserve(most, device=site.pair.target.device, threads=threads)
    use_threads(threads)
    telling.note(f"All arms ran with {threads} processor threads per rank.")
    return site._replace(most_ranks=most)


def _note_ranks(built: Sequence[Decoder], telling: Telling) -> None:
    """What people should know of how arms used their ranks."""
    for decoder in built:
        ranks = decoder.engine.parallel if isinstance(decoder, EngineDecoder) else None
        if ranks is not None and ranks.note:
            telling.note(f"{decoder.arm.label}: {ranks.note}")


def _load_text_draft(
    spec: CompareSpec, arms: Sequence[Arm], dtype: str, telling: Telling
) -> LoadedModel | None:
    """The draft of another tokenizer, where an arm takes one."""
    from engine.models import resolve_device

    takers = [arm.label for arm in arms if arm.takes_any_vocabulary]
    if not takers or spec.text_draft is None:
        return None
    telling.progress("load", f"Loading {spec.text_draft} in {dtype}")
    telling.note(f"{', '.join(takers)} drafted with {spec.text_draft}, by way of text.")
    return models.load(spec.text_draft, dtype=dtype, device=resolve_device(spec.device))


def _load(spec: CompareSpec, dtype: str, telling: Telling) -> Pair:
    from engine.models import resolve_device
    from engine.pairing import check_same_vocabulary

    device = resolve_device(spec.device)
    telling.progress("load", f"Loading {spec.target} in {dtype}")
    target = models.load(spec.target, dtype=dtype, device=device)
    if spec.draft is None:
        return Pair(target, None)
    drafts = []
    for name in (spec.draft, *spec.other_drafts):
        telling.progress("load", f"Loading {name} in {dtype}")
        drafts.append(models.load(name, dtype=dtype, device=device))
    for other in drafts[1:]:
        check_same_vocabulary(target, other)
    return Pair(target, drafts[0], tuple(drafts[1:]))


def _possible(arms: Sequence[Arm], pair: Pair, *, cache: bool, telling: Telling) -> list[Arm]:
    """The arms that can run here; a baseline that cannot is left out with a note."""
    possible = []
    foreign = _why_foreign(pair)
    for arm in arms:
        if foreign and arm.needs_draft and not arm.takes_any_vocabulary:
            if arm.method not in BASELINES:
                raise foreign
            telling.note(f"Left out: {arm.label}, which needs one vocabulary. {foreign}")
            continue
        if arm.needs_draft and pair.draft is None:
            if arm.label not in (HF_ASSISTED, DRAFT_ALONE):
                raise UserError(f"{arm.label} needs a draft model; give one with --draft.")
            telling.note(f"Left out: {arm.label}, which needs a draft model.")
        elif arm.method in (HF_ASSISTED, HF_LOOKUP) and not cache:
            telling.note(f"Left out without cache: {arm.method}, which cannot do without.")
        elif arm.method == HF_ASSISTED and _padded(pair):
            telling.note(
                f"Left out: {arm.label}; transformers wants one vocabulary size, and the models "
                "differ in it."
            )
        else:
            possible.append(arm)
    return possible


def _check_drafts(arms: Sequence[Arm], site: Site, telling: Telling) -> None:
    """Notes what drafts with the first of several draft models. Raises UserError."""
    if site.pair.draft is None:
        return
    for arm in arms:
        site.pair_of(arm)  # refuses more draft models than there are, or than the arm can merge
        if site.pair.others and arm.drafts == "all" and (reason := site.why_one_draft(arm)):
            first = site.pair_of(arm).drafts[0].name
            telling.note(f"{arm.label} drafted with {first} alone. {reason}")


def _why_foreign(pair: Pair) -> UserError | None:
    """Why tokens of the draft model are not tokens of the target, None where they are."""
    from engine.pairing import check_same_vocabulary

    if pair.draft is None:
        return None
    try:
        check_same_vocabulary(pair.target, pair.draft)
    except UserError as error:
        return error
    return None


def _padded(pair: Pair) -> bool:
    """Whether one vocabulary is padded to another size, which our engine minds not."""
    return pair.draft is not None and pair.draft.vocab_size != pair.target.vocab_size


def _capacity(talks: Mapping[str, Sequence[Conversation]], pair: Pair) -> int:
    longest = max(
        talk.longest(len(talk.next_request().prompt_ids))
        for asked in talks.values()
        for talk in asked
    )
    return min(longest, pair.target.context_length)


def _best_mode(pair: Pair) -> str:
    from engine.execution import best_mode

    return best_mode([model for model in (pair.target, pair.draft) if model is not None])


def _build(arms: Sequence[Arm], site: Site, telling: Telling) -> tuple[list[Decoder], Site]:
    """All decoders, in one mode: where forwards cannot be made faster, all run eager."""
    built: list[Decoder] = []
    for at, arm in enumerate(arms):
        telling.progress("build", f"Preparing {arm.label}", at / len(arms))
        try:
            built.append(decoders.build(arm, site))
        except UserError as error:
            execution = site.setting.execution
            if execution not in ("compiled", "graph") or execution in site.spec.executions:
                raise
            eager = _build(arms, site.executing("eager"), telling)
            reason = str(error) or "compiled forwards could not be made here."
            telling.note(f"All arms ran eager: {reason}")
            return eager
    return built, site


def _requests(
    talks: Sequence[Conversation], plain: Decoder, pair: Pair, telling: Telling
) -> list[Request]:
    """Every turn as a request. Later turns hold plain decoding's answers, for all arms alike."""
    requests: list[Request] = []
    for talk in talks:
        while not talk.finished:
            request = talk.next_request()
            _check_room(request, pair)
            requests.append(request)
            if request.turn + 1 == len(talk.question.turns):
                talk.answer("")
            else:
                what = f"Answering turn {request.turn + 1} of question {request.question_id}"
                telling.progress("turns", what)
                record = plain.decode(request, telling.should_stop).record
                talk.answer(_until_eos(record.token_ids, pair))
    return requests


def _check_room(request: Request, pair: Pair) -> None:
    length, context = len(request.prompt_ids), pair.target.context_length
    if length + request.max_new_tokens > context:
        raise UserError(
            f"Question {request.question_id}: a prompt of {length} tokens and "
            f"{request.max_new_tokens} new ones do not fit into the context of {context}; all arms "
            "must make equal counts, so shorten it or lower --max-new-tokens."
        )


def _until_eos(token_ids: list[int], pair: Pair) -> str:
    from engine.text import decode

    ends = [at for at, token in enumerate(token_ids) if token in pair.target.eos_ids]
    return decode(pair.target.tokenizer, token_ids[: ends[0]] if ends else token_ids)


def _warm_up(
    built: Sequence[Decoder], requests: Mapping[str, Sequence[Request]], telling: Telling
) -> None:
    """Every arm once on each workload; hf-assisted finds its best setting on the first one."""
    for nth, asked in enumerate(requests.values()):
        count = min(_WARM_UP_TOKENS, asked[0].max_new_tokens)
        short = replace(asked[0], max_new_tokens=count)
        for at, decoder in enumerate(built):
            telling.progress("warm-up", f"Warming up {decoder.arm.label}", at / len(built))
            decoder.decode(short, telling.should_stop)
            if nth == 0 and isinstance(decoder, HFDecoder) and decoder.choices:
                telling.progress("tune", f"Finding the best setting of {decoder.arm.method}")
                decoder.choose_setting(list(asked[:_TUNING_REQUESTS]), telling.should_stop)
                telling.note(
                    f"{decoder.arm.method} ran with its best of several settings:"
                    f" {decoder.setting}."
                )
