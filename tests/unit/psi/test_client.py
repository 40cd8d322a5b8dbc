"""What the client of an intersection believes of the signer."""

from __future__ import annotations

import pytest

from fedtasks.data.row_files import RowFile
from fedtasks.errors import ProtocolViolated
from fedtasks.psi.client import charged_of

ASKED = [RowFile(0, 3, "a" * 64), RowFile(1, 4, "b" * 64)]


def test_charge_of_all_attempts_stands_in_the_receipt() -> None:
    assert charged_of({"charged": 7}, ASKED) == 7
    assert charged_of({"charged": 20}, ASKED) == 20
    assert charged_of({"charged": 0}, []) == 0


@pytest.mark.parametrize(("charged", "asked"), [(6, ASKED), (0, ASKED), (-1, ASKED), (-1, [])])
def test_charge_below_what_is_asked_is_refused(charged: int, asked: list[RowFile]) -> None:
    with pytest.raises(ProtocolViolated, match="has counted"):
        charged_of({"charged": charged}, asked)
