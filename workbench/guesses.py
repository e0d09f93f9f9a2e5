"""How often the guesses of trained heads were right on a stored run, by depth and rank.

Heads guess every depth by itself, and a card's accuracies are counted wherever the text stood. What
a tree wants is how often they are right behind an accepted parent, which only a run shows.
"""

from __future__ import annotations

from pathlib import Path

from engine.errors import UserError
from workbench.store.reader import open_run

#: of nodes that hung on the accepted path and were scored, the share that was accepted
_SQL = """
SELECT child.depth, child.rank, avg(CAST(child.fate = 'accepted' AS INTEGER)) AS share
FROM node AS child JOIN node AS parent
    ON child.run = parent.run AND child.request = parent.request
    AND child."repeat" = parent."repeat" AND child.step = parent.step
    AND child.parent = parent.node
WHERE parent.fate IN ('root', 'accepted') AND child.fate <> 'pruned'
GROUP BY ALL ORDER BY child.depth, child.rank
"""


def measured_guesses(run_id: str, folder: Path | None = None) -> str:
    """As Medusa's option `acceptance` takes it: ranks joined by ',' and depths by ';'.

    Depths and ranks behind the first that no tree had are left out. Raises UserError for a run of
    another method, or one whose guesses were all wrong.
    """
    with open_run(run_id, folder) as run:
        if run.info.spec.method != "medusa":
            raise UserError(
                f"Run {run.run_id} drafted with {run.info.spec.method}, which says nothing of the "
                "guesses of heads; name a run of medusa."
            )
        found = run.query(_SQL)
    levels: list[list[str]] = []
    for depth, rank, share in found.itertuples(index=False):
        if depth == len(levels) + 1:
            levels.append([])
        if depth == len(levels) and rank == len(levels[-1]):
            levels[-1].append(f"{share:.4f}")
    levels = [level for level in levels if level]
    if not any(float(share) for level in levels for share in level):
        raise UserError(f"Run {run_id} accepted no drafted token; it tells of no right guesses.")
    return ";".join(map(",".join, levels))
