"""The documents say what the program does: every setting, command, page and check is in them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from django.urls import Resolver404, resolve

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def environment_names() -> list[str]:
    """What settings.py asks the environment for."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / "agentsite" / "settings.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = ast.unparse(node.func)
            if function == "os.environ.get" or re.fullmatch(r"_(flag|number|whole|list)\w*", function):
                names.add(str(node.args[0].value))
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ":
            names.add(ast.literal_eval(node.slice))
    return sorted(names)


def commands() -> list[str]:
    return sorted(path.stem for path in ROOT.glob("*/management/commands/*.py") if path.stem != "__init__")


def targets() -> list[str]:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert phony
    return [name for name in phony[1].split() if name != "help"]


def check_ids() -> list[str]:
    return sorted(set(re.findall(r"\b[EW]0\d\d\b", (ROOT / "agentsite" / "checks.py").read_text(encoding="utf-8"))))


def table_of_pages() -> list[str]:
    section = README.partition("## Pages")[2].partition("\n## ")[0]
    return re.findall(r"^\| `(/[^`]*)`", section, flags=re.MULTILINE)


def test_the_environment_is_read_in_settings_alone() -> None:
    assert len(environment_names()) >= 10


@pytest.mark.parametrize("name", environment_names())
def test_every_setting_is_in_the_readme(name: str) -> None:
    assert re.search(rf"^\| `{name}`", README, flags=re.MULTILINE)


@pytest.mark.parametrize("name", commands())
def test_every_command_is_in_the_readme(name: str) -> None:
    assert re.search(rf"^\| `{name}\b", README, flags=re.MULTILINE)


@pytest.mark.parametrize("name", targets())
def test_every_make_target_is_in_the_readme(name: str) -> None:
    assert f"`make {name}`" in README


@pytest.mark.parametrize("number", check_ids())
def test_every_check_is_explained(number: str) -> None:
    assert f"`agentsite.{number}`" in OPERATIONS


def test_every_page_of_the_readme_exists() -> None:
    pages = table_of_pages()

    assert len(pages) >= 8
    for page in pages:
        some_id = "01920000-0000-7000-8000-000000000000"
        path = re.sub(r"{(slug|token)}", "refund-desk", re.sub(r"{(id|batch|action)}", some_id, page))
        try:
            resolve(path)
        except Resolver404:
            pytest.fail(f"{page} is in the README, but there is no such page")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """Links between our own files, and pictures."""
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if not re.match(r"[a-z]+:", target):
            assert (document.parent / target).exists(), target


def test_the_documents_are_in_english_and_about_the_product() -> None:
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        assert "TODO" not in text
        assert not re.search(r"/(home|root|work|Users)/", text), document
