"""The GPU benchmark's dry run: the same code on a tiny model, end to end, and its parts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))  # as for a script that lies there

import gpu  # noqa: E402
import gpu_tables  # noqa: E402, F401
import kernel_times  # noqa: E402, F401
from gpu_inputs import Case, by_host, by_kernel  # noqa: E402
from gpu_measure import Arm, decode, engine_of  # noqa: E402
from gpu_models import SetAcceptance, counting  # noqa: E402

# benchmarks/pages.py would be found where others mean the folder of pages
sys.path.remove(str(ROOT / "benchmarks"))


from cuda_ext import memory  # noqa: E402
from engine.drafters.base import Sequence  # noqa: E402
from engine.growth import Noise  # noqa: E402
from engine.hardware import read_profile  # noqa: E402
from engine.requests import Request  # noqa: E402
from engine.runner import TreeRunner  # noqa: E402
from engine.sampling import Sampling  # noqa: E402

ACCEPTANCE = (0.6, 0.2)


def script_of(length: int, vocab_size: int, *, first: int = 5) -> dict[int, list[int]]:
    return {0: [(first + n) % vocab_size for n in range(length)]}


def arm_of(acceptance: tuple[float, ...], nodes: int, tokens: int):
    loaded = counting("smaller", dtype="float32", device="cpu", context=1024)
    script = script_of(4 + tokens + 12, loaded.vocab_size)
    drafter = SetAcceptance(
        acceptance, nodes=nodes, depth=3, script=script, vocab_size=loaded.vocab_size
    )
    runner = TreeRunner(loaded, num_slots=1, capacity=4 + tokens + 1, max_tree=drafter.num_nodes)
    arm = Arm("eager", nodes, acceptance, engine_of(runner, drafter, nodes=nodes), [])
    return arm, [Request(0, "", tuple(script[0][:4]), tokens)], script


def test_the_random_model_counts_whatever_is_drafted():
    arm, requests, script = arm_of(ACCEPTANCE, 6, 60)
    decode(arm, requests, script)
    assert arm.wrong == 0
    assert arm.tokens == 60


@pytest.mark.parametrize("acceptance", [(1.0,), (0.6, 0.2), (0.3, 0.3), (0.5, 0.0)])
def test_children_are_right_as_often_as_was_set(acceptance):
    vocab_size, count = 512, 3000
    script = script_of(count + 8, vocab_size)
    drafter = SetAcceptance(acceptance, nodes=6, depth=3, script=script, vocab_size=vocab_size)
    noise = Noise(Sampling(), request=0, vocab_size=vocab_size)
    hits, tested = np.zeros((2, len(acceptance))), np.zeros(2)
    for position in range(1, count):
        sequence = Sequence(0, script[0][:position], remaining=8, noise=noise)
        (tree,) = drafter.propose([sequence])
        tree.check_integrity()
        node = 0
        for level in range(2):
            tested[level] += 1
            children = np.flatnonzero(tree.parents_M == node)
            right = [c for c in children if tree.tokens_M[c] == script[0][position + level]]
            if not right:
                break
            node = int(right[0])
            hits[level, tree.rank_M[node]] += 1
    expanded = min(len(acceptance), 1 + int((np.asarray(acceptance) > 0).sum()))
    shares = hits / tested[:, None]
    np.testing.assert_allclose(shares[0][:expanded], acceptance[:expanded], atol=0.04)
    assert shares[1, 0] == pytest.approx(acceptance[0], abs=0.05)


@pytest.mark.slow
def test_the_dry_run_writes_a_profile_that_reads_back(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "sys.argv", ["gpu.py", "--device", "cpu", "--small", "--out", str(tmp_path)]
    )
    assert gpu.main() == 0
    said = capsys.readouterr().out
    last = json.loads(said.strip().splitlines()[-1])
    assert not last["failed"]
    assert not any(row["wrong_requests"] for row in last["speedups"])
    profile = read_profile(str(tmp_path / "dry-run.json"))
    assert not profile.measured, "a dry run is no measurement"
    assert profile.batches("target", "graph") == [1, 3]
    assert "| target | graph | 3 |" in said
    rows = last["candidates"]
    assert {(row["children"], row["batch"], row["execution"], row["nodes"]) for row in rows} == {
        (children, batch, execution, nodes)
        for children in ("fixed", "coupled")
        for batch in (1, 3)
        for execution in ("eager", "graph")
        for nodes in (1, 4, 16)
    }
    assert all(row["same"] for row in rows), "the device chose other children than the host"
    assert "| coupled | graph | 3 | 16 |" in said
    by_nodes = {
        row["nodes"]: row["tokens_per_step"]
        for row in last["speedups"]
        if row["batch"] == 1 and row["execution"] == "graph" and row["acceptance"][:1] != [0.5]
    }
    assert by_nodes[0] == 1.0 < by_nodes[3] < by_nodes[15]


def test_the_full_sizes_are_refused_on_a_cpu(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["gpu.py", "--device", "cpu"])
    assert gpu.main() == 2
    assert "add --small" in capsys.readouterr().err


def test_a_section_that_fails_says_why_and_the_next_goes_on():
    def refuse():
        raise RuntimeError("out of memory\nby a lot")

    sections = gpu.Sections("cpu")
    assert sections.run("one", refuse) is None
    assert sections.run("two", lambda value: value + 1, 1) == 2
    assert sections.failed == {"one": "out of memory"}


@pytest.mark.parametrize("how", ["kernel", "twin"])
def test_inputs_by_the_kernel_are_the_hosts(how):
    if how == "kernel" and not memory.SIMULATED:
        pytest.skip("needs the simulator: NUMBA_ENABLE_CUDASIM=1")
    case = Case(2, 5, 20)
    made = by_kernel(case, "cpu", torch.bfloat16, how=how)
    for _ in range(2):  # the second pass finds what the first has left
        for one, other in zip(made(), by_host(case, "cpu", torch.bfloat16)(), strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)
