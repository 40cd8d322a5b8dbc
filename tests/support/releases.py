"""A copy of this release, changed as the next one might be, to run as the other party's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

VERSION = "99.1.0"
_ROOT = Path(__file__).resolve().parents[2]


def next_release(folder: Path, *, protocols: tuple[int, int]) -> Path:
    """Write a release with one setting more, and one message more that it sends from its highest protocol on.

    Parameters
    ----------
    folder
        Where it is written; what runs with this as PYTHONPATH is of that release.
    protocols
        The versions of the gateways' protocol that it speaks.
    """
    for name in ("fedtasks", "protos"):
        shutil.copytree(_ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    package = folder / "fedtasks"
    _change(package / "__init__.py", f'__version__ = "{_version()}"', f'__version__ = "{VERSION}"')
    # The setting.
    settings = package / "psi" / "settings.py"
    before = "    min_intersection: int ="
    _change(settings, before, f"    novelty: int = within(0, 0, 9)\n{before}")
    # The message, and who sends it.
    proto = folder / "protos" / "fedtasks" / "v1" / "peer.proto"
    _change(proto, "message Done {}", "message Done {}\n\nmessage News {\n  string what = 1;\n}")
    _change(proto, "    Done done = 8;", "    Done done = 8;\n    News news = 999;")
    stream = package / "gateway" / "control_stream.py"
    _change(stream, "PROTOCOL_MIN, PROTOCOL_MAX = 3, 5", f"PROTOCOL_MIN, PROTOCOL_MAX = {protocols}")
    sends = """        if self.protocol >= PROTOCOL_MAX:
            self._news = asyncio.create_task(self.request(news=peer_pb2.News(what="all is well")))
"""
    _change(stream, "        self._connected()\n", f"        self._connected()\n{sends}")
    service = package / "gateway" / "peer_service.py"
    _change(
        service,
        '            case "landed":',
        '            case "news":\n                pass\n            case "landed":',
    )
    subprocess.run([sys.executable, str(folder / "protos" / "generate.py")], env=environment(folder), check=True)
    return folder


def environment(release: Path) -> dict[str, str]:
    """Return the environment of what is of another release."""
    return os.environ | {"PYTHONPATH": str(release)}


def _version() -> str:
    from fedtasks import __version__

    return __version__


def _change(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{file}: {old}"
    file.write_text(text.replace(old, new), encoding="utf-8")
