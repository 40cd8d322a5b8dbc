"""How many ids two parties share and nothing more: elements of ristretto255 under scalars made for one run.

Elements are ``uint8`` of shape ``(n, 32)``, a scalar is one such row. The steps::

    client, with scalar r             signer, with scalar k
    blinded = blind(ids, r)
                     ── blinded, in another order ──►
                                      answers = answer(blinded, k)
                     ◄── answers, in another order ──
    tags = finish(answers, r)         tags = tag(ids, k)            equal for equal ids

Whoever sends elements must give them another order first, such as that of their bytes, which are random.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedtasks.crypto import ristretto
from fedtasks.crypto.hashing import Messages, hash_rows
from fedtasks.names import TAG_BYTES

Bytes = npt.NDArray[np.uint8]

ELEMENT_BYTES = ristretto.WIDTH

_GROUP_DOMAIN = b"fedtasks-psi-size-group-v1"
_TAG_DOMAIN = b"fedtasks-psi-size-tag-v1"


def blind(ids: Messages, scalar: Bytes) -> Bytes:
    """Hide different ids from the signer.

    Notes
    -----
    Reveals: nothing but the number of ids, as long as the scalar is secret and used for one set of ids.
    Cost: one multiplication and one hash to the group per id.
    Source: De Cristofaro, Gasti and Tsudik, "Fast and private computation of cardinality of set intersection and
    union", 2012, figure 1.
    """
    return ristretto.hash_and_multiply(ids, _GROUP_DOMAIN, scalar)


def answer(blinded: Bytes, scalar: Bytes) -> Bytes:
    """Answer what a client blinded.

    Raises
    ------
    ProtocolViolated
        A row is no element of the group, or its identity.

    Notes
    -----
    Reveals: once the rows are in another order, which tags the client's ids have but not whose they are, to a client
    that blinded as agreed. One that sends multiples of one element finds them again among the answers, and so learns
    whose tags they are. The answers carry no proof.
    Cost: one multiplication per row.
    Source: as `blind`.
    """
    return ristretto.multiply(blinded, scalar)


def finish(answers: Bytes, scalar: Bytes) -> Bytes:
    """Turn answers into tags, by the scalar that the ids were blinded with; shape ``(n, 16)``.

    Raises
    ------
    ProtocolViolated
        A row is no element of the group, or its identity.

    Notes
    -----
    Cost: one multiplication per row.
    Source: as `blind`.
    """
    return _tags(ristretto.multiply(answers, ristretto.inverted(scalar)))


def tag(ids: Messages, scalar: Bytes) -> Bytes:
    """Return the tags of the signer's own ids, shape ``(n, 16)``.

    Notes
    -----
    Reveals: without the scalar a tag is a random number.
    Cost: one multiplication and one hash to the group per id.
    Source: as `blind`.
    """
    return _tags(blind(ids, scalar))


def _tags(elements: Bytes) -> Bytes:
    return np.ascontiguousarray(hash_rows("sha256", _TAG_DOMAIN, elements)[:, :TAG_BYTES])
