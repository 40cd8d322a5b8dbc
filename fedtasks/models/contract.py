"""The contract of an algorithm: what its package declares, and what a half of a model that it has trained can do.

An algorithm is a package with a module ``declaration`` whose constant ``ALGORITHMS`` holds an `Algorithm`, and a class
that fills in `HalfModel`. Steps that measure, use or publish a model know nothing else of it.
"""

from __future__ import annotations

import abc
import enum
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from fedtasks import registry
from fedtasks.config import Feature, FeatureType, LabelKind
from fedtasks.dataclass_io import to_plain
from fedtasks.digests import digest
from fedtasks.errors import ColumnType, ConfigError, LabelInvalid
from fedtasks.kinds import Kind, VocabularyLimit
from fedtasks.names import LEADER

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import pyarrow as pa

    from fedtasks.data.run_storage import Manifest
    from fedtasks.exchange.message import ArrayMessage
    from fedtasks.link.link import Link

CARD = "model.json"
"""The file in which a half says what it is; see `HalfModel.save`."""

SAVED_MODEL = "model"
"""The folder beside it that is TensorFlow's SavedModel, of an algorithm whose halves have such."""


class ModelFormat(enum.Enum):
    """As what a half is handed to whoever serves it without fedtasks."""

    SAVED_MODEL = "savedmodel"
    ONNX = "onnx"


class Rows(enum.Enum):
    """Which rows an algorithm learns from."""

    ALIGNED = "aligned"
    """Of the people whom both parties know, in one order."""
    LOCAL = "local"
    """Each party's own people."""


@dataclass(frozen=True)
class Algorithm:
    """How a model is trained by several parties.

    Parameters
    ----------
    name
        What pipelines call it; its training is the kind of step of this name, and its halves have this format.
    train
        ``package.module:function`` that trains one half; see `fedtasks.models.training`.
    load
        ``package.module:function(manifest, role)`` that returns the `HalfModel` which a task has published.
    settings
        The dataclass that declares the settings of its training.
    labels
        The kinds of labels that it predicts; without any, neither dataset needs a label.
    rows
        Which rows it learns from.
    parties
        How many parties train one model.
    earlier_formats
        What halves of this algorithm were called by earlier releases, which `load` reads too.
    forks
        Whether a process that forks halves may import its training beforehand: it starts no thread when imported.
    max_categories
        How many values of a categorical feature it takes at most; None is no limit.
    vocabulary_limit
        The settings of its training → how many frequent values of a feature it lists; by default there is no limit.
    features
        The types of features that it takes.
    check_details
        Raises `ColumnType` unless settings suit features whose declarations say more than their type; by default they
        do.
    check_settings
        Raises `ConfigError` unless settings suit a label of this kind with these classes; by default all do.
    """

    name: str
    train: str
    load: str
    settings: type
    labels: tuple[LabelKind, ...] = ()
    rows: Rows = Rows.ALIGNED
    parties: int = 2
    earlier_formats: tuple[str, ...] = ()
    forks: bool = False
    max_categories: int | None = None
    vocabulary_limit: Callable[[Any], VocabularyLimit | None] | None = None
    features: tuple[FeatureType, ...] = (FeatureType.NUMERIC, FeatureType.CATEGORICAL)
    check_details: Callable[[Any, Mapping[str, Feature]], None] = lambda *_: None
    check_settings: Callable[[Any, LabelKind, Sequence[str]], None] = lambda *_: None

    @property
    def kind(self) -> Kind:
        """The kind of step that trains it."""
        return Kind(
            self.name,
            self.train,
            self.settings,
            needs_label=bool(self.labels),
            forks=self.forks,
            max_categories=self.max_categories,
            vocabulary_limit=self.vocabulary_limit,
        )

    def load_half(self, manifest: Manifest, role: str) -> HalfModel:
        """Return the half that a task has published; raises `DataCorrupt` if its files are not such a half."""
        module, _, function = self.load.partition(":")
        half: HalfModel = getattr(importlib.import_module(module), function)(manifest, role)
        return half

    def check_label(self, kind: LabelKind) -> None:
        """Raise `LabelInvalid` unless the algorithm predicts labels of this kind, or needs none."""
        if self.labels and kind not in self.labels:
            others = [each.name for each in algorithms().values() if kind in each.labels]
            remedy = f"; train it with: {', '.join(others)}" if others else ""
            known = " or ".join(each.value for each in self.labels)
            raise LabelInvalid(f"`{self.name}` predicts a label of kind {known}, and this one is {kind.value}{remedy}")

    def check_features(self, types: Mapping[str, FeatureType]) -> None:
        """Raise `ColumnType` unless the algorithm takes features of these types (as models see them), by name."""
        for name, kind in types.items():
            if kind not in self.features:
                others = [each.name for each in algorithms().values() if kind in each.features]
                remedy = "declare a dataset without it"
                remedy += f", or train it with: {', '.join(others)}" if others else ""
                raise ColumnType(f"feature `{name}`: `{self.name}` takes no {kind.value}; {remedy}", where=name)


