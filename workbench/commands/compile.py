"""`draftree compile`: make the compiled forwards of a pair ahead of the first fast run."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.spec import EMBEDDED_DRAFT, EMBEDDED_TARGET


def compile_pair(
    target: Annotated[
        str, typer.Option(help="Embedded name, local folder or hub id.")
    ] = EMBEDDED_TARGET,
    draft: Annotated[str | None, typer.Option(help="As --target; '' for none.")] = EMBEDDED_DRAFT,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    batch: Annotated[int, typer.Option(help="For runs with this --batch.", min=1)] = 1,
    threads: Annotated[
        int | None, typer.Option(help="For runs with this --threads.", min=1)
    ] = None,
) -> None:
    """Compile the forwards of a pair for this machine, once; later runs take them by themselves.

    It takes about a minute or two per model. The packages lie in the cache folder that
    `draftree doctor` names; deleting them only costs making them again.
    """
    from rich.progress import Progress, TaskID

    from engine.compiled import at_hand, forward_for, why_not
    from engine.errors import DecodeError, UserError
    from workbench.job import use_threads
    from workbench.models import load
    from workbench.terminal import err, say

    use_threads(threads)
    for name in filter(None, (target, draft)):
        loaded = load(name, dtype=dtype, device="cpu")
        if at_hand(loaded, batch):
            say(f"The forwards of {loaded.name} are compiled already.")
            continue
        if reason := why_not(loaded, batch):
            raise UserError(reason)
        with Progress(console=err(), transient=True) as bar:
            task = bar.add_task(f"Compiling {loaded.name}", total=1.0)

            def show(_: str, __: str, fraction: float | None, task: TaskID = task) -> None:
                bar.update(task, completed=fraction or 0.0)

            made = forward_for(loaded, batch, show)
        if made is None:
            raise DecodeError(f"Compiling {loaded.name} failed; runs will be eager.")
        say(f"The forwards of {loaded.name} are compiled.")
