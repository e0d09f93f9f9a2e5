"""Tokens as text: increments that never cut a character, and pieces with visible whitespace."""

from __future__ import annotations

from typing import Any

REPLACEMENT = "\ufffd"
#: tokens decoded together, so that a tokenizer's joining rules see their left neighbours
WINDOW = 8


class IncrementalText:
    """Decodes a growing token sequence; text appears once its characters are complete."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._shown = ""  # text of the window that was already given out

    def add(self, token_ids: list[int]) -> list[str]:
        """The text each token adds: empty while a character is incomplete."""
        return [self._add(token) for token in token_ids]

    def _add(self, token: int) -> str:
        self._window.append(token)
        text = self._decode(self._window)
        if text.endswith(REPLACEMENT) and len(self._window) < 4 * WINDOW:
            return ""
        increment = text[len(self._shown) :]
        self._shown = text
        if len(self._window) > WINDOW:
            self._window = self._window[-WINDOW // 2 :]
            self._shown = self._decode(self._window)
        return increment

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )


def decode(tokenizer: Any, ids: list[int]) -> str:
    """The text of whole output, special tokens left out."""
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def visible_piece(tokenizer: Any, token_id: int) -> str:
    """One token for the eye: `·` for a space, escapes for control characters, bytes as <0x..>."""
    text = tokenizer.decode([token_id], clean_up_tokenization_spaces=False)
    if REPLACEMENT in text or not text:
        raw = tokenizer.convert_ids_to_tokens(token_id)
        text = raw if raw is not None else f"<{token_id}>"
        if REPLACEMENT not in text and len(text) <= 4 and not text.isascii():
            text = "".join(_byte_name(char) for char in text)
        return text
    return "".join(_visible(char) for char in text)


def _visible(char: str) -> str:
    named = {" ": "·", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    if char in named:
        return named[char]
    return char if char.isprintable() else f"\\u{ord(char):04x}"


def _byte_table() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes: how byte-level tokenizers name cut characters."""
    direct = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in direct]
    table = {chr(byte): byte for byte in direct}
    return table | {chr(256 + i): byte for i, byte in enumerate(rest)}


_BYTES = _byte_table()


def _byte_name(char: str) -> str:
    return f"<0x{_BYTES[char]:02X}>" if char in _BYTES else char
