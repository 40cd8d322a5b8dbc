from __future__ import annotations

import grpc
import pytest

from fedtasks.errors import (
    ConfigDiffers,
    FedtasksError,
    GatewayUnreachable,
    PeerUnreachable,
    ProtocolViolated,
    SecretRejected,
    VersionDiffers,
    leaves,
)
from fedtasks.link.status import STATUS, Metadata, from_rpc_error, to_abort


class Failure(grpc.RpcError):  # type: ignore[misc]
    """A failed call as a client sees it."""

    def __init__(self, code: grpc.StatusCode, details: str = "", trailing: Metadata = ()) -> None:
        self._answer = code, details, trailing

    def code(self) -> grpc.StatusCode:
        return self._answer[0]

    def details(self) -> str:
        return self._answer[1]

    def trailing_metadata(self) -> Metadata:
        return self._answer[2]


@pytest.mark.parametrize("leaf", list(leaves()), ids=lambda leaf: leaf.code)
def test_leaf_through_a_status_is_the_same_error(leaf: type[FedtasksError]) -> None:
    error = leaf("row 3 of file x", where="bank · tränen\n", field="epochs", ours="8", theirs="ß")

    back = from_rpc_error(Failure(*to_abort(error)))

    assert type(back) is leaf
    assert back.detail == error.public
    assert back.fields == error.fields
    assert back.where == "bank · tränen\n".replace("·", "?").replace("ä", "?").replace("\n", "?")
    assert "row 3" not in str(to_abort(error))


@pytest.mark.parametrize("leaf", list(leaves()), ids=lambda leaf: leaf.code)
def test_leaf_has_a_status_that_is_not_ok(leaf: type[FedtasksError]) -> None:
    status, details, _ = to_abort(leaf())

    assert status not in (grpc.StatusCode.OK, grpc.StatusCode.UNKNOWN)
    assert details.startswith(leaf.code)


def test_status_table_names_only_errors_of_the_registry() -> None:
    assert all(issubclass(leaf, FedtasksError) for leaf in STATUS)


def test_own_caller_sees_the_detail() -> None:
    error = ConfigDiffers("dataset `loans`", field="epochs")

    assert from_rpc_error(Failure(*to_abort(error, own=True))).detail == "dataset `loans`"


def test_long_text_is_cut_at_a_character() -> None:
    back = from_rpc_error(Failure(*to_abort(ConfigDiffers("ß" * 5000), own=True)))

    assert back.detail == "ß" * 1000


@pytest.mark.parametrize(
    ("status", "leaf"),
    [
        (grpc.StatusCode.UNAVAILABLE, GatewayUnreachable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, GatewayUnreachable),
        (grpc.StatusCode.UNAUTHENTICATED, SecretRejected),
        (grpc.StatusCode.UNIMPLEMENTED, VersionDiffers),
        (grpc.StatusCode.INTERNAL, ProtocolViolated),
    ],
)
def test_status_without_a_code_means_what_it_says(status: grpc.StatusCode, leaf: type[FedtasksError]) -> None:
    assert type(from_rpc_error(Failure(status, "text"))) is leaf


def test_unreachable_is_what_the_caller_says_it_is() -> None:
    back = from_rpc_error(Failure(grpc.StatusCode.UNAVAILABLE), unreachable=PeerUnreachable)

    assert isinstance(back, PeerUnreachable)


@pytest.mark.parametrize("fields", [b"[1]", b"\xff", b"{", b"null"])
def test_garbled_fields_are_left_out(fields: bytes) -> None:
    trailing = (("fedtasks-code", "CONFIG_DIFFERS"), ("fedtasks-text-bin", b"\xff"), ("fedtasks-fields-bin", fields))

    back = from_rpc_error(Failure(grpc.StatusCode.FAILED_PRECONDITION, "", trailing))

    assert isinstance(back, ConfigDiffers)
    assert back.fields == {}
