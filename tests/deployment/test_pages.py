"""The operator's pages name files, links and commands that exist."""

import re

import pytest

from tests.deployment.folder import SERVING
from tfmmrank.cli.main import COMMANDS

ROOT = SERVING.parent
PAGES = ["serving/README.md", "serving/RUNBOOK.md", "docs/serving.md"]


@pytest.fixture(params=PAGES)
def page(request):
    return ROOT / request.param


def test_links(page):
    for target, anchor in re.findall(r"\]\(([^)#]*)(#[^)]*)?\)", page.read_text("utf-8")):
        file = page.parent / target if target else page
        assert file.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", file.read_text("utf-8"), re.MULTILINE)
            assert anchor[1:] in {title.lower().replace(" ", "-") for title in titles}


def test_files(page):
    named = set(re.findall(r"(?<![\w/])serving/[\w./-]*\w", page.read_text("utf-8")))
    written = {"serving/config/ssl.secret.config"}
    assert {name for name in named if not (ROOT / name).exists()} <= written


def test_files_of_the_table():
    table = re.findall(r"^\| (`.+?`) \|", (ROOT / "docs/serving.md").read_text("utf-8"), re.MULTILINE)
    folder = ""
    for name in re.findall(r"`(.+?)`", ", ".join(table)):
        folder = name.rsplit("/", 1)[0] if "/" in name else folder
        assert (SERVING / name).exists() or (SERVING / folder / name).exists(), name


def test_commands(page):
    assert set(re.findall(r"\btfmmrank ([a-z][\w-]+)\b", "\n".join(code(page)))) <= set(COMMANDS)


def code(page) -> list[str]:
    text = page.read_text("utf-8")
    return re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE) + re.findall(r"`([^`\n]+)`", text)
