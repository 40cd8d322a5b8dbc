"""DAG files parsed by forks of one process that has imported Airflow, which takes longer than parsing does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

PARENT = """
import json, os, sys, traceback
import airflow.dag_processing.processor
from fedtasks.airflow import dagfiles

print("ready", flush=True)
for line in sys.stdin:
    arguments, environment, out, err = json.loads(line)
    child = os.fork()
    if child:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    code = 1
    try:
        os.environ.clear()
        os.environ.update(environment)
        for number, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), number)
        dagfiles.main(*arguments)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
"""


class ParsingForks:
    """Stands where `fedtasks.airflow.dagfiles` has `subprocess`."""

    TimeoutExpired = subprocess.TimeoutExpired

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="parsing-forks-")
        environment = {**os.environ, "AIRFLOW_HOME": self._folder.name}
        argv = [sys.executable, "-c", PARENT]
        self._parent = subprocess.Popen(argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._await("ready")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._parent.communicate(timeout=20)
        self._folder.cleanup()

    def run(self, argv: Sequence[str], env: Mapping[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        """Do what ``python -m fedtasks.airflow.dagfiles`` does with these arguments."""
        out, err = (Path(self._folder.name, name) for name in ("out", "err"))
        for file in (out, err):
            file.unlink(missing_ok=True)
        assert self._parent.stdin is not None
        interpreter, option, module, *arguments = argv
        assert (interpreter, option, module) == (sys.executable, "-m", "fedtasks.airflow.dagfiles")
        self._parent.stdin.write(json.dumps([arguments, dict(env), str(out), str(err)]) + "\n")
        self._parent.stdin.flush()
        code = int(self._await())
        return subprocess.CompletedProcess(argv, code, out.read_text("utf-8"), err.read_text("utf-8"))

    def _await(self, word: str = "") -> str:
        assert self._parent.stdout is not None
        for line in self._parent.stdout:
            if not word or line.strip() == word:
                return line
        raise AssertionError("the parent of the forks has ended")
