"""Errors meant for people: what was wrong, the value, what to do."""


class UserError(ValueError):
    """Wrong input: a path, an option, a prompt. The command line exits with 2."""


class DecodeError(RuntimeError):
    """A run that started well and could not go on (NaN logits, say). Exit code 1."""
