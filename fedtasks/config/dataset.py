"""A party's datasets: which files they are, how these are read, and what their columns mean."""

from __future__ import annotations

import codecs
import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fedtasks.config.names import MAX_FEATURE, PARTITION, check_column, check_name
from fedtasks.dataclass_io import shown, to_plain
from fedtasks.digests import digest
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
_PARTITIONED = re.compile(r"/(?:[^/{}=]+=)?\{partition\}$")


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

    @property
    def endings(self) -> tuple[str, ...]:
        """How names of such files end, in lower case."""
        return {"parquet": (".parquet", ".parq", ".pq"), "csv": (".csv",), "orc": (".orc",)}[self.value]


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


@dataclass(frozen=True)
class Dataset:
    """A named table of one party.

    Parameters
    ----------
    name
        Its name in tickets and runs.
    uri
        A file or folder: ``file://``, ``hdfs://``, or a path relative to party.yaml. If it ends in ``/{partition}`` or
        ``/name={partition}``, the dataset grows by folders, each with the rows that are new or changed in it.
    format
        How it is stored.
    id
        Column that identifies a person, or several, separated by commas: people are then told apart by all of them
        together, in this order.
    id_type, normalise
        What an id is and how its text is normalised; compared with the peer's before anything runs.
    features
        Feature → type, or what else there is to say of it; a feature is the column of that name unless `columns` names
        another. There may be none where there is a label, for a party that leads with that alone.
    label, label_positive
        Label column and the value that counts as 1; only the leader's dataset has them.
    label_kind
        What the label says: one of two things, one of several classes, or a number.
    label_classes
        The texts of a label's classes; a class is known by its place among them.
    further_labels
        Which of the numeric features are none but further labels, such as a conversion beside a click: networks of
        one's own may predict them, and no model sees them.
    weight
        Column of numbers above 0: how much each row counts in training.
    held_out
        Column of true or false, or of test or train: which rows a run may hold out for the test (``held_out_by:
        column``).
    columns
        Feature → the column that it is read from.
    null
        Texts and numbers that mean "no value", beside `MISSING_WORDS`.
    not_null
        Those of `MISSING_WORDS` that are values like others here.
    encoding, delimiter, quote
        How CSV is written: the encoding by Python's name, the sign between values, and the one around them, if any.
    endings
        How the names of files end that are of the format in spite of their names; empty for a name without an ending.
    """

    name: str
    uri: str
    id: str
    features: Mapping[str, FeatureType | Feature]
    format: Format = Format.PARQUET
    id_type: IdType = IdType.STRING
    normalise: tuple[Normalisation, ...] = (Normalisation.TRIM, Normalisation.NFC)
    label: str | None = None
    label_positive: str | None = None
    label_kind: LabelKind = LabelKind.BINARY
    label_classes: tuple[str, ...] = ()
    further_labels: tuple[str, ...] = ()
    weight: str | None = None
    held_out: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    null: tuple[str, ...] = ()
    not_null: tuple[str, ...] = ()
    encoding: str = "utf-8"
    delimiter: str = ","
    quote: str = '"'
    endings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_name(self.name, "name")
        if not self.features and self.label is None:
            raise ConfigError("declare at least one feature; only a label may stand alone", field="features")
        if PARTITION in self.uri and (not self.is_partitioned or self.uri.count(PARTITION) > 1):
            text = f"`{self.uri}`: `{PARTITION}` must be its last part, as in data/{PARTITION} or data/day={PARTITION}"
            raise ConfigError(text, field="uri")
        self._check_features()
        self._check_names()
        self._check_columns()
        self._check_label_kind()
        self._check_further_labels()
        self._check_held_out()
        self._check_missing()
        self._check_files()

    # --------------------------------------------------------------------------------------------------------- checks
    def _check_features(self) -> None:
        """Refuse lists of which it is not said how long they are; what says its type alone has one form."""
        for name, declared in self.features.items():
            if isinstance(declared, FeatureType) and declared.is_list:
                size = "length: 50" if declared is FeatureType.SEQUENCE else "width: 16"
                text = f"say how many items count: `{shown(name)}: {{type: {declared.value}, {size}}}`"
                raise ConfigError(text, field=f"features.{name}")
        plain = {
            name: each.type if isinstance(each, Feature) and len(each.said) == 1 else each
            for name, each in self.features.items()
        }
        object.__setattr__(self, "features", plain)

    def _check_names(self) -> None:
        """Refuse names that no file can have or that the product needs, and a column that means two things."""
        for feature in self.features:
            check_column(feature, "features", MAX_FEATURE)
        taken: dict[str, str] = {}
        for column in self.id_columns:
            if not column or column in taken:
                raise ConfigError(f"`{self.id}` names a column twice, or none", field="id")
            check_column(column, "id")
            taken[column] = "the id"
        if self.label is not None:
            check_column(self.label, "label")
            taken[self.label] = "the label"
        for column, means in taken.items():
            if column in self.features:
                raise ConfigError(f"`{column}` is {means} and cannot be a feature", field="features")
        if self.weight is None:
            return
        if self.label is None:
            text = "only rows with a label have weights; name the label's column in `label`, or leave this out"
            raise ConfigError(text, field="weight")
        taken |= dict.fromkeys(self.features, "a feature")
        if not self.weight or self.weight in taken:
            text = f"`{self.weight}` is {taken.get(self.weight, 'no column')}; name a column of its own"
            raise ConfigError(text, field="weight")
        check_column(self.weight, "weight")

    def _check_columns(self) -> None:
        others = dict.fromkeys(self.id_columns, "the id") | {self.label: "the label", self.weight: "the weight"}
        for feature, column in self.columns.items():
            if feature not in self.features:
                known = ", ".join(self.features)
                raise ConfigError(f"`{shown(feature)}` is no feature; known are: {known}", field="columns")
            check_column(column, "columns")
            if column in others:
                text = f"`{feature}` cannot be read from `{column}`, which is {others[column]}"
                raise ConfigError(text, field="columns")

    def _check_label_kind(self) -> None:
        kind, classes = self.label_kind, self.label_classes
        if self.label is None and kind is not LabelKind.BINARY:
            raise ConfigError("there is no label; name its column in `label`, or leave this out", field="label_kind")
        if self.label_positive is not None and kind is not LabelKind.BINARY:
            text = f"only a binary label has a value that counts as 1, this one is of kind `{kind.value}`; leave it out"
            raise ConfigError(text, field="label_positive")
        if kind is not LabelKind.CLASSES:
            if classes:
                raise ConfigError("only for a label with `label_kind: classes`; leave it out", field="label_classes")
            return
        if not 2 <= len(classes) <= MAX_CLASSES:
            text = f"{len(classes)} classes are declared; list the 2–{MAX_CLASSES} values that the label may have"
            raise ConfigError(text, field="label_classes")
        known: dict[str, str] = {}
        for name in classes:
            if not name or name != name.strip():
                text = f"`{name}` is empty or has spaces around it; the label's values are compared without them"
                raise ConfigError(text, field="label_classes")
            before = known.get(canonical_word(name))
            if before is not None:
                twice = f"`{name}` stands twice" if before == name else f"`{before}` and `{name}` are one value"
                raise ConfigError(f"{twice}; list each class once", field="label_classes")
            known[canonical_word(name)] = name

    def _check_further_labels(self) -> None:
        if self.further_labels and self.label is None:
            raise ConfigError(
                "there is no label; name its column in `label`, or leave this out", field="further_labels"
            )
        for name in self.further_labels:
            if self.features.get(name) is not FeatureType.NUMERIC or self.further_labels.count(name) > 1:
                text = f"`{shown(name)}` must stand in `features` as `numeric`, and here once"
                raise ConfigError(text, field="further_labels")

    def _check_held_out(self) -> None:
        if self.held_out is None:
            return
        if self.held_out in (*self.features, *self.columns.values(), *self.id_columns, self.label, self.weight):
            raise ConfigError(f"`{self.held_out}` is used otherwise; name a column of its own", field="held_out")
        check_column(self.held_out, "held_out")

    def _check_missing(self) -> None:
        for word in self.not_null:
            if word not in MISSING_WORDS:
                text = f"`{shown(word)}` means a value anyway; those that do not are: {', '.join(MISSING_WORDS)}"
                raise ConfigError(text, field="not_null")
        for word in self.null:
            if word != word.strip() or not word:
                text = f"`{shown(word)}` is empty or has spaces around it; an empty value is missing anyway"
                raise ConfigError(text, field="null")
        values = {"label_positive": self.label_positive and (self.label_positive,), "label_classes": self.label_classes}
        for name, words in values.items():
            for word in words or ():
                if word.strip() in self.missing_words:
                    remedy = "name it in `not_null`" if word in MISSING_WORDS else "take it out of `null`"
                    raise ConfigError(f"`{word}` means that there is no value here; {remedy}", field=name)

    def _check_files(self) -> None:
        try:
            codecs.lookup(self.encoding)
            "".encode(self.encoding)  # codecs that are no encodings of text refuse
        except (LookupError, ValueError):
            text = f"`{shown(self.encoding)}` is no encoding that Python knows, such as utf-8, latin-1, cp1252, utf-16"
            raise ConfigError(text, field="encoding") from None
        for name, signs in (("delimiter", self.delimiter), ("quote", self.quote)):
            if len(signs) > 1 or signs in ("\n", "\r") or not signs.isascii() or (not signs and name == "delimiter"):
                expected = "one ASCII character" if name == "delimiter" else "one ASCII character, or empty for none"
                raise ConfigError(f"`{shown(signs)}` is not {expected}", field=name)
        if self.delimiter == self.quote:
            raise ConfigError(f"`{self.quote}` stands between values already; see `delimiter`", field="quote")
        for name in _OF_CSV:
            if self.format is not Format.CSV and getattr(self, name) != type(self).__dataclass_fields__[name].default:
                raise ConfigError("only for `format: csv`; leave it out", field=name)
        for ending in self.endings:
            if ending and not re.fullmatch(r"(\.[A-Za-z0-9_-]+)+", ending):
                text = f"`{shown(ending)}` is no ending such as `.dat`, and not empty for names without one"
                raise ConfigError(text, field="endings")

    # ---------------------------------------------------------------------------------------------------------- views
    @property
    def is_partitioned(self) -> bool:
        """Whether it grows by partitions."""
        return _PARTITIONED.search(self.uri) is not None

    @property
    def partition_place(self) -> tuple[str, str]:
        """The folder in which its partitions lie, and what their folders' names begin with before the key."""
        folder, _, name = self.uri.rpartition("/")
        return folder, name.removesuffix(PARTITION)

    @property
    def id_columns(self) -> tuple[str, ...]:
        """The columns of the id."""
        return tuple(column.strip() for column in self.id.split(","))

    @property
    def types(self) -> dict[str, FeatureType]:
        """Feature → its type as declared."""
        return {name: type_of(declared) for name, declared in self.features.items()}

    @property
    def details(self) -> dict[str, Feature]:
        """Feature → its declaration, of those that say more than their type."""
        return {name: declared for name, declared in self.features.items() if isinstance(declared, Feature)}

    @property
    def hashed(self) -> frozenset[str]:
        """The features whose values are hashed, so that no model lists them."""
        return frozenset(name for name, declared in self.details.items() if declared.hash_buckets)

    @property
    def model_features(self) -> dict[str, FeatureType]:
        """Feature → its type as models see it."""
        return {name: kind.in_models for name, kind in self.types.items()}

    def column_of(self, feature: str) -> str:
        """Return the column that a feature is read from."""
        return self.columns.get(feature, feature)

    @property
    def missing_words(self) -> tuple[str, ...]:
        """The texts that mean "no value" here, beside an empty one."""
        return tuple(word for word in (*MISSING_WORDS, *self.null) if word not in self.not_null)

    @property
    def id_facts(self) -> dict[str, str]:
        """What both parties' datasets must have alike, so that equal people have equal ids; not the columns' names."""
        steps = ",".join(step.value for step in self.normalise)
        return {"id_columns": str(len(self.id_columns)), "id_type": self.id_type.value, "normalise": steps}

    @property
    def declaration_digest(self) -> str:
        """SHA-256 (hex) over all that is declared, the place too: what decides which rows and columns are read."""
        return digest(self._without_defaults((*_READING, "further_labels", "held_out")))

    @property
    def schema_digest(self) -> str:
        """SHA-256 (hex) over id, types, features, label and weight: what a ticket pins; not where or how it is read."""
        plain = self._without_defaults((*_LATER, "columns"))
        plain["features"] = to_plain(self.types)  # how many items count is a matter of models
        for name in ("uri", "format", *_READING):
            if name != "columns":
                plain.pop(name, None)
        return digest(plain)

    def _without_defaults(self, names: Sequence[str]) -> dict[str, object]:
        """Return what is declared, without those of `names` that are as by default.

        What was added later counts where it is used only: runs and tickets from before must go on to fit.
        """
        plain: dict[str, object] = to_plain(self)
        plain["features"] = {
            name: declared.said if isinstance(declared, Feature) else declared.value
            for name, declared in self.features.items()
        }
        default = to_plain(type(self)(name="a", uri="", id="b", features={"c": FeatureType.NUMERIC}))
        return {name: value for name, value in plain.items() if name not in names or value != default[name]}


_OF_CSV = ("encoding", "delimiter", "quote")
_READING = ("columns", "null", "not_null", *_OF_CSV, "endings")
_LATER = ("label_kind", "label_classes", "further_labels", "weight", "held_out")
