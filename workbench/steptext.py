"""Tokens as text for those who look on: the herald and the recorder, each on its own thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from engine.records import StepRecord


class StepTexts:
    """Pieces of tokens, and the text each step emitted, decoded once for two readers.

    Either reader may be ahead; each must take the steps of a request in order. Decoding is paid
    for by whoever comes first, and forgotten when the second has read it. With one reader nothing
    waits for another.
    """

    def __init__(
        self, *, piece: Callable[[int], str], incremental: Callable[[], Any], readers: int = 2
    ) -> None:
        """`piece` shows a token; `incremental()` makes an `engine.text.IncrementalText`."""
        self._decode_piece, self._incremental = piece, incremental
        self._readers = readers
        self._pieces: dict[int, str] = {}
        self._texts: dict[int, Any] = {}  # by request
        self._waiting: dict[int, tuple[StepRecord, list[str]]] = {}  # read by one so far
        self._lock = threading.Lock()

    def piece(self, token: int) -> str:
        """One token for the eye."""
        text = self._pieces.get(token)
        if text is None:
            text = self._pieces[token] = self._decode_piece(token)
        return text

    def emitted(self, record: StepRecord) -> list[str]:
        """The text each emitted token adds; for each reader once."""
        with self._lock:
            waiting = self._waiting.pop(id(record), None)
            if waiting is not None:
                return waiting[1]
            if record.step == 0:
                self._texts[record.request] = self._incremental()
            text = self._texts[record.request].add(record.emitted)
            if self._readers > 1:
                self._waiting[id(record)] = (record, text)
            return text

    def ended(self, request: int) -> None:
        """A request has ended: forget its text, if no second reader may still be behind."""
        if self._readers == 1:
            with self._lock:
                self._texts.pop(request, None)

    @property
    def held(self) -> int:
        """Requests whose text is kept, and steps that wait for a reader."""
        return len(self._texts) + len(self._waiting)
