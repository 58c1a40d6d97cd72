"""Text from elsewhere, made harmless for a terminal.

What receivers answer can hold escape sequences, line breaks and characters that turn the line
around. They are shown as JSON writes them (`\\u001b`), so that a JSON document stays the document
that it was.
"""

from __future__ import annotations

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escape(text: str, keep: str = "") -> str:
    """`text` with every character that is not plainly visible written out.

    Args:
        text: anything.
        keep: characters that stay as they are, such as the line break in a text of many lines.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _SHORT.get(c) or code(c) for c in text)


def code(character: str) -> str:
    """The character as JSON escapes it, a pair of surrogates where one unit does not hold it."""
    point = ord(character)
    if point < 0x10000:
        return f"\\u{point:04x}"
    point -= 0x10000
    return f"\\u{0xD800 + (point >> 10):04x}\\u{0xDC00 + (point & 0x3FF):04x}"


def body_lines(body: str) -> list[str]:
    """A text of many lines, each made harmless; tabs stay."""
    return escape(body.replace("\r\n", "\n"), keep="\n\t").split("\n")


def cut(text: str, width: int) -> str:
    """`text`, or its beginning and an ellipsis, in at most `width` characters."""
    return text if len(text) <= width else text[: width - 1] + "…"


def cut_middle(text: str, width: int) -> str:
    """`text`, or its beginning, an ellipsis and its end, in at most `width` characters."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return text[: width - 1 - tail] + "…" + (text[-tail:] if tail else "")


def wrap(text: str, width: int | None) -> list[str]:
    """`text` in lines of at most `width` characters, broken between words where that is possible.

    No width means one line, however long.
    """
    if width is None or len(text) <= width:
        return [text]
    lines = [""]
    for word in text.split(" "):
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if len(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        lines[-1:] = [word[at : at + width] for at in range(0, len(word), width)]
    return lines
