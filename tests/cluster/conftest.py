import os
from pathlib import Path

import pytest

from isrrescnet_jax import cluster


@pytest.fixture(scope="session")
def ray():
    """Ray on this machine, with what tests define for its processes."""
    pytest.importorskip("ray")
    tests = Path(__file__).parents[1]
    paths = [str(tests.parent), str(tests), *filter(None, [os.environ.get("PYTHONPATH")])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        module = cluster.connect()
        yield module
        module.shutdown()
