"""Writes party.yaml and adds to it as a careful person would: comments stay, and what does not load is never kept."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import yaml

from fedtasks import durable
from fedtasks.config import load_party
from fedtasks.dataclass_io import compose_yaml, parse_yaml
from fedtasks.errors import ConfigError

TEMPLATE = """\
# Everything that {name} says about itself. Paths are relative to this file; `fedtasks doctor` checks all of it.
# Every field: docs/party-yaml.md
name: {name}

gateway:
  # Where this party's workers reach the gateway: a socket on this machine, or host:port (TLS) from others too.
  workers: {workers}
  # Where peers reach the gateway. Without it, this party dials and the peer needs an open port.
  {listen}
  # Where their busy sessions go on, at a fifth of the CPU: a second open port beside `listen`.
  # tunnels: 0.0.0.0:7401
  certificate: keys/gateway.pem
  private_key: keys/gateway.key
  authority: keys/authority.pem
  ticket_key: keys/ticket.key
  worker_secret_file: keys/worker.secret

# The Airflow of this party, as its gateway reaches it. The password stands in a file of its own, mode 600; instead of
# both, `client_id` with `client_secret_file`, or `token_file` alone.
airflow:
  url: {airflow_url}
  user: {airflow_user}
  password_file: {airflow_password_file}

# Where state lives: SQLite, or postgresql://user@host/database with a password_file.
store:
  url: sqlite:///store.db

# Where runs write: a folder, file:// or hdfs://.
storage: storage

# How jobs run. On one machine nothing is needed; on a cluster, `storage` is its HDFS and these lines name its master.
# spark:
#   master: spark://master.example:7077

# The other parties; `fedtasks peer add CARD` writes here.
peers: []

# Pipelines that this side starts by their schedule; the other side only answers.
# schedules: [offline_psi]

# The tables that tickets may name. `label` only at the party that holds it.
datasets: []
#  - name: customers
#    uri: data/customers.parquet
#    format: parquet
#    id: customer_id
#    id_type: string
#    normalise: [trim, nfc]
#    features: {{age: numeric, region: categorical}}
#    label: repaid
#    label_positive: "1"
"""


def render(
    name: str,
    *,
    listen: str | None,
    workers: str,
    airflow_url: str,
    airflow_user: str,
    airflow_password_file: str,
) -> str:
    """Return the text of a new party.yaml."""
    return TEMPLATE.format(
        name=name,
        listen=f"listen: {scalar(listen)}" if listen else "# listen: 0.0.0.0:7400",
        workers=scalar(workers),
        airflow_url=scalar(airflow_url),
        airflow_user=scalar(airflow_user),
        airflow_password_file=scalar(airflow_password_file),
    )


def scalar(text: str) -> str:
    """Write a text as YAML, quoted only where it would be read as something else."""
    return text if _reads_as_itself(text) else json.dumps(text, ensure_ascii=False)


def _reads_as_itself(text: str) -> bool:
    if any(sign in text for sign in "#\n'\"{}[],&*!|>%@`"):
        return False
    try:
        return bool(parse_yaml(text, "")[0] == text)
    except ConfigError:
        return False


def replace_checked(file: Path, text: str) -> None:
    """Replace party.yaml by `text` if that loads, else leave it as it was.

    Raises
    ------
    ConfigError
        The new text would not load; names the line in it.
    """
    mode = file.stat().st_mode & 0o777 if file.exists() else 0o600
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        partial.chmod(mode)
        load_party(partial)
        durable.replace(partial, file)
        durable.sync(file.parent)
    except ConfigError as error:
        raise ConfigError(error.detail, where=error.where.replace(str(partial), str(file))) from error
    finally:
        partial.unlink(missing_ok=True)


def with_peer(text: str, where: Path, peer: dict[str, str]) -> str:
    """Return the text of party.yaml with one more peer at the end of its list.

    Raises
    ------
    ConfigError
        The list is written on one line, where adding would lose its form.
    """
    node = _value(text, "peers")
    if node is None:
        return f"{text.rstrip()}\n\npeers:\n{_item(peer, 2)}"
    lines = text.splitlines(keepends=True)
    if isinstance(node, yaml.SequenceNode) and node.value and not node.flow_style:
        after = _last_line(node) + 1
        if not lines[after - 1].endswith("\n"):
            lines[after - 1] += "\n"
        return "".join((*lines[:after], _item(peer, node.start_mark.column), *lines[after:]))
    if isinstance(node, yaml.SequenceNode) and node.value:
        place = f"{where}:{node.start_mark.line + 1}"
        raise ConfigError("write `peers` as a list with one `-` for each peer, then add again", where=place)
    # `peers: []` or `peers:` with nothing behind it.
    start, end = node.start_mark.index, node.end_mark.index
    head, tail = text[:start].rstrip(" "), text[end:].removeprefix(" ")
    return f"{head}\n{_item(peer, 2)}{tail.removeprefix(chr(10))}"


def with_field(text: str, name: str, value: str) -> str:
    """Return the text of party.yaml with one more field at its end."""
    return f"{text.rstrip()}\n\n{name}: {scalar(value)}\n"


def _value(text: str, name: str) -> yaml.Node | None:
    root = compose_yaml(text, "party.yaml")
    if isinstance(root, yaml.MappingNode):
        for key, value in root.value:
            if key.value == name and isinstance(value, yaml.Node):
                return value
    return None


def _last_line(node: yaml.Node) -> int:
    """Line of a block's last scalar; the block's own end lies behind the comments that follow it."""
    if isinstance(node, yaml.SequenceNode) and node.value and not node.flow_style:
        return _last_line(node.value[-1])
    if isinstance(node, yaml.MappingNode) and node.value and not node.flow_style:
        return _last_line(node.value[-1][1])
    mark = node.end_mark
    # A block scalar ends at the start of the line behind it.
    return mark.line - 1 if mark.column == 0 and mark.line > node.start_mark.line else mark.line


def _item(peer: dict[str, str], indent: int) -> str:
    pairs = [f"{name}: {scalar(value)}" for name, value in peer.items()]
    return "".join(f"{' ' * indent}{'  ' if number else '- '}{pair}\n" for number, pair in enumerate(pairs))
