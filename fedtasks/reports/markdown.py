"""Texts from elsewhere inside Markdown: they stay text."""

from __future__ import annotations

import re

# An underscore inside a word is no markup, and names stay readable without a backslash.
_MARKUP = re.compile(r"([\\`*{}\[\]<>()#+!|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
_LINK = re.compile(r"(?i)(://|\bwww(?=\.))")


def escape(text: str) -> str:
    """Make a text harmless inside Markdown; what a page would turn into a link by itself is pulled apart."""
    return _MARKUP.sub(r"\\\1", _LINK.sub(r" \1 ", text))
