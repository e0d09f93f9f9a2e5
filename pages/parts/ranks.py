"""Several GPUs in the forms of Run and Compare, folded away until somebody has them."""

from __future__ import annotations

from typing import Any

import streamlit as st

from workbench.ranks import MOST_RANKS, PARALLEL, PLACEMENTS

_DIVIDES = {"draft": "Drafting of trees", "target": "Target, by layer", "both": "Both"}
_PLACES = {"beside": "Beside the target", "own": "On ranks of its own", "split": "By times"}


def ranks_form(prefix: str = "", **common: Any) -> dict[str, Any]:
    """The fields of a spec. `prefix` keeps the keys of two forms apart."""
    ranks = int(
        st.number_input(
            "Ranks", 1, MOST_RANKS, 1, key=f"{prefix}ranks", **common,
            help="Processes that decode together, with a GPU each where there are GPUs. On a "
            "processor they share its cores.",
        )
    )  # fmt: skip
    parallel = st.selectbox(
        "Divided", PARALLEL, key=f"{prefix}parallel", disabled=ranks == 1,
        format_func=lambda name: _DIVIDES.get(name, name), **common,
        help="Trees are drafted by all ranks together, or the target's layers are cut over them. "
        "Tokens stay the same.",
    )  # fmt: skip
    placement = st.selectbox(
        "Draft model", PLACEMENTS, key=f"{prefix}placement", disabled=ranks == 1,
        format_func=lambda name: _PLACES.get(name, name), **common,
        help="On a rank of its own it drafts the likely next tree while the target scores this "
        "one. By times shares ranks out so that neither waits long.",
    )  # fmt: skip
    return {"ranks": ranks, "parallel": parallel, "placement": placement}
