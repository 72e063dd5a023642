"""The entry point: finds the command, runs it, and turns errors into one line and an exit code.

Exit codes: 0 fine, 1 failed, 2 misuse, 130 interrupted. Commands import what they need when they run, so that help and
misuse answer without TensorFlow.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from tfmmrank import __version__
from tfmmrank.registry import nearest

FINE, FAILED, MISUSE, INTERRUPTED = 0, 1, 2, 130

# Name to what the list of commands says of it. A command's function stands in the file of its name.
COMMANDS = {
    "demo": "The whole mission on a made-up shop: train, compare, export, serve, report.",
    "demo-shop": "Write a made-up shop: tables, pictures, a behaviour log, a recipe.",
    "prepare": "Read a shop's tables and write a dataset.",
    "train": "Train a ranker on a dataset; goes on where it was interrupted.",
    "tune": "Search a recipe's options on validation lists; goes on where it was interrupted.",
    "distill": "Teach a ranker with a smaller query encoder what a trained one gives.",
    "evaluate": "Measure a trained ranker, with confidence intervals.",
    "export": "Write a trained ranker as a SavedModel for TensorFlow Serving.",
    "serve": "Answer over gRPC, as TensorFlow Serving does.",
    "rank": "Ask a server to rank items for a query.",
    "load-test": "Ask a server at a given rate and measure how long answers take.",
    "promote": "Move a label, such as canary, to another version of a served model; or back.",
    "drift": "Compare logged requests with what a model was trained on.",
    "convert": "Write a split in TF-Ranking's or LETOR's format.",
}

# What commands raise for input that cannot be used; anything else is a fault of ours and shows its traceback.
_EXPECTED = (ValueError, OSError, ImportError, FloatingPointError)


class LazyGroup(click.Group):
    """A group that imports a command's file when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order in which one needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports the command's file, for a known name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"tfmmrank.cli.{cmd_name.replace('-', '_')}")
        return module.command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """As click's, but an unknown command gets a suggestion."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            hint = nearest(name, list(COMMANDS)) or f"; commands: {', '.join(COMMANDS)}"
            raise click.UsageError(f'unknown command "{name}"{hint}', ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="tfmmrank")
def cli() -> None:
    """Multimodal learning to rank for shop search.

    From a shop's tables to a ranked answer: prepare, train, evaluate, export, serve, rank. `tfmmrank COMMAND --help`
    explains a command; `tfmmrank demo` shows them all at work.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits.

    Args:
        arguments: default: those of the process.

    Raises:
        SystemExit: always, with the exit code.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(run(arguments))


def run(arguments: list[str]) -> int:
    """Runs the command line and returns the exit code."""
    if not arguments:
        click.echo(cli.get_help(click.Context(cli, info_name="tfmmrank")), err=True)
        return MISUSE
    try:
        with _short_warnings():
            result = cli.main(arguments, prog_name="tfmmrank", standalone_mode=False)
        sys.stdout.flush()
    except click.UsageError as error:
        return _misuse(error)
    except click.ClickException as error:
        _say(error.format_message())
        return FAILED
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE
    except Exception as error:
        if not isinstance(error, _EXPECTED) and not type(error).__module__.startswith("tfmmrank."):
            raise
        if "--debug" in arguments:
            traceback.print_exc()
        _say(describe(error))
        return FAILED
    return result if isinstance(result, int) else FINE


def describe(error: BaseException) -> str:
    """An error's message: what the package says itself, or the operating system's words with the file."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _misuse(error: click.UsageError) -> int:
    if error.ctx is not None:
        click.echo(error.ctx.get_usage(), err=True)
    _say(" ".join(error.format_message().split()))  # click lists the choices on lines of their own
    if error.ctx is not None:
        click.echo(f"Try: {error.ctx.command_path} --help", err=True)
    return MISUSE


def _say(message: str) -> None:
    _clear_bars()
    for line in message.splitlines() or [""]:
        click.echo(f"tfmmrank: error: {line}", err=True)


@contextlib.contextmanager
def _short_warnings() -> Iterator[None]:
    """This package's warnings as the command line prints things; those of others as ever."""
    usual, package = warnings.formatwarning, str(Path(__file__).resolve().parents[1])

    def write(message: Any, category: Any, filename: str, *where: Any, **line: Any) -> str:
        if category is UserWarning and filename.startswith(package):
            return f"tfmmrank: warning: {message}\n"
        return usual(message, category, filename, *where, **line)

    warnings.formatwarning = write
    try:
        yield
    finally:
        warnings.formatwarning = usual


def _clear_bars() -> None:
    """Takes the progress bars off the screen that the error left open."""
    tqdm = sys.modules.get("tqdm")
    for bar in list(getattr(tqdm.tqdm, "_instances", ())) if tqdm else ():
        bar.leave = False
        bar.close()
