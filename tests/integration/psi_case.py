"""Tables, keys and runs of two parties, as the tests of the intersection want them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fedtasks.config import Dataset, FeatureType, Format, Party
from fedtasks.crypto.scheme import generate_key
from fedtasks.crypto.schemes import Scheme
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import local_path
from tests.integration.psi_halves import FOLLOWER, LEADER, Ended, Halves, make_party

FEATURES = {LEADER: {"Amount": FeatureType.NUMERIC}, FOLLOWER: {"Job": FeatureType.CATEGORICAL}}
numbers = itertools.count(1)


@dataclasses.dataclass(frozen=True)
class Keys:
    """The signing keys that both parties have here, one for each scheme."""

    folder: Path
    number: int = 1

    def file(self, scheme: Scheme) -> Path:
        """Return the key's file, making it when it is not there."""
        path = self.folder / f"{scheme.value}-{self.number}.key"
        if not path.exists():
            generate_key(scheme, path, 2048 if scheme is Scheme.BLIND_RSA else None)
        return path


@dataclasses.dataclass
class Case:
    """One run of two parties whose tables a test chooses."""

    halves: Halves
    root: Path
    keys: Keys
    run_id: str
    parties: dict[str, Party] = dataclasses.field(default_factory=dict)

    def give(self, name: str, table: pd.DataFrame | pa.Table, *, csv: bool = False, **declared: Any) -> None:
        """Write a party's dataset and declare it."""
        path = self.root / f"{name}.{'csv' if csv else 'parquet'}"
        if csv:
            table.to_csv(path, index=False)
        else:
            pq.write_table(
                table if isinstance(table, pa.Table) else pa.Table.from_pandas(table), path, row_group_size=64
            )
        fields: dict[str, Any] = {
            "name": "people",
            "uri": f"file://{path}",
            "id": "id",
            "features": FEATURES[name],
            "format": Format.CSV if csv else Format.PARQUET,
            "label": "Status" if name == LEADER else None,
            "label_positive": "good" if name == LEADER else None,
        }
        dataset = Dataset(**(fields | declared))
        keys = [self.keys.file(scheme) for scheme in (Scheme.BLIND_RSA, Scheme.OPRF)]
        self.parties[name] = make_party(name, self.root, (dataset,), *keys)

    def run(self, task: str, **settings: Any) -> dict[str, Ended]:
        return self.halves.run(task, self.run_id, self.parties, settings)

    def next_day(self, bank_rows: pd.DataFrame, shop_rows: pd.DataFrame, **settings: Any) -> dict[str, Ended]:
        """Begin another run over other rows of the same datasets."""
        self.run_id = f"credit.day.{next(numbers)}"
        self.give(LEADER, bank_rows)
        self.give(FOLLOWER, shop_rows)
        return self.run("psi", **settings)

    def storage(self, name: str) -> RunStorage:
        return RunStorage(self.parties[name].storage, self.run_id)

    def people(self, name: str) -> dict[bytes, str]:
        """Tag → id, as a party published it."""
        manifest = self.storage(name).published("psi")
        manifest.verify()
        tables = [pq.read_table(local_path(manifest.path(entry.name))) for entry in manifest.files]
        rows = [row for table in tables for row in table.to_pylist()]
        assert manifest.rows == len(rows)
        return {row["tag"]: row["id"] for row in rows}


def bank(ids: list[Any], **columns: Any) -> pd.DataFrame:
    status = ["good" if index % 3 else "bad" for index in range(len(ids))]
    return pd.DataFrame({"id": ids, "Amount": np.arange(len(ids), dtype=float), "Status": status} | columns)


def shop(ids: list[Any]) -> pd.DataFrame:
    return pd.DataFrame({"id": ids, "Job": [f"job {index}" if index % 5 else None for index in range(len(ids))]})


def codes(ended: Mapping[str, Ended]) -> dict[str, str]:
    return {name: half.code for name, half in ended.items()}
