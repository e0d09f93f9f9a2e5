"""The real pages, measuring by the clock: `streamlit run tests/browser/fake_compare.py`."""

import os
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "view")]

from scripted_measuring import MeasuringHandle  # noqa: E402

from pages.parts import settings as module  # noqa: E402

module.settings.make_handle = lambda: MeasuringHandle(
    seconds=float(os.environ.get("FAKE_SECONDS", "2"))
)
runpy.run_path(str(ROOT / "app.py"), run_name="__main__")
