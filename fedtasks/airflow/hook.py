"""How a DAG file and its tasks find this party and its gateway."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from fedtasks.config import PARTY_VARIABLE, Party, load_party
from fedtasks.errors import ConfigError, FedtasksError

CONN_ENV_PREFIX = "AIRFLOW_CONN_"
"""With what Airflow begins the names of variables that hold connections."""

if TYPE_CHECKING:
    from fedtasks.link.client import GatewayClient


class FedtasksHook(BaseHook):
    """This party, as a task and the file of its DAG see it.

    Parameters
    ----------
    fedtasks_conn_id
        Connection whose extra ``party`` names party.yaml.

    Notes
    -----
    Every part of a DAG asks here, when its file is parsed and when its tasks run, so that all find the same party. By
    default that is the one of the connection in ``AIRFLOW_CONN_FEDTASKS_DEFAULT``; else of ``FEDTASKS_PARTY``; else of
    the connection that Airflow keeps; else ``party.yaml`` in the working folder. In this order, since files are parsed
    every few seconds and only the third needs Airflow's database. A connection named by the author must be there.
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
        """Path of party.yaml.

        Raises
        ------
        ConfigError
            The connection that was named is not there, or names no file.
        """
        if self.fedtasks_conn_id == self.default_conn_name:
            named = self._of_connection() if self._is_in_environment() else None
            named = named or os.environ.get(PARTY_VARIABLE) or self._of_connection() or "party.yaml"
            return Path(named).absolute()
        named = self._of_connection()
        if not named:
            text = f"there is no connection `{self.fedtasks_conn_id}`, or its field party.yaml is empty"
            raise ConfigError(text, field="fedtasks_conn_id")
        return Path(named).absolute()

    def _is_in_environment(self) -> bool:
        return f"{CONN_ENV_PREFIX}{self.fedtasks_conn_id.upper()}" in os.environ

    def _of_connection(self) -> str | None:
        try:
            return self.get_connection(self.fedtasks_conn_id).extra_dejson.get("party")
        except AirflowNotFoundException:
            return None

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


def party_here(fedtasks_conn_id: str = FedtasksHook.default_conn_name) -> Party | None:
    """Return this party if its file can be read; if not, the DAG still parses and ``open_run`` says what is wrong."""
    try:
        return FedtasksHook(fedtasks_conn_id).party
    except ConfigError:
        return None
