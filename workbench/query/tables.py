"""The tables a query sees: those of the store, over all chosen runs, with specs spelled out.

`piece` gains a column `run` (a token id means another text with another model), and `run` the
settings and figures people ask for most. Older files lack some columns; they read as NULL there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from workbench.store.meanings import COLUMN_MEANINGS
from workbench.store.schema import TABLES


class Column(NamedTuple):
    """A column as a query sees it."""

    name: str
    type: str
    meaning: str
    sql: str = ""  # how it comes from the stored columns; empty: as it is


def _from_spec(name: str, meaning: str, kind: str = "VARCHAR") -> Column:
    return Column(name, kind, meaning, f"TRY_CAST(spec->>'$.{name}' AS {kind})")


def _from_summary(name: str, meaning: str, kind: str = "BIGINT") -> Column:
    return Column(name, kind, meaning, f"TRY_CAST(summary->>'$.{name}' AS {kind})")


_ARM = (
    "coalesce(spec->>'$.arm', (spec->>'$.method') || CASE WHEN spec->>'$.options' IN ('{}', '') "
    "THEN '' ELSE ':' || replace(translate(spec->>'$.options', '{}\"', ''), ':', '=') END)"
)

_OF_RUN = (
    Column("arm", "VARCHAR", "Its method with its options: a name for charts and groups.", _ARM),
    _from_spec("method", "Name of the method."),
    _from_spec("options", "The method's options that are not the default, as JSON."),
    _from_spec("target", "The target model."),
    _from_spec("draft", "The draft model; NULL without one."),
    _from_spec("other_drafts", "More draft models whose trees were merged with its own, as JSON."),
    _from_spec("workload", "The workload; NULL where one prompt was given."),
    _from_spec("dtype", "Number format."),
    _from_spec("temperature", "0 is greedy.", "DOUBLE"),
    _from_spec("comparison", "The comparison it belongs to; NULL for a run of its own."),
    _from_summary("steps", "Target passes, one for each request in a batch."),
    _from_summary("kept", "Tokens kept."),
    _from_summary("tokens_per_step", "Emitted tokens / steps (tau).", "DOUBLE"),
    _from_summary("tokens_per_second", "Kept tokens / time since the end of prefill.", "DOUBLE"),
    _from_summary("acceptance_rate", "Accepted / drafted; falls as trees grow.", "DOUBLE"),
)
_OF_PIECE = (Column("run", "VARCHAR", "Id of the run; joins all tables."),)

#: tables people ask about, the run first
NAMES = tuple(name for name in TABLES if name != "schema_version")


def columns(table: str) -> list[Column]:
    """The columns of a table, in order, with what each means."""
    own = [Column(name, kind, COLUMN_MEANINGS[table][name]) for name, kind in TABLES[table].items()]
    if table == "piece":
        return [*_OF_PIECE, *own]
    if table == "run":
        at = next(i for i, column in enumerate(own) if column.name == "spec")
        return [*own[:at], *_OF_RUN, *own[at:]]
    return own


def view_sql(table: str, attached: Sequence[tuple[str, str]], held: Mapping[str, set[str]]) -> str:
    """`CREATE VIEW` over the attached files, given as (database, run id).

    `held` names the stored columns of this table by database.
    """
    stored = TABLES[table]
    parts = []
    for database, run_id in attached:
        known = held.get(database, set())
        chosen = [
            name if name in known else f"CAST(NULL AS {kind}) AS {name}"
            for name, kind in stored.items()
        ]
        if table == "piece":
            chosen.insert(0, f"'{run_id}' AS run")
        source = f"FROM {database}.{table}" if known else "WHERE false"
        parts.append(f"SELECT {', '.join(chosen)} {source}")
    if not parts:
        nothing = [f"CAST(NULL AS {kind}) AS {name}" for name, kind in stored.items()]
        if table == "piece":
            nothing.insert(0, "CAST(NULL AS VARCHAR) AS run")
        parts.append(f"SELECT {', '.join(nothing)} WHERE false")
    shown = ", ".join(f"{c.sql} AS {c.name}" if c.sql else c.name for c in columns(table))
    return f"CREATE VIEW {table} AS SELECT {shown} FROM ({' UNION ALL '.join(parts)})"
