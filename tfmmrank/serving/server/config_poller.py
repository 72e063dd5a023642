"""Follows a ``models.config`` that changes while the server runs."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from tfmmrank.serving.server.manager import ModelManager
from tfmmrank.serving.server.model_config import read_models

_log = logging.getLogger("tfmmrank.serving")


class ConfigPoller:
    """Reads the file again and again, and has the manager follow. One that cannot be followed changes nothing.

    Args:
        file: the ``models.config``.
        manager: holds the models, those of the file as it is now.
        seconds: how often.
    """

    def __init__(self, file: str | Path, manager: ModelManager, seconds: float) -> None:
        self._file, self._manager, self._seconds = file, manager, seconds
        self._told = ""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="models.config", daemon=True)

    def start(self) -> None:
        """Begins to follow."""
        self._thread.start()

    def close(self) -> None:
        """Stops following."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _poll(self) -> None:
        while not self._stopped.wait(self._seconds):
            try:
                self.follow()
            except (OSError, ValueError) as error:  # a RequestError is a ValueError, too
                self._tell(error)
            else:
                self._told = ""

    def follow(self) -> None:
        """Reads the file, and reloads where it has changed. Raises OSError, ValueError or RequestError."""
        models = read_models(self._file)
        if models != self._manager.models():
            self._manager.reload(models)

    def _tell(self, error: Exception) -> None:
        """Once for each fault: it may be there for hours."""
        if str(error) != self._told:
            _log.error("%s is not followed, the models stay as they are: %s", self._file, error)
        self._told = str(error)
