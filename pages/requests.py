"""Requests: many at once; who waits, who shares a step, what it costs each of them."""

from pages.parts.entry import through_app
from pages.parts.requests import stored_view

through_app()
stored_view()
