"""Sums of pairs through encryption, packing and back."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtasks.crypto.packing import EXACT_PRECISION, Slots, exact_precision
from fedtasks.crypto.paillier import generate_key
from fedtasks.errors import ProtocolViolated

key_of = functools.cache(generate_key)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), bits=st.sampled_from([2048, 3072]), n_rows=st.integers(1, 60), n_sums=st.integers(1, 80))
def test_sums_of_pairs_come_back(data: st.DataObject, bits: int, n_rows: int, n_sums: int) -> None:
    key = key_of(bits)
    public = key.public
    slots = Slots.of(n_rows, bits)
    most = 1 << slots.precision
    extreme = st.one_of(st.sampled_from([-most, -1, 0, 1, most]), st.integers(-most, most))
    first = np.array(data.draw(st.lists(extreme, min_size=n_rows, max_size=n_rows)))
    second = np.array(data.draw(st.lists(extreme.map(abs), min_size=n_rows, max_size=n_rows)))
    segments = np.array(data.draw(st.lists(st.integers(0, n_sums - 1), min_size=n_rows, max_size=n_rows)))
    sums = public.ring.segmented_product(slots.encode(public, first, second), segments, n_sums)
    fullest = int(np.bincount(segments).max())
    packed = slots.pack(public, sums, fullest)
    assert len(packed) == -(-n_sums // slots.per_plaintext(fullest))
    found = slots.unpack(key, packed, n_sums, fullest)
    for values, expected in zip(found, (first, second), strict=True):
        exact = np.zeros(n_sums, dtype=np.int64)
        np.add.at(exact, segments, expected)
        np.testing.assert_array_equal(values, exact)


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
@pytest.mark.parametrize("n_rows", [1, 2, 255, 256, 60_000, 131_072, 2**20, 10**7, 2**29])
def test_no_sum_of_so_many_rows_leaves_its_slot(n_rows: int, bits: int) -> None:
    for precision in (16, EXACT_PRECISION):
        slots = Slots.of(n_rows, bits, precision)
        assert min(precision, 20) <= slots.precision <= min(precision, exact_precision(n_rows))
        assert n_rows << slots.precision < 1 << slots.second_bits
        assert n_rows << slots.precision < 2**53
        for n_summed in (1, n_rows // 2, n_rows):
            assert n_summed << slots.precision < 1 << (slots.bits(n_summed) - slots.second_bits - 1)
            assert slots.bits(n_summed) * slots.per_plaintext(n_summed) < bits


@pytest.mark.parametrize("n_rows", [1, 5, 100, 2**14 - 1])
def test_sums_are_whole_at_their_bounds(n_rows: int) -> None:
    key = key_of(2048)
    slots = Slots(precision=24, second_bits=39, key_bits=2048)
    most = 1 << (slots.bits(n_rows) - 40)
    first = np.array([-most, most - 1, -most] * 9)
    second = np.array([2**39 - 1, 2**39 - 1, 0] * 9)
    packed = slots.pack(key.public, slots.encode(key.public, first, second), n_rows)
    found = slots.unpack(key, packed, 27, n_rows)
    np.testing.assert_array_equal(found[0], first)
    np.testing.assert_array_equal(found[1], second)


def test_more_rows_than_sums_can_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="exact"):
        Slots.of(2**40, 2048)


def test_a_plaintext_that_is_no_sum_is_refused() -> None:
    key = key_of(2048)
    slots = Slots.of(10, 2048)
    above = slots.bits(10) * slots.per_plaintext(10)
    large = np.frombuffer((1 << above).to_bytes(256, "big"), np.uint8).reshape(1, -1)
    with pytest.raises(ProtocolViolated):
        slots.unpack(key, key.public.plain(large), 1, 10)
