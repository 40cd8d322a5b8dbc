"""The pages' scripts never read text as markup, load nothing from elsewhere, and carry only what they say they do."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

STATIC = Path(__file__).resolve().parents[2] / "fedtasks" / "airflow" / "pages" / "static"
OWN = sorted(path for path in STATIC.iterdir() if path.suffix in (".js", ".css", ".html"))
FORBIDDEN = (
    "innerHTML",
    "outerHTML",
    "insertAdjacentHTML",
    "document.write",
    "eval(",
    "new Function",
    "cssText",
    "http:",
)


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_file_of_a_page_reads_no_markup_and_loads_nothing_from_elsewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert [word for word in (*FORBIDDEN, "https:", "//cdn") if word in text] == []


@pytest.mark.parametrize("path", [path for path in OWN if path.suffix == ".html"], ids=lambda path: path.name)
def test_shell_has_no_inline_script_or_style(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"<style|style=|\son\w+=|<script(?![^>]*src=)", text) == []


def test_vendored_files_are_those_whose_digests_are_noted() -> None:
    noted = re.findall(
        r"^\| `(\S+)` \| `([0-9a-f]{64})` \|$", (STATIC / "vendor" / "uPlot.md").read_text(), re.MULTILINE
    )
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (STATIC / "vendor").iterdir()
        if path.suffix in (".js", ".css")
    }
    assert dict(noted) == found
