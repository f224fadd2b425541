"""The steps of a Dockerfile, carried out without Docker.

A folder stands for the root of the file system, and a virtual environment in its usr/local for an
image of Python. Variables, folders and files of the steps lie in it; commands run as they stand. It
is the same folder for one stage after the other, as programs may name where they lie; stages that
are done move aside, so that nothing of them is there but what was copied.

What this is not: another Debian, with what it lacks, and another kernel's view of users and files.
"""

import dataclasses
import functools
import io
import json
import os
import re
import shlex
import shutil
import string
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from docker.utils.build import exclude_paths
from dockerfile_parse import DockerfileParser

# Of this machine, what commands that install something need: pip's settings and cache, proxies.
INHERITED = re.compile(r"HOME|TMPDIR|(PIP|SSL|REQUESTS)_.*|\w+_proxy", re.IGNORECASE)
# Reads everything, as in an image, where no folder above is closed; writes where a user may.
READING = ("--clear-groups", "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")


@dataclasses.dataclass(frozen=True)
class Step:
    """An instruction with its options (--from=build) and the rest of it."""

    instruction: str
    options: Mapping[str, str]
    value: str

    @property
    def words(self) -> list[str]:
        """Those of the JSON or of the shell."""
        return json.loads(self.value) if self.value.startswith("[") else shlex.split(self.value)


