"""Tables and queries of a database as datasets: which rows they are, and how they are reached."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from fedtasks.config.names import check_column
from fedtasks.dataclass_io import check_limits, shown, within
from fedtasks.errors import ConfigError

_SCHEME = "postgresql://"
_PARTITION = re.compile(r"(?<![:\w]):partition\b")


@dataclass(frozen=True)
class Sql:
    """Which rows of a PostgreSQL database a dataset has; its `uri` is the database's URL, without a password.

    Parameters
    ----------
    table
        The table or view, if need be with its schema: ``sales.customers``.
    query
        In place of `table`: a SELECT. If it names ``:partition``, the dataset grows by partitions, each of which has
        the rows that the query gives for its key.
    key
        A column of whole numbers, by whose ranges several readers share the rows; without it there is one reader.
    readers
        How many of them read side by side, each over a connection of its own.
    password_file
        File that holds the password.
    copies
        Folder for the copies of its partitions; by default ``tables/<name of the dataset>`` below `storage`.
    """

    table: str = ""
    query: str = ""
    key: str = ""
    readers: int = within(4, least=1, most=32)
    password_file: Path | None = None
    copies: str = ""

    def __post_init__(self) -> None:
        check_limits(self)
        if bool(self.table) == bool(self.query):
            raise ConfigError("name a table or view in `table`, or write a SELECT in `query`", field="table")
        if self.key:
            check_column(self.key, "key")
        if not all(self.table.split(".")) and self.table:
            raise ConfigError(f"`{shown(self.table)}` is not `table` or `schema.table`", field="table")

    @property
    def is_partitioned(self) -> bool:
        """Whether the query is one of partitions."""
        return _PARTITION.search(self.query) is not None

    def rows_of(self, partition: str = "") -> str:
        """Return what stands behind FROM: all rows, or those of a partition, the key of which is a plain one."""
        if self.table:
            return ".".join(map(quoted, self.table.split(".")))
        text = _PARTITION.sub(lambda _: f"'{partition}'", self.query)
        # A line of its own: the query may end in a comment.
        return f"({text.strip().rstrip(';')}\n) AS rows"


def quoted(name: str) -> str:
    """Return the name of a column or table as SQL writes it, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def is_database(uri: str) -> bool:
    """Whether a URI names a database."""
    return uri.startswith(_SCHEME)


def check_database(url: str, field: str) -> None:
    """Raise `ConfigError` where a database's URL holds its password, which belongs into a file."""
    parts = urlsplit(url)
    if parts.password is not None or "password" in parse_qs(parts.query):
        raise ConfigError("put the password into a file and name it in `password_file`", field=field)


def remote_host(url: str) -> str:
    """Return the host, or hosts, of a database that is reached over the network; empty for SQLite and for a socket."""
    parts = urlsplit(url)
    if not parts.scheme.startswith("postgresql"):
        return ""
    address, options = parts.netloc.rpartition("@")[2], parse_qs(parts.query)
    host = options.get("host", [address if "," in address else parts.hostname or ""])[-1]
    return options.get("hostaddr", ["" if host.startswith("/") else host])[-1]


def tls_mode(url: str) -> str:
    """Return the ``sslmode`` that a database's URL names, if it does."""
    return parse_qs(urlsplit(url).query).get("sslmode", [""])[-1]
