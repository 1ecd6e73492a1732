"""Hostile inputs are met in a working folder of their own, with a clock and a scale beside them."""

import shutil
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import explainkit as ek
from explainkit.errors import ExplainKitError
from explainkit_cam.explainer import CAM
from explainkit_protopnet.explainer import ProtoPNet

sys.path.insert(0, str(Path(__file__).parent))  # of hostile_files.py
from hostile_files import peak
from model_folder_cases import build

SECONDS = 10
MEGABYTES = 1500

MANY = 100
"""Inputs of one test from which on three of them are representative, instead of one."""


settings.register_profile(
    "hostile",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def pytest_collection_modifyitems(items):
    """Mark all but representative inputs as ``fuzz``: one of each test, three of those with many."""
    tests = {}
    for item in items:
        if item.path.parent == Path(__file__).parent:
            tests.setdefault((item.path, item.originalname), []).append(item)
    for inputs in tests.values():
        last = len(inputs) - 1
        representative = {last // 2} if len(inputs) < MANY else {0, last // 2, last}
        for index in set(range(len(inputs))) - representative:
            inputs[index].add_marker(pytest.mark.fuzz)


@pytest.fixture(autouse=True)
def nothing_is_executed(tmp_path, monkeypatch):
    """Payloads leave a file behind in the working folder; there is none at the end."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.rglob("sprung"))


@pytest.fixture
def contained():
    """Within this context nothing takes long or much memory, and errors are words of ours."""

    @contextmanager
    def watch():
        before, started = peak(), time.perf_counter()
        signal.signal(signal.SIGALRM, _too_long)
        signal.alarm(3 * SECONDS)
        try:
            yield
        except ExplainKitError as error:
            _in_words(error)
            raise
        finally:
            signal.alarm(0)
            assert time.perf_counter() - started < SECONDS
            assert peak() - before < MEGABYTES

    return watch


@pytest.fixture
def answer(contained):
    """Ask something of what was read: it is answered, or refused in words."""

    def ask(question):
        try:
            with contained():
                question()
        except ExplainKitError:
            return False
        return True

    return ask


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """The folders of a CAM and of a ProtoPNet."""
    folders = tmp_path_factory.mktemp("saved")
    prototypes = ProtoPNet(backbone="tiny", prototypes_per_class=2, depth=8, start_epochs=0)
    ek.save(build(CAM(backbone="tiny")), folders / "cam")
    ek.save(build(prototypes), folders / "protopnet")
    return folders


@pytest.fixture
def folder(saved, tmp_path):
    shutil.copytree(saved / "cam", tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def prototypes(saved, tmp_path):
    shutil.copytree(saved / "protopnet", tmp_path / "model")
    return tmp_path / "model"


def _too_long(*_):
    raise TimeoutError("it hangs")


def _in_words(error):
    """One line that is no stack of anybody's internals."""
    message = str(error)
    assert 20 < len(message) < 1000 and "\n" not in message and "Traceback" not in message, message
    assert error.__cause__ is None and (error.__suppress_context__ or error.__context__ is None)
