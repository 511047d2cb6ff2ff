"""docs/troubleshooting.md and the source say the same: messages, explanations of faults, exit statuses."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import run_pipeline
from stages.commands import terminal as faults

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "troubleshooting.md"
ANYTHING = "\0"
"""Stands for a field of an f-string."""


def rows(title: str) -> list[str]:
    """The first column of the table below a title, without its heading."""
    section = DOCUMENT.read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]
    cells = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("|")]
    return cells[2:]


def messages() -> list[str]:
    """What the table of messages quotes."""
    return [text for row in rows("Messages") for text in re.findall("`([^`]+)`", row)]


def found_in(message: str, text: str) -> bool:
    """Whether a quoted message is part of a text of the source; its ``...`` stand for anything."""
    parts = [re.escape(part.strip()) for part in message.split("...")]
    return re.search(".*".join(parts), text, re.DOTALL) is not None


def texts_of(tree: ast.AST) -> Iterator[str]:
    """Every text in the source but what explains it, with `ANYTHING` for the fields of f-strings."""
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    explaining = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else ANYTHING for part in node.values
            )
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in inner | explaining
        ):
            yield node.value


@cache
def source_texts() -> tuple[str, ...]:
    files = [ROOT / "run_pipeline.py"]
    for package in ("wsss", "stages", "data"):
        files += sorted((ROOT / package).rglob("*.py"))
    return tuple(text for file in files for text in texts_of(ast.parse(file.read_text(encoding="utf-8"))))


def explanations() -> list[str]:
    """What `stages.commands.terminal` can say: every cause, and every text of its own that `explained` returns."""
    tree = ast.parse(Path(faults.__file__).read_text(encoding="utf-8"))
    function = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "explained")
    returned = [text for n in ast.walk(function) if isinstance(n, ast.Return) for text in texts_of(n)]
    own = [text for text in returned if len(re.findall("[a-z]", text)) > 20]
    assert len(own) == 4, own  # memory, a dead worker, a damaged artifact, an unknown fault
    return [*faults._CAUSES.values(), *own]


def test_the_table_quotes_messages() -> None:
    assert len(messages()) > 30
    assert all(len(re.findall("[A-Za-z]", message)) >= 8 for message in messages())


@pytest.mark.parametrize("message", messages())
def test_a_documented_message_is_in_the_source(message: str) -> None:
    assert any(found_in(message, text) for text in source_texts()), (
        f"docs/troubleshooting.md, row `{message}`: no text of the source says so any more"
    )


@pytest.mark.parametrize("explanation", explanations(), ids=lambda text: text[:40])
def test_every_explanation_of_a_fault_is_documented(explanation: str) -> None:
    assert any(found_in(message, explanation) for message in messages()), (
        f"docs/troubleshooting.md has no row for {explanation!r}"
    )


def test_every_exit_status_is_documented() -> None:
    statuses = {value for name, value in vars(run_pipeline).items() if name.startswith("EXIT_")}
    assert {int(status) for status in rows("Exit status")} == {0} | statuses
