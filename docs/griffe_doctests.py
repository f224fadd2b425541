"""Docstrings as Markdown: what is meant literally stays so.

Examples in the text become blocks of code (those of a section "Example:" are), and brackets behind
brackets are no links.
"""

import re

import griffe

# From a prompt to the next empty line, where the text itself is not indented.
EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)


class Doctests(griffe.Extension):
    """For mkdocstrings (see mkdocs.yml)."""

    def on_object(self, *, obj: griffe.Object, **_) -> None:
        """Fences around them."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(without_links(obj.docstring.value))


def fenced(text: str) -> str:
    """A docstring without its indentation, with fences."""
    return EXAMPLE.sub(lambda example: f"```pycon\n{example[0]}\n```", text)


def without_links(text: str) -> str:
    """A backslash between ] and [, but in code."""

    def prose(line: str) -> str:
        if line.lstrip().startswith((">>>", "...")):
            return line
        parts = line.split("`")
        parts[::2] = [part.replace("][", "]\\[") for part in parts[::2]]
        return "`".join(parts)

    return "\n".join(map(prose, text.splitlines()))
