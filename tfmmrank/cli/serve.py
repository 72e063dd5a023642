"""``tfmmrank serve``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from tfmmrank.cli.output import Output, with_output


@click.command("serve")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 is everyone's.")
@click.option("--port", default=8500, show_default=True, type=click.IntRange(0, 65535), help="0 picks a free port.")
@click.option("--name", default=None, help="The model's name for clients. Default: the folder's.")
@click.option("--version", type=click.IntRange(1), default=None, help="Default: the latest.")
@with_output
def command(output: Output, model: Path, host: str, port: int, name: str | None, version: int | None) -> None:
    """Serve the exported MODEL over gRPC with TensorFlow Serving's protocol, until SIGTERM or Ctrl-C.

    Requests that run are let finish. For production, give the same folder to stock TensorFlow Serving.
    """
    from tfmmrank.export.versions import find_version

    find_version(model, version)  # a wrong folder is told before TensorFlow is imported
    output.say(f"loading {model} …")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it writes of a taken port too, before our error does

    from tfmmrank.serving.server import serve

    server = serve(model, host=host, port=port, name=name, version=version)
    output.result(
        {"address": server.address, "model": server.name, "version": server.version},
        f'serving "{server.name}" version {server.version} on {server.address} (Ctrl-C stops)',
    )
    server.run()
