"""What the halves of a split network tell each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fedtasks.errors import ProtocolViolated, TrainingDiverged
from fedtasks.exchange.message import BOTH_WAYS, TO_FOLLOWER, TO_LEADER, ArrayMessage, JsonMessage
from fedtasks.models.split_nn.cut import BUILT_IN, Cut
from fedtasks.names import LABEL_LEAK

if TYPE_CHECKING:
    import numpy as np

    from fedtasks.link.link import Link
    from fedtasks.models.split_nn.coding import Coding

MOST = 1e9
"""No sensible network sends a larger number, and none that is smaller overflows in the network that it enters."""

_MOST_READ = 1.01 * MOST
"""Coding rounds, also upwards."""


@dataclass(frozen=True)
class CutMessage(ArrayMessage):
    """What crosses at a cut; with a network of one's own there may be several, either way, each under its name."""

    def at(self, cut: Cut) -> CutMessage:
        """Return the one of a cut."""
        shape = (None, *cut.shape)
        if cut.name == BUILT_IN:
            return replace(self, dtype=cut.dtype, shape=shape)
        return replace(self, name=f"{self.name} {cut.name}", dtype=cut.dtype, shape=shape, way=BOTH_WAYS)

    def send_coded(self, link: Link, values: np.ndarray, cut: Cut, coding: Coding, *, of: str) -> np.ndarray:
        """Send what crosses at `cut` as `coding` writes it.

        Returns
        -------
        ndarray
            What the other half reads.

        Raises
        ------
        TrainingDiverged
            An item is not finite, or larger than declared.
        """
        message = self.at(cut)
        if not message._is_bounded(values):
            raise TrainingDiverged(message._beyond(of))
        coded = coding.encode(values, f"{message.name} {of}")
        message._coded(cut, coding).send(link, coded)
        return coding.decode(coded, cut.shape)

    def receive_coded(self, link: Link, n_rows: int, cut: Cut, coding: Coding, *, of: str) -> np.ndarray:
        """Receive what `send_coded` sends, of so many rows.

        Raises
        ------
        ProtocolViolated
            It is of another type or shape, or stands for an item that is not finite, or larger than declared.
        """
        message = self.at(cut)
        coded = message._coded(cut, coding).receive(link, n_rows, of=of)
        values = coding.decode(coded, cut.shape)
        if not replace(message, most=_MOST_READ)._is_bounded(values):
            raise ProtocolViolated(message._beyond(of))
        return values

    def _coded(self, cut: Cut, coding: Coding) -> CutMessage:
        return replace(self, dtype=coding.dtype, shape=(None, *coding.shape(cut.shape)), most=None)

    def meaning(self, name: str) -> tuple[str, str] | None:
        """See `Message.meaning`."""
        cut = name.removeprefix(f"{self.name} ")
        return super().meaning(name) if cut == name else (f"{self.what} at cut {cut}", self.learns)


ACTIVATION = CutMessage(
    "activation",
    "activations",
    "for each row and epoch what the follower's features say, as a vector of the width `embedding`. It carries what "
    "helps to predict the label and may carry more; attacks that rebuild features from activations are known, above "
    "all for whom knows the weights or related data",
    dtype="float32",
    shape=(None, None),
    most=MOST,
    way=TO_LEADER,
    tasks=("train",),
    holds="rows of the batch × `embedding`; after each epoch those of the validation rows, if there are any. With a "
    "network of one's own, one for each cut, either way, called `activation CUT`",
)
GRADIENT = CutMessage(
    "gradient",
    "gradients",
    "for each train row and epoch a vector that tells of its label as much as `max_label_leak` allows over all epochs: "
    "noise hides the rest, or labels are flipped once before. With `label_protection` none or max_norm, which the "
    "ticket must allow by name, **it can read the label**: of such vectors the first principal component has it for "
    "its sign. Every run measures what attacks read, as `label_leak_auc`",
    dtype="float32",
    shape=(None, None),
    most=MOST,
    way=TO_FOLLOWER,
    tasks=("train",),
    holds="rows of the batch × `embedding`; with a network of one's own, one for each cut, called `gradient CUT`",
    measured_as=LABEL_LEAK,
)
EMBEDDING = CutMessage(
    "embedding",
    "embeddings of rows that are scored",
    "for each row what the follower's features say, as a vector, as with activations. Also by the version in use "
    "where it is compared with; nothing goes back, so the follower learns nothing of test labels",
    dtype="float32",
    shape=(None, None),
    most=MOST,
    way=TO_LEADER,
    tasks=("evaluate", "predict"),
    holds="for each batch, its rows × `embedding`; once more by the version in use, where there is one. With a network "
    "of one's own, one for each cut, either way, called `embedding CUT`",
)

NEEDS = JsonMessage(
    "needs",
    "of what is received each cut is computed",
    "of a network of one's own, in which order its cuts cross; nothing else of it",
    fields={"needs": dict},
    tasks=("train", "evaluate", "predict"),
    holds="the names of the cuts that it sends, each with those of the cuts that it is computed from",
)
VERDICT = JsonMessage(
    "verdict",
    "the best epoch so far, and whether training goes on",
    "after which epoch the loss on validation rows was least, and when training ends",
    fields={"best": int, "goes_on": bool},
    way=TO_FOLLOWER,
    tasks=("train",),
    holds="number of the epoch, 0 for the version that training goes on from, and whether there is another one; only "
    "with early stopping",
)

FINISHED = JsonMessage(
    "finished",
    "whether all workers have finished",
    "whether the other party's workers have published the model, so that a task which is cleared alone does nothing",
    fields={"finished": bool},
    tasks=("train",),
    holds="whether this party's workers have published the model; only with several `workers`",
)

MESSAGES = (ACTIVATION, GRADIENT, EMBEDDING, NEEDS, VERDICT, FINISHED)
