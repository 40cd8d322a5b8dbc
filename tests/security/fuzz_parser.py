"""One parser that a peer reaches, run by libFuzzer: ``fuzz_parser.py NAME CORPUS [libFuzzer's options]``.

Inputs grow from the corpus by what they cover of this package's code. Errors of the registry are what a parser may
raise; anything else is a crash, whose input is kept in the corpus' folder.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

with atheris.instrument_imports(include=["fedtasks", "yaml", "jwt"]):
    from fedtasks.errors import FedtasksError
    from tests.support.parsers import PARSERS


def main() -> None:
    name, corpus, *options = sys.argv[1:]
    parse = PARSERS[name].prepare()

    def once(data: bytes) -> None:
        with suppress(FedtasksError):
            parse(data)

    atheris.Setup([sys.argv[0], *options, corpus], once)
    atheris.Fuzz()


main()