def algorithms() -> Mapping[str, Algorithm]:
    """Return all algorithms that are installed here, by name."""
    return registry.declared("ALGORITHMS")


def algorithm(name: str) -> Algorithm:
    """Return the algorithm of this name; raise `ConfigError` if it is not installed."""
    found: Algorithm = registry.named("ALGORITHMS", name, "algorithm")
    return found


def pairing(role: str, local: str, peer: str) -> str:
    """Return SHA-256 (hex) over both halves' digests: equal on both sides, different for halves of different runs."""
    return digest((local, peer) if role == LEADER else (peer, local))


@dataclass(frozen=True)
class Card:
    """What a half says about itself.

    Parameters
    ----------
    format
        The algorithm that has trained it, by name.
    run_id, role
        In which run, and `LEADER` or `FOLLOWER`.
    row_order
        Digest of the order of the rows that it was trained on.
    settings
        What it was trained with.
    digest, peer_digest
        Of what decides this half's output, and of the half that it was trained with.
    """

    format: str
    run_id: str
    role: str
    row_order: str
    settings: Mapping[str, Any]
    digest: str
    peer_digest: str

    @classmethod
    def of(cls, document: Any) -> Self:
        """Return what a dataclass says of itself that has all these fields, such as the contents of `CARD`."""
        return cls(**{each.name: to_plain(getattr(document, each.name)) for each in fields(cls)})

    @property
    def pairing(self) -> str:
        """See `pairing`."""
        return pairing(self.role, self.digest, self.peer_digest)


