"""How a task finds its party and its own gateway."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from fedtasks.config import Party, load_party
from fedtasks.errors import FedtasksError

if TYPE_CHECKING:
    from fedtasks.link.client import GatewayClient


class FedtasksHook(BaseHook):
    """This party, as a task sees it.

    Parameters
    ----------
    fedtasks_conn_id
        Connection whose extra ``party`` names party.yaml; where there is none, ``FEDTASKS_PARTY`` does.
    """

    conn_name_attr = "fedtasks_conn_id"
    default_conn_name = "fedtasks_default"
    conn_type = "fedtasks"
    hook_name = "fedtasks"

    def __init__(self, fedtasks_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.fedtasks_conn_id = fedtasks_conn_id

    @cached_property
    def party_file(self) -> Path:
        """Path of party.yaml."""
        try:
            named = self.get_connection(self.fedtasks_conn_id).extra_dejson.get("party")
        except AirflowNotFoundException:
            named = None
        return Path(named or os.environ.get("FEDTASKS_PARTY") or "party.yaml").absolute()

    @cached_property
    def party(self) -> Party:
        """What party.yaml says.

        Raises
        ------
        ConfigError
            Naming file, line and field.
        """
        return load_party(self.party_file)

    def client(self) -> GatewayClient:
        """Return a client of this party's gateway, to be used in a ``with`` block."""
        from fedtasks.link.client import GatewayClient  # grpc: never when a DAG file is parsed

        return GatewayClient.of(self.party)

    def get_conn(self) -> GatewayClient:
        """Return a client of this party's gateway."""
        return self.client()

    def test_connection(self) -> tuple[bool, str]:
        """Ask this party's gateway for its peers; the button in the connection form."""
        try:
            with self.client() as client:
                answer = client.peers()
        except FedtasksError as error:
            return False, str(error)
        peers = ", ".join(
            f"{peer.name} {'connected' if peer.connected else 'not connected: ' + peer.failure.code}"
            for peer in answer.peers
        )
        return True, f"The gateway of {answer.party} answers; peers: {peers or 'none'}"
