"""The real pages, serving by the clock: `streamlit run tests/browser/fake_serving.py`."""

import os
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "view")]

from scripted_serving import ServingHandle  # noqa: E402

from pages.parts import settings as module  # noqa: E402

module.settings.make_handle = lambda: ServingHandle(
    seconds=float(os.environ.get("FAKE_SECONDS", "4"))
)
runpy.run_path(str(ROOT / "app.py"), run_name="__main__")
