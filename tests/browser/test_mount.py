"""Streamlit may close a component and open it again in the same place: nothing is there twice."""

from importlib.resources import files

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]
ASSETS = files("workbench.view") / "tree_component"
SCRIPTS = ("mount.js", "tree.js", "pieces.js", "live.js")

OPEN_CLOSE_OPEN = """async ({script, markup, data}) => {
  const place = document.body.appendChild(document.createElement("div"));
  place.innerHTML = markup;
  const address = URL.createObjectURL(new Blob([script], {type: "text/javascript"}));
  const {default: component} = await import(address);
  const asked = [];
  const setTriggerValue = (...what) => asked.push(what);
  const call = () => component({data, parentElement: place, setTriggerValue});
  call()();
  call();
  place.querySelector(".cut input").click();
  return asked.length;
}"""


def test_a_view_opened_again_in_its_place_is_whole_and_single(chromium):
    data = {
        "view": "live", "run": "r", "live": False, "stored": False, "steps": [], "full": True,
        "first": 0, "total": 0, "show": -1, "prompt": "def f(", "earlier": [], "depth": [],
        "figures": [], "state": "Ready", "detail": "", "setup": "", "fraction": None,
    }  # fmt: skip
    script = "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS)
    markup = (ASSETS / "live.html").read_text(encoding="utf-8")
    page = chromium.new_page()
    page.goto("about:blank")
    told = page.evaluate(OPEN_CLOSE_OPEN, {"script": script, "markup": markup, "data": data})
    assert told == 1  # one press, one question: the closed view does not listen
    assert page.locator(".prose .prompt").all_inner_texts() == ["def f("]
    legend = page.locator(".key > span").all_inner_texts()
    assert len(legend) == len(set(legend)) > 0
    page.close()
