"""Replicas as Ray actors, on this machine or on several: `pip install 'draftree[cluster]'`.

Ray places the processes and says when one is gone; what they do is `engine.cluster.replica`, as in
a local process. Nothing is reported to anyone, no dashboard is served, and a Ray started here
listens on 127.0.0.1 alone and leaves no file behind.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import threading
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from engine.cluster.mail import LostError, Mail, ReplicaSpec, Report
from engine.errors import UserError

_ROOT = str(Path(__file__).resolve().parents[2])
#: a Ray of this machine alone
LOCAL = "local"
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no figures are sent to Ray's makers
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}
#: read when Ray is imported; set to 0 it keeps all of Ray on 127.0.0.1, on any system
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
_OBJECT_STORE_BYTES = 80_000_000  # reports are small
_LAST_STEP_S = 5.0
_REACH_S = 5.0


class RayCluster:
    """A connection to Ray. `start` makes a replica there; `close` ends what was begun here."""

    def __init__(
        self, address: str = LOCAL, *, replicas: int, cpus: float = 1.0, gpus: float = 0.0
    ) -> None:
        """Start Ray on this machine, or join the one at `address` (HOST:PORT).

        replicas: how many must have room at once.
        cpus, gpus: that each replica reserves; a fraction shares one.

        Raises UserError where Ray is missing, cannot be reached or has too little for all.
        """
        self.is_local = address == LOCAL
        self._cpus, self._gpus = cpus, gpus
        loopback = self.is_local or _on_loopback(address)
        self._before = {name: os.environ.get(name) for name in (*_QUIET, *_LOOPBACK, "RAY_TMPDIR")}
        os.environ.update(_QUIET | (_LOOPBACK if loopback else {}))
        self.folder = ""  # of a Ray that was started here
        if self.is_local:
            # short: paths of sockets in it may have 107 characters
            self.folder = tempfile.mkdtemp(prefix="draftree-")
            os.environ["RAY_TMPDIR"] = self.folder
        try:
            self._ray = import_ray(loopback=loopback)
            self._connect(address, replicas)
        except BaseException:
            self._clean_up()
            raise

    def __enter__(self) -> RayCluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, spec: ReplicaSpec) -> RayLink:
        """A replica on whichever node has room, spread over them."""
        settings = {"OMP_NUM_THREADS": str(spec.threads)}
        if self.is_local:  # elsewhere Draftree lies in another place
            settings["PYTHONPATH"] = os.pathsep.join(
                filter(None, [_ROOT, os.environ.get("PYTHONPATH", "")])
            )
        options: dict[str, Any] = {
            "num_cpus": self._cpus,
            "num_gpus": self._gpus,
            "max_restarts": 0,  # the fleet decides, and starts a new one
            "scheduling_strategy": "SPREAD",
            "runtime_env": {"env_vars": settings},
        }
        actor = self._ray.remote(Actor).options(**options).remote(spec)
        return RayLink(self._ray, actor)

    def close(self) -> None:
        """Leave Ray; one that was started here ends."""
        try:
            self._ray.shutdown()
        finally:
            self._clean_up()

    def _connect(self, address: str, replicas: int) -> None:
        ray = self._ray
        if address.startswith("ray://"):
            raise UserError(
                f"{address} is a client address; run Draftree on a node of the cluster and give "
                "HOST:PORT of its head, as `ray start` printed it."
            )
        if not self.is_local:
            _check_reachable(address)
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if self.is_local:
            settings |= {
                "num_cpus": max(1, round(replicas * self._cpus + 0.5)),
                "include_dashboard": False,
                "object_store_memory": _OBJECT_STORE_BYTES,
                "_node_ip_address": "127.0.0.1",
            }
        else:
            settings["address"] = address
        handler = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(namespace="draftree", **settings)
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)  # Ray put its own there
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            where = "Ray could not be started" if self.is_local else f"No Ray answers at {address}"
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"{where} ({first}). See docs/cluster.md for how nodes are started."
            ) from None
        for what, each in (("CPU", self._cpus), ("GPU", self._gpus)):
            there = ray.cluster_resources().get(what, 0.0)
            if there < replicas * each:
                ray.shutdown()
                raise UserError(
                    f"{replicas} replicas need {replicas * each:g} {what}s and Ray has {there:g}: "
                    "add nodes, or use fewer replicas."
                )

    def _clean_up(self) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)


class Actor:
    """A replica's body within Ray."""

    def __init__(self, spec: ReplicaSpec) -> None:
        from engine.cluster.replica import Replica

        self._replica = Replica(spec)

    def place(self) -> tuple[str, int]:
        """The node's name for people, and the process."""
        import ray

        node = ray.get_runtime_context().get_node_id()[:6]
        return f"node {ray.util.get_node_ip_address()}, {node}", os.getpid()

    def exchange(self, mail: Mail) -> Report:
        return self._replica.exchange(mail)

    def stop(self) -> None:
        self._replica.stop(_LAST_STEP_S)


