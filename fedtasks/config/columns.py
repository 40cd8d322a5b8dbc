"""What columns and files of datasets may be: formats, ids, features, labels, and words for truth and for no value."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass

from fedtasks.dataclass_io import shown, to_plain
from fedtasks.errors import ConfigError

MAX_CLASSES = 1000
"""How many classes a label may have."""

MISSING_WORDS = (
    *("NULL", "Null", "null", "None", "NONE", "none", "NaN", "NAN", "nan", "-NaN", "-nan"),
    *("NA", "N/A", "n/a", "<NA>", "#NA", "#N/A", "NaT", "\\N"),
)
"""The texts that mean "no value" in every column, beside an empty one, unless the dataset says otherwise."""

TRUTHS = {"1": ("true", "True", "TRUE"), "0": ("false", "False", "FALSE")}
"""How a truth may be written, by its canonical text."""

_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))\.0+")


def canonical_word(text: str) -> str:
    """Return the one text of a value of few: a truth is ``1`` or ``0``, a whole number has no decimal point."""
    for truth, written in TRUTHS.items():
        if text in written:
            return truth
    whole = _WHOLE.fullmatch(text)
    return text if whole is None else "0" if whole[1] == "-0" else whole[1]


class Format(enum.Enum):
    """File formats of a dataset."""

    PARQUET = "parquet"
    CSV = "csv"
    ORC = "orc"
    JSON_LINES = "jsonl"
    TFRECORD = "tfrecord"

    @property
    def endings(self) -> tuple[str, ...]:
        """How names of such files end, in lower case."""
        return _ENDINGS[self.value]

    @property
    def is_of_lines(self) -> bool:
        """Whether rows are lines of text."""
        return self in (Format.CSV, Format.JSON_LINES)

    @property
    def compressions(self) -> Mapping[str, str]:
        """How names of files end that are compressed as a whole → how they are."""
        return {} if self in (Format.PARQUET, Format.ORC) else _GZIP if self is Format.TFRECORD else _COMPRESSIONS


_ENDINGS = {
    "parquet": (".parquet", ".parq", ".pq"),
    "csv": (".csv",),
    "orc": (".orc",),
    "jsonl": (".jsonl", ".ndjson", ".json"),
    "tfrecord": (".tfrecord", ".tfrecords"),
}
_GZIP = {".gz": "gzip"}
_COMPRESSIONS = {**_GZIP, ".bz2": "bz2", ".zst": "zstd"}


class IdType(enum.Enum):
    """What an id is; both sides must mean the same."""

    STRING = "string"
    INTEGER = "integer"


class Normalisation(enum.Enum):
    """One step that an id's text goes through before it is hashed, in the order declared."""

    TRIM = "trim"
    LOWER = "lower"
    UPPER = "upper"
    NFC = "nfc"
    NFKC = "nfkc"
    VISIBLE = "visible"
    """Takes off signs that nobody sees: control characters, byte order marks, zero-width spaces."""
    UNWRAP = "unwrap"
    """Takes off what spreadsheets and exports add: ``="…"``, quotes around, ``.0`` behind digits."""


class FeatureType(enum.Enum):
    """How a column enters a model.

    As a number, as one of several values, as what a date or time says, as a list of ids, or as several numbers at once.
    """

    NUMERIC = "numeric"
    CATEGORICAL = "categorical"
    DAYS = "days"
    SECONDS = "seconds"
    HOUR = "hour"
    WEEKDAY = "weekday"
    SEQUENCE = "sequence"
    VECTOR = "vector"

    @property
    def is_of_time(self) -> bool:
        """Whether the column holds dates or times."""
        return self in (FeatureType.DAYS, FeatureType.SECONDS, FeatureType.HOUR, FeatureType.WEEKDAY)

    @property
    def is_list(self) -> bool:
        """Whether a value is a list."""
        return self in (FeatureType.SEQUENCE, FeatureType.VECTOR)

    @property
    def in_models(self) -> FeatureType:
        """What models see, which know no dates: numbers and categories stand for them."""
        if not self.is_of_time:
            return self
        return FeatureType.CATEGORICAL if self is FeatureType.WEEKDAY else FeatureType.NUMERIC


MAX_LENGTH, MAX_WIDTH, MAX_BUCKETS = 10_000, 10_000, 100_000_000
"""How many ids of a sequence, numbers of a vector and buckets of hashes there may be."""

SEPARATOR, _MAX_SEPARATOR = " ", 10


@dataclass(frozen=True)
class Feature:
    """A feature whose declaration says more than its type.

    Parameters
    ----------
    type
        How it enters a model.
    hash_buckets
        Of a category or the ids of a sequence: into how many buckets values are hashed, so that no list of them is
        kept; None keeps a list.
    length
        Of a sequence: how many ids of a row count, the last ones.
    width
        Of a vector: how many numbers each row has.
    separator
        Of a sequence or vector that is kept as text: what stands between two items, by default white space.
    """

    type: FeatureType
    hash_buckets: int | None = None
    length: int | None = None
    width: int | None = None
    separator: str | None = None

    def __post_init__(self) -> None:
        of = {
            "hash_buckets": (FeatureType.CATEGORICAL, FeatureType.SEQUENCE),
            "length": (FeatureType.SEQUENCE,),
            "width": (FeatureType.VECTOR,),
            "separator": (FeatureType.SEQUENCE, FeatureType.VECTOR),
        }
        for name, kinds in of.items():
            if getattr(self, name) is not None and self.type not in kinds:
                known = " or ".join(kind.value for kind in kinds)
                raise ConfigError(f"only for type {known}, and this is {self.type.value}; leave it out", field=name)
        limits = {"hash_buckets": (2, MAX_BUCKETS), "length": (1, MAX_LENGTH), "width": (1, MAX_WIDTH)}
        for name, (least, most) in limits.items():
            number = getattr(self, name)
            if number is None and name != "hash_buckets" and self.type in of[name]:
                raise ConfigError(f"say it of a {self.type.value}, from {least} to {most:,}", field=name)
            if number is not None and not least <= number <= most:
                raise ConfigError(f"{shown(number)} is not between {least} and {most:,}", field=name)
        if self.separator is not None and not 0 < len(self.separator) <= _MAX_SEPARATOR:
            text = f"write what stands between two items, at most {_MAX_SEPARATOR} characters"
            raise ConfigError(text, field="separator")

    @property
    def said(self) -> dict[str, object]:
        """What is declared, as in party.yaml."""
        return {name: value for name, value in to_plain(self).items() if value is not None}


def type_of(declared: FeatureType | Feature) -> FeatureType:
    """Return the type of a feature in whichever form it is declared."""
    return declared.type if isinstance(declared, Feature) else declared


class LabelKind(enum.Enum):
    """What a label says of a person."""

    BINARY = "binary"
    CLASSES = "classes"
    NUMBER = "number"
