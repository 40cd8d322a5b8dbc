"""Texts from elsewhere, made fit to be shown.

A sign may be shown if Python calls it printable: no control characters, no line breaks, no halves of surrogate pairs,
and none that are invisible or turn the direction of what follows.
"""

from __future__ import annotations

MAX_TEXT = 500
"""How long a text may be that a person writes for others to read: a reason, an explanation."""


def plain_text(text: str, limit: int = MAX_TEXT) -> str:
    """Keep what may be shown of a text from elsewhere: printable, on one line, at most `limit` characters.

    Notes
    -----
    Cost: grows with `limit`, however long the text is.
    """
    return printable(shortened(text, limit))


def printable(text: str) -> str:
    """Put a space in place of each sign that may not be shown."""
    return text if text.isprintable() else "".join(sign if sign.isprintable() else " " for sign in text)


def shortened(text: str, limit: int, see: str = "") -> str:
    """Cut a text to at most `limit` characters, visibly.

    Parameters
    ----------
    see
        Where all of it is to be seen.

    Returns
    -------
    str
        The text, or its beginning with a mark that says how much is missing; an ellipsis alone where `limit` has no
        room for that.
    """
    if len(text) <= limit:
        return text
    ending = f"; all of it: {see}" if see else ""
    kept = limit - len(f"… {len(text):,} more characters{ending}")
    if kept < limit // 4:
        return f"{text[: limit - 1]}…"
    return f"{text[:kept]}… {len(text) - kept:,} more characters{ending}"
