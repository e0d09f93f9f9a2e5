"""Text to train on: the Python standard library's own sources, some files held out.

Every installed Python carries these sources (PSF licence), so the recipe needs no download and
no data of its own. A file belongs to one split for ever: `is_held_out` looks only at its path.
"""

from __future__ import annotations

import hashlib
import logging
import random
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

logger = logging.getLogger(__name__)

HELD_OUT_SHARE = 0.02
"""Share of files held out by the hash of their path, beside `HELD_OUT_FILES`."""

HELD_OUT_FILES = frozenset(
    {
        "configparser.py",
        "fractions.py",
        "heapq.py",
        "html/parser.py",
        "http/cookies.py",
        "json/decoder.py",
        "json/encoder.py",
        "mailbox.py",
        "queue.py",
        "sched.py",
        "shelve.py",
        "shlex.py",
        "shutil.py",
        "statistics.py",
        "textwrap.py",
        "zipfile.py",
    }
)
"""Well-known modules, held out so that prompts can be cut from code that people recognise."""

_SKIPPED_PARTS = frozenset(
    {"site-packages", "dist-packages", "__pycache__", "pydoc_data", "bad", "bad_coding", "data"}
)
_MAX_DIGIT_SHARE = 0.2
_MIN_CHARACTERS = 64


class SourceFile(NamedTuple):
    """One file of the corpus."""

    path: str
    """Path inside the corpus, with forward slashes."""
    text: str

    @property
    def is_test(self) -> bool:
        """Whether the file belongs to a test suite rather than to the library."""
        return any(part in {"test", "tests", "idle_test"} for part in self.path.split("/"))


def is_held_out(path: str) -> bool:
    """Return whether the file at `path` is kept away from training; depends on nothing else."""
    if path in HELD_OUT_FILES:
        return True
    digest = hashlib.sha256(path.encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


def read_sources(texts: Sequence[Path]) -> list[SourceFile]:
    """Return the given texts as a corpus, or the standard library where none are given.

    Raises:
        ValueError: there is nothing to read.
    """
    return read_texts(texts) if texts else read_standard_library()


def read_standard_library(root: Path | None = None) -> list[SourceFile]:
    """Return the standard library's `.py` files, sorted by path.

    Left out: installed packages, files that are not UTF-8, deliberately broken test data, and
    generated tables (more than a fifth digits: codec maps and the like).

    Raises:
        ValueError: the folder holds no Python sources (some distributions ship bytecode only).
    """
    root = root or Path(sysconfig.get_path("stdlib"))
    files = []
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root).as_posix()
        if _SKIPPED_PARTS.isdisjoint(relative.split("/")[:-1]):
            file = _read(path, relative)
            if file is not None and not _is_table(file):
                files.append(file)
    if not files:
        raise ValueError(f"no Python sources under {root}; give text of your own with --text")
    return files


def read_texts(paths: Iterable[Path]) -> list[SourceFile]:
    """Return the given text files, and those below the given folders, as a corpus.

    Raises:
        ValueError: a path does not exist, or nothing readable was found.
    """
    files: list[SourceFile] = []
    for given in paths:
        if not given.exists():
            raise ValueError(f"no such file or folder: {given}")
        members = sorted(p for p in given.rglob("*") if p.is_file()) if given.is_dir() else [given]
        base = given if given.is_dir() else given.parent
        read = (_read(member, member.relative_to(base).as_posix()) for member in members)
        files.extend(file for file in read if file is not None)
    if not files:
        raise ValueError("the given files hold no UTF-8 text of any length")
    return files


class Split(NamedTuple):
    """A corpus in two disjoint parts."""

    train: list[SourceFile]
    held_out: list[SourceFile]


def split(files: Sequence[SourceFile]) -> Split:
    """Divide files by `is_held_out`; a small corpus gives up its last file if none was chosen.

    Raises:
        ValueError: fewer than two files, so that nothing could be held out.
    """
    if len(files) < 2:
        raise ValueError(f"{len(files)} file to train on; at least 2 are needed to hold one out")
    held_out = [file for file in files if is_held_out(file.path)] or [files[-1]]
    chosen = {file.path for file in held_out}
    texts = {file.text for file in held_out}
    train = [file for file in files if file.path not in chosen and file.text not in texts]
    return Split(train, held_out)


def shuffled(files: Sequence[SourceFile], *, seed: int) -> list[SourceFile]:
    """Return the files in an order that depends on `seed` alone."""
    files = list(files)
    random.Random(seed).shuffle(files)
    return files


def _read(path: Path, relative: str) -> SourceFile | None:
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        logger.debug("skipped %s: not UTF-8", path)
        return None
    text = text.replace("\r\n", "\n")
    return SourceFile(relative, text) if len(text) >= _MIN_CHARACTERS else None


def _is_table(file: SourceFile) -> bool:
    """Whether a file is a generated table, such as a codec's map, rather than written code."""
    if file.path.startswith(("encodings/cp", "encodings/mac_", "encodings/iso", "encodings/koi")):
        return True
    digits = sum(character.isdigit() for character in file.text)
    return digits > _MAX_DIGIT_SHARE * len(file.text)
