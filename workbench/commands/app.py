"""`draftree app`: the workbench in the browser, on this machine only."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import typer

from engine.errors import UserError
from engine.paths import app_file


def app(
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8501,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open a browser window.")
    ] = True,
) -> None:
    """Open the workbench in the browser. Ctrl-C ends it.

    It listens on 127.0.0.1 only and sends nothing anywhere.
    """
    script = app_file()
    if not script.is_file():
        raise UserError(f"The app is not where it should be ({script}); install draftree again.")
    command = [sys.executable, "-m", "streamlit", "run", str(script)]
    settings = {
        "server.address": "127.0.0.1",
        "server.port": str(port),
        "server.showEmailPrompt": "false",
        "browser.gatherUsageStats": "false",
    }
    if not browser:
        settings["server.headless"] = "true"
    for name, value in settings.items():
        command += [f"--{name}", value]
    process = subprocess.Popen(command)
    while True:
        try:
            raise typer.Exit(process.wait())
        except KeyboardInterrupt:  # the server got it too, and is closing
            continue
