"""Intersections of which the size alone is learnt, by two processes against a plain inner join."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedtasks.data.storage import local_path, read_json
from tests.integration.psi_case import Case, bank, codes, shop
from tests.integration.psi_halves import FOLLOWER, LEADER, Ended

pytestmark = pytest.mark.timeout(120)

SIZE = {"learns": "size", "scheme": "oprf"}


def texts(numbers: Any) -> list[str]:
    return [f"p{number}" for number in numbers]


def files(case: Case, name: str) -> set[str]:
    """What a party's storage holds."""
    root = Path(local_path(case.parties[name].storage))
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def in_stages(case: Case, *stages: tuple[str, int | None], attempt: int = 1, **more: Any) -> dict[str, Ended]:
    for stage, shard in stages:
        run = {"attempt": attempt, "stage": stage, "shard": shard}
        ended = case.halves.run("psi", case.run_id, case.parties, {**SIZE, **more}, **run)
        assert ended[LEADER].outcome == ended[FOLLOWER].outcome is not None, (stage, ended)
    return ended


def prepared(case: Case) -> tuple[set[bytes], set[bytes], str]:
    """Blinded ids and the signer's tags as they are between two stages, and where the signer's secret is."""
    asked = read_json(f"{case.storage(LEADER).folder('psi')}/blinded.json")["shards"]
    tagged = read_json(f"{case.storage(FOLLOWER).folder('psi')}/tagged.json")
    return (
        {row for shard in asked for row in rows(shard["sent"]["uri"], 32)},
        {row for file in tagged["tags"] for row in rows(file["uri"], 16)},
        tagged["scalar"],
    )


def rows(uri: str, width: int) -> list[bytes]:
    raw = local_path(uri).read_bytes()
    return [raw[at : at + width] for at in range(0, len(raw), width)]


def test_size_equals_an_inner_join_and_nothing_else_is_left_behind(case: Case) -> None:
    rng = np.random.default_rng(7)
    everyone = [f"{number:06d}" for number in rng.permutation(10_000)[:500]]
    bank_rows, shop_rows = bank(everyone[:350]), shop(everyone[150:])
    case.give(LEADER, bank_rows)
    case.give(FOLLOWER, shop_rows)

    ended = case.run("psi", shards=3, **SIZE)

    assert ended[LEADER].outcome == ended[FOLLOWER].outcome, ended
    assert ended[LEADER].outcome is not None
    size = len(bank_rows.merge(shop_rows, on="id"))
    assert ended[LEADER].outcome.counts == {"people_shared": size, "ids_blinded": 350}
    assert case.halves.accounts[FOLLOWER].uses == [("ids_blinded", 350)]
    folder = f"runs/{case.run_id}/psi"
    manifests = {f"{folder}/manifest.json", f"{folder}/attempt-1/_manifest.json"}
    assert files(case, LEADER) == files(case, FOLLOWER) == manifests
    for name in (LEADER, FOLLOWER):
        manifest = case.storage(name).published("psi")
        assert (manifest.rows, manifest.files) == (0, ())
        assert manifest.facts == {
            **ended[LEADER].outcome.counts,
            **ended[LEADER].outcome.digests,
            **{
                "own_ids": 350,
                "own_duplicates": 0,
                "own_without_id": 0,
                "signer": "",
                "learns": "size",
                "partitions": [],
            },
        }


def test_size_in_stages_equals_size_at_once(case: Case) -> None:
    case.give(LEADER, bank(texts(range(40))))
    case.give(FOLLOWER, shop(texts(range(30, 90))))
    stages = [("prepare", None), ("send", 0), ("send", 1), ("sign", None), ("answer", 1), ("answer", 0)]

    ended = in_stages(case, *stages, ("match", None))

    assert ended[LEADER].outcome is not None
    assert ended[LEADER].outcome.counts == {"people_shared": 10, "ids_blinded": 40}


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(ids=st.tuples(*[st.sets(st.integers(0, 30), min_size=2)] * 2), shards=st.sampled_from([1, 7]))
def test_size_of_any_sets_with_more_shards_than_ids_or_one_is_right(
    case: Case, ids: tuple[set[int], set[int]], shards: int
) -> None:
    tables = bank(texts(sorted(ids[0]))), shop(texts(sorted(ids[1])))

    ended = case.next_day(*tables, shards=shards, min_intersection=0, **SIZE)

    assert ended[LEADER].outcome == ended[FOLLOWER].outcome, ended
    assert ended[LEADER].outcome is not None
    assert ended[LEADER].outcome.counts == {"people_shared": len(ids[0] & ids[1]), "ids_blinded": len(ids[0])}


