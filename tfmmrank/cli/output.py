"""What every command prints: words for people, or one JSON object for programs."""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any

import click

_UNKNOWN_PART = re.compile(r'unknown (tower|fusion) "')


class Output:
    """Where a command's words go.

    Args:
        quiet: print the result only.
        as_json: print the result as one line of JSON, and nothing else on standard output.
    """

    def __init__(self, quiet: bool = False, as_json: bool = False) -> None:
        self.quiet, self.as_json = quiet, as_json
        self._file = sys.stdout

    @property
    def progress(self) -> bool:
        """Whether to show progress bars."""
        return not (self.quiet or self.as_json)

    def say(self, text: str) -> None:
        """Tells what is going on; silent with ``--quiet`` and ``--json``."""
        if self.progress:
            click.echo(text, err=True)

    def result(self, values: dict[str, Any], text: str | None = None) -> None:
        """Prints what the command found.

        Args:
            values: JSON values.
            text: the same for people; default: the JSON.
        """
        click.echo(to_json(values) if self.as_json or text is None else text, file=self._file)
        self._file.flush()  # a script that started us may be waiting for this line


def to_json(values: Any) -> str:
    """One line of JSON; NaN and infinities, which JSON lacks, become null."""
    return json.dumps(_finite(values), ensure_ascii=False, default=str)


def _finite(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _finite(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def with_output(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--quiet``, ``--json`` and ``--debug``, and passes an ``Output`` as the first argument."""

    @click.option("--quiet", is_flag=True, help="No progress bars: print the result only.")
    @click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON; implies --quiet.")
    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @functools.wraps(function)
    def command(quiet: bool, as_json: bool, debug: bool, **options: Any) -> Any:
        output = Output(quiet, as_json)
        with contextlib.redirect_stdout(sys.stderr):  # progress bars and what libraries print: not part of the result
            return function(output, **options)

    return command


def with_plugins(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--plugin MODULE``: Python modules that register towers and fusions of one's own."""

    @click.option(
        "--plugin",
        "plugins",
        multiple=True,
        metavar="MODULE",
        help="Import a Python module first: one that registers towers or fusions of your own. Repeatable.",
    )
    @functools.wraps(function)
    def command(*arguments: Any, plugins: Iterable[str], **options: Any) -> Any:
        import_plugins(plugins)
        try:
            return function(*arguments, **options)
        except ValueError as error:
            if _UNKNOWN_PART.search(str(error)) and "--plugin" not in str(error):
                raise ValueError(f"{error}; one of your own needs --plugin MODULE") from error
            raise

    return command


def import_plugins(modules: Iterable[str]) -> None:
    """Imports modules, also from the current folder, as ``python -m`` would.

    Raises:
        ImportError: for a module that is not there, or cannot be imported.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            why = str(error)
            if isinstance(error, ModuleNotFoundError) and error.name in (module, module.partition(".")[0]):
                why = f"there is no such Python module in {os.getcwd()} or on the path"
            raise ImportError(f"--plugin {module}: {why}") from error
        except SyntaxError as error:
            raise ImportError(f"--plugin {module}: {error.filename}, line {error.lineno}: {error.msg}") from error
