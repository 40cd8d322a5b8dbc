"""Generate `fedtasks/wire/v1` from `protos/fedtasks/v1`; run by `make protos`."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
TARGET = ROOT.parent / "fedtasks" / "wire" / "v1"


def generate(target: Path) -> None:
    """Write the stubs into `target`, importable as ``fedtasks.wire.v1``."""
    sources = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
        includes = [f"-I{ROOT}", f"-I{files('grpc_tools') / '_proto'}"]
        if protoc.main(["protoc", *includes, *outputs, *sources]) != 0:
            sys.exit("protoc failed")
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        (target / "__init__.py").write_text('"""Generated from `protos/fedtasks/v1`; do not edit."""\n')
        for path in sorted((Path(folder) / "fedtasks" / "v1").iterdir()):
            text = re.sub(r"\bfrom fedtasks\.v1 import", "from fedtasks.wire.v1 import", path.read_text())
            if path.name.endswith("_pb2_grpc.py") and "Stub" not in text:
                continue  # no service in this file
            (target / path.name).write_text(text)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET)
