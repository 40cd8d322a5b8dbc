"""A party's datasets: which files they are, how these are read, and what their columns mean."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fedtasks.config.columns import (
    MAX_CLASSES,
    MISSING_WORDS,
    Feature,
    FeatureType,
    Format,
    IdType,
    LabelKind,
    Normalisation,
    canonical_word,
    type_of,
)
from fedtasks.config.events import MAX_SETTLE_S, STEPS_MS, EventTime, check_keys, parts_of_key
from fedtasks.config.names import MAX_FEATURE, PARTITION, check_column, check_name
from fedtasks.config.sql import Sql, check_database, is_database
from fedtasks.config.topics import Kafka, is_topic, parts_of_topic
from fedtasks.dataclass_io import shown, to_plain
from fedtasks.digests import digest
from fedtasks.errors import ConfigError

_PARTITIONED = re.compile(r"/(?:[^/{}=]+=)?\{partition\}$")


@dataclass(frozen=True)
class Dataset:
    """A named table of one party.

    Parameters
    ----------
    name
        Its name in tickets and runs.
    uri
        A file or folder: ``file://``, ``hdfs://``, or a path relative to party.yaml. If it ends in ``/{partition}`` or
        ``/name={partition}``, the dataset grows by folders, each with the rows that are new or changed in it. A topic
        of Kafka is ``kafka://host:port/topic``, a database ``postgresql://user@host:port/database``.
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
    event_time
        When the event of a row happened: makes the dataset a stream, a folder that grows by files.
    event_keys
        Of a stream: by what rows belong together, the best first: each a column, or several separated by commas, of
        which ``@minute``, ``@hour`` and ``@day`` are of the event time; by default the id alone.
    shard_by
        Of a stream: the columns that decide in which shard a row is joined, part of every key; by default the id.
    settle_s
        Of a stream: for how long a file must not have changed before it is read.
    kafka
        Of a topic: how it is reached, if not by a plain connection.
    late_labels
        Of a stream with a label: the name of another stream of this party, whose labels became known later and count
        for the same ids from then on.
    sql
        Of a database: which of its rows, and how they are read.
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
    event_time: EventTime | None = None
    event_keys: tuple[str, ...] = ()
    shard_by: str = ""
    settle_s: float = 2.0
    kafka: Kafka | None = None
    late_labels: str = ""
    sql: Sql | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "name")
        if not self.features and self.label is None:
            raise ConfigError("declare at least one feature; only a label may stand alone", field="features")
        self._check_database()
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
        self._check_events()

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

    def _check_database(self) -> None:
        """Refuse a database of which it is not said which rows, and what is said of files or streams alone."""
        if (self.sql is not None) != is_database(self.uri):
            if self.sql is not None:
                raise ConfigError("only for a `uri` that begins with postgresql://; leave it out", field="sql")
            raise ConfigError("say in `sql` which table or query of the database it is", field="sql")
        if self.sql is None:
            return
        check_database(self.uri, "uri")
        if PARTITION in self.uri:
            text = "of a database, partitions are named by `:partition` in the query"
            raise ConfigError(text, field="uri")
        for name in ("format", *_OF_CSV, "endings", "event_time"):
            if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                raise ConfigError("only for files and streams, not for a database; leave it out", field=name)

    def _check_events(self) -> None:
        """Refuse what is said of streams alone where there is no event time, and streams that cannot be."""
        if self.kafka is not None and not self.is_topic:
            raise ConfigError("only for a topic, whose `uri` begins with kafka://; leave it out", field="kafka")
        if self.is_topic:
            parts_of_topic(self.uri)
            if self.event_time is None:
                raise ConfigError("a topic is a stream: say what its `event_time` is", field="event_time")
            if self.format is not Format.JSON_LINES:
                raise ConfigError("of a topic JSON is read: set `format: jsonl`", field="format")
        if self.event_time is None:
            for name in _OF_STREAMS:
                if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                    raise ConfigError("only for a stream, which names its `event_time`; leave it out", field=name)
            return
        if self.is_partitioned:
            text = f"a stream is a folder that grows by files, and `uri` ends in `{PARTITION}`; take one of them out"
            raise ConfigError(text, field="event_time")
        others = {self.label: "the label", self.weight: "the weight", self.held_out: "what says who is held out"}
        means = "the id" if self.event_time.column in self.id_columns else others.get(self.event_time.column)
        if means is not None:
            text = f"`{self.event_time.column}` is {means} and cannot be the time as well"
            raise ConfigError(text, field="event_time.column")
        check_keys(self.event_keys, self.shard_by)
        if not 0 <= self.settle_s <= MAX_SETTLE_S:
            text = f"{shown(self.settle_s)} is not between 0 and {MAX_SETTLE_S:,.0f} seconds"
            raise ConfigError(text, field="settle_s")
        if self.late_labels and self.label is None:
            text = "there is no label that others could replace; name its column in `label`, or leave this out"
            raise ConfigError(text, field="late_labels")

    def check_late_labels(self, source: Dataset) -> None:
        """Refuse a dataset, named in `late_labels`, whose labels cannot be meant for the rows of this one.

        Raises
        ------
        ConfigError
            It is this one, it is no stream, or its labels or ids are of another kind.
        """
        text = f"`{source.name}` "
        if source.name == self.name:
            raise ConfigError(f"{text}is this stream itself; name another", field="late_labels")
        if not source.is_stream or source.label is None:
            lacks = "no `label`" if source.is_stream else "no `event_time`, when each label became known"
            raise ConfigError(f"{text}has {lacks}", field="late_labels")
        if (source.label_kind, source.label_classes) != (self.label_kind, self.label_classes):
            text += f"has labels of kind `{source.label_kind.value}`, or other classes, and `{self.name}` has not"
            raise ConfigError(f"{text}; declare both alike", field="late_labels")
        if source.id_facts != self.id_facts:
            text += f"has other ids than `{self.name}`: their columns, `id_type` or `normalise`"
            raise ConfigError(f"{text}; declare both alike", field="late_labels")

    # ---------------------------------------------------------------------------------------------------------- views
    @property
    def is_stream(self) -> bool:
        """Whether its rows are events, which go on to come."""
        return self.event_time is not None

    @property
    def is_topic(self) -> bool:
        """Whether it is a topic of Kafka."""
        return is_topic(self.uri)

    @property
    def key_levels(self) -> tuple[tuple[str, ...], ...]:
        """The parts of each key by which events belong together, the best first; of no other than the id by default."""
        return tuple(map(parts_of_key, self.event_keys)) or (self.id_columns,)

    @property
    def shard_columns(self) -> tuple[str, ...]:
        """The columns that decide in which shard an event is joined."""
        return parts_of_key(self.shard_by) if self.shard_by else self.id_columns

    @property
    def is_partitioned(self) -> bool:
        """Whether it grows by partitions."""
        if self.sql is not None:
            return self.sql.is_partitioned
        return _PARTITIONED.search(self.uri) is not None

    @property
    def partition_place(self) -> tuple[str, str]:
        """The folder in which its partitions lie, and what their folders' names begin with before the key."""
        if self.sql is not None:
            return self.sql.copies, ""
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
    def all_columns(self) -> tuple[str, ...]:
        """Every column that is declared, once."""
        time = None if self.event_time is None else self.event_time.column
        needed = (*self.id_columns, self.label, self.weight, self.held_out, time)
        return tuple(dict.fromkeys([*filter(None, needed), *self.sparse_columns]))

    @property
    def list_columns(self) -> tuple[str, ...]:
        """The columns of features that are lists, and no texts with something between the items."""
        lists = [name for name, declared in self.details.items() if declared.type.is_list and not declared.separator]
        return tuple(map(self.column_of, lists))

    @property
    def sparse_columns(self) -> tuple[str, ...]:
        """The columns that a row need not have where each says its own: of features, and of keys other than the id."""
        time = None if self.event_time is None else self.event_time.column
        needed = {*self.id_columns, self.label, self.weight, self.held_out, time}
        parts = [part for parts in (*self.key_levels, self.shard_columns) for part in parts if part not in STEPS_MS]
        found = dict.fromkeys([*map(self.column_of, self.features), *parts])
        return tuple(column for column in found if column not in needed)

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
        return digest(self._without_defaults((*_READING, *_STREAMING, "further_labels", "held_out")))

    @property
    def schema_digest(self) -> str:
        """SHA-256 (hex) over id, types, features, label and weight: what a ticket pins; not where or how it is read."""
        plain = self._without_defaults((*_LATER, *_STREAMING, "columns"))
        plain["features"] = to_plain(self.types)  # how many items count is a matter of models
        for name in ("uri", "format", *_READING, *_STREAMING):
            if name not in ("columns", "event_keys"):
                plain.pop(name, None)
        if self.event_time is not None:
            plain["event_time"] = self.event_time.column
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
_OF_STREAMS = ("event_keys", "shard_by", "settle_s", "late_labels")
_STREAMING = ("event_time", *_OF_STREAMS, "kafka")
_READING = ("columns", "null", "not_null", *_OF_CSV, "endings", "sql")
_LATER = ("label_kind", "label_classes", "further_labels", "weight", "held_out")
