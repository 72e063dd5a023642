"""``tfmmrank promote``. Needs no TensorFlow."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tfmmrank.cli.connection import with_tls
from tfmmrank.cli.output import Output, with_output

if TYPE_CHECKING:
    from tfmmrank.serving import Tls
    from tfmmrank.serving.rollout.promotion import Promotion


@click.command("promote")
@click.argument("models_config", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("model")
@click.option("--version", type=click.IntRange(1), default=None, help="Where the label goes.")
@click.option("--label", default=None, help="stable, canary, or any other. Default: the version is only loaded.")
@click.option("--rollback", is_flag=True, help="Take the model's latest promotion back instead.")
@click.option("--address", default=None, metavar="HOST:PORT", help="A running server's gRPC port, to bring it there.")
@with_tls
@click.option(
    "--base-path", type=click.Path(path_type=Path), default=None,
    help="The model's folder on this machine. Default: what the file says.",
)  # fmt: skip
@click.option(
    "--timeout", default=300.0, show_default=True, type=click.FloatRange(0, min_open=True),
    help="Seconds that the server may take to load the version.",
)  # fmt: skip
@with_output
def command(
    output: Output,
    models_config: Path,
    model: str,
    version: int | None,
    label: str | None,
    rollback: bool,
    address: str | None,
    base_path: Path | None,
    timeout: float,
    tls: Tls | None,
) -> None:
    """Move a label of MODEL to another version in MODELS_CONFIG, and back with --rollback.

    MODELS_CONFIG is TensorFlow Serving's --model_config_file. All versions with a label stay loaded, and the one that
    the label leaves. With --address the server loads the version first and gets the label when it is AVAILABLE; when
    that fails, file and server are as before.

    Without --address only the file changes. A running server that polls it refuses a label whose version it has not
    loaded yet: promote twice then, first without --label, and with it when the version is AVAILABLE.

    Requests without a label go to the highest version loaded, a canary too: clients to be spared ask for stable.

    Of the file's comments those at its head are kept. The history is kept beside it, in NAME.history.json.
    """
    if rollback and (version is not None or base_path is not None):
        raise click.UsageError("--rollback takes neither --version nor --base-path")
    if not rollback and version is None:
        raise click.UsageError("which version? Give --version, or --rollback")
    if tls is not None and address is None:
        raise click.UsageError("TLS is for a running server: give its --address too")

    from tfmmrank.serving.rollout import promotion
    from tfmmrank.serving.rollout.model_service import ModelService

    with ModelService(address, timeout=timeout, tls=tls) if address else contextlib.nullcontext() as server:
        if rollback:
            made = promotion.rollback(models_config, model, label, server, timeout, output.say)
        else:
            assert version is not None
            made = promotion.promote(models_config, model, version, label, server, base_path, timeout, output.say)
    if made.lost_comments:
        output.say(f"tfmmrank: warning: {models_config}: comments below its head were dropped")
    output.result({"file": str(models_config), **made.to_dict()}, _sentence(made, address))


def _sentence(made: Promotion, address: str | None) -> str:
    if made.label is None:
        what = f'"{made.model}": versions to load: {", ".join(map(str, made.versions)) or "as the folder has them"}'
    elif made.version is None:
        what = f'"{made.model}": {made.label} is gone (it was version {made.previous})'
    else:
        before = f" (it was {made.previous})" if made.previous is not None else ""
        what = f'"{made.model}": {made.label} is version {made.version}{before}'
    return what + (f"; {address} serves it" if made.reloaded else "; no running server was told")
