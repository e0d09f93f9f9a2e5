"""Two Ray nodes on this machine, four replicas, one killed under load: no token is lost."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest

from engine.cluster.fleet import Fleet, FleetOptions
from engine.cluster.mail import ReplicaSpec
from engine.cluster.ray_actors import RayCluster, import_ray
from engine.errors import UserError
from tests.cluster.builders import REPO, expected, orders
from tests.cluster.serving import Served, check_ends, our_processes, serve, wait_until_gone

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None,
        reason="needs Ray: pip install 'draftree[cluster]'",
    ),
]


@pytest.fixture
def two_nodes(monkeypatch):
    """Address of a Ray of two nodes with two CPUs each, which leaves nothing behind."""
    before = our_processes()
    folder = tempfile.mkdtemp(prefix="draftree-")
    (Path(folder) / "ray").mkdir()
    monkeypatch.setenv("RAY_TMPDIR", folder)
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "1")  # import_ray sets it to 0
    import_ray(loopback=True)
    from ray.cluster_utils import Cluster

    node = {
        "num_cpus": 2,
        "include_dashboard": False,
        "node_ip_address": "127.0.0.1",
        "object_store_memory": 80_000_000,
    }
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        cluster.add_node(**node)
        yield cluster.address
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
    wait_until_gone(before)
    assert not Path(folder).exists()


def test_one_of_four_replicas_on_two_nodes_killed_under_load(two_nodes):
    wanted, killed = orders(32), {}

    def kill_one(served: Served) -> None:
        if not killed and len(served.records) >= 6:
            member = next((m for m in fleet.members if served.under_way(m.number)), None)
            if member is not None:
                killed[member.number] = served.under_way(member.number)
                os.kill(member.link.pid, signal.SIGKILL)

    begun = time.monotonic()
    with RayCluster(two_nodes, replicas=4) as ray:
        spec = ReplicaSpec("tests.cluster.builders:build", {"pause_s": 0.03})
        with Fleet(spec, FleetOptions(replicas=4), start=ray.start) as fleet:
            assert fleet.wait_ready()
            places = [member.link.where for member in fleet.members]
            served = serve(fleet, wanted, each_step=kill_one)
            assert len(fleet.members) == 3
    assert time.monotonic() - begun < 500
    assert len({place.split(", ")[1] for place in places}) == 2, places
    check_ends(served, wanted)
    assert served.tokens == expected(wanted)
    ((number, moved),) = killed.items()
    assert moved
    for index in moved:
        (row,) = served.ends[index]
        assert row.attempts == 2
        assert row.replica != number
    assert {tick.row.replica for tick in served.ticks} == {0, 1, 2, 3}


def test_too_few_cpus_and_models_that_a_node_lacks_are_told(two_nodes):
    with pytest.raises(UserError, match="5 replicas need 5 CPUs and Ray has 4"):
        RayCluster(two_nodes, replicas=5)
    with RayCluster(two_nodes, replicas=1) as ray:
        spec = ReplicaSpec("tests.cluster.builders:build", {"refuse": True})
        fleet = Fleet(spec, FleetOptions(replicas=1), start=ray.start)
        with pytest.raises(UserError, match=r"Replica 0 \(node 127.0.0.1, \w{6}\): There is no"):
            fleet.wait_ready()


def test_a_ray_of_this_machine_alone_leaves_nothing():
    before, wanted = our_processes(), orders(6)
    with RayCluster(replicas=1) as ray:
        folder = ray.folder
        assert Path(folder).is_dir()
        spec = ReplicaSpec("tests.cluster.builders:build", {})
        with Fleet(spec, FleetOptions(replicas=1), start=ray.start) as fleet:
            fleet.wait_ready()
            served = serve(fleet, wanted)
    check_ends(served, wanted)
    assert served.tokens == expected(wanted)
    assert not Path(folder).exists()
    wait_until_gone(before)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ray://10.0.0.1:10001", "is a client address"),
        ("somewhere", "is no address of a Ray"),
        ("127.0.0.1:1", "No Ray answers at 127.0.0.1:1"),
    ],
)
def test_addresses_that_lead_nowhere_are_refused_at_once(address, said):
    with pytest.raises(UserError, match=said):
        RayCluster(address, replicas=1)
