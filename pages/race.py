"""Race: recorded runs of one prompt typed out side by side at their own speed."""

from pages.parts.entry import through_app
from pages.parts.race import choose_race, race_view

through_app()
chosen = choose_race()
if chosen is not None:
    race_view(*chosen)
