import subprocess
import sys
from pathlib import Path

import isrrescnet_jax as isr


def test_compiled_programs_are_kept(here, weights):
    # In processes of their own: the cache folder is a setting of the whole process.
    def files():
        return {p.name for p in Path("cache").rglob("*") if p.is_file() and "atime" not in p.name}

    code = "from isrrescnet_jax.cli import main; main()"
    base = [sys.executable, "-c", code, "upscale", "photos/bird.png", "--weights", weights]
    environment = {"ISRRESCNET_CACHE": "cache", "PATH": "", "HOME": str(here)}
    environment["PYTHONPATH"] = str(Path(isr.__file__).parent.parent)
    subprocess.run([*base, "--no-cache"], check=True, env=environment, capture_output=True)
    assert not Path("cache").exists()
    subprocess.run([*base, "--overwrite"], check=True, env=environment, capture_output=True)
    kept = files()
    assert kept
    subprocess.run([*base, "--overwrite"], check=True, env=environment, capture_output=True)
    assert files() == kept
