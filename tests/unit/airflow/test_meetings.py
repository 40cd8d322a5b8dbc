"""The decision table of a running half."""

from __future__ import annotations

import pytest

from fedtasks.airflow.meetings import end_of, obstacle, waiting_for
from fedtasks.errors import AttemptStale, FedtasksError, PeerFailed, PeerRestarted, RunCancelled, RunEnded
from fedtasks.wire.v1 import run_pb2
from tests.support.airflow_fakes import make_half, make_meeting, make_run

RUNNING, FAILED, SUCCEEDED = run_pb2.STATE_RUNNING, run_pb2.STATE_FAILED, run_pb2.STATE_SUCCEEDED
OWN = make_half(2, RUNNING)


@pytest.mark.parametrize(
    ("meeting", "error"),
    [
        (make_meeting(own=OWN, peer=make_half(2, RUNNING)), None),
        (make_meeting(own=OWN, peer=make_half(2, SUCCEEDED)), None),
        (make_meeting(own=OWN, peer=make_half(1, FAILED, "LINK_LOST")), None),
        (make_meeting(own=OWN, peer=make_half(2, FAILED, "LINK_LOST")), PeerRestarted),
        (make_meeting(own=OWN, peer=make_half(3, run_pb2.STATE_WAITING)), PeerRestarted),
        (make_meeting(own=make_half(3, run_pb2.STATE_WAITING), peer=make_half(3, RUNNING)), AttemptStale),
        (make_meeting(own=OWN, peer=make_half(2, RUNNING), run=make_run(FAILED, "PEER_FAILED")), PeerFailed),
        (make_meeting(own=OWN, peer=make_half(2, RUNNING), run=make_run(FAILED, "RUN_CANCELLED")), RunCancelled),
    ],
)
def test_obstacle_of_a_running_half(meeting: run_pb2.Meeting, error: type[FedtasksError] | None) -> None:
    found = obstacle(meeting, 2)
    assert type(found) is (error or type(None))


def test_end_of_failed_run_keeps_text_and_place() -> None:
    error = end_of(make_run(FAILED, "PEER_FAILED"))
    assert error is not None
    assert (error.code, error.detail, error.where) == ("PEER_FAILED", "a reason", "shop · train")


def test_end_of_run_that_failed_without_a_word() -> None:
    assert isinstance(end_of(make_run(FAILED)), RunEnded)


def test_waiting_for_says_what_the_other_half_does() -> None:
    assert waiting_for(make_meeting()) == "the other half has not begun"
    meeting = make_meeting(peer=make_half(2, FAILED))
    assert waiting_for(meeting) == "the other half is failed at attempt 2, this one is at 1"
