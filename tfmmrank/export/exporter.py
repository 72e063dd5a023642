"""Exporting: a trained ranker and its catalogue to a folder that TensorFlow Serving answers from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfmmrank.export.item_tokens import Items, encode_catalogue
from tfmmrank.export.version_writer import VersionWriter


def export(
    ranker: Any,
    data: Any,
    model_dir: str | Path,
    version: int | None = None,
    progress: bool = True,
    facts: Mapping[str, Any] | None = None,
    weights: str = "float32",
) -> Path:
    """Writes ``MODEL/VERSION``: a SavedModel with the item table, a warm-up file and a description.

    The folder appears when all is written and checked: every op is one that stock TF Serving as new as the installed
    TensorFlow knows, and the model, loaded as TF Serving loads it, answers the warm-up requests. Killed or failing, it
    leaves no version behind.

    The item table is made in mapped files, so that it takes as much room again on the models' disk while the version
    is written, and no memory that the system could not take back.

    Args:
        ranker: a trained ``Ranker``.
        data: the ``Prepared`` dataset whose catalogue goes into the model; without one there is no signature ``rank``.
        model_dir: the model's folder; its name is the model's.
        version: default: one more than the highest there.
        progress: whether to show progress bars.
        facts: JSON values to keep in ``assets.extra/tfmmrank.json``, such as the NDCG measured, by names of their own.
        weights: ``float16`` or ``int8`` keeps the towers' kernels and embedding tables small, see ``SmallWeights``.
            The item table is computed with the weights as they are trained, whatever is kept.

    Returns:
        The version's folder.

    Raises:
        ValueError: for a version that exists, a folder of something else, a ranker that is not adapted, computes in
            half precision or reads columns that the dataset lacks, an item id with a line break, an item of which a
            tower gives numbers beyond float16's range, or a fact of a name that the description has itself.
        FileExistsError: for a version that another process wrote meanwhile.
        UnknownOpError: when stock TF Serving could not run the model.
        RequestError: when the model does not answer a warm-up request.
    """
    writer = VersionWriter(ranker, data, weights)

    def encode(folder: Path) -> Items:
        return encode_catalogue(ranker, data, writer.columns, folder, progress)

    return writer.write(model_dir, version, encode, facts or {})
