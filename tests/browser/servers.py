"""Streamlit servers that begin with everything imported: forks of one process that has done so.

An import of Streamlit, torch and plotly takes many times as long as a server needs otherwise.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
import urllib.request
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from pkgutil import iter_modules
from typing import NamedTuple

import workbench.view

ROOT = Path(__file__).resolve().parents[2]
START_S = 90
#: what pages import. Not the pages themselves: they speak to the server that runs them
LIBRARIES = ("streamlit.web.cli", "pandas", "plotly.express", "optuna", "workbench.worker")
VIEWS = tuple(f"workbench.view.{module.name}" for module in iter_modules(workbench.view.__path__))

#: of servers that have ended. A browser keeps scripts by address: the next one opens much faster
_free_ports: list[int] = []


class Server(NamedTuple):
    port: int
    process: ForkServerProcess

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def start_server(script: str, log: Path, environment: dict[str, str]) -> Server:
    """`streamlit run SCRIPT` on a free port, with more environment."""
    port = _free_ports.pop() if _free_ports else _any_port()
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload([*LIBRARIES, *VIEWS])
    process = forks.Process(
        target=_serve, args=(script, port, log, os.environ | environment),
        name=f"streamlit on {port}",
    )  # fmt: skip
    process.start()
    server = Server(port, process)
    _wait_until_up(server, log)
    return server


def end_servers(servers: list[Server]) -> None:
    for server in servers:
        server.process.terminate()
    for server in servers:
        server.process.join(30)
        assert server.process.exitcode is not None, f"{server.url} does not end"
        _free_ports.append(server.port)


def _any_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _serve(script: str, port: int, log: Path, environment: dict[str, str]) -> None:
    from streamlit.web import cli

    with log.open("w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    cli.main(["run", script, "--server.port", str(port), "--server.headless", "true"])


def _wait_until_up(server: Server, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert server.process.is_alive(), log.read_text()
        try:
            with urllib.request.urlopen(f"{server.url}/_stcore/health", timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"the server did not start in {START_S} s:\n{log.read_text()}")
