"""Model files: Python files whose function `network` makes one party's half, by ordinary Keras code."""

from __future__ import annotations

import hashlib
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import keras

from fedtasks.errors import FedtasksError, NetworkInvalid
from fedtasks.models.split_nn.features import Features
from fedtasks.models.split_nn.settings import TrainSettings

FUNCTION = "network"

# In a trial both halves are threads of one process, and Keras has one state from which initial weights are drawn.
_building = threading.Lock()


@dataclass(frozen=True)
class ModelFile:
    """Source of one party's half; nothing of it is told to the peer.

    Parameters
    ----------
    name
        As errors name it.
    source
        Its text.
    """

    name: str
    source: str

    @classmethod
    def read(cls, path: Path) -> ModelFile:
        """Read a file.

        Raises
        ------
        NetworkInvalid
            There is none, or it is no text.
        """
        try:
            return cls(str(path), path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise NetworkInvalid(f"the model file cannot be read: {reason}", where=str(path)) from error

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of its text."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    def build(self, features: Features, settings: TrainSettings, seed: int) -> keras.Model:
        """Make the model: whatever draws initial weights without a seed of its own does so from this one.

        Raises
        ------
        NetworkInvalid
            The file raises; names the line.
        """
        with _building:
            keras.utils.set_random_seed(seed % 2**32)
            return self._built(features, settings)

    def _built(self, features: Features, settings: TrainSettings) -> keras.Model:
        module = ModuleType("model_file")
        module.__file__ = self.name
        try:
            code = compile(self.source, self.name, "exec")
            sys.modules[module.__name__] = module  # Keras finds classes by their module
            exec(code, module.__dict__)  # noqa: S102 - this party's own file
            function: Callable[..., Any] | None = getattr(module, FUNCTION, None)
            if function is None:
                raise NetworkInvalid(f"there is no function `{FUNCTION}(features, settings)`", where=self.name)
            return function(features, settings)
        except FedtasksError as error:
            if error.where:
                raise
            raise NetworkInvalid(f"line {_line(error, self.name)}: {error.detail}", where=self.name) from error
        except Exception as error:
            text = f"line {_line(error, self.name)}: {type(error).__name__}: {error}"
            raise NetworkInvalid(text, where=self.name) from error


def _line(error: BaseException, name: str) -> int:
    """Return the last line of a file that an error passed through."""
    if isinstance(error, SyntaxError) and error.filename == name:
        return error.lineno or 0
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == name]
    return next((line for line in reversed(lines) if line), 0)
