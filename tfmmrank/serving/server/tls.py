"""TLS and mutual TLS for a server, and what listens without."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import ssl
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfmmrank.serving.protocol.config_protos import SSLConfig, parse_config

_OF_ANY_STRENGTH = "DEFAULT:@SECLEVEL=0"  # gRPC takes keys that Python's OpenSSL finds too short
_CERTIFICATE, _KEY = "CERTIFICATE", "PRIVATE KEY"


@dataclass(frozen=True)
class ServerTls:
    """A server's certificate and key, as PEM: TensorFlow Serving's ``SSLConfig``.

    Attributes:
        server_key: its private key, unencrypted.
        server_cert: its certificate, followed by those that it rests on, if any.
        custom_ca: certificates that clients' certificates must rest on.
        client_verify: whether a client must show a certificate (mutual TLS).
        files: where these are: (certificate, key, CA), for those who want files; None for a config of the contents.
    """

    server_key: str
    server_cert: str
    custom_ca: str = ""
    client_verify: bool = False
    files: tuple[Path, Path, Path | None] | None = None

    @classmethod
    def from_files(cls, certificate: str | Path, key: str | Path, ca: str | Path | None = None) -> ServerTls:
        """Reads PEM files; with ``ca``, clients must show a certificate that rests on it.

        Raises:
            OSError: when a file cannot be read.
            ValueError: when one is not what it should be; names it.
        """
        server_cert = _read_pem(certificate, _CERTIFICATE, "a certificate")
        server_key = _read_pem(key, _KEY, "an unencrypted private key")
        custom_ca = "" if ca is None else _read_text(ca)
        if ca is not None:
            _check_authorities(custom_ca, str(ca))
        _check_pair(Path(certificate), Path(key), f"{certificate} and {key}")
        files = (Path(certificate), Path(key), None if ca is None else Path(ca))
        return cls(server_key, server_cert, custom_ca, client_verify=ca is not None, files=files)

    @classmethod
    def from_ssl_config(cls, file: str | Path) -> ServerTls:
        """Reads TensorFlow Serving's ``ssl.config``: a text proto that holds the PEM contents themselves.

        Raises:
            OSError: when the file cannot be read.
            ValueError: when it is no SSLConfig, a field is not what it should be, or key and certificate do not belong
                together; names the file and the field.
        """
        config = parse_config(file, SSLConfig)
        _check_pem(config.server_key, _KEY, f"{file}: server_key", "an unencrypted private key")
        _check_pem(config.server_cert, _CERTIFICATE, f"{file}: server_cert", "a certificate")
        if config.custom_ca or config.client_verify:
            _check_authorities(config.custom_ca, f"{file}: custom_ca")
        with _in_memory(config.server_cert) as certificate, _in_memory(config.server_key) as key:
            _check_pair(certificate, key, f"{file}: server_cert and server_key", _OF_ANY_STRENGTH)
        return cls(config.server_key, config.server_cert, config.custom_ca, config.client_verify)

    def credentials(self) -> Any:
        """The same for a gRPC server."""
        import grpc

        return grpc.ssl_server_credentials(
            [(self.server_key.encode(), self.server_cert.encode())],
            root_certificates=self.custom_ca.encode() or None,
            require_client_auth=self.client_verify,
        )


def _read_pem(file: str | Path, label: str, what: str) -> str:
    text = _read_text(file)
    _check_pem(text, label, str(file), what)
    return text


def _read_text(file: str | Path) -> str:
    try:
        return Path(file).read_text("ascii")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not PEM text") from error


def _check_pem(text: str, label: str, where: str, what: str) -> None:
    if "ENCRYPTED" in text or f"{label}-----" not in text or "-----BEGIN " not in text:
        raise ValueError(f"{where}: holds no PEM block of {what} (-----BEGIN {label}-----)")


@contextlib.contextmanager
def _in_memory(text: str) -> Iterator[Path]:
    """A file that no disk holds: Python's ssl reads a key from files alone."""
    descriptor = os.memfd_create("pem")
    try:
        os.write(descriptor, text.encode())
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _check_authorities(text: str, where: str) -> None:
    """Tells damaged ones, of which gRPC would say no more than that it cannot listen."""
    what = "certificates of authorities"
    _check_pem(text, _CERTIFICATE, where, what)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except ssl.SSLError as error:
        raise ValueError(f"{where}: damaged {what}: {_reason(error)}") from error


def _check_pair(certificate: Path, key: Path, where: str, ciphers: str = "DEFAULT") -> None:
    """Tells a wrong pair, of which gRPC would say no more than that it cannot listen."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers(ciphers)
    try:
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        raise ValueError(f"{where}: no certificate with its private key: {_reason(error)}") from error


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or "").replace("_", " ").lower() or str(error)


def with_port(host: str, port: int) -> str:
    """``host:port``; an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def warn_if_open(host: str, tls: bool, plain_rest: bool) -> None:
    """Warns when other machines can reach a port in the clear."""
    open_ports = [what for what, plain in (("gRPC", not tls), ("REST", plain_rest)) if plain]
    if open_ports and not is_loopback(host):
        warnings.warn(
            f"{' and '.join(open_ports)} on {host} can be reached by other machines without TLS: requests can be read "
            "and forged",
            stacklevel=2,
        )
