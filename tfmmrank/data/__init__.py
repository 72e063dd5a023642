"""Tables to catalogue and lists to batches. Nothing here needs TensorFlow until batches are asked for."""

from tfmmrank.data.catalogue import Catalogue
from tfmmrank.data.errors import DataError
from tfmmrank.data.lists import Lists
from tfmmrank.data.prepare import prepare
from tfmmrank.data.prepared import Prepared

__all__ = ["Catalogue", "DataError", "Lists", "Prepared", "prepare"]