class HalfModel(abc.ABC):
    """One party's half of a model.

    Neither half can score alone: for a batch of rows the follower sends an answer, and the leader makes scores of it
    and of this party's features. Halves that tell each other more than that fill in `score_together` instead.
    """

    @property
    def answers(self) -> ArrayMessage:
        """The message that carries answers; its first dimension is the rows."""
        raise NotImplementedError

    @property
    @abc.abstractmethod
    def card(self) -> Card:
        """What it says about itself."""

    @property
    def label_kind(self) -> LabelKind:
        """Of which kind the label is that it predicts; asked of the leader's half."""
        return LabelKind.BINARY

    @property
    def classes(self) -> tuple[str, ...]:
        """The texts of the label's classes, if it has such; asked of the leader's half."""
        return ()

    @property
    def needs(self) -> Mapping[str, FeatureType]:
        """The columns of this party that it needs for an answer or a score; empty if the algorithm cannot say."""
        return {}

    def lacking(self, declared: Mapping[str, FeatureType], details: Mapping[str, Feature] | None = None) -> list[str]:
        """Return the features that it needs and that are not declared, or of another type or width.

        Parameters
        ----------
        declared, details
            Feature → type, and the declarations of those that say more than their type.
        """
        del details  # such as an algorithm knows that takes lists
        return [name for name, kind in self.needs.items() if declared.get(name) is not kind]

    @abc.abstractmethod
    def save(self, folder: str) -> None:
        """Write the half into a folder of any file system, with a file `CARD` that says ``format`` and ``role``."""

    def save_onnx(self, folder: Path) -> None:
        """Write what the half computes as ONNX into a folder of this machine.

        Raises
        ------
        ConfigError
            The algorithm has no such form, an operation of the half has none, or what writes it is not installed.
        """
        raise ConfigError(f"a half of {self.card.format} has no form as ONNX; `{CARD}` is all of it", field="format")

    def score_together(self, link: Link, rows: pa.RecordBatch, unknown: str, *, of: str) -> np.ndarray:
        """Score a batch with the other half: by one answer of the follower's, unless a half does it otherwise.

        Parameters
        ----------
        link
            The conversation with the other half.
        rows, unknown
            As for `answer`.
        of
            Which batch it is, for errors.

        Returns
        -------
        ndarray
            The scores at the leader; nothing at the follower.
        """
        import numpy as np

        if self.card.role == LEADER:
            return self.score(rows, self.answers.receive(link, rows.num_rows, of=of), unknown)
        self.answers.send(link, self.answer(rows, unknown), of=of)
        return np.empty(0)

    def score_each(self, link: Link, batches: Iterable[pa.RecordBatch], unknown: str) -> Iterator[np.ndarray]:
        """Yield what `score_together` returns, of one batch after the other.

        Fill it in where both halves wait for each other within a batch: then several can be under way at a time.

        Parameters
        ----------
        link, unknown
            As for `score_together`.
        batches
            The same on both sides, up to their columns.
        """
        for number, rows in enumerate(batches, start=1):
            yield self.score_together(link, rows, unknown, of=f"batch {number}")

    def score_labels(
        self, link: Link, batches: Iterable[pa.RecordBatch], unknown: str
    ) -> Iterator[tuple[np.ndarray, Mapping[str, np.ndarray]]]:
        """Yield what `score_each` does, and the scores of further labels by name.

        Fill it in where a model predicts labels beside the dataset's own (see `Dataset.further_labels`); they are
        measured beside it.

        Parameters
        ----------
        link, batches, unknown
            As for `score_each`.
        """
        for scores in self.score_each(link, batches, unknown):
            yield scores, {}

    def answer(self, rows: pa.RecordBatch, unknown: str) -> np.ndarray:
        """Return what the leader needs of the follower's features, one item for each row.

        Parameters
        ----------
        rows
            Features as in a block; other columns are left out.
        unknown
            What to do with a category that no train row had: see `fedtasks.models.settings.EvaluateSettings`.

        Raises
        ------
        ColumnMissing, ColumnType, CategoryUnknown
            Names the column.

        Notes
        -----
        Reveals: what the declaration of `answers` says.
        """
        raise NotImplementedError

    def score(self, rows: pa.RecordBatch, answer: np.ndarray, unknown: str) -> np.ndarray:
        """Return the leader's scores.

        Parameters
        ----------
        rows, unknown
            As for `answer`.
        answer
            The follower's, of the same rows.

        Returns
        -------
        ndarray
            Shape ``(n,)``: probabilities of label 1, or numbers; ``(n, classes)`` for several classes.

        Raises
        ------
        ProtocolViolated
            The answer is not one to these rows.
        ColumnMissing, ColumnType, CategoryUnknown
            Names the column.
        """
        raise NotImplementedError

    takes_unknown = False
    """Whether it has a place for categories that it does not know, so that they are no error."""

    def usual_share(self, feature: str) -> float:
        """Return of a categorical feature in which share of train rows it had a value that it does not know."""
        del feature
        return 0.0

    def unknown_rows(self, rows: pa.RecordBatch) -> dict[str, np.ndarray]:
        """Return for each categorical feature that it needs which rows, from 0, have a value that it does not know."""
        del rows
        return {}

    def remarks(self) -> dict[str, int]:
        """Return what its training has come to that whoever uses it must know: metrics of remarks, and their counts."""
        return {}

    def importance(self) -> dict[str, dict[str, float]]:
        """Return for each feature what it counts for, the most important first; empty if the algorithm cannot say.

        The first figure of each is the one that features are compared by.
        """
        return {}
