"""S3, and whatever speaks its protocol: which server has a bucket, and who this party is there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fedtasks.dataclass_io import check_limits, shown, within
from fedtasks.errors import ConfigError

SCHEME = "s3://"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


@dataclass(frozen=True)
class S3:
    """How the buckets of ``s3://`` URIs are reached.

    Parameters
    ----------
    endpoint
        The server's URL, such as ``https://minio.example:9000``; by default Amazon's of the region.
    region
        The region of the buckets, if the server has some.
    credentials_file
        File with an access key and its secret, as AWS's tools write it (section ``default``), and maybe a session's
        token. Without it they are found as AWS's tools do: environment, web identity, the role of the machine.
    authority
        The authority that issued the server's certificate (PEM); by default those that the system trusts.
    addressing
        Whether the bucket stands in the path or in the host's name; ``auto``: in the path where there is an `endpoint`.
    """

    endpoint: str = ""
    region: str = ""
    credentials_file: Path | None = None
    authority: Path | None = None
    addressing: str = within("auto", choices=("auto", "path", "virtual"))

    def __post_init__(self) -> None:
        check_limits(self)
        parts = urlsplit(self.endpoint)
        if self.endpoint and (parts.scheme not in ("http", "https") or not parts.hostname or parts.query):
            raise ConfigError(f"`{shown(self.endpoint)}` is not an http(s) URL", field="endpoint")
        if parts.username is not None or parts.password is not None:
            raise ConfigError("put the keys into a file and name it in `credentials_file`", field="endpoint")
        if self.authority is not None and parts.scheme == "http":
            raise ConfigError("only for https; leave it out, or let `endpoint` be https", field="authority")

    @property
    def is_plain(self) -> bool:
        """Whether what crosses the network is not encrypted."""
        return self.endpoint.startswith("http://")


def is_object(uri: str) -> bool:
    """Whether a URI is one of S3."""
    return uri.startswith(SCHEME)


def bucket_of(uri: str) -> str:
    """Return the bucket of a URI of S3; raise `ConfigError` where it names none."""
    bucket, _, _ = uri.removeprefix(SCHEME).partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise ConfigError(f"`{shown(uri)}` is not of the form s3://bucket/path", field="uri")
    return bucket


_reached: dict[str, S3] = {}


def reach(uris: Iterable[str], settings: S3) -> None:
    """Let this process reach the buckets of these URIs so; what was said of them before counts no more."""
    _reached.update({bucket_of(uri): settings for uri in uris if is_object(uri)})


def reach_again(buckets: Mapping[str, S3]) -> None:
    """Let this process reach buckets as another does, which has told what its `reached` returns."""
    _reached.update(buckets)


def reached() -> dict[str, S3]:
    """Return bucket → how it is reached, of all that this process may reach."""
    return dict(_reached)
