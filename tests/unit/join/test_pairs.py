"""Content of blocks of a joined stream."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from fedtasks.join.pairs import content_of

TABLE = pa.table(
    {
        "tag": pa.array([b"1" * 16] * 3, pa.binary(16)),
        "time": pa.array([3, 5, 8]),
        "amount": pa.array([0.5, None, 2.0]),
        "city": ["Bern", None, "Bern"],
        "films": [["Alien"] * 50, [], None],
        "places": pa.array([[1.0, 2.0]] * 3, pa.list_(pa.float64())),
    }
)


def test_content_of_a_block_is_the_table_and_packs_what_has_no_width_of_its_own() -> None:
    content = content_of(TABLE)
    assert pq.read_table(pa.BufferReader(content)).equals(TABLE)
    group = pq.ParquetFile(pa.BufferReader(content)).metadata.row_group(0)
    found = {column.path_in_schema.partition(".")[0]: column.compression for column in map(group.column, range(6))}
    plain = dict.fromkeys(("tag", "time", "amount"), "UNCOMPRESSED")
    assert found == plain | dict.fromkeys(("city", "films", "places"), "LZ4")
