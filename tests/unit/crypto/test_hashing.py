"""Hashes of rows put together from columns: every kernel against hashlib and published vectors."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtasks.crypto import hashing, native
from fedtasks.crypto.hashing import Algorithm, Kernel, Length, Part, Texts, expand_rows, hash_rows

ALGORITHMS: tuple[Algorithm, ...] = ("sha256", "sha384", "sha512")
KERNELS: tuple[Kernel, ...] = ("avx512", "avx2", "plain", "hashlib")
BATCHES = (0, 1, 7, 8, 9, 15, 16, 17, 33)
EMPTY = Texts.of([])

# FIPS 180-4 example values and RFC 6234 section 8.5.
VECTORS: dict[Algorithm, dict[bytes, str]] = {
    "sha256": {
        b"": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        b"abc": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq": (
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        ),
    },
    "sha384": {
        b"abc": ("cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7"),
        b"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrst"
        b"nopqrstu": (
            "09330c33f71147e83d192fc782cd1b4753111b173b3b05d22fa08086e3b0f712fcc7c71a557e2db966c3e9fa91746039"
        ),
    },
    "sha512": {
        b"abc": (
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
            "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
        ),
        b"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrst"
        b"nopqrstu": (
            "8e959b75dae313da8cf4f72814fc143f8f7779c6eb9f7fa17299aeadb6889018"
            "501d289e4900f7e4331b99dec4b5433ac7d329eeb6dd26545e96e55b874be909"
        ),
    },
}


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> Kernel:
    if request.param not in hashing.available_kernels():
        pytest.skip(f"kernel {request.param} does not run here")
    found: Kernel = request.param
    return found


def rows_of(part: Part, n: int) -> list[bytes]:
    if isinstance(part, bytes):
        return [part] * n
    if isinstance(part, Texts):
        return list(part)
    if isinstance(part, Length):
        return [len(text).to_bytes(part.n_bytes, "big") for text in part.texts]
    return [bytes(row.tolist()) for row in part]


def expected(algorithm: str, n: int, *parts: Part) -> list[str]:
    rows = zip(*[rows_of(part, n) for part in parts], strict=True)
    return [hashlib.new(algorithm, b"".join(row)).hexdigest() for row in rows]


def found(digests: np.ndarray) -> list[str]:
    return [row.tobytes().hex() for row in digests]


def random_rows(n: int, width: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, width), dtype=np.uint8)


def random_texts(lengths: list[int], seed: int = 2) -> Texts:
    return Texts.of([random_rows(1, length, seed + length).tobytes() for length in lengths])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_hash_of_published_vectors_matches(algorithm: Algorithm, kernel: Kernel) -> None:
    vectors = VECTORS[algorithm]

    assert found(hash_rows(algorithm, Texts.of(list(vectors)), kernel=kernel)) == list(vectors.values())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_hash_of_a_million_a_matches_the_published_one(algorithm: Algorithm, kernel: Kernel) -> None:
    heads = {"sha256": "cdc76e5c9914fb92", "sha384": "9d0e1809716474cb", "sha512": "e718483d0ce76964"}

    digests = hash_rows(algorithm, Texts.of([b"x", b"a" * 10**6, b""]), kernel=kernel)

    assert digests[1].tobytes().hex().startswith(heads[algorithm])
    assert found(digests) == expected(algorithm, 3, Texts.of([b"x", b"a" * 10**6, b""]))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_hash_of_every_length_in_one_batch_equals_hashlib(algorithm: Algorithm, kernel: Kernel) -> None:
    lengths = np.random.default_rng(3).permutation(np.repeat(np.arange(301), 2)).tolist()
    texts = random_texts(lengths)

    assert found(hash_rows(algorithm, texts, kernel=kernel)) == expected(algorithm, len(lengths), texts)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_hash_of_every_width_equals_hashlib(algorithm: Algorithm, kernel: Kernel) -> None:
    for width in range(301):
        rows = random_rows(3, width)
        assert found(hash_rows(algorithm, rows, kernel=kernel)) == expected(algorithm, 3, rows)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("n", BATCHES)
def test_hash_of_all_kinds_of_parts_equals_hashlib(algorithm: Algorithm, n: int, kernel: Kernel) -> None:
    texts = random_texts([(37 * row) % 150 for row in range(n)])
    parts = (b"domain", Length(texts, 2), texts, b"", Length(texts, 4), random_rows(n, 48), random_rows(n, 0), b"end")

    digests = hash_rows(algorithm, *parts, kernel=kernel)

    assert digests.shape == (n, hashlib.new(algorithm).digest_size)
    assert digests.dtype == np.uint8
    assert digests.flags.c_contiguous
    assert digests.flags.writeable
    assert found(digests) == expected(algorithm, n, *parts)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("size", [1, 63, 64, 65, 127, 128, 129, 192, 256, 300])
def test_hash_behind_a_constant_of_whole_blocks_equals_hashlib(algorithm: Algorithm, size: int, kernel: Kernel) -> None:
    # The texts that follow are empty in some rows, among them the first.
    texts = random_texts([0, 1, 0, 200, 0, 64, 128, 3, 0, 5])
    parts = (bytes(range(200))[: size // 2], b"z" * (size - min(200, size // 2)), texts, b"")

    assert found(hash_rows(algorithm, *parts, kernel=kernel)) == expected(algorithm, 10, *parts)


@st.composite
def columns(draw: st.DrawFn) -> tuple[int, list[Part]]:
    n = draw(st.integers(0, 40))
    texts = Texts.of(draw(st.lists(st.binary(max_size=140), min_size=n, max_size=n)))
    kinds: list[st.SearchStrategy[Part]] = [
        st.binary(max_size=140),
        st.just(texts),
        st.sampled_from([Length(texts, 2), Length(texts, 4)]),
        st.builds(random_rows, st.just(n), st.integers(0, 140), st.integers(0, 99)),
    ]
    return n, [texts, *draw(st.lists(st.one_of(kinds), max_size=6))][:: draw(st.sampled_from([1, -1]))]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@settings(max_examples=60, deadline=None)
@given(drawn=columns())
def test_hash_of_any_columns_is_the_same_by_every_kernel(algorithm: Algorithm, drawn: tuple[int, list[Part]]) -> None:
    n, parts = drawn

    for name in hashing.available_kernels():
        assert found(hash_rows(algorithm, *parts, kernel=name)) == expected(algorithm, n, *parts)


def test_hash_of_rows_in_any_memory_order_equals_hashlib(kernel: Kernel) -> None:
    rows = random_rows(20, 30)
    views = [rows[::2], rows[::-1], rows[:, 3:9], rows[:, ::3], rows[:, ::-1], rows.T, np.asfortranarray(rows)]
    one = np.broadcast_to(rows[:1], (20, 30))

    for view in [*views, one, rows[:, :1], rows[:1, ::-1]]:
        assert found(hash_rows("sha256", view, kernel=kernel)) == expected("sha256", len(view), view)


def test_hash_of_empty_columns_reads_nothing(kernel: Kernel) -> None:
    # A step of zero marks a constant, and here there is none to read.
    column = np.lib.stride_tricks.as_strided(np.empty(0, dtype=np.uint8), shape=(0, 300), strides=(0, 1))

    assert hash_rows("sha256", column, Texts.of([]), kernel=kernel).shape == (0, 32)


def test_hash_of_a_large_batch_is_shared_out_among_threads(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    texts = Texts.of([b"%d" % (row**3) for row in range(7001)])

    assert found(hash_rows("sha512", b"-", texts, kernel=kernel)) == expected("sha512", 7001, b"-", texts)


def test_hash_without_the_native_library_falls_back_to_hashlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "load", lambda: None)
    hashing.available_kernels.cache_clear()
    try:
        assert hashing.available_kernels() == ("hashlib",)
        assert found(hash_rows("sha256", Texts.of([b"abc"]))) == [VECTORS["sha256"][b"abc"]]
        with pytest.raises(ValueError, match="kernel 'plain' does not run here"):
            hash_rows("sha256", EMPTY, kernel="plain")
    finally:
        hashing.available_kernels.cache_clear()


# RFC 9380 has vectors for other lengths only; those of RFC 9497, which test_oprf.py checks, rest on this one.
@pytest.mark.parametrize("domain", [b"", b"QUUX-V01-CS02-with-expander-SHA512-256", bytes(255)])
def test_expansion_is_what_rfc9380_section_5_3_1_says(domain: bytes) -> None:
    messages = [b"", b"abc", b"abcdef0123456789", b"q128_" + b"q" * 128, b"a512_" + b"a" * 512]
    prime = domain + bytes([len(domain)])
    rows = []
    for message in messages:
        first = hashlib.sha512(bytes(128) + message + (64).to_bytes(2, "big") + b"\0" + prime).digest()
        rows.append(hashlib.sha512(first + b"\x01" + prime).hexdigest())

    assert found(expand_rows(domain, Texts.of(messages))) == rows
    assert found(expand_rows(domain, Texts.of(messages), b"")) == rows


def test_expansion_with_a_domain_of_256_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="range"):
        expand_rows(bytes(256), EMPTY)


@pytest.mark.parametrize(("kind", "offset_bytes"), [(pa.string(), 4), (pa.large_string(), 8), (pa.large_binary(), 8)])
@pytest.mark.parametrize("part", [slice(0, 7), slice(2, 5), slice(6, 7), slice(3, 3)])
def test_texts_of_sliced_arrow_columns_are_their_rows(kind: Any, offset_bytes: Any, part: slice) -> None:
    ids = ["", "alice", "Zoë", "", "bob", "x" * 100, ""]
    column = pa.array(ids, kind)[part]
    _, offsets, data = column.buffers()

    texts = Texts.from_buffers(offsets, data, len(column), column.offset, offset_bytes)

    rows = [each.encode() for each in ids[part]]
    assert list(texts) == rows
    assert len(texts) == len(rows)
    assert found(hash_rows("sha384", Length(texts, 2), texts)) == expected("sha384", len(rows), Length(texts, 2), texts)


@pytest.mark.parametrize("ids", [[], [""], ["", "", ""]])
def test_texts_of_an_arrow_column_without_bytes_are_empty(ids: list[str], kernel: Kernel) -> None:
    _, offsets, data = pa.array(ids, pa.string()).buffers()

    for held in (data, None):
        texts = Texts.from_buffers(offsets, held, len(ids))
        assert list(texts) == [b""] * len(ids)
        assert found(hash_rows("sha256", texts, kernel=kernel)) == [VECTORS["sha256"][b""]] * len(ids)


def test_texts_of_too_short_buffers_are_refused() -> None:
    offsets = np.array([0, 3, 5], dtype=np.int32).tobytes()

    with pytest.raises(ValueError, match="smaller than requested"):
        Texts.from_buffers(offsets, b"abcde", 3)
    with pytest.raises(ValueError, match="ascend within the data"):
        Texts.from_buffers(offsets, b"abcd", 2)


@pytest.mark.parametrize("offsets", [[-1, 2], [0, 3, 2], [0, 6], [2, 1, 3]])
def test_texts_with_wrong_offsets_are_refused(offsets: list[int]) -> None:
    with pytest.raises(ValueError, match="ascend within the data"):
        Texts(np.zeros(5, dtype=np.uint8), np.array(offsets, dtype=np.int64))


def test_texts_of_other_arrays_are_refused() -> None:
    data, offsets = np.zeros(4, dtype=np.uint8), np.array([0, 2, 4], dtype=np.int64)

    for wrong in (data.astype(np.int8), data.reshape(2, 2), data[::2]):
        with pytest.raises(ValueError, match="data of texts"):
            Texts(wrong, offsets)
    for wrong in (offsets.astype(np.int32), offsets[:0], offsets[::2], offsets.reshape(3, 1)):
        with pytest.raises(ValueError, match="offsets must be"):
            Texts(data, wrong)


def test_length_that_does_not_fit_is_refused() -> None:
    assert found(hash_rows("sha256", Length(Texts.of([b"a" * 65535]), 2))) == [hashlib.sha256(b"\xff\xff").hexdigest()]
    with pytest.raises(ValueError, match="a text of 65536 bytes is too long"):
        Length(Texts.of([b"", b"a" * 65536]), 2)
    with pytest.raises(ValueError, match="2 or 4 bytes, not 9"):
        Length(EMPTY, 9)  # type: ignore[arg-type]


def test_columns_of_wrong_form_are_refused(kernel: Kernel) -> None:
    rows, texts = random_rows(3, 4), Texts.of([b"a", b"b"])

    with pytest.raises(ValueError, match=r"one length, not \[2, 3\]"):
        hash_rows("sha256", rows, texts, kernel=kernel)
    with pytest.raises(ValueError, match=r"one length, not \[2, 3\]"):
        hash_rows("sha256", rows, Length(texts, 2), kernel=kernel)
    with pytest.raises(ValueError, match="no column"):
        hash_rows("sha256", b"constant", kernel=kernel)
    for wrong in (rows[0], rows.reshape(3, 2, 2), rows.astype(np.uint16)):
        with pytest.raises(ValueError, match=r"shape \(n, width\)"):
            hash_rows("sha256", wrong, kernel=kernel)
    with pytest.raises(ValueError, match="there is no hash 'md5'"):
        hash_rows("md5", rows, kernel=kernel)  # type: ignore[arg-type]
