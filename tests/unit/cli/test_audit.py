from __future__ import annotations

import stat
from pathlib import Path

from fedtasks.tickets import generate_ticket_key, public_text
from tests.support.command_line import Run


def test_audit_is_exported_once_and_verified_without_the_party(
    met: tuple[str, str], ticket_id: str, run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "shop.audit.jsonl"
    told = run("audit", "export", str(file), "--json", "--party", met[1]).json()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert told["lines"] == len(file.read_text().splitlines())
    assert "cannot be written" in run("audit", "export", str(file), "--party", met[1], expect=1).err
    found = run("audit", "verify", str(file), "--key", told["key"], "--json", "--party", "none.yaml").json()
    assert {each["verdict"] for each in found} == {"ok"}
    wrong = f"shop={public_text(generate_ticket_key())}"
    assert f"line {told['lines']}" in run("audit", "verify", str(file), "--key", wrong, expect=1).out


def test_audit_is_not_verified_without_a_key_or_a_file(met: tuple[str, str], run: Run) -> None:
    run("audit", "export", "audit.jsonl", "--party", met[1])
    assert "NAME=KEY" in run("audit", "verify", "audit.jsonl", expect=1).err
    assert "name its file" in run("audit", "verify", "--key", "shop=x", "--party", met[1], expect=1).err
    key = f"shop={public_text(generate_ticket_key())}"
    assert run("audit", "verify", "none.jsonl", "--key", key, expect=None).code != 0
