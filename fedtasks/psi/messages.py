"""What the halves of an intersection, and of an alignment, tell each other."""

from __future__ import annotations

from fedtasks.exchange.files import FileMessage
from fedtasks.exchange.message import LISTS, TO_FOLLOWER, BytesMessage, JsonListMessage, JsonMessage
from fedtasks.names import TAG_BYTES

_PSI, _ALIGN = ("psi",), ("align",)
_TO_CLIENT, _TO_SIGNER = "signer → client", "client → signer"

_KEY_BYTES = 64 << 10
"""More bytes than a key or its proof has."""

KEY = BytesMessage(
    "key",
    "public key",
    "the signer's public key",
    way=_TO_CLIENT,
    tasks=_PSI,
    holds="the public key; not with `learns: size`",
    max_bytes=_KEY_BYTES,
)
KEY_PROOF = BytesMessage(
    "key proof",
    "proof of the key",
    "that the key cannot leak ids",
    way=_TO_CLIENT,
    tasks=_PSI,
    holds="what proves that the key cannot leak: eight e-th roots (RSA), knowledge of the private key (OPRF); not "
    "with `learns: size`",
    max_bytes=_KEY_BYTES,
)
OFFER = JsonMessage(
    "offer",
    "sizes of blinded files",
    "how many ids the client asks for, those that are new to this key",
    fields={"blinded": list},
    way=_TO_SIGNER,
    tasks=_PSI,
    holds="files of blinded ids: shard, rows, SHA-256; unless `learns: size`, digests of the sets of tags that it "
    "kept, by kind",
    max_bytes=LISTS,
)
ACCEPTED = JsonMessage(
    "accepted",
    "sizes of tag files",
    "how many ids the signer has",
    fields={"charged": int},
    way=_TO_CLIENT,
    tasks=_PSI,
    holds="how many ids the run has been charged, over all its attempts; on which kept sets the differences build; "
    "files of tags that are new or gone; digest of all tags. With "
    "`learns: size`, files of the signer's tags",
    max_bytes=LISTS,
)
BLINDED = FileMessage(
    "blinded",
    "blinded ids",
    "the **number** of the client's ids that have no tag yet, per shard; nothing of who they are. Each blind is "
    "uniform and used once: nothing else, provided the key is a permutation (RSA), or whatever the key is (OPRF)",
    way=_TO_SIGNER,
    tasks=_PSI,
    per="shard",
    counted_as="ids_blinded",
    holds="blinded ids of one shard, in random order; with `learns: size` elements of 32 bytes, ascending, no two "
    "equal, in the shard of their first four bytes",
)
ANSWERS = FileMessage(
    "answers",
    "answers to blinded ids",
    "tags of the client's ids. It could compute the same for no other id",
    way=_TO_CLIENT,
    tasks=_PSI,
    per="shard",
    counted_as="ids_blinded",
    holds="the file's announcement, then answers row by row; for OPRF a proof behind each 4096; with `learns: size` "
    "elements as above, without proofs",
)
TAGS_ADDED = FileMessage(
    "tags-added",
    "tags of the signer's ids",
    "the **number** of the signer's ids; who, only of those that both have. Tags of ids that the client lacks look "
    "random to it; but under one key they are equal from run to run, and what is new or gone crosses as such, so the "
    "client sees how many come and go",
    way=_TO_CLIENT,
    tasks=_PSI,
    per="shard",
    holds="tags of the signer's ids, ascending: all, or what is new since a set that both hold",
)
TAGS_GONE = FileMessage(
    "tags-gone",
    "tags of ids that are gone",
    "how many ids are gone",
    way=_TO_CLIENT,
    tasks=_PSI,
    per="shard",
    holds="tags that are gone since a set that both hold",
)
TAGS = FileMessage(
    "tags",
    "tags of the signer's ids, under a key of this run",
    "the **number** of the signer's ids, and how many of them the client has. Answers are in the order of their own "
    "values, so the client cannot tell which of its ids they belong to; nothing can be compared with another run",
    way=_TO_CLIENT,
    tasks=_PSI,
    per="shard",
    holds="with `learns: size`, tags of 16 bytes, ascending, no two equal, in the shard of their first four bytes",
)
COMMON = JsonMessage(
    "common",
    "how many people are shared",
    "**how many** people are shared",
    fields={"n": int},
    way=_TO_SIGNER,
    tasks=_PSI,
    holds="how many people are shared; if both learn who, files of their tags that are new or gone, and the digest of "
    "all",
    max_bytes=LISTS,
)
COMMON_ADDED = FileMessage(
    "common-added",
    "tags of shared people",
    "**who** of its people is shared, as the client does. A ticket whose `outputs.intersection` is `client` or `size` "
    "refuses runs that declare that they reveal more",
    way=_TO_SIGNER,
    tasks=_PSI,
    per="shard",
    holds="tags of shared people, ascending: all, or what is new since a set that both hold",
)
COMMON_GONE = FileMessage(
    "common-gone",
    "tags of people no longer shared",
    "which of its people are shared no longer",
    way=_TO_SIGNER,
    tasks=_PSI,
    per="shard",
    holds="tags that are gone since a set that both hold",
)
FEW_SHARED = JsonMessage(
    "few shared",
    "whether few are shared",
    "whether the shared people are fewer than 5 % of the sender's own; only where the ticket's `outputs.id_shapes` is "
    "`classes`",
    fields={"few": bool},
    tasks=_PSI,
    holds="with `outputs.id_shapes: classes` in the ticket, whether nobody is shared, or fewer than 5 % of the "
    "sender's ids",
)
ID_SHAPES = JsonMessage(
    "id shapes",
    "shapes of ids",
    "**how** the sender's ids are written: forms such as digits or e-mail addresses, lengths and case, each with its "
    "share in whole per cent. No class of fewer than 20 ids of a sample of 100,000 is named, and no id, digit or "
    "letter of one crosses. Only where the ticket's `outputs.id_shapes` is `classes` and both halves have said that "
    "few are shared",
    fields={"columns": list},
    tasks=_PSI,
    holds="for each column of the id at most nine classes: form, length (129 for any beyond 128), case, share in per "
    "cent",
    max_bytes=64 << 10,
)
NEW = BytesMessage(
    "new",
    "tags of shared people with new rows",
    "of **which** shared people the sender has a new or changed row since the version in use",
    width=TAG_BYTES,
    tasks=_ALIGN,
    per="block",
    holds="with `rows: new`, tags of shared people of whom this side has a row that the version in use has not learnt "
    "from",
)
HELD_OUT = BytesMessage(
    "held out",
    "which rows are held out",
    "**which** shared people the leader keeps for the test: with `held_out_by: label` draws that say nothing else, "
    "with `partition` of whom the leader has a row in its newest partitions, with `column` what that column says",
    way=TO_FOLLOWER,
    tasks=_ALIGN,
    per="block",
    holds="with `held_out_by: label`, `partition` or `column`, one bit for each row in row order",
)
ROW_ORDER = JsonListMessage(
    "row order",
    "rows and digest of their order",
    "nothing that it does not hold itself",
    items=(int, str),
    tasks=_ALIGN,
    holds="number of rows, and digest of the tags in row order",
)

CHANGED_TAGS = {"added": TAGS_ADDED, "gone": TAGS_GONE}
"""What has changed in the signer's tags."""

CHANGED_COMMON = {"added": COMMON_ADDED, "gone": COMMON_GONE}
"""What has changed in the tags that both have."""

MESSAGES = (
    KEY,
    KEY_PROOF,
    OFFER,
    ACCEPTED,
    BLINDED,
    ANSWERS,
    *CHANGED_TAGS.values(),
    TAGS,
    COMMON,
    *CHANGED_COMMON.values(),
    FEW_SHARED,
    ID_SHAPES,
    NEW,
    HELD_OUT,
    ROW_ORDER,
)
