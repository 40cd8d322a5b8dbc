"""Notices: what is posted, to where, and what a failure tells."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedtasks.config import Event
from fedtasks.errors import ConfigError, NoticeFailed
from fedtasks.webhook import Notice, post
from tests.support.webhook import Webhook

NOTICE = Notice(
    Event.RUN_FAILED,
    party="bank",
    peer="shop",
    text="❌ <!channel> @all see https://evil.example",
    at_ms=1_795_000_000_000,
    pipeline="credit",
    partition="2026-11-21",
    link="http://127.0.0.1/x",
)


@pytest.fixture
def webhook(tmp_path: Path) -> Iterator[Webhook]:
    with Webhook(tmp_path) as server:
        yield server


def test_notice_is_posted_as_json_without_live_text(webhook: Webhook) -> None:
    post(webhook.file, NOTICE)
    assert webhook.taken == [
        {
            "path": "/hook?token=s3cret",
            "event": "run_failed",
            "at": "2026-11-18T11:06:40+00:00",
            "party": "bank",
            "peer": "shop",
            "text": "❌ ‹!channel› @ all see https :// evil.example",
            "pipeline": "credit",
            "partition": "2026-11-21",
            "link": "http://127.0.0.1/x",
        }
    ]


@pytest.mark.parametrize("status", [302, 403, 500])
def test_notice_that_is_not_taken_fails_without_the_secret(webhook: Webhook, status: int) -> None:
    webhook.status = status
    with pytest.raises(NoticeFailed) as caught:
        post(webhook.file, NOTICE)
    assert str(status) in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert webhook.tried == 1  # a redirect is not followed


def test_webhook_that_does_not_answer_fails_without_the_secret(webhook: Webhook) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    webhook.file.write_text(f"http://127.0.0.1:{port}/s3cret")
    with pytest.raises(NoticeFailed) as caught:
        post(webhook.file, NOTICE)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://hooks.example/x", "ftp://127.0.0.1/x", "https://", "https://a:b/x", "x"])
def test_webhook_that_is_not_safe_to_post_to_is_refused(webhook: Webhook, url: str) -> None:
    webhook.file.write_text(url)
    with pytest.raises(ConfigError, match="https://"):
        post(webhook.file, NOTICE)


def test_webhook_that_others_may_read_is_refused(webhook: Webhook) -> None:
    webhook.file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        post(webhook.file, NOTICE)
