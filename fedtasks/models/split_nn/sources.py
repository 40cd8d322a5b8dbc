"""Where the two halves' models come from: the network that comes with fedtasks, or model files of the parties' own."""

from __future__ import annotations

from dataclasses import dataclass

from fedtasks.config import Party
from fedtasks.digests import digest
from fedtasks.errors import ConfigError
from fedtasks.link.link import Link
from fedtasks.models.split_nn.cut import BUILT_IN
from fedtasks.models.split_nn.features import Features
from fedtasks.models.split_nn.half import Half
from fedtasks.models.split_nn.messages import NEEDS
from fedtasks.models.split_nn.model_files import ModelFile
from fedtasks.models.split_nn.networks import perceptron
from fedtasks.models.split_nn.pieces import rounds_of
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.names import FOLLOWER, LEADER


@dataclass(frozen=True)
class Source:
    """What makes one party's half.

    Parameters
    ----------
    file
        Its model file; None for the network that comes with fedtasks.
    """

    file: ModelFile | None = None

    @classmethod
    def named(cls, name: str, party: Party) -> Source:
        """Return the one that the setting `network` names.

        Raises
        ------
        ConfigError
            party.yaml knows no such network.
        """
        if not name:
            return cls()
        try:
            return cls(ModelFile.read(party.networks[name]))
        except KeyError:
            known = ", ".join(party.networks) or "none"
            text = f"`{name}` is no network of {party.name}'s party.yaml (`networks`); there are: {known}"
            raise ConfigError(text, field="network") from None

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what makes the half."""
        return self.file.digest if self.file else digest("perceptron")

    def half(self, features: Features, settings: TrainSettings, seed: int, *, has_label: bool) -> Half:
        """Make the half.

        Raises
        ------
        NetworkInvalid
            The model file makes none; names file and line.
        """
        if self.file:
            return Half(self.file.build(features, settings, seed), has_label=has_label)
        return Half(
            (perceptron.leader if has_label else perceptron.follower)(features, settings, seed), has_label=has_label
        )

    def facts(self, half: Half) -> dict[str, str]:
        """Return what both halves must agree on of their cuts before they meet, each named."""
        if self.file is None:
            return {}  # follows from the settings
        own, other = (LEADER, FOLLOWER) if half.has_label else (FOLLOWER, LEADER)
        sends = {f"cut {name}": f"{own} sends {cut}" for name, cut in half.sends.items()}
        return sends | {f"cut {name}": f"{other} sends {cut}" for name, cut in half.receives.items()}

    def meet(self, half: Half, link: Link) -> None:
        """Agree with the other half in which order the cuts cross.

        Raises
        ------
        NetworkInvalid
            There is no such order.
        ProtocolViolated
            The other half does not say what it must.

        Notes
        -----
        Reveals: of which received cuts each cut is computed, by name.
        """
        theirs: dict[str, tuple[str, ...]] = {BUILT_IN: ()} if half.receives else {}
        if self.file is not None:
            NEEDS.send(link, {"needs": half.needs})
            found = NEEDS.receive(link)["needs"]
            if found.keys() != half.receives.keys() or not all(
                isinstance(names, list) and all(isinstance(name, str) and name in half.sends for name in names)
                for names in found.values()
            ):
                NEEDS.refuse(found, "the cuts that the other half sends, each with those that it needs of this one")
            theirs = {name: tuple(names) for name, names in found.items()}
        half.plan(rounds_of(half.needs, theirs))
