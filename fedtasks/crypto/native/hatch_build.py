"""Lets the package's build compile the C kernels; without a compiler the package is built without them."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class KernelBuildHook(BuildHookInterface[Any]):  # type: ignore[misc, unused-ignore]
    """Adds the library to wheels, and to the source folder for an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before files are collected."""
        # The build finds this file by its path, so its neighbour is no module of a package here.
        compiler = runpy.run_path(str(Path(__file__).with_name("compiler.py")))
        try:
            compiler["compile_library"]()
        except FileNotFoundError as error:
            print(f"fedtasks: built without native kernels: {error}", file=sys.stderr)
        except subprocess.CalledProcessError as error:
            print(f"fedtasks: built without native kernels:\n{error.stderr}", file=sys.stderr)
        else:
            # The library needs no Python, only the platform that it was compiled for.
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{re.sub('[-.]', '_', sysconfig.get_platform())}"
            library = Path(compiler["LIBRARY"]).relative_to(self.root)
            build_data["artifacts"].append(str(library))
