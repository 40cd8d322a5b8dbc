"""Model files in a trial: what each half of a network is, and a counterpart where only one of them is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedtasks.authoring.sample import Pair
from fedtasks.config import LabelKind, Party
from fedtasks.data.blocks import TRAIN, Blocks
from fedtasks.data.run_storage import RunStorage
from fedtasks.dataclass_io import build

KIND = "split_nn"
"""The kind of step that trains networks."""


@dataclass(frozen=True)
class Network:
    """One half of a network that is tried.

    Parameters
    ----------
    file
        Its model file; empty if it was made up.
    parameters
        How many weights it has.
    sends
        Cut → what of it crosses for each row, in words.
    bytes_a_row
        What this half sends of each row in a training step: its cuts, and gradients of what it receives.
    """

    file: str
    parameters: int
    sends: Mapping[str, str]
    bytes_a_row: int


def with_networks(
    pair: Pair, settings: Mapping[str, Any], run_id: str, folder: Path
) -> tuple[Pair, dict[str, Network]]:
    """Return the pair with a model file on either side, and what the halves are.

    Parameters
    ----------
    pair
        The parties, at least one of which has the file that the setting `network` names; the run's rows are there.
    settings
        Of the step.
    run_id
        The run.
    folder
        Where a counterpart is written.

    Raises
    ------
    ConfigError
        Neither has such a file.
    NetworkInvalid
        A file makes no half.
    """
    from fedtasks.models.split_nn.counterpart import counterpart

    name = settings["network"]
    # The party whose file is there comes first: the other half is made up of this one's cuts.
    own, other = sorted(pair.parties, key=lambda party: name not in pair.parties[party].networks)
    parties = dict(pair.parties)
    half = _half(parties[own], settings, run_id, has_label=own == pair.leader)
    found = {own: _described(half, str(parties[own].networks[name]))}
    file, is_made_up = parties[other].networks.get(name), False
    if file is None:
        file, is_made_up = folder / f"{other}-counterpart.py", True
        file.write_text(counterpart(half), encoding="utf-8")
        parties[other] = replace(parties[other], networks={**parties[other].networks, name: file})
    half = _half(parties[other], settings, run_id, has_label=other == pair.leader)
    found[other] = _described(half, "" if is_made_up else str(file))
    return replace(pair, parties=parties), found


def _half(party: Party, settings: Mapping[str, Any], run_id: str, *, has_label: bool) -> Any:
    from fedtasks.models.split_nn.encoder import Encoder
    from fedtasks.models.split_nn.features import Features
    from fedtasks.models.split_nn.settings import TrainSettings
    from fedtasks.models.split_nn.sources import Source

    asked = build(TrainSettings, dict(settings))
    source = Source.named(asked.network, party)
    blocks = Blocks.open(RunStorage(party.storage, run_id), asked.rows_task)
    features = Features(Encoder.fit(blocks.table(TRAIN), blocks.features, blocks.details))
    half = source.half(features, asked, asked.seed, has_label=has_label)
    if has_label:
        half.predicts(blocks.label or LabelKind.BINARY, len(blocks.classes), blocks.further_labels)
    return half


def _described(half: Any, file: str) -> Network:
    return Network(
        file,
        int(half.model.count_params()),
        {name: str(cut) for name, cut in half.sends.items()},
        sum(cut.n_bytes for cut in [*half.sends.values(), *half.receives.values()]),
    )
