"""The Python in a document, block after block: the tests run it, and pictures come of it."""

import re
import sys
from pathlib import Path
from typing import Any


def blocks(text: str) -> list[str]:
    """Of a document in Markdown."""
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def run(document: Path) -> dict[str, Any]:
    """Run them where we are; the names that they leave."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for index, block in enumerate(blocks(document.read_text())):
        exec(compile(block, f"{document.name}, block {index}", "exec"), namespace)
    return namespace


if __name__ == "__main__":
    run(Path(sys.argv[1]))
