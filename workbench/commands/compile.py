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
    method: Annotated[
        str | None,
        typer.Option(help="What this method runs: parts of the target, or heads, for some."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", "-o", metavar="NAME=VALUE", help="An option of the method; repeatable."
        ),
    ] = None,
) -> None:
    """Compile the forwards of a pair for this machine, once; later runs take them by themselves.

    Methods that draft with a part of the target, or read its hidden states, have forwards of their
    own: `--method kangaroo` compiles those.

    It takes about a minute or two per model. The packages lie in the cache folder that
    `draftree doctor` names; deleting them only costs making them again.
    """
    from rich.progress import Progress, TaskID

    from engine.compiled import forward_for
    from engine.errors import DecodeError, UserError
    from engine.packages import at_hand, why_not
    from workbench.job import use_threads
    from workbench.models import load
    from workbench.terminal import err, say

    use_threads(threads)
    if method is not None:
        for_method(method, option or [], target=target, draft=draft, dtype=dtype, batch=batch)
        return
    if option:
        raise UserError("--option belongs to a method; give --method too.")
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


def for_method(
    method: str, assignments: list[str], *, target: str, draft: str | None, dtype: str, batch: int
) -> None:
    """Compile all that an engine of this method runs. Raises UserError, DecodeError."""
    from rich.progress import Progress

    from engine.engine import EngineConfig, build_engine
    from engine.registry import METHODS, parse_options
    from engine.sampling import Sampling
    from workbench.commands.flags import parse_assignments
    from workbench.models import load
    from workbench.terminal import err, say

    needed = [target, draft] if METHODS[method].needs_draft else [target]
    pair = [load(name, dtype=dtype, device="cpu") for name in filter(None, needed)]
    options = parse_options(method, parse_assignments(assignments))
    with Progress(console=err(), transient=True) as bar:
        task = bar.add_task(f"Compiling what {method} runs", total=1.0)
        build_engine(
            EngineConfig(
                method=method,
                options=options,
                sampling=Sampling(),
                batch=batch,
                execution="compiled",
                on_progress=lambda _, __, share: bar.update(task, completed=share or 0.0),
            ),
            target=pair[0],
            draft=pair[1] if len(pair) > 1 else None,
        )
    say(f"All that {method} runs is compiled.")
