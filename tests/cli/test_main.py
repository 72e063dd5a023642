"""Help, misuse and errors: fast, without TensorFlow, one line, the right exit code."""

import subprocess
import sys
import textwrap

import pytest

from tfmmrank.cli.main import COMMANDS, FAILED, FINE, INTERRUPTED, MISUSE, cli, run

HEAVY = ("tensorflow", "tf_keras", "pandas", "pyarrow", "duckdb", "matplotlib")


def imported_after(*commands: list[str]) -> tuple[list[int], set[str]]:
    """Exit codes of commands run in one fresh process, and the heavy packages it imported."""
    code = f"""
        import sys
        from tfmmrank.cli.main import run
        codes = [run(arguments) for arguments in {list(commands)!r}]
        print(codes, sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)
    codes, _, packages = done.stderr.strip().splitlines()[-1].partition("] ")
    return eval(codes + "]"), set(eval(packages))


def test_help_of_everything_without_tensorflow():
    codes, packages = imported_after(["--help"], ["--version"], *([name, "--help"] for name in COMMANDS))
    assert codes == [FINE] * (2 + len(COMMANDS))
    assert packages == set()


def test_misuse_without_tensorflow():
    codes, packages = imported_after(
        ["tarin"], [], ["train"], ["train", "a", "b", "c", "--epochs", "0"], ["train", "a", "b", "c", "--nothing"],
        ["rank", "shoes"], ["rank", "shoes", "--items", "a", "--items-file", "b"],
        ["rank", "q", "--items", "a", "--context", "x"],
        ["convert", "data", "test", "out", "--format", "csv"], ["serve", "model", "--port", "99999"],
    )  # fmt: skip
    assert codes == [MISUSE] * 10
    assert packages == set()


def test_what_is_not_there_fails_without_tensorflow(tmp_path):
    nowhere = str(tmp_path / "nowhere")
    codes, packages = imported_after(
        ["prepare", nowhere + ".yaml", "out"], ["train", nowhere + ".yaml", "d", "r"], ["serve", nowhere],
        ["evaluate", "run", nowhere], ["export", "run", nowhere, "m"], ["rank", "shoes", "--data", nowhere],
        ["convert", nowhere, "test", "out", "--format", "elwc"],
    )  # fmt: skip
    assert codes == [FAILED] * 7
    assert not packages & {"tensorflow", "tf_keras"}


def test_help_lists_every_command(capsys):
    assert run(["--help"]) == FINE
    out = capsys.readouterr().out
    for name, words in COMMANDS.items():
        assert f"  {name} " in out
        assert words.split()[0] in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_quiet_json_debug(name):
    command = cli.get_command(None, name)
    assert command.name == name
    options = {option for parameter in command.params for option in parameter.opts}
    assert {"--quiet", "--json", "--debug"} <= options


def test_misspelt_command_gets_a_suggestion(capsys):
    assert run(["evalaute", "x"]) == MISUSE
    error = capsys.readouterr().err
    assert 'tfmmrank: error: unknown command "evalaute"; did you mean "evaluate"?' in error
    assert "Try: tfmmrank --help" in error


def test_unlike_any_command_lists_them(capsys):
    assert run(["zzz"]) == MISUSE
    assert "commands: demo, demo-shop, prepare" in capsys.readouterr().err


def test_recipe_errors_are_lines_without_traceback(tmp_path, capsys):
    file = tmp_path / "shop.yaml"
    file.write_text(
        "data: {labels: {kind: judgements, table: j.csv}, itmes: {}}\nmodel: {towers: {}}\n", encoding="utf-8"
    )
    assert run(["prepare", str(file), str(tmp_path / "data")]) == FAILED
    error = capsys.readouterr().err
    assert error.startswith("tfmmrank: error: ")
    assert 'did you mean "items"' in error
    assert "Traceback" not in error


def test_debug_shows_the_traceback(tmp_path, capsys):
    assert run(["prepare", str(tmp_path / "no.yaml"), "data", "--debug"]) == FAILED
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert error.strip().splitlines()[-1].startswith("tfmmrank: error: ")


def failing_with(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("tfmmrank.data.demo_shop.make_demo_shop", fail)
    return run(["demo-shop", "somewhere"])


def test_operating_system_errors_name_the_file(monkeypatch, capsys):
    assert failing_with(monkeypatch, FileNotFoundError(2, "No such file or directory", "a/b.csv")) == FAILED
    assert capsys.readouterr().err == "tfmmrank: error: a/b.csv: No such file or directory\n"


def test_interrupt(monkeypatch, capsys):
    assert failing_with(monkeypatch, KeyboardInterrupt()) == INTERRUPTED
    assert "interrupted" in capsys.readouterr().err


def test_a_fault_of_ours_is_not_hidden(monkeypatch):
    with pytest.raises(ZeroDivisionError):
        failing_with(monkeypatch, ZeroDivisionError("bug"))


def test_the_packages_own_errors_are_told(monkeypatch, capsys):
    from tfmmrank.serving.client import ServingError

    assert failing_with(monkeypatch, ServingError("UNAVAILABLE", "no server")) == FAILED
    assert capsys.readouterr().err == "tfmmrank: error: no server\n"


def test_rank_without_a_server_says_so(capsys):
    # port 9 (discard) is not served
    assert run(["rank", "shoes", "--items", "a,b", "--address", "127.0.0.1:9", "--timeout", "2"]) == FAILED
    error = capsys.readouterr().err
    assert "127.0.0.1:9" in error
    assert "tfmmrank serve" in error


def test_missing_plugin_is_named(tmp_path, capsys):
    arguments = ["evaluate", "run", str(tmp_path), "--plugin", "no_such_towers"]
    assert run(arguments) == FAILED
    assert "--plugin no_such_towers: there is no such Python module" in capsys.readouterr().err
