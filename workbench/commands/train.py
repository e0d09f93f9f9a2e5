"""`draftree train`: make models. The work is done in `engine.training`."""

from __future__ import annotations

import logging

import typer

from workbench.commands.train_bytes import train_bytes
from workbench.commands.train_heads import command as train_head_command
from workbench.commands.train_ngram import ngram
from workbench.commands.train_pair import pair

train_app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Train a model pair of your own, a draft of bytes, the n-gram stage, or a target's heads.",
)

train_app.command("pair")(pair)
train_app.command("bytes")(train_bytes)
train_app.command("ngram")(ngram)
for kind in ("medusa", "kangaroo", "eagle"):
    train_app.command(kind)(train_head_command(kind))

logging.getLogger("engine.training").addHandler(logging.NullHandler())
