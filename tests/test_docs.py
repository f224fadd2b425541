"""The pages of docs/: complete, linked, true. That they build is for `mkdocs build --strict`."""

import ast
import functools
import importlib
import re
import shlex
import types
from pathlib import Path
from typing import Any

import pytest
import tyro
from blocks import blocks

import isrrescnet_jax as isr
from convert.__main__ import Convert
from isrrescnet_jax import cli, data, train
from isrrescnet_jax.train.recipe import parse

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PACKAGES = ("isrrescnet_jax", "convert")
PAGES = sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


@functools.cache
def prose(path: Path) -> str:
    """A document without its blocks of code."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"^    (?!options:).*$", "", text, flags=re.MULTILINE)


@functools.cache
def anchors(path: Path) -> set[str]:
    """What links can lead to: headings, as GitHub and MkDocs name them, and documented names."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    bare = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in bare} | set(documented(path))


def documented(path: Path) -> list[str]:
    return re.findall(r"^::: (\S+)$", path.read_text(), re.MULTILINE)


def test_every_public_name_is_in_the_reference():
    found = [name for page in (DOCS / "reference").glob("*.md") for name in documented(page)]
    wanted = {f"isrrescnet_jax.{name}" for name in isr.__all__}
    for module in (train, data):
        wanted |= {f"{module.__name__}.{name}" for name in module.__all__}
    assert len(found) == len(set(found)) and wanted <= set(found)
    # What there is beside these, pages use; and what pages use is there, by this or another name.
    used = {name for page in DOCS.rglob("*.md") for name in taken(page)}
    used = {name for name in used if name.rpartition(".")[0] not in found}  # a whole module
    there = {id(thing(name)) for name in found}
    assert {name for name in used if id(thing(name)) not in there} == {"isrrescnet_jax.cli.main"}
    assert set(found) - wanted <= used


def thing(name: str) -> Any:
    """What there is by this name: in a module, or a module."""
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except AttributeError:
        return importlib.import_module(name)


def taken(page: Path) -> set[str]:
    """What a page imports from the repository's packages, and what it takes from their modules."""
    found, modules = set(), {}
    for node in (node for block in blocks(page.read_text()) for node in ast.walk(ast.parse(block))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGES):
            for name in (alias.name for alias in node.names):
                whole = f"{node.module}.{name}"
                if isinstance(thing(whole), types.ModuleType):
                    modules[name] = whole
                else:
                    found.add(whole)
        elif isinstance(node, ast.Attribute) and getattr(node.value, "id", None) in modules:
            found.add(f"{modules[node.value.id]}.{node.attr}")
    return found


def test_every_command_is_in_the_reference():
    assert cli.__doc__
    commands = re.findall(r"\w+", cli.__doc__.split("`isrrescnet ")[1].split("`")[0])
    text = (DOCS / "reference/commands.md").read_text()
    found = re.findall(r"^<!-- help: (\w+)", text, re.MULTILINE)
    assert len(commands) > 5 and sorted(found) == sorted([*commands, "convert"])


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")[1]
    entries = re.findall(r"^ *- (?:.*: )?(\S+\.md)$", navigation, re.MULTILINE)
    assert len(entries) == len(set(entries))
    assert sorted(e for e in entries if not e.startswith("repository/")) == PAGES
    for entry in entries:
        assert (DOCS / entry).exists() or (ROOT / entry.removeprefix("repository/")).exists(), entry


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    path = DOCS / page
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose(path)):
        target, _, anchor = link.partition("#")
        there = (path.parent / target).resolve() if target else path
        assert there.exists() and there.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(there), link


def commands(text: str) -> list[list[str]]:
    """The commands of ours in the indented blocks of a document, as words."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\\\n *", " ", text)
    code = "\n".join(line for line in text.splitlines() if line.startswith("    "))
    found = re.findall(r"(?<![\w./-])((?:isrrescnet [a-z]|python -m convert )[^\n\"&|>#]*)", code)
    return [shlex.split(command) for command in found]


@pytest.mark.parametrize("name", ["README.md", *(f"docs/{page}" for page in PAGES)])
def test_commands_parse(name):
    for words in commands((ROOT / name).read_text()):
        if words[0] == "python":
            tyro.cli(Convert, args=words[3:])
        elif words[1] == "train":
            recipe = ROOT / words[2]
            recipe = recipe if recipe.exists() else ROOT / "experiments/smoke.py"
            parse([str(recipe), *words[3:]])
        else:
            cli._command(words[1:])


def test_commands_are_found():
    found = [c for page in PAGES for c in commands((DOCS / page).read_text())]
    assert len(found) > 30 and {c[1] for c in found} >= {"upscale", "train", "evaluate", "-m"}
