"""What the halves of a split network tell each other."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fedtasks.exchange.message import TO_FOLLOWER, TO_LEADER, ArrayMessage, JsonMessage

MOST = 1e9
"""No sensible network sends a larger number, and none that is smaller overflows in the network that it enters."""


@dataclass(frozen=True)
class GradientMessage(ArrayMessage):
    """The gradients of activations, also of those that a layer of a user's own model sends under a name of its own."""

    def of_layer(self, name: str) -> GradientMessage:
        """Return the one that answers a layer's activations."""
        return replace(self, name=f"{name} {self.name}")

    def meaning(self, name: str) -> tuple[str, str] | None:
        """See `Message.meaning`."""
        layer = name.removesuffix(f" {self.name}")
        return super().meaning(name) if layer == name else (f"{self.what} of {layer}", self.learns)


ACTIVATION = ArrayMessage(
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
    holds="rows of the batch × `embedding`; after each epoch those of the validation rows, if there are any",
)
GRADIENT = GradientMessage(
    "gradient",
    "gradients",
    "for each train row and epoch a vector from which **it can read the label**: of such vectors the first principal "
    "component has the label for its sign. Nothing protects them yet, so the ticket must allow it by name; every run "
    "measures it as `label_leak_auc`",
    dtype="float32",
    shape=(None, None),
    most=MOST,
    way=TO_FOLLOWER,
    tasks=("train",),
    holds="rows of the batch × `embedding`",
)
EMBEDDING = ArrayMessage(
    "embedding",
    "embeddings of rows that are scored",
    "for each row what the follower's features say, as a vector, as with activations. Also by the version in use "
    "where it is compared with; nothing goes back, so the follower learns nothing of test labels",
    dtype="float32",
    shape=(None, None),
    most=MOST,
    way=TO_LEADER,
    tasks=("evaluate", "predict"),
    holds="for each batch, its rows × `embedding`; once more by the version in use, where there is one",
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

MESSAGES = (ACTIVATION, GRADIENT, EMBEDDING, VERDICT)
