"""Two parties with made-up people, so that a pipeline can be tried at one desk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fedtasks.config import (
    Airflow,
    Dataset,
    EventTime,
    Feature,
    FeatureType,
    Format,
    Gateway,
    IdType,
    LabelKind,
    Party,
    Peer,
    TimeUnit,
)

BANK, SHOP = "bank", "shop"

SHARED = 300
"""How many people both parties know, unless a pipeline needs more."""

_ONLY = 60
_MISSING = 0.02
_SECONDS = 100 * 86_400
_TIME, _BEGAN_MS, _APART_MS = "at_ms", 1_780_000_000_000, 5_000
_WORDS, _MOST_IDS = np.array(["low", "middle", "high"]), 8
_NUMBER, _CATEGORY = FeatureType.NUMERIC, FeatureType.CATEGORICAL
_LOANS = Dataset(
    name="loans",
    uri="",
    id="customer",
    features={"income": _NUMBER, "age": _NUMBER, "home": _CATEGORY},
    label="repaid",
    label_positive="yes",
)
_BASKETS = Dataset(
    name="baskets", uri="", id="customer", features={"spent": _NUMBER, "visits": _NUMBER, "segment": _CATEGORY}
)


@dataclass(frozen=True)
class Pair:
    """Two parties that have never heard of a network.

    Parameters
    ----------
    parties
        Name → party; each has one dataset, whose file is there.
    leader
        Name of the one whose dataset has a label.
    """

    parties: Mapping[str, Party]
    leader: str

    @property
    def datasets(self) -> dict[str, str]:
        """Party name → dataset name."""
        return {name: party.datasets[0].name for name, party in self.parties.items()}

    def other(self, name: str) -> str:
        """Return the name of the party that is not `name`."""
        return next(known for known in self.parties if known != name)


def sample_pair(folder: Path, *, shared: int = SHARED, streams: bool = False) -> Pair:
    """Make a bank that knows who repaid, and a shop that knows what people buy.

    Parameters
    ----------
    folder
        Where their files go.
    shared
        How many people both know; each knows some more.
    streams
        Whether the datasets are streams: each row is an event, and has a time.
    """
    declared = {BANK: _LOANS, SHOP: _BASKETS}
    return _make(folder, {name: _timed(each) if streams else each for name, each in declared.items()}, shared)


def pair_as_declared(
    folder: Path, own: Dataset, name: str, peer: str, *, shared: int = SHARED, streams: bool = False
) -> Pair:
    """Make a party whose made-up people have the columns that it declares, and a peer that fits.

    Parameters
    ----------
    folder
        Where their files go.
    own
        This party's dataset; only what it declares counts, its file is not read.
    name, peer
        What the two are called.
    shared
        How many people both know.
    streams
        Whether the datasets are streams, also if this party declares none.
    """
    fitting = _BASKETS if own.label is not None else _LOANS
    theirs = replace(fitting, id=own.id, id_type=own.id_type, normalise=own.normalise, features=_apart(fitting, own))
    if streams:
        own = _timed(own)
        theirs = replace(_timed(theirs), event_keys=own.event_keys, shard_by=own.shard_by)
    return _make(folder, {name: own, peer: theirs}, shared)


def _timed(dataset: Dataset) -> Dataset:
    """Return a dataset whose rows have times, written so that the files made here need not be waited for."""
    declared = dataset.event_time.column if dataset.event_time is not None else _TIME
    return replace(dataset, event_time=EventTime(declared, TimeUnit.MILLISECONDS), settle_s=0.0)


def _apart(theirs: Dataset, own: Dataset) -> dict[str, FeatureType | Feature]:
    """Return features none of which is called like a column of the id."""
    return {name: kind for name, kind in theirs.features.items() if name not in own.id_columns}


def _make(folder: Path, declared: Mapping[str, Dataset], shared: int) -> Pair:
    rng = np.random.default_rng(7)
    people = rng.permutation(shared + 2 * _ONLY)
    known = (people[: shared + _ONLY], np.concatenate([people[:shared], people[shared + _ONLY :]]))
    traits = rng.normal(size=len(people))
    parties = {}
    for (name, dataset), own in zip(declared.items(), known, strict=True):
        file = folder / name / f"{dataset.name}.parquet"
        if dataset.is_stream:
            file = folder / name / dataset.name / "part-00000.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        people_here = np.sort(own) if dataset.is_stream else rng.permutation(own)
        pq.write_table(_table(dataset, people_here, traits, rng), file)
        (peer,) = set(declared) - {name}
        parties[name] = _party(folder, name, peer, _in_parquet(dataset, file))
    leader = next((name for name, dataset in declared.items() if dataset.label is not None), BANK)
    return Pair(parties, leader)


def _in_parquet(dataset: Dataset, file: Path) -> Dataset:
    """Return a dataset as declared, but kept in one Parquet file."""
    plain = Dataset(name=dataset.name, uri="", id=dataset.id, features=dataset.features, label=dataset.label)
    return replace(
        dataset,
        uri=f"file://{file.parent if dataset.is_stream else file}",
        format=Format.PARQUET,
        encoding=plain.encoding,
        delimiter=plain.delimiter,
        quote=plain.quote,
        endings=(),
        sql=None,
    )


def _party(folder: Path, name: str, peer: str, dataset: Dataset) -> Party:
    nowhere = folder / "nowhere"
    return Party(
        name=name,
        gateway=Gateway(nowhere, nowhere, nowhere, nowhere, nowhere),
        airflow=Airflow("http://127.0.0.1", "nobody", nowhere),
        storage=f"file://{folder / name / 'storage'}",
        peers=(Peer(peer, nowhere, ""),),
        datasets=(dataset,),
    )


def _table(dataset: Dataset, people: np.ndarray, traits: np.ndarray, rng: np.random.Generator) -> pa.Table:
    """Make the rows of some people, whose label and features hang together by a trait that nobody sees."""
    columns: dict[str, pa.Array] = {}
    for place, name in enumerate(dataset.id_columns):
        numbers = people if place == 0 else people % (7 + place)
        is_number = dataset.id_type is IdType.INTEGER
        columns[name] = pa.array(numbers) if is_number else pa.array([f"P{number:06d}" for number in numbers])
    for feature, kind in dataset.types.items():
        name = dataset.column_of(feature)
        values = traits[people] + rng.normal(size=len(people))
        missing = rng.random(len(people)) < _MISSING
        if feature in dataset.further_labels:
            columns[name] = pa.array((values > 0).astype(float))
        elif kind.is_of_time:
            moments = np.datetime64("2026-01-01T00:00:00") + (values * _SECONDS).astype("timedelta64[s]")
            columns[name] = pa.array(moments, mask=missing)
        elif kind is FeatureType.NUMERIC:
            columns[name] = pa.array(np.round(100 + 15 * values, 2), mask=missing)
        elif kind is FeatureType.CATEGORICAL:
            columns[name] = pa.array(_WORDS[np.digitize(values, (-0.5, 0.5))], mask=missing)
        else:
            columns[name] = _lists(dataset.details[feature], values, missing, rng)
    if dataset.event_time is not None:
        # In the order of a log: the events of some seconds are not in order.
        times = _BEGAN_MS + people * 1000 + rng.integers(-_APART_MS, _APART_MS, len(people))
        columns[dataset.event_time.column] = pa.array(times)
        for column in {part for level in dataset.key_levels for part in level} - set(columns):
            if not column.startswith("@"):
                columns[column] = pa.array([f"K{number:06d}" for number in people])
    if dataset.label is not None:
        columns[dataset.label] = _labels(dataset, traits[people] + rng.normal(size=len(people)) / 2)
    if dataset.weight is not None:
        columns[dataset.weight] = pa.array(np.round(rng.uniform(0.5, 2.0, len(people)), 2))
    return pa.table(columns)


def _lists(declared: Feature, values: np.ndarray, missing: np.ndarray, rng: np.random.Generator) -> pa.Array:
    """Make a sequence or a vector of each row, whose items hang together with its value."""
    if declared.width:
        numbers = np.round(values[:, np.newaxis] + rng.normal(size=(len(values), declared.width)), 3)
        offsets, items = np.arange(len(values) + 1) * declared.width, pa.array(numbers.ravel())
    else:
        lengths = rng.integers(0, _MOST_IDS, len(values))
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        items = pa.array(_WORDS[np.digitize(np.repeat(values, lengths) + rng.normal(size=lengths.sum()), (-0.5, 0.5))])
    return pa.ListArray.from_arrays(offsets.astype(np.int32), items, mask=pa.array(missing))


def _labels(dataset: Dataset, values: np.ndarray) -> pa.Array:
    """Make labels of the declared kind that grow with values."""
    if dataset.label_kind is LabelKind.NUMBER:
        return pa.array(np.round(100 + 15 * values, 2))
    if dataset.label_kind is LabelKind.CLASSES:
        ranks = np.argsort(np.argsort(values))  # so that classes are of equal size
        return pa.array(np.array(dataset.label_classes)[ranks * len(dataset.label_classes) // len(values)])
    yes = dataset.label_positive or "1"
    return pa.array(np.where(values > 0, yes, "0" if yes != "0" else "1"))
