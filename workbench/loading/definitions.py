"""What is measured of one request, each quantity once.

Every function takes an `ArrivalRow`, or a frame of them: then it answers for all at once. Times are
nanoseconds; what a request lacks (it never had a first token, say) it must not be asked for.
"""

from __future__ import annotations

from typing import Any

#: how a request ends that was served to its end
COMPLETED = ("eos", "length", "stop-string")
REFUSED, CANCELLED, TIMED_OUT, LOST = "refused", "cancelled", "timed-out", "lost"

#: latencies by name, in the order in which they are shown, with what each is
LATENCIES = {
    "queue": "from arrival until its prompt begins to be read",
    "ttft": "time to first token, from arrival",
    "tpot": "time per output token after the first: (e2el - ttft) / (tokens - 1)",
    "itl": "time between streamed chunks; a chunk is all tokens of a step",
    "e2el": "end to end, from arrival to the last token",
}
#: those that a service level may bound
BOUNDED = ("ttft", "tpot", "e2el")


def queue_ns(row: Any) -> Any:
    """From arrival until its prompt begins to be read."""
    return row.admitted_ns - row.arrival_ns


def ttft_ns(row: Any) -> Any:
    """Time to first token, from arrival: waiting and reading the prompt included."""
    return row.first_token_ns - row.arrival_ns


def e2el_ns(row: Any) -> Any:
    """End to end: from arrival to the end of the step that brought the last token."""
    return row.ended_ns - row.arrival_ns


def tpot_ns(row: Any) -> Any:
    """(e2e - ttft) / (tokens - 1), for requests with two tokens or more."""
    return (e2el_ns(row) - ttft_ns(row)) / (row.num_kept - 1)


def jain(values: list[float]) -> float | None:
    """Jain's fairness index (Jain, Chiu and Hawe, 1984): 1 where all are equal, 1/n where one has
    all. None for fewer than two, or where nobody has anything.
    """
    squares = sum(value * value for value in values)
    if len(values) < 2 or not squares:
        return None
    return sum(values) ** 2 / (len(values) * squares)
