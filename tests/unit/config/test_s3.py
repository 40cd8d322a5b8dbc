"""What party.yaml says of S3 is refused where it could not be meant, by the name of the field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedtasks.config import S3, load_party
from fedtasks.errors import ConfigError

PARTY = """\
name: bank
gateway: {certificate: k, private_key: k, authority: k, ticket_key: k, worker_secret_file: k}
airflow: {url: "http://127.0.0.1:8080", user: fedtasks, password_file: k}
"""


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"endpoint": "minio.example:9000"}, "endpoint"),
        ({"endpoint": "ftp://minio.example"}, "endpoint"),
        ({"endpoint": "https://key:secret@minio.example"}, "endpoint"),
        ({"endpoint": "http://minio.example", "authority": Path("ca.pem")}, "authority"),
        ({"addressing": "bucket"}, "addressing"),
    ],
)
def test_server_of_s3_that_cannot_be_is_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as raised:
        S3(**fields)
    assert raised.value.fields["field"] == field
    assert "secret" not in raised.value.detail


@pytest.mark.parametrize(
    ("storage", "section"), [("s3://bucket/x", ""), ("s3://B_ucket/x", "s3: {}\n"), ("s3://", "s3: {}\n")]
)
def test_bucket_that_nobody_could_reach_is_refused(tmp_path: Path, storage: str, section: str) -> None:
    file = tmp_path / "party.yaml"
    file.write_text(f"{PARTY}storage: {storage}\n{section}")
    with pytest.raises(ConfigError, match="s3"):
        load_party(file)
