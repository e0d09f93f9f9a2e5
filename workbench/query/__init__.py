"""SQL over stored runs: read-only, unable to reach any other file, and never longer than allowed.

`asking` is the side of the app and the command line: it starts `process`, a child that attaches
the chosen runs, locks itself in and answers one SELECT. A child, because some functions of DuckDB
neither heed an interrupt nor count their memory: a process can always be ended.
"""

from workbench.query.asking import Limits, Query, Result, ask, queryable
from workbench.query.examples import EXAMPLES, Example
from workbench.query.tables import columns

__all__ = ["EXAMPLES", "Example", "Limits", "Query", "Result", "ask", "columns", "queryable"]
