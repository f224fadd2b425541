import subprocess
import sys

import pytest

from isrrescnet_jax.data import DataConfig


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scale", 5),
        ("patch", 30),
        ("patch", 0),
        ("batch", 0),
        ("repeats", 0),
        ("memory", -1.0),
        ("workers", -1),
        ("seed", 2**32),
    ],
)
def test_a_wrong_field_is_named(field, value):
    with pytest.raises(ValueError, match=field):
        DataConfig(**{field: value})


def test_importing_is_light():
    code = (
        "import sys, isrrescnet_jax.data; print({'grain', 'tensorflow_datasets'} & {*sys.modules})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
