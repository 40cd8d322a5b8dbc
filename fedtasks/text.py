"""Texts from elsewhere, made fit to be shown."""

from __future__ import annotations

MAX_TEXT = 500


def plain_text(text: str, limit: int = MAX_TEXT) -> str:
    """Keep what may be shown of a text from elsewhere: printable, on one line, at most `limit` characters."""
    return "".join(sign if sign.isprintable() else " " for sign in text)[:limit]
