"""A corpus of a few hundred lines and recipes of seconds."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from engine.training.corpus import SourceFile, Split
from engine.training.prepare import Prepared, prepare


def _source(seed: int) -> str:
    """Return code that is regular enough for a tiny model to learn in a second."""
    choose = random.Random(seed).choice
    names = ["value", "index", "total", "width", "result"]
    functions = []
    for number in range(12):
        a, b = choose(names), choose(names)
        functions.append(
            f"def function_{number}(self, {a}):\n"
            f'    """Return the {a} as a {b}."""\n'
            f"    if {a} is None:\n        raise ValueError({a!r})\n"
            f"    self.{b} = {a} + 1\n    return self.{b}\n"
        )
    return "\n\n".join(functions)


@pytest.fixture(scope="session")
def tiny_split() -> Split:
    """Eight files to train on and two held out."""
    files = [SourceFile(f"module_{i}.py", _source(i)) for i in range(10)]
    return Split(files[:8], files[8:])


@pytest.fixture(scope="session")
def tiny(tiny_split: Split, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The tiny corpus, encoded."""
    folder: Path = tmp_path_factory.mktemp("prepared")
    return prepare(tiny_split, work_dir=folder, vocab_size=320, context=128)
