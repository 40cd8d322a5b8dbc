from __future__ import annotations

import pytest

from fedtasks.errors import VersionDiffers
from fedtasks.link.versions import Speaks, highest_common


@pytest.mark.parametrize(
    ("ours", "theirs", "version"),
    [((3, 3), (3, 3), 3), ((3, 5), (4, 9), 5), ((3, 5), (1, 4), 4), ((3, 5), (5, 5), 5), ((3, 5), (1, 3), 3)],
)
def test_two_ranges_meet_at_the_highest_version_that_both_have(
    ours: tuple[int, int], theirs: tuple[int, int], version: int
) -> None:
    assert highest_common(Speaks("a", "1", *ours), Speaks("b", "2", *theirs), "protocol") == version


@pytest.mark.parametrize(("theirs", "behind"), [((1, 2), "b"), ((6, 9), "a"), ((9, 2), "b"), ((0, 0), "b")])
def test_ranges_without_a_common_version_are_told_alike_on_both_sides(theirs: tuple[int, int], behind: str) -> None:
    a, b = Speaks("a", "1.0", 3, 5), Speaks("b", "", *theirs)
    with pytest.raises(VersionDiffers) as caught:
        highest_common(a, b, "sessions")
    assert caught.value.fields["upgrade"] == behind
    assert caught.value.detail.startswith("a 1.0 with sessions 3 to 5, b of an unnamed release with sessions ")
    if theirs[0] <= theirs[1]:
        with pytest.raises(VersionDiffers) as caught:
            highest_common(b, a, "sessions")
        assert caught.value.fields["upgrade"] == behind
