"""Text of models and prompts is hostile until it has passed through here."""

from __future__ import annotations

import re
import unicodedata

_RUN_OF_DOTS = re.compile(r"·{5,}")
_KEPT_CONTROLS = "\n\t"


def safe_text(text: str) -> str:
    """Keep line breaks and tabs; spell out other control, direction and unpaired characters.

    Escape sequences, bidirectional overrides and zero-width characters could otherwise reorder or
    hide what stands around them. Markup needs no care here: pages set text, never HTML.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_spelled(char) for char in text)


def node_label(piece: str, *, most: int = 13) -> str:
    """One line of at most `most` characters for the box of a node; long indents are counted."""
    label = safe_text(piece).replace("\n", "\\n").replace("\t", "\\t").replace(" ", "·")
    label = _RUN_OF_DOTS.sub(lambda run: f"·×{len(run.group())}", label)
    return label if len(label) <= most else label[: most - 1] + "…"


def _spelled(char: str) -> str:
    if char in _KEPT_CONTROLS:
        return char
    category = unicodedata.category(char)
    if category in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        code = ord(char)
        return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    return char
