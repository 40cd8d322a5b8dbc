"""Notices to people: what they say, and how they are posted to the webhook that party.yaml names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from fedtasks.config import Event, is_loopback, read_secret
from fedtasks.errors import ConfigError, NoticeFailed

TIMEOUT_S = 10.0

# What chat services would turn into links, mentions and commands, each in its own way.
_LIVE = {"<": "‹", ">": "›", "@": "@ ", "://": " :// "}


@dataclass(frozen=True)
class Notice:
    """Something that needs a person.

    Parameters
    ----------
    event
        Of which kind.
    party, peer
        This party, and with whom it is.
    text
        One sentence of plain text; part of it may be the peer's words.
    at_ms
        When it came to be.
    pipeline, partition
        What it is about, if it is a run.
    link
        Where in this party's Airflow it is seen to.
    """

    event: Event
    party: str
    peer: str
    text: str
    at_ms: int
    pipeline: str = ""
    partition: str = ""
    link: str = ""

    def body(self) -> Mapping[str, str]:
        """Return what is posted."""
        at = datetime.fromtimestamp(self.at_ms // 1000, UTC).isoformat()
        plain = {name: value for name, value in vars(self).items() if name not in ("event", "at_ms")}
        return {"event": self.event.value, "at": at, **plain, "text": _quiet(self.text)}


def post(webhook_url_file: Path, notice: Notice) -> None:
    """Post a notice; whoever takes it must answer with a 2xx status within 10 s.

    Raises
    ------
    ConfigError
        The file cannot be read, others may read it, or it holds no URL that is safe to post to.
    NoticeFailed
        Nobody took the notice. The text never holds the URL, which is a secret.
    """
    url = _url(webhook_url_file)
    connect = HTTPSConnection if url.scheme == "https" else HTTPConnection
    connection = connect(url.hostname or "", url.port, timeout=TIMEOUT_S)
    content = json.dumps(notice.body(), ensure_ascii=False).encode()
    path = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
    try:
        connection.request("POST", path, content, {"Content-Type": "application/json"})
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        raise NoticeFailed(f"the webhook does not answer: {type(error).__name__}") from None
    finally:
        connection.close()
    if not 200 <= status < 300:
        raise NoticeFailed(f"the webhook answers {status}")


def _quiet(text: str) -> str:
    for live, quiet in _LIVE.items():
        text = text.replace(live, quiet)
    return text


def _url(file: Path) -> SplitResult:
    url = urlsplit(read_secret(file))
    try:
        port_is_number = url.port is None or url.port >= 0
    except ValueError:
        port_is_number = False
    safe = url.scheme == "https" or (url.scheme == "http" and is_loopback(url.hostname or ""))
    if not safe or not url.hostname or not port_is_number:
        expected = "expected one URL: https://, or http:// on loopback"
        raise ConfigError(expected, field="webhook_url_file", where=str(file))
    return url
