"""A half's context over this party's gateway, which has met the peer's."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedtasks.config import Party
from fedtasks.errors import FedtasksError, GatewayUnreachable, StoreUnavailable
from fedtasks.link.client import GatewayClient
from fedtasks.link.endpoint import sent_over
from fedtasks.link.grpc_link import GrpcLink
from fedtasks.link.link import Link
from fedtasks.link.mark import NO_MARK, Mark
from fedtasks.runtime.context import LocalContext
from fedtasks.runtime.joins import COUNTS, JoinCommitted, JoinWindow
from fedtasks.runtime.task_config import TaskConfig, write_reached
from fedtasks.wire.v1 import model_pb2, worker_pb2

log = logging.getLogger(__name__)

PROGRESS_EVERY_S = 2.0
"""So often, at most, a half says how far it has come: each time is a request to the gateway and a row in its store."""

REPORT_PATIENCE_S = 2.0
"""How long a half that has more to do waits until the gateway takes what it reports; it is kept, and told next time."""

HELD_S = 86_400.0
"""The longest that a half waits for one that says it makes progress, and sends nothing."""

LINK = "link"
"""What progress calls the way that a half's messages go: a tunnel, or gRPC, which costs both gateways more."""


class GatewayContext(LocalContext):
    """A `TaskContext` whose link, uses, models and reports go through this party's gateway.

    Parameters
    ----------
    config, party
        See `TaskContext`.
    client
        Talks with the gateway.
    mark
        Where the half says that it makes progress; the operator, which reads it, judges whether it stands still.
    beside
        The folder of the half's configuration, where its operator reads how far it has come.
    """

    def __init__(
        self,
        config: TaskConfig,
        party: Party,
        client: GatewayClient,
        mark: Mark = NO_MARK,
        *,
        beside: Path | None = None,
    ) -> None:
        super().__init__(config, party)
        self._client, self._mark = client, mark
        self._beside, self._reached = beside, 0
        self._links: list[GrpcLink] = []
        self._reporting = threading.Lock()
        self._held: Mapping[str, Any] | None = None
        self._shown: Mapping[str, Any] = {}
        self._metrics: list[tuple[int, Mapping[str, float]]] = []
        self._told_at = -PROGRESS_EVERY_S
        self._told: Mapping[str, Any] = {}

    def open_link(self, facts: Mapping[str, str]) -> Link:
        """See `TaskContext.open_link`."""
        config = self.config
        link = GrpcLink(
            self._client,
            party=self.party.name,
            peer=config.peer,
            run_id=config.run_id,
            task=config.half,
            shard=config.shard or 0,
            attempt=config.attempt,
            facts={"shared configuration": config.shared_digest, **facts},
            stall_s=max(HELD_S, self.party.stall_s),
            resume_timeout_s=config.resume_s,
            mark=self._mark,
        )
        self._links.append(link)
        return link

    def count_use(self, kind: str, amounts: Mapping[str, int]) -> int:
        """See `TaskContext.count_use`."""
        config = self.config
        charged = self._client.count_use(config.run_id, config.half, config.attempt, kind, amounts).charged
        self._mark.move()
        return charged

    def publish_model(
        self, version: model_pb2.ModelVersion, consumed: Mapping[str, Sequence[str]], metrics: Mapping[str, float]
    ) -> None:
        """See `TaskContext.publish_model`."""
        config = self.config
        self._client.publish_model(config.run_id, config.half, config.attempt, version, consumed, metrics)
        self._mark.move()

    def join_commit(self, stream: str, shard: int) -> JoinCommitted | None:
        """See `TaskContext.join_commit`."""
        found = self._client.get_join(self.config.peer, stream, shard)
        return JoinCommitted(found.commit.number, found.commit.digest) if found.HasField("commit") else None

    def join_windows(self, stream: str, shard: int, limit: int) -> list[JoinWindow]:
        """See `TaskContext.join_windows`."""
        found = self._client.get_join(self.config.peer, stream, shard, limit).windows
        return [JoinWindow(window.start_ms, **{name: getattr(window, name) for name in COUNTS}) for window in found]

    def commit_join(
        self, stream: str, shard: int, number: int, digest: str, windows: Sequence[JoinWindow] = ()
    ) -> JoinCommitted:
        """See `TaskContext.commit_join`."""
        config = self.config
        request = worker_pb2.CommitJoinRequest(
            run_id=config.run_id,
            task=config.half,
            attempt=config.attempt,
            stream=stream,
            shard=shard,
            number=number,
            digest=digest,
            windows=[worker_pb2.JoinWindow(**vars(window)) for window in windows],
        )
        found = self._client.commit_join(request)
        self._mark.move()
        return JoinCommitted(found.number, found.digest)

    def report(self, progress: Mapping[str, Any] | None = None, *, step: int = 0, **metrics: float) -> None:
        """See `TaskContext.report`; mere progress goes out every two seconds at most, metrics at once.

        Notes
        -----
        What the gateway or its store cannot take now is kept and told with what comes next. Without arguments it sends
        what has been held back, and waits for both as long as any other call.
        """
        with self._reporting:  # some report from a thread of their own
            if metrics or (progress and progress != self._shown):
                self._mark.move()
            self._shown = progress or self._shown
            self._held = progress or self._held
            if metrics:
                self._metrics.append((step, metrics))
            elif progress is not None and time.monotonic() - self._told_at < PROGRESS_EVERY_S:
                return
            self._told_at = time.monotonic()
            is_last = progress is None and not metrics
            try:
                self._send(None if is_last else REPORT_PATIENCE_S)
            except (GatewayUnreachable, StoreUnavailable) as error:
                log.warning("what was reported is kept until it can be told: %s", error)
            except FedtasksError as error:
                self._held, self._metrics = None, []
                log.warning("progress could not be reported: %s", error)

    def alive(self) -> None:
        """See `TaskContext.alive`."""
        self._mark.move()

    def reached(self, step: int) -> None:
        """See `TaskContext.reached`."""
        self._mark.move()
        if self._beside is not None and step > self._reached:
            self._reached = step
            write_reached(self._beside, step)

    def _spend(self, item: str, epsilon: int) -> None:
        config = self.config
        self._client.spend_label_leak(config.run_id, config.half, config.attempt, item, epsilon)
        self._mark.move()

    def _send(self, patience_s: float | None) -> None:
        config = self.config
        progress = self._with_path(self._held)
        disclosures = [
            worker_pb2.Disclosure(name=name, messages=each.messages, items=each.items, bytes=each.bytes)
            for name, each in sent_over(self._links).items()
        ]
        while progress or self._metrics or disclosures:
            step, metrics = self._metrics[0] if self._metrics else (0, {})
            self._client.report(
                config.run_id,
                config.half,
                config.attempt,
                progress=progress,
                step=step,
                metrics=metrics,
                disclosures=disclosures,
                patience_s=patience_s,
            )
            progress, disclosures, self._held = None, [], None
            del self._metrics[:1]

    def _with_path(self, progress: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Add how this half's links go; where only that has changed, to what was told last."""
        paths = ", ".join(sorted({link.path for link in self._links}))
        if not paths or (progress is None and paths == self._told.get(LINK)):
            return progress
        self._told = {**(self._told if progress is None else progress), LINK: paths}
        return self._told

    def _registered(self, name: str, version: int) -> worker_pb2.GetModelResponse:
        return self._client.get_model(name, version)
