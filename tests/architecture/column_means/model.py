"""A half of a model: this party's means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Self

import numpy as np
import pyarrow as pa

from column_means import messages
from fedtasks.data.columns import numbers_of
from fedtasks.data.run_storage import Manifest
from fedtasks.data.storage import read_json, write_json
from fedtasks.dataclass_io import build
from fedtasks.digests import digest
from fedtasks.models.contract import CARD, Card, HalfModel


@dataclass(frozen=True)
class Half(HalfModel):
    """Column → mean, and how many columns both halves have."""

    format: str
    run_id: str
    role: str
    row_order: str
    means: Mapping[str, float]
    n_columns: int
    peer_digest: str = ""

    answers = messages.DISTANCES

    @property
    def card(self) -> Card:
        found = digest([self.means, self.n_columns])
        return Card(self.format, self.run_id, self.role, self.row_order, {}, found, self.peer_digest)

    def paired(self, peer_digest: str) -> Self:
        return replace(self, peer_digest=peer_digest)

    def save(self, folder: str) -> None:
        write_json(f"{folder}/{CARD}", asdict(self))

    def answer(self, rows: pa.RecordBatch, unknown: str) -> np.ndarray:
        above = [numbers_of(rows, name) - mean for name, mean in self.means.items()]
        return np.nan_to_num(np.sum([np.zeros(rows.num_rows), *above], axis=0))[:, np.newaxis] / self.n_columns

    def score(self, rows: pa.RecordBatch, answer: np.ndarray, unknown: str) -> np.ndarray:
        return 1 / (1 + np.exp(-(self.answer(rows, unknown) + answer)[:, 0]))

    def importance(self) -> dict[str, dict[str, float]]:
        return {name: {"mean": mean} for name, mean in self.means.items()}


def load(manifest: Manifest, role: str) -> Half:
    """Read a half that `train` has published."""
    return build(Half, read_json(manifest.path(CARD)))
