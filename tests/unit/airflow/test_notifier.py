from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedtasks.airflow.notifier import WebhookNotifier
from fedtasks.errors import ConfigError
from tests.support.airflow_fakes import FakeGateway
from tests.support.webhook import Webhook


@pytest.fixture
def webhook(party_file: Path, tmp_path: Path) -> Iterator[Webhook]:
    with Webhook(tmp_path) as server:
        party_file.write_text(f"{party_file.read_text()}\nnotify: {{webhook_url_file: {server.file}}}\n")
        yield server


def test_callback_posts_its_rendered_text(gateway: FakeGateway, webhook: Webhook, context: dict[str, Any]) -> None:
    WebhookNotifier("{{ dag_run.dag_id }} is late", "ticket_expiring")(context)
    (taken,) = webhook.taken
    assert (taken["event"], taken["text"]) == ("ticket_expiring", "credit is late")
    assert (taken["party"], taken["peer"], taken["pipeline"]) == ("bank", "shop", "credit")


def test_callback_leaves_out_what_party_yaml_leaves_out(
    gateway: FakeGateway, webhook: Webhook, party_file: Path, context: dict[str, Any]
) -> None:
    party_file.write_text(party_file.read_text().replace("url}", "url, events: [approval_needed]}"))
    WebhookNotifier("x")(context)
    assert webhook.tried == 0


def test_callback_without_a_webhook_says_so(gateway: FakeGateway, context: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="notify"):
        WebhookNotifier("x")(context)
