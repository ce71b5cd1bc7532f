"""What the pages show is what happens: Python blocks run, commands and their options exist, links lead somewhere.

A Python block that imports vantage runs, unless `<!-- not run: reason -->` stands on the line above it. A bash block
runs if `<!-- run -->` stands there; of the others each `vantage` command's help must know every option shown, and
each `make` target must exist.
"""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.architecture.source import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?:^[ ]*<!--[ ]*(?P<marker>[^>]*?)[ ]*-->[ ]*\n)?"
    r"^(?P<indent>[ ]*)```[ ]*(?P<language>\w+)[^\n]*\n(?P<body>.*?)^(?P=indent)```",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)\s#]+)")
BIN = Path(sys.executable).parent


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of a page: where it stands, its language, the comment above it, its text."""

    page: str
    line: int
    language: str
    marker: str
    body: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: str, text: str) -> list[Block]:
    return [
        Block(
            page=page,
            line=text.count("\n", 0, match.start("body")),
            language=match["language"],
            marker=match["marker"] or "",
            body=re.sub(f"^{match['indent']}", "", match["body"], flags=re.MULTILINE),
        )
        for match in BLOCK.finditer(text)
    ]


BLOCKS = [block for page in PAGES if page.exists() for block in blocks_of(page.name, page.read_text(encoding="utf-8"))]
PYTHON = [
    block
    for block in BLOCKS
    if block.language == "python"
    and re.search(r"^(import|from) vantage\b", block.body, re.MULTILINE)
    and not block.marker.startswith("not run:")
]
SHELL = [block for block in BLOCKS if block.language in {"bash", "sh", "console"}]


def command_lines(block: Block) -> list[list[str]]:
    """The commands of a bash block as words, continuation lines joined, comments and prompts removed."""
    joined = re.sub(r"\\\n\s*", " ", block.body)
    simple = re.split(r"\n|\|\|?|&&|;", joined)
    lines = (re.sub(r"^\s*(\$|>)\s+", "", line) for line in simple)
    words = [shlex.split(line, comments=True) for line in lines]
    return [[Path(line[0]).name, *line[1:]] for line in words if line]


COMMANDS = [
    pytest.param(words[1:], id=f"{block}: {' '.join(words)}")
    for block in SHELL
    if not block.marker.startswith("not run:")
    for words in command_lines(block)
    if words[0] == "vantage"
]
TARGETS = sorted(
    {target for block in SHELL for words in command_lines(block) if words[0] == "make" for target in words[1:]}
)


@cache
def help_of(command: str) -> str:
    """`vantage COMMAND --help`, as a reader without colours or a narrow terminal sees it."""
    environment = os.environ | {"COLUMNS": "400", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run([BIN / "vantage", command, "--help"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, f"vantage {command} --help: {done.stderr or done.stdout}"
    return done.stdout


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_block_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile("\n" * block.line + block.body, block.page, "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("words", COMMANDS)
def test_command_exists(words):
    command, *rest = words
    if command.startswith("-"):
        return
    known = help_of(command)
    options = [word.partition("=")[0] for word in rest if re.match(r"--?[a-zA-Z]", word)]
    assert not [option for option in options if option not in known]


@pytest.mark.parametrize("block", [block for block in SHELL if block.marker == "run"], ids=str)
def test_bash_block_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-euc", block.body], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("target", TARGETS)
def test_make_target_exists(target):
    assert "=" in target or re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    assert not [target for target in targets if not (page.parent / target).exists()]


def test_a_skipped_block_gives_its_reason():
    assert not [str(block) for block in BLOCKS if block.marker.rstrip(": ") == "not run"]


def test_blocks_are_found():
    text = "<!-- run -->\n```bash\nvantage train X \\\n  --seed 1 | jq . # one\n```\n\n"
    text += "  ```python\n  import vantage\n  ```\n"
    shell, python = blocks_of("page", text)
    assert (shell.marker, shell.language, shell.line) == ("run", "bash", 2)
    assert command_lines(shell) == [["vantage", "train", "X", "--seed", "1"], ["jq", "."]]
    assert python.body == "import vantage\n"
