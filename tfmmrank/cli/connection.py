"""Which server a command asks, and how: options that commands share."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tfmmrank.serving import Client, Tls

_TLS = [
    click.option("--tls", "encrypted", is_flag=True, help="Encrypt the connection; implied by the files below."),
    click.option(
        "--tls-ca", type=click.Path(path_type=Path), default=None,
        help="PEM file of the authorities that the server's certificate may come from. Default: the well-known ones.",
    ),
    click.option(
        "--tls-cert", type=click.Path(path_type=Path), default=None,
        help="PEM file of our own certificate, for a server that asks for one; with --tls-key.",
    ),
    click.option("--tls-key", type=click.Path(path_type=Path), default=None, help="PEM file of its private key."),
]  # fmt: skip


def with_tls(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of an encrypted connection, and passes a ``Tls``, or None, as ``tls``."""

    @functools.wraps(function)
    def command(
        *arguments: Any,
        encrypted: bool,
        tls_ca: Path | None,
        tls_cert: Path | None,
        tls_key: Path | None,
        **options: Any,
    ) -> Any:
        if (tls_cert is None) != (tls_key is None):
            raise click.UsageError("--tls-cert and --tls-key go together")
        tls = None
        if encrypted or tls_ca or tls_cert:
            from tfmmrank.serving import Tls

            tls = Tls(tls_ca, tls_cert, tls_key)
        return function(*arguments, tls=tls, **options)

    return _with_options(command, _TLS)


_SERVER = [
    click.option(
        "--address", default="127.0.0.1:8500", show_default=True, envvar="TFMMRANK_ADDRESS", show_envvar=True,
        help="The server's gRPC address: `tfmmrank serve` or TensorFlow Serving.",
    ),
    click.option(
        "--model", default="shop", show_default=True, envvar="TFMMRANK_MODEL", show_envvar=True,
        help="The model's name on the server: `tfmmrank serve` prints it.",
    ),
    click.option("--label", default=None, help="The version that the server gives this label. Default: the latest."),
    click.option("--timeout", default=5.0, show_default=True, type=click.FloatRange(0, min_open=True), help="Seconds."),
]  # fmt: skip


@dataclass(frozen=True)
class Connection:
    """A server and a model of it, as the command line names them."""

    address: str
    model: str
    label: str | None
    timeout: float
    tls: Tls | None

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        """A client that fails at once when no server is there: a person is waiting."""
        from tfmmrank.serving import Client, ServingError

        try:
            with Client(
                self.address, self.model, timeout=self.timeout, label=self.label, tls=self.tls, retry=None
            ) as client:
                yield client
        except ServingError as error:
            if error.code == "NOT_FOUND":
                raise ServingError(
                    error.code, f"{error}; is --model the name that `tfmmrank serve` printed?"
                ) from error
            raise


def with_connection(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options, and passes a ``Connection`` as ``connection``."""

    @functools.wraps(function)
    def command(
        *arguments: Any, address: str, model: str, label: str | None, timeout: float, tls: Tls | None, **options: Any
    ) -> Any:
        return function(*arguments, connection=Connection(address, model, label, timeout, tls), **options)

    return _with_options(with_tls(command), _SERVER)


def _with_options(function: Callable[..., Any], options: list[Callable[..., Any]]) -> Callable[..., Any]:
    for option in reversed(options):
        function = option(function)
    return function
