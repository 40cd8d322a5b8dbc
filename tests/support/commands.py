"""Commands of a test's parties."""

from __future__ import annotations

import json
from typing import Any

from tests.support.command_line import invoke
from tests.support.gateways import Member


def command(member: Member, *arguments: str, expect: int = 0) -> str:
    done = invoke(*arguments, "--party", str(member.folder / "party.yaml"))
    assert done.exit_code == expect, done.output
    return str(done.stdout)


def listed(member: Member, *arguments: str) -> Any:
    return json.loads(command(member, *arguments, "--json"))
