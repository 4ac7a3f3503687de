"""What holds the house up. Each rule is one of ARCHITECTURE.md's, checked on the source or on a fresh interpreter."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
APPS = ("accounts", "agentsite", "approvals", "evals", "runs", "traces")
PURE = ("runs.engine", "runs.tools", "runs.samples")
LONGEST_FILE = 500
LONGEST_TASK = 25
ACCESS_FUNCTIONS = {"get", "rows", "access.get", "access.rows", "rights.get", "rights.rows"}


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "migrations" not in path.parts:
                yield path


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def place(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"


def imported(module: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Each imported module, and each name imported from one, as a dotted path."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)


def modules_after(code: str) -> set[str]:
    """What a fresh interpreter has loaded after running `code`."""
    script = f"import sys\n{code}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


# --- layers ----------------------------------------------------------------------------------------------------------
def test_imports_go_one_way() -> None:
    """The contracts of import-linter in pyproject.toml."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("package", PURE)
def test_plain_python_stays_plain(package: str) -> None:
    loaded = modules_after(
        f"import importlib, pkgutil, {package} as package\n"
        "for found in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "    if not found.name.endswith('__main__'): importlib.import_module(found.name)"
    )

    assert not {"django", "celery", "channels", "anthropic"} & loaded


def test_web_processes_do_not_pay_for_the_sdk() -> None:
    """Importing it costs a second and 66 MB. The URLs are what a first request would load."""
    loaded = modules_after("import agentsite.asgi\nfrom django.urls import get_resolver\nget_resolver().url_patterns")

    assert "runs.llm" not in loaded
    assert "anthropic" not in loaded


def test_only_one_module_speaks_to_the_model() -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in sources(*APPS)
        for _, name in imported(tree(path))
        if name.split(".")[0] == "anthropic"
    }

    assert found == {"runs/llm.py"}


CONSUMERS_MAY_IMPORT = (
    "__future__",
    "asgiref",
    "channels",
    "collections",
    "contextlib",
    "asyncio",
    "dataclasses",
    "logging",
    "typing",
    "django.core.exceptions",
    "urllib",
    "uuid",
    "accounts.access",
    "approvals.live",
    "runs.fragments",
    "runs.joining",
    "runs.live",
    "runs.models",
)


@pytest.mark.parametrize("path", [path for path in sources(*APPS) if path.stem == "consumers"], ids=str)
def test_consumers_hold_no_logic(path: Path) -> None:
    """Access, join, catch up, follow: nothing else is within their reach."""
    strange = [
        f"{place(path, node)} {name}"
        for node, name in imported(tree(path))
        if not any(name == allowed or name.startswith(f"{allowed}.") for allowed in CONSUMERS_MAY_IMPORT)
    ]

    assert strange == [], "\n".join(strange)


# --- habits ----------------------------------------------------------------------------------------------------------
def test_there_are_no_signals() -> None:
    """An effect is caused by the one who names it. (Operating system signals are another matter.)"""
    pattern = re.compile(r"django\.dispatch|db\.models\.signals|django\.core\.signals|\b(pre|post)_(save|delete)\b")
    found = [str(path.relative_to(ROOT)) for path in sources(*APPS) if pattern.search(path.read_text(encoding="utf-8"))]

    assert found == [], "\n".join(found)


def test_status_changes_in_one_module() -> None:
    """Runs and actions change their status by a conditional UPDATE in runs/lifecycle.py, and nowhere else."""
    found = []
    for path in sources(*APPS):
        if path == ROOT / "runs" / "lifecycle.py" or "samples" in path.parts:  # samples are plain Python
            continue
        for node in ast.walk(tree(path)):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            assigned = any(isinstance(t, ast.Attribute) and t.attr == "status" and not is_own(t) for t in targets)
            updated = (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "update"
                and any(keyword.arg == "status" for keyword in node.keywords)
            )
            if assigned or updated:
                found.append(place(path, node))

    assert found == [], "\n".join(found)


def is_own(target: ast.Attribute) -> bool:
    """`self.status` is a plain object's own attribute. Models have no methods that write."""
    return isinstance(target.value, ast.Name) and target.value.id == "self"


@pytest.mark.parametrize("name", ["views", "api", "consumers"])
def test_rows_are_reached_through_access(name: str) -> None:
    """A manager stands nowhere but in the arguments of an access function, which narrows it to the team."""
    places = [path for path in sources(*APPS) if path.stem == name or path.parent.name == name]
    found = [
        place(path, node)
        for path in places
        for node in outside_access_calls(tree(path))
        if isinstance(node, ast.Attribute) and node.attr in {"objects", "_default_manager", "_base_manager"}
    ]

    assert found == [], "\n".join(found)


