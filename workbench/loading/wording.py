"""A load run's figures in sentences."""

from __future__ import annotations

from workbench.loading.metrics import LoadMetrics


def verdict(found: LoadMetrics) -> str:
    """How the load was carried, in a sentence or two with its numbers."""
    if not found.requests:
        return "No request came."
    said = f"{found.completed} of {counted(found.requests, 'request')} completed in "
    said += f"{found.duration_s:.1f} s: {found.output_throughput:.1f} tokens per second"
    first = found.latencies.get("ttft")
    if first is not None:
        said += (
            f", first token after {shown_ms(first.median)} (median), {shown_ms(first.p99)} (p99)"
        )
    return f"{said}. {_others(found)}{_slo(found)}".strip()


def _others(found: LoadMetrics) -> str:
    """What became of those that did not complete."""
    parts = [
        f"{count} {word}"
        for count, word in (
            (found.refused, "refused"),
            (found.cancelled, "cancelled"),
            (found.timed_out, "timed out"),
            (found.lost, "lost"),
            (found.unended, "under way when the run ended"),
        )
        if count
    ]
    return f"Others: {', '.join(parts)}. " if parts else ""


def _slo(found: LoadMetrics) -> str:
    if found.request_goodput is None or found.within_slo is None:
        return ""
    bounds = " and ".join(f"{name} {limit:g} ms" for name, limit in found.slo.items())
    return (
        f"{found.within_slo:.0%} of all kept to {bounds}: {found.request_goodput:.2f} good "
        "requests per second."
    )


def queue_sentence(found: LoadMetrics, slots: int | None) -> str:
    """Whether requests waited, and what to make of it."""
    if not found.most_waiting:
        return "No request waited."
    most = counted(found.most_waiting, "request")
    said = f"Up to {most} waited, {found.mean_waiting:.1f} on average"
    if found.slots_used is not None and slots:
        said += f"; {found.slots_used:.0%} of {counted(slots, 'slot')} were in use"
    return said + "."


def fairness_sentence(found: LoadMetrics) -> str:
    """How alike clients were served; empty where there is one."""
    if found.fairness is None:
        return ""
    low = min(found.clients, key=lambda one: one.tokens_per_second)
    high = max(found.clients, key=lambda one: one.tokens_per_second)
    return (
        f"Fairness over {len(found.clients)} clients (Jain): {found.fairness:.3f}; from "
        f"{low.tokens_per_second:.1f} tokens per second of waiting ({low.client}) to "
        f"{high.tokens_per_second:.1f} ({high.client})."
    )


def counted(count: int, word: str) -> str:
    """`1 request`, `2 requests`."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def shown_ms(value: float) -> str:
    """Milliseconds for people: three digits, seconds from one on."""
    if value >= 1000:
        return f"{value / 1000:.2f} s" if value < 10_000 else f"{value / 1000:.1f} s"
    return f"{value:.0f} ms" if value >= 10 else f"{value:.2f} ms"


def shown_seconds(value: float) -> str:
    """`0:42`, `12:05`, `1:02:03`."""
    whole = max(0, round(value))
    hours, rest = divmod(whole, 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
