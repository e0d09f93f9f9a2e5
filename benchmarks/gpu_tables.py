"""What benchmarks/gpu.py found, as tables in Markdown for a page of docs."""

from __future__ import annotations

from typing import Any

import torch

from engine.hardware import HardwareProfile
from engine.models import DTYPES


def print_tables(profile: HardwareProfile) -> None:
    """Markdown for a page of docs."""
    print(f"\n{profile.device}, torch {profile.torch}, {profile.dtype}. {profile.how}.\n")
    itemsize = torch.empty(0, dtype=DTYPES[profile.dtype]).element_size()
    for role, shape in profile.models.items():
        if profile.bandwidth:
            floor = shape.read * itemsize / profile.bandwidth * 1e3
            print(
                f"{role}: {shape.parameters / 1e9:.2f}B parameters, of which a pass reads"
                f" {shape.read * itemsize / 1e9:.2f} GB; at the {profile.bandwidth / 1e9:.0f} GB/s"
                f" of a copy that takes {floor:.2f} ms.\n"
            )
    nodes = profile.passes[0].cost.nodes_S if profile.passes else ()
    print(
        markdown_row(["model", "execution", "requests", "context", *(f"{n} nodes" for n in nodes)])
    )
    print(markdown_row(["---"] * (4 + len(nodes))))
    for one in profile.passes:
        for context, ms in zip(one.cost.contexts_C, one.cost.ms_CS, strict=True):
            figures = [f"{value:.2f}" for value in ms]
            print(markdown_row([one.role, one.execution, one.batch, context, *figures]))
    print_candidates(profile.findings["candidates"])
    heads = ["requests", "execution", "acceptance", "nodes", "tokens/step", "step ms",
             "score ms", "x plain", "as scripted"]  # fmt: skip
    print("\n" + markdown_row(heads))
    print(markdown_row(["---"] * len(heads)))
    for row in profile.findings["speedups"]:
        print(markdown_row([
            row["batch"], row["execution"], f"{row['acceptance'][0]:.2f}" if row["nodes"] else "-",
            row["nodes"], f"{row['tokens_per_step']:.2f}", f"{row['step_ms']:.2f}",
            f"{row['stages_ms']['score']:.2f}", f"{row['speedup']:.2f}",
            "no" if row["wrong_requests"] else "yes",
        ]))  # fmt: skip
    print()


def print_candidates(rows: list[dict[str, Any]]) -> None:
    """Draft passes until the candidates are known, chosen on the host and on the device."""
    heads = ["children", "execution", "requests", "nodes", "pass ms", "host ms", "device ms",
             "x", "host copies", "device copies", "same"]  # fmt: skip
    print("\n" + markdown_row(heads))
    print(markdown_row(["---"] * len(heads)))
    for row in rows:
        print(markdown_row([
            row["children"], row["execution"], row["batch"], row["nodes"],
            *(f"{row[f'{way}_ms']:.2f}" for way in ("pass", "host", "device")),
            f"{row['host_ms'] / row['device_ms']:.2f}", f"{row['host_bytes'] / 1e3:.0f} kB",
            f"{row['device_bytes'] / 1e3:.1f} kB", "yes" if row["same"] else "no",
        ]))  # fmt: skip


def markdown_row(cells: list[Any]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
