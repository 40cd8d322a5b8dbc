"""What parties, datasets, columns and partitions may be called."""

from __future__ import annotations

import re

from fedtasks.dataclass_io import check_text, shown
from fedtasks.errors import ConfigError
from fedtasks.names import OWN

NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
"""What parties, datasets, DAGs and tasks may be called: short, lower case, safe in paths and pages."""

PIPELINE = re.compile(rf"{NAME.pattern}(\.{NAME.pattern})?")
"""What a pipeline is called: as its DAG is, and after a dot which run of it, where the DAG holds several."""

PARTITION = "{partition}"
"""Stands in a dataset's URI for the key of a partition."""

MAX_PARTITION = 64
"""How long the key of a partition may be."""

MAX_FEATURE, MAX_COLUMN = 128, 1000
"""How many characters the name of a feature may have, which tickets and models hold, and that of a file's column."""

# ASCII alone: the metadata of a stream carries nothing else.
_PARTITION = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_PARTITION}}}")

CUT = re.compile(rf"(?P<stream>{NAME.pattern})@(?P<numbers>[0-9]{{1,18}}(\.[0-9]{{1,18}}){{0,1023}})")
"""How much of a joined stream somebody has: how many commits of each shard, as ``clicks@12.9.14``."""


def check_name(value: str, field_name: str) -> None:
    """Raise `ConfigError` unless `value` is a plain name."""
    if not NAME.fullmatch(value):
        raise ConfigError(
            f"`{shown(value)}` is not a name: a lower-case letter, then at most 31 letters, digits, `_` or `-`",
            field=field_name,
        )


def check_pipeline(value: str, field_name: str) -> None:
    """Raise `ConfigError` unless `value` names a pipeline."""
    if not PIPELINE.fullmatch(value):
        text = f"`{shown(value)}` names no pipeline: write `dag`, or `dag.run` for one run of a DAG that holds several"
        raise ConfigError(text, field=field_name)


def check_column(name: str, field_name: str, most: int = MAX_COLUMN) -> None:
    """Raise `ConfigError` unless a column may be called so: anything that can be shown, but like the product's own."""
    if not name:
        raise ConfigError("the name of a column is empty; write it as the file's header does", field=field_name)
    if name.casefold().startswith(OWN):
        text = f"`{shown(name)}` begins with `{OWN}`, as only the product's own columns do; rename the column"
        raise ConfigError(text, field=field_name)
    if most < len(name) <= MAX_COLUMN:
        remedy = "give it a short name here and say in `columns` what the file calls it"
        raise ConfigError(f"`{shown(name)}` is longer than {most} characters; {remedy}", field=field_name)
    check_text(name, field_name, MAX_COLUMN)


def check_partition(partition: str) -> None:
    """Raise `ConfigError` unless a partition's key is plain."""
    if not _PARTITION.fullmatch(partition):
        text = f"a partition is 1–{MAX_PARTITION} of the letters A–Z and a–z, digits, `-` or `_`, such as 2026-11-21"
        raise ConfigError(text, field="partition")


def check_learnt(name: str) -> None:
    """Raise `ConfigError` unless a model can have learnt from what is called so: a partition, or joined commits."""
    if not CUT.fullmatch(name):
        check_partition(name)