@dataclasses.dataclass(frozen=True)
class Image:
    """What a stage says, beside its files.

    Attributes:
        root: the folder that stands for "/".
        variables: the environment of its commands.
        last: the last step of each kind, such as USER.
    """

    root: Path
    variables: Mapping[str, str]
    last: Mapping[str, Step] = dataclasses.field(default_factory=dict)

    def place(self, path: str) -> str:
        """Where a path of the image is; relative ones stay."""
        outside = path.startswith("/") and not path.startswith(str(self.root))
        return f"{self.root}{path}" if outside else path

    def filled(self, text: str) -> str:
        """With variables in it replaced."""
        return string.Template(text).substitute(self.variables)

    @property
    def folder(self) -> Path:
        return Path(self.place(self.last["WORKDIR"].value)) if "WORKDIR" in self.last else self.root

    @property
    def user(self) -> int:
        """The number of its user; names would have to be looked up in the image."""
        return int(self.last["USER"].value.split(":")[0]) if "USER" in self.last else 0

    def command(self, *arguments: str) -> list[str]:
        """ENTRYPOINT with arguments, or with CMD where there are none."""
        usual = self.last["CMD"].words if "CMD" in self.last else []
        return [*self.last["ENTRYPOINT"].words, *(arguments or usual)]

    def start(self, command: list[str], user: int | None = None, **options) -> subprocess.Popen:
        """A process in it, of its user or another one where this one may become that."""
        user = self.user if user is None else user
        usual = {"cwd": self.folder, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        program = shutil.which(command[0], path=self.variables["PATH"]) or command[0]
        # As in a container, where nobody has told it to ignore Ctrl-C.
        command = [*becoming(user), "env", "--default-signal=INT", program, *command[1:]]
        return subprocess.Popen(command, env=dict(self.variables), text=True, **usual | options)


def becoming(user: int) -> list[str]:
    """What a command begins with to be run by this user; nothing where that cannot be done."""
    prefix = ["setpriv", f"--reuid={user}", f"--regid={user}", *READING]
    return prefix if _runs(*prefix, sys.executable, "-c", "") else []


def stages(text: str) -> dict[str, list[Step]]:
    """The steps of each stage, by its name; the first one is FROM, without the name."""
    parsed = DockerfileParser(fileobj=io.BytesIO(text.encode())).structure
    found: dict[str, list[Step]] = {}
    for line in parsed:
        if line["instruction"] == "COMMENT":
            continue
        words = line["value"].split()
        options = [word for word in words[: _first(words)] if word.startswith("--")]
        value = line["value"]
        for option in options:
            value = value.replace(option, "", 1).strip()
        pairs = dict(option[2:].split("=", 1) for option in options)
        step = Step(line["instruction"], pairs, value)
        if step.instruction == "FROM":
            source, _, name = value.split()  # each has a name here
            found[name] = steps = [dataclasses.replace(step, value=source)]
        else:
            steps.append(step)
    return found


def _first(words: list[str]) -> int:
    return next((i for i, word in enumerate(words) if not word.startswith("--")), len(words))


def context(source: Path, target: Path) -> Path:
    """Copy what .dockerignore lets through, by Docker's own rules."""
    patterns = (source / ".dockerignore").read_text().splitlines()
    ignored = [line.strip() for line in patterns if line.strip() and not line.startswith("#")]
    for name in exclude_paths(str(source), ignored):
        if (source / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, target / name)
    return target


def build(
    text: str,
    target: str,
    context: Path,
    folder: Path,
    arguments: Mapping[str, str] | None = None,
    done: dict[str, Image] | None = None,
) -> Image:
    """Carry out the steps of a stage, and of those that it needs; the result lies in folder/root.

    Args:
        text: the Dockerfile.
        target: name of the stage.
        context: folder with what may be copied.
        folder: for the stages.
        arguments: build arguments.
        done: stages that an earlier call left in the folder; those of this one are added.

    Raises:
        ValueError: a step that is not understood here.
        subprocess.CalledProcessError: a command that failed.
    """
    plan = stages(text)
    done = {} if done is None else done
    root = folder / "root"
    if root.exists():  # of an earlier call
        root.rename(folder / f"root-{len(list(folder.iterdir()))}")

    def finished(name: str) -> Image:
        """A stage that lies in a folder of its own."""
        if name not in done:
            done[name] = carried_out(name)
            root.rename(folder / name)
        return done[name]

    def carried_out(name: str) -> Image:
        start, *steps = plan[name]
        sources = {step.options["from"] for step in steps if "from" in step.options}
        for source in {*sources, *({start.value} & plan.keys())}:
            finished(source)
        if start.value in plan:
            image = done[start.value]
            _copy(folder / start.value, root)
        else:
            image = _python(start.value, root)
        for step in steps:
            image = _carry_out(step, image, context, folder, arguments or {})
        return image

    return carried_out(target)


def _carry_out(
    step: Step, image: Image, context: Path, folder: Path, arguments: Mapping[str, str]
) -> Image:
    variables = dict(image.variables)
    match step.instruction:
        case "ENV":
            for word in shlex.split(step.value):
                name, value = word.split("=", 1)
                variables[name] = image.place(image.filled(value))
        case "ARG":
            name, *default = step.value.split("=", 1)
            if (value := arguments.get(name, *default or [None])) is not None:
                variables[name] = value
        case "RUN":
            _run(step, image)
        case "COPY":
            *sources, target = (image.filled(word) for word in step.words)
            place = image.folder / image.place(target)
            for source in sources:
                if "from" in step.options:
                    path = folder / step.options["from"] / Path(source).relative_to(image.root)
                else:
                    path = context / source
                _copy(path, place / path.name if target.endswith("/") else place)
        case "WORKDIR":
            Path(image.place(step.value)).mkdir(parents=True, exist_ok=True)
        case "USER" | "ENTRYPOINT" | "CMD" | "EXPOSE" | "HEALTHCHECK" | "STOPSIGNAL":
            pass  # remembered below
        case _:
            raise ValueError(f"not understood here: {step.instruction}")
    last = {**image.last, step.instruction: step}
    return dataclasses.replace(image, variables=variables, last=last)


def _run(step: Step, image: Image) -> None:
    """The cache of a RUN is the one of this machine's pip."""
    mount = step.options.get("mount", "type=cache")
    if not mount.startswith("type=cache"):
        raise ValueError(f"not understood here: --mount={mount}")
    if absolute := [word for word in step.words if word.startswith("/")]:
        raise ValueError(f"RUN names a folder that is not in a variable: {' '.join(absolute)}")
    here = {name: value for name, value in os.environ.items() if INHERITED.fullmatch(name)}
    command = ["sh", "-c", step.value]
    subprocess.run(command, check=True, cwd=image.folder, env=here | dict(image.variables))


def _copy(source: Path, target: Path) -> None:
    """A file or a folder; as a link where it lies in a stage, of which nothing changes any more."""
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, copy_function=os.link, dirs_exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, target)


def _python(name: str, root: Path) -> Image:
    """For an image of Python, that version if this machine has it, else the one that runs here."""
    version = re.search(r"python:(\d+\.\d+)", name)
    if not version:
        raise ValueError(f"not an image of Python: {name}")
    python = f"python{version[1]}"
    if not _runs(python, "-c", ""):
        python = sys.executable
    subprocess.run([python, "-m", "venv", "--without-pip", root / "usr/local"], check=True)
    for folder in (root, root / "tmp"):
        folder.mkdir(exist_ok=True)
    return Image(root, {"PATH": f"{root}/usr/local/bin:/usr/bin:/bin"})


@functools.cache
def _runs(*command: str) -> bool:
    """Whether it is there; pyenv has commands for versions that are not in use."""
    try:
        return not subprocess.run(command, capture_output=True).returncode
    except OSError:
        return False
