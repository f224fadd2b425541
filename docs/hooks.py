"""What MkDocs does beyond its plugins (see mkdocs.yml).

1. The documents of the repository (experiments/README.md, CONTRIBUTING.md, ...) are pages as well.
   Whatever a page links to outside of docs/ is taken along, at its path below repository/, so that
   links that work in the repository work here.
2. `<!-- help: upscale -->` becomes what `isrrescnet upscale --help` prints.
"""

import logging
import os
import posixpath
import re
import subprocess
import sys
from pathlib import Path
from textwrap import fill

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
BELOW = "repository"
PAGES = (
    "experiments/README.md",
    "experiments/studies/README.md",
    "isrrescnet_jax/assets/MODEL_CARD.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
)
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|<)([^)\s#]+)(#[^)\s]*)?(?=[)\s])")
HELP = re.compile(r"^<!-- help: (.*) -->$", re.MULTILINE)
LOG = logging.getLogger("mkdocs.hooks")
COLUMNS = 76  # as wide as the page has room
COMMANDS = {"convert": ("-m", "convert")}  # others are those of isrrescnet


def targets(text: str, folder: str) -> set[str]:
    """What a document in this folder of the repository links to, as paths in the repository."""
    code = re.compile(r"^(```.*?^```|    .*?)$", re.DOTALL | re.MULTILINE)
    links = LINK.findall(code.sub("", text))
    return {posixpath.normpath(posixpath.join(folder, link)) for link, _ in links}


def taken() -> set[str]:
    """Files of the repository that become part of the site: `PAGES` and what is linked to."""
    waiting = [f"docs/{p.relative_to(ROOT / 'docs')}" for p in (ROOT / "docs").rglob("*.md")]
    waiting += [page for page in PAGES if (ROOT / page).exists()]
    found: set[str] = set()
    while waiting:
        path = waiting.pop()
        if path in found or not (ROOT / path).is_file():
            continue
        found.add(path)
        if path.endswith(".md"):
            waiting += targets((ROOT / path).read_text(), posixpath.dirname(path))
    return {path for path in found if not path.startswith("docs/")}


def on_files(files, config):
    """Add them."""
    for path in sorted(taken()):
        file = File.generated(config, f"{BELOW}/{path}", abs_src_path=str(ROOT / path))
        files.append(file)
    return files


def on_page_markdown(markdown, page, config, files):
    """Links out of docs/ to where their targets are now; help texts."""
    source = page.file.src_uri
    folder = posixpath.dirname(source)

    def moved(match: re.Match) -> str:
        link, anchor = match[1], match[2] or ""
        if source.startswith(f"{BELOW}/"):
            here = posixpath.join("/", posixpath.dirname(source.removeprefix(f"{BELOW}/")))
            path = posixpath.normpath(posixpath.join(here, link)).lstrip("/")
            new = path.removeprefix("docs/") if path.startswith("docs/") else f"{BELOW}/{path}"
        else:
            path = posixpath.normpath(posixpath.join("docs", folder, link))
            if path.startswith("docs/"):
                return match[0]
            new = f"{BELOW}/{path}"
        target = files.get_file_from_path(new)
        if target is not None and target.inclusion.is_excluded():  # MkDocs only mentions it
            LOG.warning("%s links to %s, which is excluded from the site", source, new)
        return posixpath.relpath(new, folder or ".") + anchor

    return HELP.sub(lambda match: shown(match[1]), LINK.sub(moved, markdown))


def shown(command: str) -> str:
    """The help text of a command as a block of code."""
    words = command.split()
    start = COMMANDS.get(words[0]) or ("-m", "isrrescnet_jax", words[0])
    run = subprocess.run(
        [sys.executable, *start, *words[1:], "--help"],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": str(COLUMNS), "JAX_PLATFORMS": "cpu", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = (
        fill(line, COLUMNS) for line in run.stdout.strip().splitlines()
    )  # tyro leaves some long
    return "\n".join(["```text", *lines, "```"])
