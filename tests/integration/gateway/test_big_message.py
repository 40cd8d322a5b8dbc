"""A message of a gigabyte through two gateways: refused or carried within a window, as their memory shows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fedtasks.errors import FedtasksError, ProtocolViolated
from fedtasks.link.client import GatewayClient
from fedtasks.link.conversation import WINDOW
from fedtasks.link.grpc_link import GrpcLink
from tests.support.gateways import PIPELINE, gateway_process, grant_ticket, make_members, set_address
from tests.support.links import both
from tests.support.processes import peak_bytes
from tests.support.runs import meet, open_run

GIB = 1 << 30
MOST_GROWTH = 3 * WINDOW
"""What a gateway may hold of a message: not its size, but what both halves may have on their way."""


@pytest.fixture
def halves(tmp_path: Path) -> Iterator[tuple[list[GrpcLink], list[int]]]:
    """Two halves that talk, and the processes of the gateways between them."""
    with contextlib.ExitStack() as stack:
        bank, shop, listen = make_members(tmp_path)
        for member in (bank, shop):
            stack.callback(member.airflow.close)
        set_address(shop, listen)
        grant_ticket(shop, bank)
        gateways = [stack.enter_context(gateway_process(member)) for member in (bank, shop)]
        clients = [stack.enter_context(member.client()) for member in (bank, shop)]
        bank.airflow.runs[PIPELINE, "manual-1"] = {"state": "running"}
        run_id = open_run(clients[0]).run.run_id
        attempt = meet(clients, run_id)

        def open_link(client: GatewayClient, peer: str) -> GrpcLink:
            return GrpcLink(client, peer=peer, run_id=run_id, task="train", shard=0, attempt=attempt, facts={})

        links = list(both(lambda: open_link(clients[0], "shop"), lambda: open_link(clients[1], "bank")))
        try:
            yield links, gateways
        finally:
            for link in links:
                link.abort()


def test_message_of_a_gigabyte_is_refused_as_it_arrives_and_no_gateway_holds_it(
    halves: tuple[list[GrpcLink], list[int]],
) -> None:
    (ours, theirs), gateways = halves
    before = [peak_bytes(pid) for pid in gateways]

    def send() -> None:
        with contextlib.suppress(FedtasksError):  # it is told, or finds nobody who takes the rest
            ours.send("x", np.zeros(GIB, np.uint8))

    def receive() -> None:
        with pytest.raises(ProtocolViolated, match="`max_bytes`"):
            theirs.receive("x")
        theirs.abort()
        ours.abort()

    both(send, receive)
    assert theirs.bytes_received < GIB // 2
    assert all(peak_bytes(pid) - peak < MOST_GROWTH for pid, peak in zip(gateways, before, strict=True))


@pytest.mark.slow
def test_message_of_a_gigabyte_that_is_asked_for_crosses_and_no_gateway_holds_it(
    halves: tuple[list[GrpcLink], list[int]],
) -> None:
    (ours, theirs), gateways = halves
    before = [peak_bytes(pid) for pid in gateways]
    _, received = both(
        lambda: ours.send("x", np.ones(GIB, np.uint8)), lambda: theirs.receive("x", max_bytes=GIB + (1 << 20))
    )
    assert isinstance(received, np.ndarray)
    assert int(received.sum(dtype=np.int64)) == GIB
    assert all(peak_bytes(pid) - peak < MOST_GROWTH for pid, peak in zip(gateways, before, strict=True))
