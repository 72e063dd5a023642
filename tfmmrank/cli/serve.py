"""``tfmmrank serve``."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tfmmrank.cli.output import Output, with_output

_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)
_PORT = click.IntRange(0, 65535)


@click.command("serve")
@click.argument("model", type=click.Path(path_type=Path), required=False)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 is everyone's.")
@click.option("--port", default=8500, show_default=True, type=_PORT, help="gRPC port; 0 picks a free one.")
@click.option("--rest-api-port", type=_PORT, default=None, help="Port of the REST API; 0 picks a free one.")
@click.option("--name", default=None, help="The model's name for clients. Default: the folder's.")
@click.option("--version", type=click.IntRange(1), default=None, help="Default: the latest, also of those to come.")
@click.option("--model-config-file", type=_FILE, help="TensorFlow Serving's models.config, instead of MODEL.")
@click.option(
    "--model-config-file-poll-wait-seconds",
    "config_poll_seconds",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0),
    help="How often that file is read again; 0: only at the start.",
)
@click.option(
    "--file-system-poll-wait-seconds",
    "poll_seconds",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0),
    help="How often folders are looked into for new versions; 0: only at the start.",
)
@click.option(
    "--allow-version-labels-for-unavailable-models",
    "allow_labels",
    is_flag=True,
    help="Let a new label name a version before it is loaded; at the start, none is.",
)
@click.option(
    "--allow-reload-from",
    type=_FOLDER,
    multiple=True,
    help="A folder that reload requests may take models from, beside those served. Repeatable.",
)
@click.option("--enable-batching", is_flag=True, help="Run requests that wait together as one.")
@click.option("--batching-parameters-file", type=_FILE, help="How, as for TensorFlow Serving.")
@click.option("--ssl-config-file", type=_FILE, help="TLS as for TensorFlow Serving: a text proto with PEM contents.")
@click.option("--tls-certificate", type=_FILE, help="TLS: the server's certificate, PEM.")
@click.option("--tls-key", type=_FILE, help="TLS: its private key, PEM.")
@click.option("--tls-ca", type=_FILE, help="Mutual TLS: certificates that clients' must rest on, PEM.")
@click.option("--monitoring-config-file", type=_FILE, help="Metrics for Prometheus, as for TensorFlow Serving.")
@click.option(
    "--grpc-max-threads",
    "workers",
    default=8,
    show_default=True,
    type=click.IntRange(1),
    help="Requests answered at once over gRPC.",
)
@click.option(
    "--result-cache", envvar="TFMMRANK_RESULT_CACHE", show_envvar=True, metavar="WHERE",
    help="Keep answers to frequent requests: memory, or redis://HOST:PORT/0 (with a password, by the variable).",
)  # fmt: skip
@click.option(
    "--result-cache-mb", default=64.0, show_default=True, type=click.FloatRange(0, min_open=True),
    help="What a cache in memory may take.",
)  # fmt: skip
@click.option("--request-log", type=_FOLDER, help="Keep a sample of requests in this folder, for tfmmrank drift.")
@click.option(
    "--request-log-rate", default=0.01, show_default=True, type=click.FloatRange(0, 1), help="Share of requests kept."
)
@click.option(
    "--request-log-key-file", type=_FILE,
    help="The key that ids and texts are hashed with. Default: that in $TFMMRANK_LOG_KEY.",
)  # fmt: skip
@click.option(
    "--request-log-plain-text", multiple=True, metavar="INPUT",
    help="An input whose text is kept as it is, instead of hashed. Repeatable.",
)  # fmt: skip
@click.option(
    "--max-message-bytes", type=click.IntRange(1), help="Longest request. Default: 2 GB over gRPC, 64 MiB over REST."
)
@click.option("--max-candidates", type=click.IntRange(1), help="Most items in one request. Default: no limit.")
@click.option(
    "--max-concurrent-requests",
    type=click.IntRange(1),
    help="Requests for models at once, waiting ones too; more are refused. Default: no limit.",
)
@click.option(
    "--enable-grpc-healthcheck-service/--no-grpc-healthcheck-service",
    "health",
    default=True,
    show_default=True,
    help="Answer grpc.health.v1.Health.",
)
@click.option(
    "--grace-seconds",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0),
    help="How long running requests may take to finish when the server is asked to stop.",
)
@with_output
def command(
    output: Output,
    model: Path | None,
    model_config_file: Path | None,
    version: int | None,
    grace_seconds: float,
    **options: Any,
) -> None:
    """Serve the exported MODEL with TensorFlow Serving's protocol, until SIGTERM or Ctrl-C.

    Versions written into MODEL later are loaded, warmed and swapped in without a pause. Requests that run are let
    finish. For production, give the same folder to stock TensorFlow Serving.
    """
    if (model is None) == (model_config_file is None):
        raise click.UsageError("give MODEL, or --model-config-file: one of them")
    arguments = _arguments(model, version, model_config_file, options)  # faults are told before TensorFlow is imported
    output.say(f"loading {model or model_config_file} …")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it writes of a taken port too, before our error does

    from tfmmrank.serving.server.server import serve
    from tfmmrank.stack import load

    logging.basicConfig(format="%(asctime)s %(message)s")  # to stderr; TensorFlow would add a handler of its own
    logging.getLogger("tfmmrank.serving").setLevel(logging.INFO)
    load("tf_text")
    gc.freeze()  # TensorFlow's half a million objects stay: looking through them again would stall requests
    server = serve(model, version=version, models=model_config_file, **arguments)
    versions: dict[str, list[int]] = {}
    for state in server.core.manager.states():
        if state.state != "AVAILABLE":
            continue
        versions.setdefault(state.model, []).append(state.version)
    names = ", ".join(f'"{name}" version {", ".join(map(str, found))}' for name, found in versions.items())
    places = server.address if server.rest_address is None else f"{server.address}, REST on {server.rest_address}"
    output.result(
        {
            "address": server.address, "rest_address": server.rest_address, "model": server.name,
            "version": server.version, "models": versions,
        },
        f"serving {names} on {places} (Ctrl-C stops)",
    )  # fmt: skip
    server.run(grace_seconds)


def _arguments(
    model: Path | None, version: int | None, model_config_file: Path | None, options: dict[str, Any]
) -> dict[str, Any]:
    """What ``serve`` takes, of what was given; files that cannot be used raise OSError or ValueError."""
    from tfmmrank.export.versions import find_version
    from tfmmrank.serving.server.limits import Limits
    from tfmmrank.serving.server.model_config import read_models

    if model is not None:
        find_version(model, version)
    if model_config_file is not None:
        for configured in read_models(model_config_file).values():
            configured.require_version()
    return {
        **{key: options[key] for key in ("host", "port", "name", "workers", "poll_seconds", "health")},
        "config_poll_seconds": options["config_poll_seconds"], "rest_port": options["rest_api_port"],
        "allow_labels_for_unavailable": options["allow_labels"], "allow_reload_from": options["allow_reload_from"],
        "batching": _batching(options["enable_batching"], options["batching_parameters_file"]),
        "tls": _tls(options["ssl_config_file"], *(options[f"tls_{part}"] for part in ("certificate", "key", "ca"))),
        "limits": Limits(
            options["max_message_bytes"], options["max_candidates"], options["max_concurrent_requests"]
        ),
        **_monitoring(options["monitoring_config_file"], options["rest_api_port"]),
        "result_cache": _result_cache(options["result_cache"], options["result_cache_mb"]),
        "request_log": _request_log(
            *(options[f"request_log{part}"] for part in ("", "_rate", "_key_file", "_plain_text"))
        ),
    }  # fmt: skip


def _batching(enabled: bool, file: Path | None) -> Any:
    from tfmmrank.serving.server.batch_tensors import Batching

    if file is not None and not enabled:
        raise click.UsageError("--batching-parameters-file goes with --enable-batching")
    if not enabled:
        return None
    return Batching() if file is None else Batching.from_config(file)


def _tls(ssl_config: Path | None, certificate: Path | None, key: Path | None, ca: Path | None) -> Any:
    from tfmmrank.serving.server.tls import ServerTls

    if ssl_config is not None:
        if certificate or key or ca:
            raise click.UsageError("give --ssl-config-file, or --tls-certificate and --tls-key: one of them")
        return ServerTls.from_ssl_config(ssl_config)
    if certificate is None and key is None and ca is None:
        return None
    if certificate is None or key is None:
        raise click.UsageError("TLS takes both --tls-certificate and --tls-key")
    return ServerTls.from_files(certificate, key, ca)


def _result_cache(where: str | None, max_mb: float) -> Any:
    from tfmmrank.serving.server.result_cache import open_cache

    return None if where is None else open_cache(where, max_mb)


def _request_log(folder: Path | None, rate: float, key_file: Path | None, plain_text: Sequence[str]) -> Any:
    from tfmmrank.serving.monitoring.log_privacy import read_key
    from tfmmrank.serving.monitoring.request_log import RequestLog

    if folder is None:
        if key_file is not None or plain_text:
            raise click.UsageError("--request-log-key-file and --request-log-plain-text go with --request-log")
        return None
    return RequestLog(folder, read_key(key_file), rate, plain_text)


def _monitoring(file: Path | None, rest_port: int | None) -> dict[str, Any]:
    from tfmmrank.serving.protocol.config_protos import MonitoringConfig, parse_config

    if file is None:
        return {}
    config = parse_config(file, MonitoringConfig).prometheus_config
    if not config.enable:
        return {}
    if rest_port is None:
        raise click.UsageError("--monitoring-config-file goes with --rest-api-port: metrics are asked for there")
    from tfmmrank.serving.monitoring.metrics import ServingMetrics

    return {"metrics": ServingMetrics(), "metrics_path": config.path or None}
