"""Pictures of charts, drawn by a Chrome or Chromium of this machine, where there is one.

One start of the browser draws all charts of a report: a page with plotly.js and the figures inside,
whose own policy forbids it any request. Trees need no browser: see `view.tree_svg`.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from plotly.offline import get_plotlyjs

from engine.errors import UserError
from workbench.report.content import Chart
from workbench.report.render import as_script
from workbench.view.theme import THEMES, ThemeName

Form = Literal["svg", "png"]

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome",
          "msedge", "microsoft-edge")  # fmt: skip
_ELSEWHERE = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
)
_TIMEOUT_S = 120
_WIDTH, _WIDE = 720, 1100
_FOUND = re.compile(r'<pre data-at="(\d+)">([^<]*)</pre>')
_PAGE = """<!doctype html><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline';
 img-src data: blob:">
<script>{plotly}</script><script type="application/json" id="figures">{figures}</script>
<body><script>
(async () => {{
  const figures = JSON.parse(document.getElementById("figures").textContent);
  for (const [at, one] of figures.entries()) {{
    const url = await Plotly.toImage(one.figure, one.size);
    const found = document.createElement("pre");
    found.dataset.at = at;
    found.textContent = btoa(unescape(encodeURIComponent(url)));
    document.body.append(found);
  }}
}})();
</script>
"""


def browser() -> str | None:
    """A browser that can draw, None where there is none. `DRAFTREE_CHROME` names one."""
    if chosen := os.environ.get("DRAFTREE_CHROME"):
        return chosen if shutil.which(chosen) else None
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    return found or next((path for path in _ELSEWHERE if Path(path).is_file()), None)


def why_not() -> str:
    """Why charts cannot be drawn as pictures here; empty if they can."""
    if browser() is not None:
        return ""
    return (
        "Pictures of charts are drawn by Chrome or Chromium, and none was found on this machine; "
        "install one, or name it in DRAFTREE_CHROME. Trees are saved as SVG without it."
    )


def chart_images(charts: Sequence[Chart], *, form: Form, theme: ThemeName = "light") -> list[bytes]:
    """The charts as files of `form`, in order. Raises UserError with a sentence where not."""
    program = browser()
    if program is None:
        raise UserError(why_not())
    figures = []
    for chart in charts:
        figure = chart.draw(theme)
        figure.update_layout(paper_bgcolor=THEMES[theme].panel)
        width = _WIDE if chart.wide else _WIDTH
        size = {"format": form, "width": width, "height": int(figure.layout.height or 300)}
        size |= {"scale": 2} if form == "png" else {}
        figures.append({"figure": json.loads(figure.to_json()), "size": size})
    page = _PAGE.format(plotly=get_plotlyjs(), figures=as_script(figures))
    dom = _dom(program, page)
    found = {int(at): base64.b64decode(text).decode() for at, text in _FOUND.findall(dom)}
    if len(found) != len(figures):
        raise UserError(f"{program} drew {len(found)} of {len(figures)} charts; try another one.")
    return [_content(found[at]) for at in range(len(figures))]


def _dom(program: str, page: str) -> str:
    """The page after its script has run."""
    with tempfile.TemporaryDirectory(prefix="draftree-") as folder:
        file = Path(folder) / "charts.html"
        file.write_text(page, encoding="utf-8")
        command = [
            program, "--headless", "--disable-gpu", "--no-first-run", "--mute-audio",
            "--disable-extensions", "--disable-background-networking", "--disable-sync",
            f"--user-data-dir={folder}/profile", "--virtual-time-budget=60000", "--dump-dom",
            file.as_uri(),
        ]  # fmt: skip
        if sys.platform == "linux" and os.geteuid() == 0:  # its sandbox refuses root
            command.insert(1, "--no-sandbox")
        try:
            done = subprocess.run(
                command, capture_output=True, timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            raise UserError(
                f"{program} took longer than {_TIMEOUT_S} s to draw; try again with fewer charts."
            ) from None
        except OSError as error:
            raise UserError(f"{program} does not start: {error.strerror or error}.") from None
    return done.stdout.decode("utf-8", "replace")


def _content(url: str) -> bytes:
    """What a data URL holds."""
    from urllib.parse import unquote_to_bytes

    head, _, body = url.partition(",")
    return base64.b64decode(body) if head.endswith(";base64") else unquote_to_bytes(body)
