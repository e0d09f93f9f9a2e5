"""Some steps of a stored request, as they were told when they were made: what replay reads."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from workbench.events import StepDone
from workbench.store.reader import RunReader
from workbench.store.rebuild import records_from_rows, rows_of


def steps_done(
    run: RunReader, numbers: Sequence[int], *, request: int, repeat: int
) -> dict[int, StepDone]:
    """Steps by number; those without a stored tree are left out.

    Costs one read of the rows of these steps, however long the request is.
    """
    if not len(numbers):
        return {}
    wanted = ", ".join(str(int(number)) for number in numbers)
    where = f'request = ? AND "repeat" = ? AND step IN ({wanted})'
    given = [request, repeat]
    steps = run.query(f"SELECT * FROM step WHERE {where} ORDER BY step", given)
    nodes = run.query(
        f"SELECT node.*, piece.text AS piece FROM node LEFT JOIN piece USING (token) "
        f"WHERE {where} ORDER BY step, node",
        given,
    )
    tokens = run.query(
        f"SELECT token.*, piece.text AS piece FROM token LEFT JOIN piece USING (token) "
        f"WHERE {where} ORDER BY position",
        given,
    )
    records = records_from_rows(steps, nodes, tokens)
    pieces, token_pieces = _shown(nodes), _shown(tokens)
    texts = [text if isinstance(text, str) else "" for text in tokens["text"]]
    node_step, token_step = nodes["step"].to_numpy(), tokens["step"].to_numpy()
    return {
        number: StepDone(
            record,
            pieces[rows_of(node_step, number)],
            texts[rows_of(token_step, number)],
            (token_pieces[rows_of(token_step, number)] or [""])[-1],
        )
        for number, record in records.items()
    }


def _shown(rows: pd.DataFrame) -> list[str]:
    """Each row's token for the eye."""
    return [
        piece if isinstance(piece, str) else f"#{token}"
        for piece, token in zip(rows["piece"], rows["token"], strict=True)
    ]
