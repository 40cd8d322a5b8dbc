"""Generate the example of docs/data-check.md: what `fedtasks doctor --data` says of a messy data set.

Run by `make docs`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from generated import keep, table, with_part

from fedtasks.checks import Finding
from fedtasks.doctor import examine_data

PARTY = """\
name: bank
gateway:
  certificate: none
  private_key: none
  authority: none
  ticket_key: none
  worker_secret_file: none
airflow: {url: "http://127.0.0.1:8080", user: fedtasks, password_file: none}
storage: storage
datasets:
  - name: loans
    uri: loans.parquet
    id: phone
    features:
      income: numeric
      age: numeric
      amount: numeric
      year_built: numeric
      currency: categorical
      employer: numeric
      housing: categorical
      zip: categorical
      remark: categorical
      ratio: numeric
    label: outcome
    label_positive: bad
  - name: members
    uri: members.csv
    format: csv
    id: member
    features: {visits: numeric}
"""

ROWS = 5000


def write(folder: Path) -> Path:
    """Write two messy data sets and the party.yaml that declares them; returns its place."""
    row = np.arange(ROWS)
    spread = row * 7919 % ROWS  # every number below ROWS once, in no order that one sees
    phones = [f"{13_800_000_000 + number}" for number in spread]
    phones[:50] = [f"{phone}.0" for phone in phones[:50]]
    phones[50:75] = [f"\ufeff{phone}" for phone in phones[50:75]]
    phones[75:175] = phones[175:275]
    loans = {
        "phone": phones,
        "income": np.where(spread % 24 == 0, -999, 12 + spread * 19),
        "age": 18 + spread % 70,
        "amount": np.where(row == 4321, 1e308, 100.0 + spread),
        "year_built": np.where(spread % 33 == 0, 0, 1950 + spread % 70),
        "currency": ["EUR"] * ROWS,
        "employer": pa.nulls(ROWS, pa.float64()),
        "housing": [("own", "rent", "Rent ", "?", "parents")[number % 5] for number in spread],
        "zip": [f"{10_000 + number % 2000}" for number in spread],
        "remark": [f"remark {number}" for number in spread],
        "ratio": np.where(row == 1234, np.inf, spread / ROWS),
        "outcome": np.where(spread % 4 == 0, "bad", "good"),
    }
    pq.write_table(pa.table(loans), folder / "loans.parquet")
    members = ['="00{}"', "'m{}'", "1.{}E+10", "{}.0", "a{}@shop.example", "00{}"]
    table = pa.table({"member": [members[number % 6].format(100 + number) for number in row], "visits": spread % 12})
    pa_csv.write_csv(table, folder / "members.csv")
    (folder / "party.yaml").write_text(PARTY, encoding="utf-8")
    return folder / "party.yaml"


def render() -> str:
    """Return what it says, as a table."""
    with tempfile.TemporaryDirectory() as folder:
        rows = list(_rows(examine_data(write(Path(folder))), f"file://{folder}/"))
    return table(("", "Checked", "Found", "Remedy"), rows)


def _rows(found: Iterator[Finding], folder: str) -> Iterator[tuple[str, ...]]:
    for each in found:
        yield each.verdict.sign, each.subject, each.text.replace(folder, ""), each.remedy


if __name__ == "__main__":
    keep({"data-check.md": with_part("data-check.md", "example", render())})
