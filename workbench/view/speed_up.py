"""After an eager run on a CPU: that compiled forwards would be faster, and what they cost."""

from __future__ import annotations

import shutil
from typing import NamedTuple

from engine.compiling import EXPECTED_SECONDS
from engine.packages import kinds_for
from workbench.spec import RunSpec
from workbench.view.live import Live


class Offer(NamedTuple):
    """The run to start, which compiles first, and the sentence that offers it."""

    spec: RunSpec
    sentence: str


def offer(live: Live, *, device: str) -> Offer | None:
    """What to offer beside a finished run; None where it was compiled or cannot be.

    `device` is where the run decoded. Only a run that left the choice to Draftree gets an offer.
    """
    spec = live.spec
    if spec is None or live.active or live.status != "finished" or live.mode != "eager":
        return None
    if spec.execution != "auto" or not spec.cache or device != "cpu" or not _has_compiler():
        return None
    models = 1 + len(spec.drafts)
    minutes = max(1, round(models * len(kinds_for(spec.batch)) * EXPECTED_SECONDS / 60))
    again = spec.model_copy(update={"execution": "compiled"})
    return Offer(
        again,
        "This run was eager. Compiled forwards are usually faster on a CPU; making them takes "
        f"about {minutes} minutes, once for {'this pair' if spec.draft else 'this model'}, and "
        "then the run is repeated with them. Stop cancels it.",
    )


def _has_compiler() -> bool:
    return any(map(shutil.which, ("g++", "clang++")))
