"""Compiles the C kernels into one shared library; needs nothing but a C compiler and the standard library."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
LIBRARY = FOLDER / "kernels.so"

_FLAGS = ("-std=c11", "-O3", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra")
_LIBRARIES = ("-ldl", "-lpthread")


def find_compiler() -> str | None:
    """Return the C compiler: what `CC` names, else the usual ones."""
    names = [shlex.split(os.environ["CC"])[0]] if os.environ.get("CC") else ["cc", "gcc", "clang"]
    return next((found for name in names if (found := shutil.which(name))), None)


def compile_library(target: Path = LIBRARY, flags: Sequence[str] = ()) -> None:
    """Compile every source of this folder into `target`, which is replaced in one step.

    Raises
    ------
    FileNotFoundError
        There is no C compiler.
    subprocess.CalledProcessError
        It refuses the sources; `stderr` says why.
    """
    compiler = find_compiler()
    if compiler is None:
        raise FileNotFoundError("no C compiler on the path; set CC")
    sources = sorted(str(path) for path in FOLDER.glob("*.c"))
    made = target.with_name(f".{target.name}.{os.getpid()}")
    command = [compiler, *_FLAGS, *flags, "-o", str(made), *sources, *_LIBRARIES]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
        made.replace(target)
    finally:
        made.unlink(missing_ok=True)


if __name__ == "__main__":
    compile_library(flags=sys.argv[1:])
