"""Questions as requests: chat templates, second turns, and indices that key the randomness."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from engine.errors import UserError
from engine.requests import Request

if TYPE_CHECKING:
    from workbench.spec import RunSpec
    from workbench.workloads import Question

#: between turns where a tokenizer has no chat template
TURN_BREAK = "\n\n"
#: tokens that a chat template may put around a later turn
TEMPLATE_ROOM = 64


class Conversation:
    """One question under way: each turn's prompt holds what was said before it."""

    def __init__(self, question: Question, *, first_index: int, tokenizer: Any, spec: RunSpec):
        """`first_index` is the request index of the first turn; later turns count on from it."""
        self.question = question
        self._first_index = first_index
        self._tokenizer = tokenizer
        self._spec = spec
        self._templated = spec.chat_template and bool(getattr(tokenizer, "chat_template", None))
        self._answers: list[str] = []

    @property
    def finished(self) -> bool:
        """Whether every turn has its answer."""
        return len(self._answers) >= len(self.question.turns)

    def answer(self, text: str) -> None:
        """Keep the answer to the turn asked last."""
        self._answers.append(text)

    def next_request(self, repeat: int = 0) -> Request:
        """The next turn as a request. Raises UserError for an empty prompt."""
        turn = len(self._answers)
        text = self._templated_text(turn) if self._templated else self._plain_text(turn)
        if not self.question.turns[turn]:
            raise UserError(f"{self._where(turn)} is empty; give at least one character.")
        return Request(
            index=self._first_index + turn,
            prompt=text,
            prompt_ids=tuple(self._encode(text, turn)),
            max_new_tokens=self._spec.max_new_tokens,
            question_id=self.question.question_id,
            category=self.question.category,
            turn=turn,
            repeat=repeat,
            stop=tuple(self._spec.stop),
        )

    def longest(self, first_prompt: int) -> int:
        """An upper estimate of prompt and output together in the last turn, in tokens.

        `first_prompt` is the length of the first turn's prompt.
        """
        later = self.question.turns[1:]
        turns = sum(len(self._tokens(text, special=True)) + TEMPLATE_ROOM for text in later)
        return first_prompt + turns + len(self.question.turns) * self._spec.max_new_tokens

    def _plain_text(self, turn: int) -> str:
        parts = []
        for question, answer in zip(self.question.turns, self._answers, strict=False):
            parts.append(question + answer)
        return TURN_BREAK.join([*parts, self.question.turns[turn]])

    def _templated_text(self, turn: int) -> str:
        from jinja2 import TemplateError

        messages = []
        for question, answer in zip(self.question.turns, self._answers, strict=False):
            messages.append({"role": "user", "content": question})
            messages.append({"role": "assistant", "content": answer})
        messages.append({"role": "user", "content": self.question.turns[turn]})
        try:
            return self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            raise UserError(
                f"The chat template refuses {self._where(turn).lower()} ({error}); "
                "try --no-chat-template."
            ) from None

    def _encode(self, text: str, turn: int) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UserError(f"{self._where(turn)} is not valid Unicode text.") from None
        return self._tokens(text, special=not self._templated)  # templates bring their own

    def _tokens(self, text: str, *, special: bool) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])

    def _where(self, turn: int) -> str:
        name = self.question.question_id
        if len(self.question.turns) > 1:
            return f"The prompt of question {name}, turn {turn + 1},"
        return f"The prompt of question {name}" if name else "The prompt"


def conversations(
    questions: list[Question], *, tokenizer: Any, spec: RunSpec
) -> Iterator[Conversation]:
    """A conversation per question; a turn's index depends only on the questions before it."""
    index = 0
    for question in questions:
        yield Conversation(question, first_index=index, tokenizer=tokenizer, spec=spec)
        index += len(question.turns)


def questions_of(spec: RunSpec) -> list[Question]:
    """What the spec asks to decode. Raises UserError for a workload that cannot be read."""
    from workbench.workloads import Question, load_workload

    if spec.workload is not None:
        return load_workload(spec.workload, limit=spec.limit)
    if not spec.prompt:
        raise UserError("The prompt is empty; give at least one character.")
    return [Question(question_id="", category="", turns=[spec.prompt])]
