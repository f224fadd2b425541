import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import isrrescnet_jax as isr

ROOMS = [m.name for m in pkgutil.iter_modules(isr.__path__, "isrrescnet_jax.") if m.ispkg]


@pytest.mark.parametrize("room", ["isrrescnet_jax", *ROOMS])
def test_no_public_name_hides_a_module(room):
    package = importlib.import_module(room)
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    hidden = modules & set(getattr(package, "__all__", ()))
    assert all(inspect.ismodule(getattr(package, name)) for name in hidden)  # which is that module


def test_type_checkers_and_python_import_the_same_names():
    tree = ast.parse(inspect.getsource(isr))
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {node.module: [name.name for name in node.names] for node in checked.body}
    rooms = seen.pop(None)  # public modules
    assert seen == isr._MODULES
    assert isr.__all__ == sorted([*rooms, *(name for names in seen.values() for name in names)])
    assert set(isr.__all__) <= set(dir(isr))
    for module, names in seen.items():
        home = importlib.import_module(f"isrrescnet_jax.{module}")
        assert all(getattr(isr, name) is getattr(home, name) for name in names)


def test_names_that_are_not_there():
    with pytest.raises(AttributeError, match="'isrrescnet_jax' has no attribute 'superscale'"):
        isr.superscale  # noqa: B018


def test_importing_the_library_imports_nothing_else():
    code = "import sys, isrrescnet_jax; sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    root = Path(isr.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
