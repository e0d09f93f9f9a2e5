"""Prompts of a load run: questions of a workload as they are, or cut and joined to a length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from engine.requests import Request
from engine.text import decode
from workbench.conversation import Conversation
from workbench.loading.generate import Wanted
from workbench.loading.mixes import WORKLOAD, parse_mix
from workbench.loading.spec import LoadSpec
from workbench.loading.trace_file import Line
from workbench.workloads import Question

#: standard deviations of a lognormal mix that a cache is made for
_FAR = 4.0


class Prompts:
    """Makes requests. Each question is put into tokens once; second turns are not asked."""

    def __init__(self, spec: LoadSpec, questions: Sequence[Question], tokenizer: Any) -> None:
        self._spec, self._tokenizer = spec, tokenizer
        self._questions = list(questions)
        self._by_id = {question.question_id: at for at, question in enumerate(self._questions)}
        self._asked: dict[int, Request] = {}
        start = getattr(tokenizer, "bos_token_id", None)
        self._start: tuple[int, ...] = () if start is None else (start,)

    def __contains__(self, question: str) -> bool:
        return question in self._by_id

    @property
    def shown_ids(self) -> str:
        """The first ids of questions, for messages."""
        known = [question.question_id for question in self._questions]
        return ", ".join(known[:6]) + (", ..." if len(known) > 6 else "")

    def request(self, wanted: Wanted) -> Request:
        """The request that is wanted. Its tokens depend on the workload and `wanted` alone."""
        if wanted.prompt is not None:
            found = self._first_turn(Question("", "trace", [wanted.prompt]))
        elif wanted.num_prompt is not None:
            found = self._of_length(wanted.index % len(self._questions), wanted.num_prompt)
        elif wanted.question is not None:
            found = self._question(self._by_id[wanted.question])
        else:
            found = self._question(wanted.index % len(self._questions))
        return replace(found, index=wanted.index, max_new_tokens=wanted.max_new_tokens)

    def longest(self, trace: Sequence[Line], context: int) -> int:
        """The most tokens that prompt and answer of a request will take, at most `context`."""
        spec = self._spec
        answer = max([spec.max_new_tokens, *(line.max_new_tokens or 0 for line in trace)])
        lengths = [line.prompt_tokens for line in trace if line.prompt_tokens]
        for line in trace:
            if line.prompt is not None:
                request = self._first_turn(Question("", "trace", [line.prompt]))
                lengths.append(len(request.prompt_ids))
        if spec.prompt_tokens == WORKLOAD:
            every = range(len(self._questions))
            lengths += [len(self._question(at).prompt_ids) for at in every]
        else:
            lengths.append(most_prompt(spec, context))
        return min(context, max(lengths) + answer)

    def _question(self, at: int) -> Request:
        if at not in self._asked:
            self._asked[at] = self._first_turn(self._questions[at])
        return self._asked[at]

    def _first_turn(self, question: Question) -> Request:
        return Conversation(
            question, first_index=0, tokenizer=self._tokenizer, spec=self._spec
        ).next_request()

    def _of_length(self, at: int, length: int) -> Request:
        """Text that ends as question `at` does, with as much before it as makes up `length`.

        What is missing comes from the questions before it; what is too much is cut off in front,
        behind the token that begins a text, where the tokenizer has one.
        """
        request = self._question(at)
        ids = request.prompt_ids
        start = self._start if self._start and ids[:1] == self._start else ()
        parts = [ids[len(start) :]]
        have, before = len(start) + len(parts[0]), at
        while have < length:
            before = (before - 1) % len(self._questions)
            part = self._question(before).prompt_ids[len(start) :]
            if not part:  # a template that is one token: nothing to make a text of
                part = ids[-1:]
            parts.append(part)
            have += len(part)
        joined = [token for part in reversed(parts) for token in part]
        keep = max(1, length - len(start))
        cut = (*start, *joined[-keep:])[:length] if length > len(start) else tuple(joined[-length:])
        return replace(request, prompt=decode(self._tokenizer, list(cut)), prompt_ids=cut)


def most_prompt(spec: LoadSpec, context: int) -> int:
    """The longest prompt that is drawn: the answer must fit behind it."""
    room = max(1, context - spec.max_new_tokens)
    if spec.prompt_tokens == WORKLOAD:
        return room
    mix = parse_mix(spec.prompt_tokens)
    if mix.kind == "lognormal":
        return min(room, math.ceil(mix.low * math.exp(min(_FAR * mix.high, 50.0))))
    return min(room, round(max(mix.low, mix.high)))
