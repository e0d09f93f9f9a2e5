"""Telling listeners what happens, on a thread of its own.

Turning tokens into text and handing events on must not stop the decode loop: it only appends. A
listener that is slow (a full terminal, a busy browser) slows down nothing but itself.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from engine.records import StepRecord
from workbench.events import Event, RequestStarted, StepDone

logger = logging.getLogger(__name__)

PERIOD_S = 0.05


class PieceTable:
    """Text of single tokens, decoded once each."""

    def __init__(self, piece: Callable[[int], str]) -> None:
        self._piece = piece
        self._known: dict[int, str] = {}

    def __call__(self, token: int) -> str:
        text = self._known.get(token)
        if text is None:
            text = self._known[token] = self._piece(token)
        return text


class Herald:
    """Hands events to `emit` in order, in bursts every 50 ms.

    Steps are turned into `StepDone` here: pieces by `piece`, text by one `incremental()` per
    request. An `emit` that raises is not called again; `broken` says so.
    """

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self._emit = emit
        self._queue: deque[Event | StepRecord] = deque()
        self._texts: dict[int, Any] = {}
        self._piece: Callable[[int], str] = str
        self._incremental: Callable[[], Any] | None = None
        self._stop = threading.Event()
        self.broken: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="herald", daemon=True)
        self._thread.start()

    def speak(self, *, piece: Callable[[int], str], incremental: Callable[[], Any]) -> None:
        """Say how tokens become text; before the first step."""
        self._piece, self._incremental = piece, incremental

    def tell(self, item: Event | StepRecord) -> None:
        """Pass an event or a finished step on. Costs under a microsecond."""
        self._queue.append(item)

    def close(self) -> None:
        """Hand on what is left and end the thread."""
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        stopping = False
        while not stopping:
            stopping = self._stop.wait(PERIOD_S)
            while self._queue and self.broken is None:
                self._hand_on(self._queue.popleft())

    def _hand_on(self, item: Event | StepRecord) -> None:
        try:
            if isinstance(item, RequestStarted) and self._incremental is not None:
                self._texts[item.request] = self._incremental()
            self._emit(self._step_done(item) if isinstance(item, StepRecord) else item)
        except Exception as error:  # a listener's failure must not end the run
            logger.debug("a listener failed", exc_info=True)
            self.broken = error

    def _step_done(self, record: StepRecord) -> StepDone:
        pieces = [self._piece(token) for token in record.tree.tokens_M.tolist()]
        return StepDone(record, pieces, self._texts[record.request].add(record.emitted))
