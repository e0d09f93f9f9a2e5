"""Subcommands of `draftree`."""
