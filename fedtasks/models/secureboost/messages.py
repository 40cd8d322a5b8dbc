"""What the halves of boosted trees tell each other."""

from __future__ import annotations

from fedtasks.exchange.message import TO_FOLLOWER, TO_LEADER, ArrayMessage, ProtobufMessage
from fedtasks.wire.v1.encrypted_pb2 import EncryptionKey
from fedtasks.wire.v1.secureboost_pb2 import LevelSplits, LevelSums, SplitOffer, TreeStart

ROWS_AT_ONCE = 8192
"""So many ciphertexts, four megabytes, make one message."""

MOST_REPEATS = 1 << 20
"""For so many candidates of a level, five megabytes, may be said that they share sums."""

KEY = ProtobufMessage(
    "encryption key",
    "public key for gradients, and its proof",
    "the key, which is public",
    of=EncryptionKey,
    way=TO_FOLLOWER,
    tasks=("train",),
    holds="modulus of a fresh Paillier key and ten n-th roots that prove it",
    max_bytes=64 << 10,
)
OFFER = ProtobufMessage(
    "candidate splits",
    "how many splits are offered",
    "how many candidate splits the follower has",
    of=SplitOffer,
    way=TO_LEADER,
    tasks=("train",),
    holds="how many candidate splits the follower has",
    max_bytes=64,
)
START = ProtobufMessage(
    "next tree",
    "the next tree's number and which rows it is grown from",
    "how many trees there are, in which it takes part, and whether the leader has features at all; with row sampling, "
    "which rows each is grown from. Gradient-based sampling prefers rows with large gradients: which rows they are "
    "then says something about their labels",
    of=TreeStart,
    way=TO_FOLLOWER,
    tasks=("train",),
    holds="number; whether the follower takes part, and whether the leader has the label alone; a bit for each row "
    "where not all are used; or the end and how many trees are kept",
)
GRADIENTS = ArrayMessage(
    "encrypted gradients",
    "encrypted gradients",
    "nothing: Paillier ciphertexts, which it cannot decrypt",
    dtype="uint8",
    shape=(None, None),
    way=TO_FOLLOWER,
    tasks=("train",),
    holds=f"one ciphertext per row, {ROWS_AT_ONCE} rows a message",
)
SPLITS = ProtobufMessage(
    "chosen splits",
    "how nodes of a tree are split",
    "which rows are in which node that goes on, and which of its candidates gained most. **Rows of a node are alike "
    "in their labels**, the more so the deeper it is and the fewer rows it has; nodes whose children are leaves are "
    "not told, unless the split is the follower's",
    of=LevelSplits,
    way=TO_FOLLOWER,
    tasks=("train",),
    holds="for each node of the level: a bit for each of its rows (the leader's split), places of the best candidates "
    "(the follower's), or neither; which sides go on",
)
SUMS = ProtobufMessage(
    "own splits",
    "rows on either side of the follower's splits",
    "which rows lie on which side of a threshold that it does not know, and a number that stands for the feature. "
    "Also, of each node that goes on, how many candidates leave `min_leaf_rows` on both sides, and which of them have "
    "the same rows on one",
    of=LevelSums,
    way=TO_LEADER,
    tasks=("train",),
    holds="for the follower's splits a bit for each row of the node and the feature's number; for each node that goes "
    "on a bit for each allowed candidate, and which of them share a sum",
)
SEALED = ArrayMessage(
    "encrypted sums",
    "sums of the leader's gradients",
    "**the gradients' sums on one side of each candidate** that leaves `min_leaf_rows` on both sides, of both "
    "children of a split, up to noise of `noise_rows`. Order and names of candidates are hidden",
    dtype="uint8",
    shape=(None, None),
    way=TO_LEADER,
    tasks=("train",),
    holds="packed and masked ciphertexts of sums; to either number of a sum a noise from 0 to 2 m is added, where m is "
    "`noise_rows` × 2^precision, and the leader takes m away",
)
LEAVES = ArrayMessage(
    "leaves left over",
    "leaves that the follower's splits leave over",
    "for each row and tree which leaves the follower's splits leave over. So it learns the decisions at those of its "
    "splits that do not lie below a branch that it has ruled out itself",
    dtype="uint8",
    shape=(None, None),
    way=TO_LEADER,
    tasks=("train", "evaluate", "predict"),
    holds="for each row of a batch and each tree with splits of the follower: a bit for each leaf of a full tree that "
    "they leave over; in training only where it goes on from a version",
)

MESSAGES = (KEY, OFFER, START, GRADIENTS, SPLITS, SUMS, SEALED, LEAVES)
