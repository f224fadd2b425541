import importlib
import pkgutil

import pytest

import isrrescnet_jax as isr

ROOMS = [m.name for m in pkgutil.iter_modules(isr.__path__, "isrrescnet_jax.") if m.ispkg]


@pytest.mark.parametrize("room", ["isrrescnet_jax", *ROOMS])
def test_no_public_name_hides_a_module(room):
    package = importlib.import_module(room)
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert not modules & set(getattr(package, "__all__", ()))
