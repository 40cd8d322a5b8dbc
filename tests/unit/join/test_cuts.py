from __future__ import annotations

import pytest

from fedtasks.config import check_learnt
from fedtasks.errors import ConfigError
from fedtasks.join import cuts


@pytest.mark.parametrize(
    ("cut", "text"), [((12, 9, 14), "clicks@12.9.14"), ((3,), "clicks@3"), ((), "clicks@0"), ((0, 2), "clicks@0.2")]
)
def test_cut_is_said_and_read_again(cut: tuple[int, ...], text: str) -> None:
    assert cuts.said("clicks", cut) == text
    check_learnt(text)
    assert cuts.learnt("clicks", [text]) == (cut or (0,))


def test_learnt_is_the_furthest_that_any_version_says_of_this_stream() -> None:
    names = ["2026-11-21", "clicks@3.7", "views@90.90", "clicks@5.6", "clicks@4"]
    assert cuts.learnt("clicks", names) == (5, 7)
    assert cuts.learnt("views", names) == (90, 90)
    assert cuts.learnt("buys", names) == ()


def test_common_is_what_both_have_of_each_shard() -> None:
    assert cuts.common((3, 7), (5, 6)) == (3, 6)
    assert cuts.common((3,), (5, 6)) == (3, 0)
    assert cuts.common((), ()) == ()


@pytest.mark.parametrize("name", ["clicks@", "clicks@1.", "clicks@-1", "Clicks@1", "@1", "clicks@1.2 ", "a b"])
def test_what_a_model_cannot_have_learnt_from_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        check_learnt(name)