def outside_access_calls(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.Call) and ast.unparse(child.func) in ACCESS_FUNCTIONS):
            yield child
            yield from outside_access_calls(child)


def test_tasks_are_short() -> None:
    """They claim, call and record; every rule is somewhere that can be tested without Celery."""
    functions = [
        (path, node)
        for path in sources(*APPS)
        if path.stem == "tasks"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef) and any("task" in ast.unparse(mark) for mark in node.decorator_list)
    ]
    long = [place(path, node) for path, node in functions if (node.end_lineno or 0) - node.lineno >= LONGEST_TASK]

    assert functions, "no task was found: the check would hold nothing"
    assert long == [], "\n".join(long)


def test_doorbells_are_rung_from_where_work_is_caused() -> None:
    """`.delay(` before a commit wakes a worker that finds nothing."""
    allowed = {"commands.py", "inbox.py", "tasks.py", "doorbell.py"}
    found = [
        place(path, node)
        for path in sources(*APPS)
        if path.name not in allowed
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"delay", "apply_async", "delay_on_commit", "send_task"}
    ]

    assert found == [], "\n".join(found)


def test_no_file_is_long() -> None:
    found = {
        str(path.relative_to(ROOT)): lines
        for path in [*sources(*APPS, "tests"), *(ROOT / "static" / "js").rglob("*.js")]
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST_FILE
    }

    assert found == {}


# --- templates and scripts -------------------------------------------------------------------------------------------
def templates() -> list[Path]:
    return sorted((ROOT / "templates").rglob("*.html"))


INLINE = {
    "style attribute": re.compile(r"<[^>]*\sstyle\s*=", re.IGNORECASE),
    "style element": re.compile(r"<style\b", re.IGNORECASE),
    "inline script": re.compile(r"<script\b(?![^>]*\bsrc\s*=)(?![^>]*type=\"application/json\")", re.IGNORECASE),
    "event handler": re.compile(r"<[^>]*\son[a-z]+\s*=", re.IGNORECASE),
    "javascript: address": re.compile(r"javascript:", re.IGNORECASE),
    "htmx evaluation": re.compile(r"hx-on|['\"]js:", re.IGNORECASE),
    "foreign asset": re.compile(r"<(script|link|img)\b[^>]*(src|href)\s*=\s*[\"'](https?:)?//", re.IGNORECASE),
}


@pytest.mark.parametrize("kind", INLINE)
def test_templates_keep_the_content_security_policy(kind: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}: {hit.group(0)[:60]}"
        for path in templates()
        for hit in INLINE[kind].finditer(without_comments(path.read_text(encoding="utf-8")))
    ]

    assert found == [], "\n".join(found)


def without_comments(html: str) -> str:
    return re.sub(r"{#.*?#}|{% comment.*?endcomment %}", "", html, flags=re.DOTALL)


def test_templates_mark_nothing_safe() -> None:
    """Text of models, tools and people is escaped, everywhere. Django's own help texts of password fields are HTML."""
    pattern = re.compile(r"(?<!field\.help_text)\|\s*safe\b|{%\s*autoescape\s+off")
    found = [str(path.relative_to(ROOT)) for path in templates() if pattern.search(path.read_text(encoding="utf-8"))]

    assert found == [], "\n".join(found)


# --- what is installed -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_locks_name_versions_and_hashes_but_no_address(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    pins = re.findall(r"^[A-Za-z0-9][^\s=]*==\S+", text, flags=re.MULTILINE)

    assert pins
    assert "://" not in text
    assert not re.search(r"^\s*(--index-url|--extra-index-url|--find-links|-i|-f)\b", text, flags=re.MULTILINE)
    for entry in re.split(r"\n(?=[A-Za-z0-9])", text.strip()):
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


def test_the_development_lock_holds_the_runtime_lock() -> None:
    """The Makefile installs either into the same environment."""
    runtime, development = (
        set(re.findall(r"^[A-Za-z0-9][^\s=]*==\S+", (ROOT / name).read_text(encoding="utf-8"), flags=re.MULTILINE))
        for name in ("requirements.lock", "requirements-dev.lock")
    )

    assert runtime <= development


def test_the_modules_whose_coverage_is_measured_are_there() -> None:
    """A pattern that matches nothing would be 100% covered."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["coverage"]

    assert [name for name in settings["report"]["include"] if not (ROOT / name).is_file()] == []
