"""Generate docs/errors.md from the error registry; run by `make docs`."""

from __future__ import annotations

from itertools import groupby

from generated import keep, table

from fedtasks.errors import FedtasksError, leaves

HEAD = """\
# Errors

Generated from `fedtasks/errors/` by `make docs`; do not edit.

The same code and words appear in the log, on the command line, in the DAG run's note and on the wire. The peer sees the
code, the summary and named facts that are safe to show; never files, columns, rows or secrets.

*Who* must act: `own`, the party at which the error came up; `peer`, the other one; `both`; `grantor` or `holder` of the
ticket; `nobody`. Where names are known, they stand in place of `{own}`, `{peer}`, `{grantor}` and `{holder}`.
*Retry*: whether trying again can help.
"""


def _family(leaf: type[FedtasksError]) -> type[FedtasksError]:
    return leaf.__mro__[leaf.__mro__.index(FedtasksError) - 1]


def render() -> str:
    """Return the page."""
    parts = [HEAD]
    for family, members in groupby(leaves(), _family):
        parts.append(f"\n## {family.__name__}\n\n{(family.__doc__ or '').splitlines()[0]}\n\n")
        parts.append(table(("Code", "What", "Who", "Retry", "Remedy"), map(_row, members)))
    return "".join(parts)


def _row(leaf: type[FedtasksError]) -> tuple[str, ...]:
    return f"`{leaf.code}`", leaf.summary, leaf.who, "yes" if leaf.retryable else "no", leaf.remedy


if __name__ == "__main__":
    keep({"errors.md": render()})
