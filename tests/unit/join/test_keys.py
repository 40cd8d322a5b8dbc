"""Keys of events: what must be alike on both sides, and which shards may be."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from fedtasks.config import Dataset, EventTime, FeatureType
from fedtasks.errors import ConfigError
from fedtasks.join.keys import check_shards, key_facts, shards_of_tags, tags_of_texts
from fedtasks.join.settings import JoinSettings, Match

CLICKS = Dataset(
    name="clicks",
    uri="clicks",
    id="click_id",
    features={"price": FeatureType.NUMERIC},
    event_time=EventTime("clicked_at"),
    event_keys=("user, request_id", "user, @minute"),
    shard_by="user",
)

BY_RULE = JoinSettings(match=Match.LAST, shards=2)


def test_key_that_holds_what_decides_the_shard_may_have_several() -> None:
    check_shards(CLICKS, 8)
    check_shards(replace(CLICKS, event_keys=(), shard_by=""), 8)
    check_shards(replace(CLICKS, event_keys=("request_id", "user, @minute"), shard_by=""), 1)


@pytest.mark.parametrize(
    ("keys", "shard_by", "words"),
    [
        (
            ("request_id", "user, @minute"),
            "",
            "`click_id`, which decides the shard, is not part of `request_id`, level 1",
        ),
        (("click_id", "user, @minute"), "", "not part of `user, @minute`, level 2"),
        ((), "user", "`user`, which decides the shard, is not part of `click_id`, level 1"),
    ],
)
def test_several_shards_of_keys_without_what_decides_them_are_refused(
    keys: tuple[str, ...], shard_by: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        check_shards(replace(CLICKS, event_keys=keys, shard_by=shard_by), 2)
    assert caught.value.fields["field"] == "shard_by"


def test_facts_of_keys_tell_meanings_and_no_names() -> None:
    theirs = replace(CLICKS, event_keys=("uid, rid", "uid, @minute"), shard_by="uid")
    alike = {"normalise": "trim,nfc", "event_keys": "column+column; column+@minute"}
    assert key_facts(CLICKS, BY_RULE) == key_facts(theirs, BY_RULE) == alike | {"shard_by": "1; 1"}
    assert key_facts(CLICKS, replace(BY_RULE, shards=1)) == alike
    assert key_facts(CLICKS, JoinSettings()) == CLICKS.id_facts


@pytest.mark.parametrize(
    ("keys", "shard_by"),
    [
        (("user, request_id",), "user"),
        (("user, request_id", "user, @hour"), "user"),
        (("user, request_id", "@minute, user"), "user"),
        (("request_id, user", "user, @minute"), "user"),
    ],
)
def test_facts_of_keys_that_mean_something_else_differ(keys: tuple[str, ...], shard_by: str) -> None:
    other = replace(CLICKS, event_keys=keys, shard_by=shard_by)
    assert key_facts(other, BY_RULE) != key_facts(CLICKS, BY_RULE)


def test_shards_are_about_equal_and_all_there() -> None:
    hi, _ = tags_of_texts(pa.array([f"id-{number}" for number in range(30_000)]), bytes(32))
    counts = np.bincount(shards_of_tags(hi, 3), minlength=3)
    assert counts.sum() == 30_000
    assert counts.min() > 9_500


def test_tags_under_another_secret_are_others() -> None:
    ids = pa.array(["a", "b", "a"])
    one, other = tags_of_texts(ids, bytes(32)), tags_of_texts(ids, bytes([1] * 32))
    assert one[0][0] == one[0][2] != one[0][1]
    assert not (one[0] == other[0]).any()
    assert not (one[1] == other[1]).any()
