"""What the halves of a streaming join tell each other."""

from __future__ import annotations

from fedtasks.exchange.message import TO_FOLLOWER, TO_LEADER, ArrayMessage, BytesMessage, JsonMessage, TableMessage
from fedtasks.join.health_messages import HEALTH_MESSAGES
from fedtasks.join.take_messages import TAKE_MESSAGES

_JOIN = ("join",)

SECRET = BytesMessage(
    "join secret",
    "secret of the stream",
    "the key of the hashes by which ids cross. Who has it can look whether an id that it knows is among the other's",
    way=TO_FOLLOWER,
    tasks=_JOIN,
    holds="32 random bytes that the leader drew when the stream began",
    max_bytes=32,
)
POSITION = JsonMessage(
    "join position",
    "what has been joined so far",
    "nothing that it does not hold itself, unless a crash came between",
    fields={"committed": int, "digest": str, "prepared": list},
    tasks=_JOIN,
    holds="number of the last commit and the digest of its rows' order, and digests of what is prepared as the next",
)
OFFER = JsonMessage(
    "join offer",
    "how far the leader has read",
    "**how many** rows the leader has in this round, and the newest time that it has read",
    fields={"rows": int, "first": int, "newest_ms": int, "idle": bool, "seal": str, "last": bool, "final": bool},
    way=TO_FOLLOWER,
    tasks=_JOIN,
    holds="rows of this round, newest event time, whether there is more to read now, and, where a commit ends, what it "
    "is called",
)
KEYS = ArrayMessage(
    "join keys",
    "hashes and times of the leader's rows",
    "**when** the leader has rows, and which of them are about an id that the follower has too. Of other ids it sees "
    "hashes; as it knows their key, it can find out whether an id that it can guess is among them",
    dtype="<u8",
    shape=(None, None),
    way=TO_FOLLOWER,
    tasks=_JOIN,
    holds="of each row its stamp (event time in milliseconds, a bit for late ones, its place); unless `ids: clear` the "
    "two halves of its tag, ascending; unless rows are joined by id, the two halves of its key of each level",
)
IDS = TableMessage(
    "join ids",
    "ids of the leader's rows",
    "**which** ids the leader has; only where the ticket's `outputs.join_ids` is `clear`",
    way=TO_FOLLOWER,
    tasks=_JOIN,
    holds="with `ids: clear`, the ids of the rows of `keys`",
)
ANSWER = JsonMessage(
    "join answer",
    "how far the follower has read",
    "the newest time that the follower has read, and how far apart the two clocks are",
    fields={"rows": int, "newest_ms": int, "decided_ms": int, "idle": bool, "bytes": int, "offset_ms": int},
    way=TO_LEADER,
    tasks=_JOIN,
    holds="rows that belong together, newest event time, before which event time the leader's rows are decided, "
    "whether there is more to read now, how large the follower's block has become, and the median by which its times "
    "lie behind the leader's",
)
MATCHES = ArrayMessage(
    "join matches",
    "which of the leader's rows the follower has",
    "**which** of its rows the follower has too",
    dtype="<i8",
    shape=(None,),
    way=TO_LEADER,
    tasks=_JOIN,
    holds="numbers of the leader's rows to which a row of the follower belongs, with a bit for those of which the "
    "follower's row was late",
)
SEALED = JsonMessage(
    "join sealed",
    "number and digest of a commit",
    "nothing that it does not hold itself",
    fields={"number": int, "rows": int, "digest": str},
    tasks=_JOIN,
    holds="number of the commit that is prepared, its rows, and the digest of their order",
)

MESSAGES = (SECRET, POSITION, OFFER, KEYS, IDS, ANSWER, MATCHES, SEALED, *TAKE_MESSAGES, *HEALTH_MESSAGES)
