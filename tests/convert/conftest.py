import pytest


@pytest.fixture(scope="module")
def one_thread():
    """Tests run in parallel; threads of several processes on one core wait for each other."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