def test_size_with_duplicates_and_padding_counts_each_person_once(case: Case) -> None:
    twice = [*texts(range(30)), *(f" {text} " for text in texts(range(20, 30)))]

    ended = case.next_day(bank(twice), shop([*texts(range(17, 60)), "p20 "]), pad_rows=50, **SIZE)

    assert ended[LEADER].outcome == ended[FOLLOWER].outcome, ended
    assert ended[LEADER].outcome is not None
    assert ended[LEADER].outcome.counts == {"people_shared": 13, "ids_blinded": 50}
    facts = case.storage(LEADER).published("psi").facts
    assert (facts["own_ids"], facts["own_duplicates"]) == (30, 10)


@pytest.mark.parametrize(("needed", "code"), [(0, ""), (1, "DATA_INTERSECTION_EMPTY")])
def test_size_of_nobody_fails_alike_if_somebody_is_needed(case: Case, needed: int, code: str) -> None:
    ended = case.next_day(bank(["a", "b"]), shop(["x", "y"]), min_intersection=needed, **SIZE)

    assert codes(ended) == {LEADER: code, FOLLOWER: code}
    if not code:
        assert ended[LEADER].outcome is not None
        assert ended[LEADER].outcome.counts["people_shared"] == 0


@pytest.mark.slow
def test_size_cut_in_the_middle_goes_on_and_is_counted_once(case: Case) -> None:
    case.give(LEADER, bank(texts(range(2000))))
    case.give(FOLLOWER, shop(texts(range(1900, 2200))))

    def attempt(number: int, **cut: int) -> dict[str, Ended]:
        shared = {"shards": 4, **SIZE}
        return case.halves.run("psi", case.run_id, case.parties, shared, attempt=number, cut_after=cut)

    # 2000 ids cross in either direction, 32 bytes each: first half of what the client sends, then of what it is told.
    assert codes(attempt(1, bank=40_000)) == {LEADER: "PEER_FAILED", FOLLOWER: "PEER_FAILED"}
    uses = list(case.halves.accounts[FOLLOWER].uses)
    assert codes(attempt(2, shop=40_000)) == {LEADER: "PEER_FAILED", FOLLOWER: "PEER_FAILED"}
    assert case.halves.accounts[LEADER].bytes_sent < 0.75 * 2000 * 32
    uses += case.halves.accounts[FOLLOWER].uses
    ended = attempt(3)

    assert ended[LEADER].outcome is not None, ended
    assert ended[LEADER].outcome.counts == {"people_shared": 100, "ids_blinded": 2000}
    assert uses + case.halves.accounts[FOLLOWER].uses == [("ids_blinded", 2000)] * 3
    assert not list(case.root.rglob("state"))


def test_size_of_two_runs_has_no_blinded_id_and_no_tag_in_common(case: Case) -> None:
    seen = []
    for run in ("first", "other"):
        case.run_id = f"credit.{run}.{case.root.name}"
        case.give(LEADER, bank(texts(range(30))))
        case.give(FOLLOWER, shop(texts(range(30))))
        in_stages(case, ("prepare", None))
        seen.append(prepared(case))

    for one, other in zip(*(run[:2] for run in seen), strict=True):
        assert len(one) == len(other) == 30
        assert not one & other


def test_size_asked_of_another_set_in_the_next_attempt_is_answered_under_another_key(case: Case) -> None:
    case.give(FOLLOWER, shop(texts(range(30))))
    seen = []
    for attempt, ids in enumerate([range(30), range(30), range(1, 30)], start=1):
        case.give(LEADER, bank(texts(ids)))
        in_stages(case, ("prepare", None), attempt=attempt)
        seen.append(prepared(case))

    assert seen[0] == seen[1]
    assert not seen[1][0] & seen[2][0]
    assert not seen[1][1] & seen[2][1]
    assert seen[1][2] != seen[2][2]


def test_size_secrets_are_in_a_folder_that_nobody_else_can_look_into(case: Case) -> None:
    case.give(LEADER, bank(texts(range(3))))
    case.give(FOLLOWER, shop(texts(range(3))))
    in_stages(case, ("prepare", None))

    for name in (LEADER, FOLLOWER):
        assert list(local_path(case.storage(name).folder("psi")).rglob("scalar-*"))
        assert local_path(case.storage(name).folder("psi")).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("more", [SIZE, {"learns": "client"}])
def test_align_after_people_who_are_not_known_to_both_is_refused(case: Case, more: dict[str, str]) -> None:
    ended = case.next_day(bank(["a", "b", "c"]), shop(["b", "c", "d"]), **more)
    assert ended[LEADER].outcome is not None, ended

    ended = case.run("align")

    assert set(codes(ended).values()) == {"CONFIG_INVALID"}
    assert "needs `learns: both`" in ended[LEADER].detail


def test_size_by_rsa_is_refused_naming_the_remedy(case: Case) -> None:
    ended = case.next_day(bank(["a", "b"]), shop(["a"]), learns="size", scheme="blind_rsa")

    assert set(codes(ended).values()) == {"CONFIG_INVALID"}
    assert "scheme: oprf" in ended[LEADER].detail
