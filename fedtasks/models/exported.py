"""This party's half of a version in a folder of its own, for whoever serves it without fedtasks."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from fedtasks import durable
from fedtasks.data.run_storage import Manifest
from fedtasks.data.storage import filesystem, read_json
from fedtasks.errors import ConfigError, DataCorrupt, FedtasksError
from fedtasks.models.contract import CARD, SAVED_MODEL, ModelFormat
from fedtasks.models.versions import load_half, manifest_of
from fedtasks.shortage import shortage

if TYPE_CHECKING:
    from fedtasks.wire.v1.model_pb2 import ModelVersion


def export_half(storage: str, version: ModelVersion, task: str, form: ModelFormat, folder: Path) -> tuple[str, ...]:
    """Write this party's half of a version, and its ``model.json``, into a new folder that only its owner may read.

    Parameters
    ----------
    storage
        Root of everything that this party's runs write.
    version, task
        Which version, and the task of its run that has trained it.
    form
        As what.
    folder
        Where, on this machine. It appears whole or not at all.

    Returns
    -------
    tuple of str
        What it holds, relative to it, in the order of names.

    Raises
    ------
    ConfigError
        There is something already, it may not be written, or a half of this algorithm has no such form.
    DataCorrupt, DataMissing
        The half is gone, or has changed since it was trained.
    DiskFull
        There is no room for it.

    Notes
    -----
    Reveals: nothing; all of it is this party's. Whoever holds both halves holds the whole model.
    """
    if folder.exists():
        raise ConfigError(f"`{folder}` is there already; remove it, or name another folder", field="to")
    trained = manifest_of(storage, version, task)
    try:
        partial = Path(tempfile.mkdtemp(dir=folder.absolute().parent, prefix=f".{folder.name}."))
    except OSError as error:
        raise ConfigError(f"`{folder}` cannot be made: {error.strerror}", field="to") from error
    try:
        if form is ModelFormat.ONNX:
            load_half(trained, _role_of(trained)).save_onnx(partial)
        else:
            _copy(trained, partial)
        _copy_file(trained, CARD, partial)
        durable.sync(*partial.rglob("*"))
        durable.replace(partial, folder)
    except OSError as error:
        raise shortage(error) or ConfigError(f"`{folder}` cannot be written: {error}", field="to") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return tuple(sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()))


def _role_of(trained: Manifest) -> str:
    place = trained.path(CARD)
    try:
        return str(read_json(place)["role"])
    except (FedtasksError, KeyError, TypeError) as error:
        raise DataCorrupt("not a model", where=place) from error


def _copy(trained: Manifest, folder: Path) -> None:
    names = [entry.name for entry in trained.files if entry.name.startswith(f"{SAVED_MODEL}/")]
    if not names:
        text = f"a half of this algorithm is its `{CARD}` alone, in {trained.uri}, and no SavedModel"
        raise ConfigError(text, field="format")
    trained.verify()
    for name in names:
        _copy_file(trained, name, folder)


def _copy_file(trained: Manifest, name: str, folder: Path) -> None:
    fs, path = filesystem(trained.path(name))
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    fs.get_file(path, str(target))
