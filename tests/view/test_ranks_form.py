"""The fields of several GPUs in a form: what they give, and when they matter."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from workbench.spec import RunSpec


def page() -> None:
    import streamlit as st

    from pages.parts.ranks import ranks_form

    st.session_state["fields"] = ranks_form("here/")


@pytest.fixture
def form() -> AppTest:
    return AppTest.from_function(page, default_timeout=60).run()


def test_one_rank_is_the_default_and_leaves_the_rest_out_of_reach(form):
    assert form.session_state["fields"] == {
        "ranks": 1, "parallel": "draft", "placement": "beside"
    }  # fmt: skip
    assert all(box.disabled for box in form.selectbox)


def test_what_is_chosen_makes_a_spec(form):
    form.number_input(key="here/ranks").set_value(4).run()
    assert not any(box.disabled for box in form.selectbox)
    form.selectbox(key="here/parallel").set_value("both")
    form.selectbox(key="here/placement").set_value("split").run()
    fields = form.session_state["fields"]
    assert fields == {"ranks": 4, "parallel": "both", "placement": "split"}
    assert RunSpec(prompt="x", **fields).placement == "split"
