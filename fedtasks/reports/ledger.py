"""What left the house: each message by the name that people know it by, and what the receiver learns of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fedtasks.store import DisclosureRow


@dataclass(frozen=True)
class Entry:
    """One line of the ledger.

    Parameters
    ----------
    task, name
        Of which task, and what the messages are called on the link.
    what
        What was sent, in words.
    learns
        What the receiver learns of it.
    messages, items, bytes
        How many messages over all attempts, how many rows where they are arrays or tables, and their size.
    """

    task: str
    name: str
    what: str
    learns: str
    messages: int
    items: int
    bytes: int


_KNOWN = {
    "blinded": ("blinded ids", "how many ids are new to this key; nothing of who they are"),
    "answers": ("answers to blinded ids", "tags of its own ids"),
    "tags-added": ("tags of own ids", "how many ids there are; who, only of those that both have"),
    "tags-gone": ("tags of ids that are gone", "how many ids are gone"),
    "tags": ("tags of own ids", "how many ids there are"),
    "common": ("how many people are shared", "that number"),
    "common-added": ("tags of shared people", "which of its people are shared"),
    "common-gone": ("tags of people no longer shared", "which of its people are shared no longer"),
    "key": ("public key", "the key, which is public"),
    "key proof": ("proof of the key", "that the key cannot leak ids"),
    "offer": ("sizes of blinded files", "how many ids are new to this key"),
    "accepted": ("sizes of tag files", "how many ids there are"),
    "new": ("tags of shared people with new rows", "of which shared people there are new rows here"),
    "row order": ("rows and digest of their order", "nothing that it does not hold itself"),
    "activation": ("activations", "for each row and epoch what the own features say, as a vector"),
    "gradient": ("gradients", "for each row and epoch a vector that depends on the label"),
    "embedding": ("embeddings of test rows", "for each test row what the own features say, as a vector"),
    "model digest": ("digest of the own half", "nothing of the model"),
    "publication": ("the next version's number, and whether it is better", "that, once a run"),
    "encryption key": ("public key for gradients, and its proof", "the key, which is public"),
    "candidate splits": ("how many splits are offered", "that number"),
    "next tree": ("the next tree's number and which rows it is grown from", "that"),
    "encrypted gradients": ("encrypted gradients", "nothing: it cannot decrypt them"),
    "chosen splits": ("how nodes of a tree are split", "which rows are in which node that goes on, so which are alike"),
    "own splits": ("rows on either side of own splits", "which rows lie on which side of a threshold it does not know"),
    "encrypted sums": ("sums of its gradients", "the sum on one side of each candidate split, without order or name"),
    "leaves left over": ("leaves that own splits leave over", "for each row and tree which leaves are possible"),
    "scores of rows": ("scores", "the score of each row"),
    "checkpoints": ("which checkpoints are held", "that"),
}
_WANTED = " wanted"
_GRADIENT = " gradient"
# Files count as bytes on the link; how many ids they hold, both halves have agreed on.
_IDS = {"blinded": "ids_blinded", "answers": "ids_blinded"}


def meaning(name: str) -> tuple[str, str]:
    """Return what messages of a name are, in words, and what their receiver learns."""
    if name in _KNOWN:
        return _KNOWN[name]
    if name.endswith(_WANTED):
        what, _learns = meaning(name.removesuffix(_WANTED))
        return f"whether a file is still missing: {what}", "that"
    if name.endswith(_GRADIENT):
        return f"gradients of {name.removesuffix(_GRADIENT)}", _KNOWN["gradient"][1]
    return name, "what the pipeline's authors sent there"


def ledger(
    rows: Iterable[DisclosureRow], bytes_sent: int, counts: Mapping[str, int] = MappingProxyType({})
) -> list[Entry]:
    """Sum what all attempts have sent, by task and name, largest first.

    Parameters
    ----------
    rows
        What the halves said that they sent.
    bytes_sent
        What the gateway counted: what nobody has named (a half was killed, or frames were sent again) is a line of
        its own, so that the ledger never says less than what left.
    counts
        What both halves have counted alike.
    """
    sums: dict[tuple[str, str], tuple[int, int, int]] = {}
    for row in rows:
        key, more = (row.task, row.name), (row.messages, row.items, row.bytes)
        sums[key] = tuple(map(sum, zip(sums.get(key, (0, 0, 0)), more, strict=True)))  # type: ignore[assignment]
    entries = []
    for (task, name), (messages, items, size) in sums.items():
        what, learns = meaning(name)
        held = items or counts.get(_IDS.get(name, ""), 0)
        entries.append(Entry(task, name, what, learns, messages, held, size))
    rest = bytes_sent - sum(entry.bytes for entry in entries)
    if rest > 0:
        entries.append(Entry("", "", "frames, and what was sent again", "nothing more", 0, 0, rest))
    return sorted(entries, key=lambda entry: (-entry.bytes, entry.task, entry.name))
