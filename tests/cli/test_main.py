"""Help, misuse and errors: fast, without TensorFlow, one line, the right exit code."""

import subprocess
import sys
import textwrap

import pytest
from tqdm import tqdm

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
        ["tune", "a", "b", "c", "--trials", "0"], ["tune", "a", "b", "c", "--timeout", "0"],
        ["evaluate", "a", "b", "--ablate", "everything"], ["evaluate", "--ablate", "a", "b"],
        ["rank", "q", "--items", "a", "--tls-cert", "c.pem"], ["load-test", "--requests", "f"],
        ["load-test", "--requests", "f", "--rate", "5", "--concurrency", "2"], ["load-test", "--rate", "5"],
        ["serve"], ["serve", "model", "--model-config-file", "models.config"],
    )  # fmt: skip
    assert codes == [MISUSE] * 20
    assert packages == set()


def test_what_is_not_there_fails_without_tensorflow(tmp_path):
    nowhere = str(tmp_path / "nowhere")
    codes, packages = imported_after(
        ["prepare", nowhere + ".yaml", "out"], ["train", nowhere + ".yaml", "d", "r"], ["serve", nowhere],
        ["evaluate", "run", nowhere], ["export", "run", nowhere, "m"], ["rank", "shoes", "--data", nowhere],
        ["convert", nowhere, "test", "out", "--format", "elwc"], ["tune", nowhere + ".yaml", "d", "o"],
        ["distill", "run", nowhere, str(tmp_path / "out")], ["serve", "--model-config-file", nowhere],
        ["load-test", "--data", nowhere, "--rate", "5"], ["rank", "q", "--items", "a", "--tls-ca", nowhere],
    )  # fmt: skip
    assert codes == [FAILED] * 12
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
    from tfmmrank.serving.client.answers import ServingError

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


def test_one_line_for_a_choice_that_is_missing(capsys):
    assert run(["convert", "data", "test", "out"]) == MISUSE
    errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert "'--format'" in errors[0]
    assert "elwc, sequence_example, libsvm" in errors[0]


def test_an_error_takes_the_progress_bar_away(capsys):
    bar = tqdm(desc="labels", file=sys.stderr, mininterval=0)
    assert run(["convert", __file__, "test", "nowhere", "--format", "elwc"]) == FAILED
    assert bar.disable  # closed
    assert capsys.readouterr().err.splitlines()[-1].rpartition("\r")[2].startswith("tfmmrank: error: ")


def test_convert_keeps_a_file_that_exists(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert run(["convert", "data", "test", str(tmp_path / "mine.txt"), "--format", "libsvm"]) == FAILED
    assert "mine.txt: exists; pass --force" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_demo_shop_replaces_its_own_shop_and_nothing_else(tmp_path, capsys):
    command = ["demo-shop", str(tmp_path / "shop"), "--items", "100", "--queries", "10", "--quiet"]
    assert run(command) == FINE
    (tmp_path / "shop" / "images" / "old.png").touch()
    assert run(command) == FINE
    assert not (tmp_path / "shop" / "images" / "old.png").exists()
    (tmp_path / "shop" / "data").mkdir()
    assert run(command) == FAILED
    assert 'holds "data", which is no part of an earlier demo shop' in capsys.readouterr().err
    (tmp_path / "queries.csv").write_text("mine")
    assert run(["demo-shop", str(tmp_path)]) == FAILED
    assert (tmp_path / "queries.csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("import nothere", "--plugin broken_plugin: No module named 'nothere'"),
        ("x = (\n", "broken_plugin.py, line 1: "),
        (None, "--plugin broken_plugin: there is no such Python module"),
    ],
)
def test_a_plugin_that_cannot_be_imported(tmp_path, capsys, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    if content is not None:
        (tmp_path / "broken_plugin.py").write_text(content)
    assert run(["train", "a", "b", "c", "--plugin", "broken_plugin"]) == FAILED
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert message in error[0]


def test_an_unknown_tower_hints_at_plugins(capsys, monkeypatch):
    def fail(*_, **__):
        raise ValueError('unknown tower "length"; known: text')

    monkeypatch.setattr("tfmmrank.data.Prepared.open", fail)
    assert run(["evaluate", "run", "data"]) == FAILED
    assert 'unknown tower "length"; known: text; one of your own needs --plugin MODULE' in capsys.readouterr().err


def test_an_empty_query(capsys, monkeypatch):
    monkeypatch.setattr("tfmmrank.cli.rank._open", lambda data: data)
    assert run(["rank", " ", "--data", "data"]) == FAILED
    assert capsys.readouterr().err == "tfmmrank: error: the query is empty\n"
