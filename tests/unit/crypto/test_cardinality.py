from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtasks.crypto import cardinality, ristretto
from fedtasks.errors import ProtocolViolated

IDS = [b"alice", "Zoë".encode(), b"007", b""]


def rows(elements: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in elements}


def ascending(elements: np.ndarray) -> np.ndarray:
    """The order in which elements cross."""
    raw = b"".join(sorted(rows(elements)))
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, cardinality.ELEMENT_BYTES)


@settings(max_examples=20, deadline=None)
@given(own=st.sets(st.binary(max_size=9), min_size=1), other=st.sets(st.binary(max_size=9), min_size=1))
def test_tags_in_common_are_as_many_as_ids_in_common(own: set[bytes], other: set[bytes]) -> None:
    client, signer = ristretto.random_scalars(1), ristretto.random_scalars(1)

    blinded = ascending(cardinality.blind(list(own), client))
    answers = ascending(cardinality.answer(blinded, signer))
    found = cardinality.finish(answers, client)
    tags = cardinality.tag(list(other), signer)

    assert blinded.shape == answers.shape == (len(own), 32)
    assert (found.shape, tags.shape) == ((len(own), 16), (len(other), 16))
    assert len(rows(found) & rows(tags)) == len(own & other)


def test_tag_is_a_hash_of_the_element_under_the_scalar() -> None:
    scalar = ristretto.scalars([7])
    element = cardinality.blind([b"alice"], scalar)
    sevenfold = ristretto.total(np.repeat(cardinality.blind([b"alice"], ristretto.scalars([1])), 7, axis=0))

    assert element.tolist() == sevenfold.tolist()
    expected = hashlib.sha256(b"fedtasks-psi-size-tag-v1" + element.tobytes()).digest()[:16]
    assert cardinality.tag([b"alice"], scalar).tobytes() == expected


def test_elements_and_tags_of_another_scalar_have_nothing_in_common() -> None:
    one, other = ristretto.random_scalars(1), ristretto.random_scalars(1)
    assert not rows(cardinality.blind(IDS, one)) & rows(cardinality.blind(IDS, other))
    assert not rows(cardinality.tag(IDS, one)) & rows(cardinality.tag(IDS, other))


@pytest.mark.parametrize("wrong", [bytes(32), b"\xff" * 32], ids=["identity", "no element"])
def test_rows_that_are_no_element_are_refused(wrong: bytes) -> None:
    scalar = ristretto.random_scalars(1)
    elements = cardinality.blind(IDS, scalar).copy()
    elements[2] = np.frombuffer(wrong, dtype=np.uint8)
    for function in (cardinality.answer, cardinality.finish):
        with pytest.raises(ProtocolViolated, match="row 2 of 4"):
            function(elements, scalar)
