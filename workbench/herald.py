"""Telling listeners what happens, on a thread of its own.

Turning tokens into text and handing events on must not stop the decode loop: it only appends. A
listener that is slow (a full terminal, a busy browser) slows down nothing but itself.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from engine.records import StepRecord
from workbench.events import Event, StepDone
from workbench.steptext import StepTexts

logger = logging.getLogger(__name__)

PERIOD_S = 0.05


class Herald:
    """Hands events to `emit` in order, in bursts every 50 ms; steps become `StepDone` here.

    An `emit` that raises is not called again; `broken` holds what it raised.
    """

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self._emit = emit
        self._queue: deque[Event | StepRecord] = deque()
        self._stop = threading.Event()
        self.texts: StepTexts | None = None  # to be set before the first step
        self.broken: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="herald", daemon=True)
        self._thread.start()

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
            while self._queue:
                self._hand_on(self._queue.popleft())

    def _hand_on(self, item: Event | StepRecord) -> None:
        try:
            event = self._step_done(item) if isinstance(item, StepRecord) else item
            if self.broken is None:
                self._emit(event)
        except Exception as error:  # a listener's failure must not end the run
            logger.debug("a listener failed", exc_info=True)
            self.broken = error

    def _step_done(self, record: StepRecord) -> StepDone:
        assert self.texts is not None
        pieces = [self.texts.piece(token) for token in record.tree.tokens_M.tolist()]
        next_piece = self.texts.piece(record.verdict.next_token)
        return StepDone(record, pieces, self.texts.emitted(record), next_piece)
