"""Reports: choose runs or a comparison, see the report, hand it on."""

import streamlit as st

from engine.errors import UserError
from pages.parts.entry import through_app
from pages.parts.reports import choose, downloads, html_of
from pages.parts.reports_preview import preview
from workbench.view.forms import escape_markdown

through_app()
st.title("Reports", anchor=False)
asked = choose()
if asked is not None:
    try:
        html = html_of(asked)
    except UserError as error:
        st.error(escape_markdown(str(error)), title="No report", icon=":material/error:")
    else:
        downloads(asked)
        preview(html, key="preview")
