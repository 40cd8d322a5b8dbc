"""The pages' scripts never read text as markup, load nothing from elsewhere, and carry only what they say they do."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

STATIC = Path(__file__).resolve().parents[2] / "fedtasks" / "airflow" / "pages" / "static"
OWN = sorted(
    path for path in STATIC.rglob("*") if path.suffix in (".js", ".css", ".html") and path.parent.name != "vendor"
)
SHELLS = [path for path in OWN if path.suffix == ".html"]
UPLOT = ["vendor/uPlot.min.css", "vendor/uPlot.iife.min.js"]
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


@pytest.mark.parametrize("path", SHELLS, ids=lambda path: path.name)
def test_shell_has_no_inline_script_or_style(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"<style|style=|\son\w+=|<script(?![^>]*src=)", text) == []


@pytest.mark.parametrize("path", SHELLS, ids=lambda path: path.name)
def test_shell_loads_the_styles_and_the_charts_that_its_scripts_use_and_no_others(path: Path) -> None:
    loaded = re.findall(r"static/([\w./]+)", path.read_text(encoding="utf-8"))
    scripts = "".join(each.read_text(encoding="utf-8") for each in imported(STATIC / loaded[-1]))
    used = set(re.findall(r"[\w-]+", "".join(re.findall(r"className: ([^,}]+)", scripts))))
    sheets = [name for name in loaded if name.endswith(".css") and not name.startswith("vendor/")]
    needed = [each.name for each in STATIC.glob("*.css") if used & classes(each) - classes(STATIC / "style.css")]
    assert sheets[0] == "style.css"
    assert sorted(sheets[1:]) == sorted(needed)
    assert [name for name in loaded if "uPlot" in name] == UPLOT * ("new uPlot(" in scripts)


def imported(script: Path) -> set[Path]:
    """Return a script and all that it imports."""
    found, left = set(), [script]
    while left:
        if (path := left.pop()) not in found:
            found.add(path)
            left += [(path.parent / name).resolve() for name in re.findall(r' from "(\..+?)";', path.read_text())]
    return found


def classes(sheet: Path) -> set[str]:
    """Return the classes that a sheet styles."""
    return set(re.findall(r"\.([a-z][\w-]*)(?=[^{}]*\{)", sheet.read_text(encoding="utf-8")))


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
