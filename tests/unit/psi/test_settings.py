from __future__ import annotations

from typing import Any

import pytest

from fedtasks.dataclass_io import build
from fedtasks.errors import ConfigError
from fedtasks.psi.align import AlignSettings
from fedtasks.psi.settings import Learns, PsiSettings


@pytest.mark.parametrize(
    ("kind", "plain", "field"),
    [
        (PsiSettings, {"key_bits_min": 1024}, "key_bits_min"),
        (PsiSettings, {"shards": 0}, "shards"),
        (PsiSettings, {"min_intersection": -1}, "min_intersection"),
        (PsiSettings, {"shard": 3}, "shard"),
        (PsiSettings, {"learns": "size"}, "learns"),
        (PsiSettings, {"learns": "nobody"}, "learns"),
        (AlignSettings, {"test_fraction": 1.0}, "test_fraction"),
        (AlignSettings, {"rows_per_block": 0}, "rows_per_block"),
        (AlignSettings, {"seed": 2**63}, "seed"),
        (AlignSettings, {"seed": "1"}, "seed"),
    ],
)
def test_settings_out_of_bounds_are_refused_naming_the_field(kind: type, plain: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=rf"settings\.{field}"):
        build(kind, plain, path="settings")


def test_settings_have_defaults_that_hold() -> None:
    assert build(PsiSettings, {}).shards == 2
    assert build(PsiSettings, {"learns": "size", "scheme": "oprf"}).learns is Learns.SIZE
    assert build(AlignSettings, {}).test_fraction == 0.25
