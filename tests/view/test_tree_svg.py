"""The tree as SVG: well-formed, complete, hostile text as text, told apart without colour."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import asdict
from importlib.resources import files

import numpy as np
import pytest
from scripted_runs import random_step

from workbench.view.steps import step_layout
from workbench.view.theme import DARK, LIGHT
from workbench.view.tree_svg import FROM_CSS, tree_svg

SVG = "{http://www.w3.org/2000/svg}"


def drawn(num_nodes: int, **settings) -> tuple[dict, ET.Element]:
    laid_out = step_layout(
        random_step(np.random.default_rng(3), 0, num_nodes, num_pruned=3), pruned=True
    )
    return laid_out, ET.fromstring(tree_svg(laid_out, **settings))


@pytest.mark.parametrize("num_nodes", [1, 2, 9, 40])
@pytest.mark.parametrize("theme", [LIGHT, DARK, FROM_CSS])
def test_every_box_is_drawn_once_inside_the_picture(num_nodes: int, theme):
    laid_out, root = drawn(num_nodes, theme=theme)
    boxes = root.findall(f"{SVG}g")
    assert len(boxes) == len(laid_out["node"])
    assert len(root.findall(f"{SVG}path")) == sum(up >= 0 for up in laid_out["up"])
    labels = [box.find(f"{SVG}text").text for box in boxes]
    assert labels == laid_out["label"]
    x, y, width, height = map(float, root.get("viewBox").split())
    for box, wide in zip(boxes, laid_out["w"], strict=True):
        left, top = map(float, box.get("transform")[10:-1].split())
        assert x <= left
        assert left + wide <= x + width
        assert y <= top
        assert top + 24 <= y + height


def test_kinds_differ_in_more_than_colour():
    laid_out, root = drawn(40)
    looks = {}
    for kind, box in zip(laid_out["kind"], root.findall(f"{SVG}g"), strict=True):
        rect = box.find(f"{SVG}rect")
        sign = box.findall(f"{SVG}text")[-1].text if kind == "rejected" else ""
        shape = tuple(rect.get(name) for name in ("rx", "stroke-width", "stroke-dasharray"))
        looks.setdefault(kind, set()).add((*shape, sign))
    assert {"rejected", "not-reached", "pruned"} <= set(looks)
    assert all(len(found) == 1 for found in looks.values())
    distinct = [next(iter(looks[kind])) for kind in looks if kind != "root"]
    assert len(set(distinct)) == len(distinct)


def test_hostile_tokens_stay_text():
    step = random_step(np.random.default_rng(1), 0, 4)
    hostile = "</svg><script>window.owned=1</script>\"'&\x00\x1b\ud800\ufffe"
    step.pieces_M[1] = hostile
    laid_out = step_layout(step)
    laid_out["label"][1] = laid_out["piece"][1] = hostile
    text = tree_svg(laid_out, label=hostile)
    root = ET.fromstring(text)
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        *("svg", "title", "rect", "path", "g", "text")
    }
    names = {name for element in root.iter() for name in element.attrib}
    assert not {name for name in names if name.startswith("on") or "href" in name}
    shown = root.findall(f"{SVG}g")[1].find(f"{SVG}text").text
    assert shown.startswith("</svg><script>window.owned=1</script>\"'&")
    assert root.find(f"{SVG}title").text.startswith("</svg>")
    assert text.encode("utf-8")


def test_colours_of_a_report_are_variables_that_it_has():
    css = (files("workbench.report") / "templates" / "report.html.j2").read_text(encoding="utf-8")
    used = {value.removeprefix("var(").removesuffix(")") for value in asdict(FROM_CSS).values()}
    assert {name for name in used if f"{name}:" not in css} == set()


def test_the_ground_may_be_left_out():
    _, with_ground = drawn(4)
    _, without = drawn(4, ground=False)
    assert len(with_ground.findall(f"{SVG}rect")) == 1
    assert not without.findall(f"{SVG}rect")
