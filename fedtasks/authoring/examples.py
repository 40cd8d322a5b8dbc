"""Files that come with fedtasks: pipelines to begin with, and jobs for whoever starts Spark by ``spark-submit``."""

from __future__ import annotations

import ast
from pathlib import Path

from fedtasks import private
from fedtasks.errors import ConfigError
from fedtasks.setup.shipped import shipped_folder


def example_files(sort: str) -> list[Path]:
    """Return the files of one sort, by name.

    Parameters
    ----------
    sort
        `DAGS` or `JOBS` of `fedtasks.setup.shipped`.
    """
    return sorted(shipped_folder(sort).glob("*.py"))


def summary(file: Path) -> str:
    """Return the first sentence of what a file says of itself."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split())


def copy_examples(sort: str, folder: Path) -> list[Path]:
    """Copy the files of one sort into a folder, which is made if it is not there.

    Raises
    ------
    ConfigError
        A file of that name is there already; nothing was copied.
    """
    targets = {folder / file.name: file for file in example_files(sort)}
    for target in targets:
        if target.exists():
            raise ConfigError("the file is there already; choose another folder", where=str(target), field="folder")
    private.make_folders(folder, private.SHARED)
    for target, file in targets.items():
        target.write_bytes(file.read_bytes())
        private.share(target)
    return list(targets)
