"""What the requests view is told, in answer to its questions. Plain JSON, no state kept here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.errors import UserError
from workbench.store import RunEntry, RunStatus, open_run
from workbench.store import serving as rows
from workbench.view.requests import History, Served
from workbench.view.requests_words import auctioned, head

#: chunks in one answer
_MOST_CHUNKS = 4


def shows_requests(entry: RunEntry) -> bool:
    """Whether a run served requests as they came, or ran on several ranks; by its index line."""
    if entry.status is RunStatus.RUNNING:
        return False
    return "arrivals" in entry.spec or int(entry.spec.get("ranks") or 1) > 1


class StoredServing:
    """A stored run with its history. Its file is opened to read and closed again at once."""

    def __init__(self, run_id: str, folder: Path | None = None) -> None:
        """Read all of it. Raises UserError where it cannot be read or holds nothing to show."""
        with open_run(run_id, folder) as run:
            info = run.info
            history = History(
                rows.arrivals(run), rows.ticks(run), rows.shares(run), rows.lanes(run)
            )
        self.served = Served(history, identity=info.run_id)
        if not self.served.num_moments:
            reason = f": it {info.status}. {info.message}" if info.message else "."
            raise UserError(f"Run {run_id} holds no step of requests and no lanes{reason}")
        self.spec = info.spec.model_dump(mode="json")
        self.auctioned = auctioned(self.spec)
        self.head = head(self.served, self.spec, message=_ended(info.status, info.message))


def payload(stored: StoredServing, question: dict[str, Any], *, start: int) -> dict[str, Any]:
    """As far as `question` wants it; it comes from the browser and is read with care.

    `have` lists ids whose facts the view holds, `want` numbers of chunks. `start` is the moment
    that is opened where the browser knows no other.
    """
    served = stored.served
    have, want = question.get("have"), question.get("want")
    known = isinstance(have, list) and served.id in have
    first = min(max(0, start), served.num_moments - 1) // served.facts["chunk"]
    wanted = want[:_MOST_CHUNKS] if isinstance(want, list) else [first]
    numbers = [int(n) for n in wanted if isinstance(n, int | float)]
    return {
        "id": served.id,
        "live": False,
        "stored": True,
        "start": start,
        "head": stored.head,
        "facts": None if known else served.facts | {"auction": stored.auctioned},
        "chunks": {n: served.chunk(n) for n in numbers if 0 <= n < served.num_chunks},
    }


def start_of(value: str | None, served: Served) -> int:
    """The moment that an address names, counted from 1 there as people see it."""
    try:
        at = int(value) if value else 1
    except ValueError:
        return 0
    return min(max(at, 1), served.num_moments) - 1


def _ended(status: RunStatus, message: str) -> str:
    words = {
        RunStatus.CANCELLED: "Stopped before its end.",
        RunStatus.FAILED: "It failed.",
        RunStatus.INTERRUPTED: "It was interrupted.",
    }
    return " ".join(filter(None, [words.get(status, ""), message]))