class RayLink:
    """A replica in an actor."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self._actor = ray, actor
        self._place: Any = actor.place.remote()
        self._where, self.pid = "no node yet", 0
        self._awaited: Any = None
        self._ending: Any = None
        self._sent_ns = 0

    @property
    def where(self) -> str:
        return self._where

    def post(self, mail: Mail) -> None:
        self._sent_ns = perf_counter_ns()
        self._awaited = self._actor.exchange.remote(mail)

    def collect(self) -> Report | None:
        ray = self._ray
        try:
            if self._place is not None and ray.wait([self._place], timeout=0)[0]:
                self._where, self.pid = ray.get(self._place)
                self._place = None
            if self._awaited is None or not ray.wait([self._awaited], timeout=0)[0]:
                return None
            now = perf_counter_ns()
            report: Report = ray.get(self._awaited)
        except ray.exceptions.RayError as error:
            raise LostError(_why(error)) from None
        self._awaited = None
        return report._replace(sent_ns=self._sent_ns, received_ns=now)

    def hang_up(self) -> None:
        if self._ending is None:
            self._ending = self._actor.stop.remote()

    def close(self, timeout_s: float) -> None:
        self.hang_up()
        self._ray.wait([self._ending], timeout=timeout_s)
        self.kill()

    def kill(self) -> None:
        self._ray.kill(self._actor, no_restart=True)


def import_ray(*, loopback: bool) -> Any:
    """The package. `loopback`: it is to use 127.0.0.1 alone.

    Raises UserError where it is missing.
    """
    if loopback:  # for this import, and for the processes that Ray starts
        os.environ.update(_LOOPBACK)
    try:
        import ray
        import ray.exceptions
        import ray.util
    except ImportError:
        raise UserError(
            "Replicas on Ray need the package ray: pip install 'draftree[cluster]'. Without it, "
            "--cluster local runs replicas on this machine."
        ) from None
    from ray._private import ray_constants

    # it was read when something else imported Ray before us, perhaps
    ray_constants.ENABLE_RAY_CLUSTER = not loopback
    return ray


def _on_loopback(address: str) -> bool:
    """Whether a Ray listens on 127.0.0.1 alone, as one that was started here does.

    One that `ray start` began listens on this machine's own address, and is to be called by it.
    """
    host, _, port = address.rpartition(":")
    if host != "localhost" and not host.startswith("127."):
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent: it only chooses a route
            socket.create_connection((probe.getsockname()[0], int(port)), timeout=_REACH_S).close()
        except (OSError, ValueError):
            return True
    return False


def _check_reachable(address: str) -> None:
    """Ray itself would try for minutes. Raises UserError."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(
            f"{address!r} is no address of a Ray; give HOST:PORT of its head node, or local."
        )
    try:
        socket.create_connection((host, int(port)), timeout=_REACH_S).close()
    except OSError as error:
        raise UserError(
            f"No Ray answers at {address} ({error}); start its head with `ray start --head`, and "
            "see docs/cluster.md."
        ) from None


def _why(error: Exception) -> str:
    """What Ray says of a lost actor, as the end of a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if type(error).__name__ == "ActorDiedError" and "creation task" in str(error):
        return f"it could not be started ({lines[-1]})"
    if "node" in str(error).lower() and "died" in str(error).lower() and "node:" in str(error):
        return "its node died"
    if "worker process has died" in str(error):
        return "its process died"
    return f"Ray lost it ({lines[0] if lines else type(error).__name__})"
