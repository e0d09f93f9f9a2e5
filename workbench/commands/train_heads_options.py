"""What `draftree train medusa`, `kangaroo` and `eagle` make of what was typed."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

from engine.errors import UserError


def default_name(kind: str, target: str | None) -> str:
    """What a head is called: pycode-medusa for pycode-target."""
    name = Path(target or "pycode-target").expanduser().resolve().name
    return f"{name.removesuffix('-target')}-{kind}"


def kind_options(kind: str, given: list[str]) -> dict[str, Any]:
    """`NAME=VALUE` as the kind's objective takes them. Raises UserError."""
    from engine.heads import head_kind

    signature = inspect.signature(head_kind(kind).objective_class())
    known = {
        name: one.default
        for name, one in signature.parameters.items()
        if one.kind is inspect.Parameter.KEYWORD_ONLY
    }
    found: dict[str, Any] = {}
    for assignment in given:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise UserError(f"--option is {assignment!r}; write it as NAME=VALUE.")
        if name not in known:
            raise UserError(
                f"A {kind} head has no option {name!r}; it has {', '.join(known) or 'none'}."
            )
        found[name] = _value(name, value, like=known[name])
    return found


def usable_dtype(dtype: str, device: str) -> str:
    """Raises UserError for a number format this machine does not compute in."""
    from workbench.comparing.dtypes import why_unusable

    if dtype not in ("float32", "bfloat16"):
        raise UserError(f"--dtype is {dtype!r}; training takes float32 or bfloat16.")
    reason = why_unusable(dtype, device)
    if reason is not None:
        raise UserError(sentence(reason))
    return dtype


def prepare_process(dtype: str, device: str) -> None:
    """Set what must be set before torch loads."""
    from workbench.environment import cpu_flags

    # Threads that spin while they wait halve the speed of a machine others use too.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if dtype == "bfloat16" and not device.startswith("cuda") and "avx512_bf16" in cpu_flags():
        # virtual machines list wider instructions (AMX) that they then refuse to run
        os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")


def _value(name: str, value: str, *, like: Any) -> Any:
    try:
        if isinstance(like, bool):
            return {"true": True, "false": False}[value.lower()]
        return type(like)(value)
    except (KeyError, ValueError):
        kind = {bool: "true or false", int: "a whole number", float: "a number"}
        wanted = kind.get(type(like), type(like).__name__)
        raise UserError(f"--option {name} is {value!r}; use {wanted}.") from None


def prompts_of(workload: str | None) -> tuple[str, ...]:
    """The texts of a workload; none where none is named. Raises UserError."""
    from workbench.workloads import load_workload

    if workload is None:
        return ()
    return tuple("\n".join(question.turns) for question in load_workload(workload))


def sentence(text: str) -> str:
    """A reason as a sentence."""
    return f"{text[0].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"
