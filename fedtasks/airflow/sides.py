"""What a pipeline's author says of its two sides, as the party sees it at which the file is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedtasks.config import Party
from fedtasks.errors import ConfigError
from fedtasks.pipeline.shared import suitable_datasets
from fedtasks.pipeline.step import Step


@dataclass(frozen=True)
class Sides:
    """Whom a run is with and on which datasets, as far as author and party.yaml leave no choice.

    Parameters
    ----------
    peer
        With whom, if that is known.
    leader
        Who holds the label, as the initiator sees it: ``own`` or ``peer``.
    dataset
        This party's dataset; None if there is more than one that would do.
    peer_dataset
        The peer's; None leaves it to the gateway, which takes the only one that the tickets name.
    """

    peer: str | None = None
    leader: str = "own"
    dataset: str | None = None
    peer_dataset: str | None = None

    def __post_init__(self) -> None:
        if self.leader not in ("own", "peer"):
            raise ConfigError(f"`{self.leader}` is neither own nor peer", field="leader")

    def seen_by(self, party: Party, steps: Sequence[Step], *, by_partition: bool) -> Sides:
        """Return them as a party sees them, with what leaves no choice filled in.

        Parameters
        ----------
        party
            This party. Where it is the author's peer, since both sides deploy the same file, the two sides swap.
        steps
            What a run does: where a step needs a label, the leader's dataset has one and the follower's has none.
        by_partition
            Whether runs begin by partitions, so that a dataset without is not meant.

        Raises
        ------
        ConfigError
            This party declares no such dataset.
        """
        known = [dataset.name for dataset in party.datasets]
        own, theirs = self.dataset, self.peer_dataset
        if party.name == self.peer or (own not in (None, *known) and theirs in known):
            own, theirs = theirs, own
        if own not in (None, *known):
            declared = ", ".join(known) or "none"
            text = f"`{own}` is none of {party.name}'s datasets: {declared}"
            both = "; in a file that both sides deploy, name `peer` and `peer_dataset` too"
            raise ConfigError(text + ("" if self.peer else both), field="dataset")
        peers = [peer.name for peer in party.peers]
        if own is None:
            leads = self.leader == "own"
            suitable = suitable_datasets(party, steps, leads=leads, by_partition=by_partition)
            own = suitable[0] if len(suitable) == 1 else None
        peer = self.peer if self.peer in peers else (peers[0] if len(peers) == 1 else None)
        return Sides(peer, self.leader, own, theirs)
