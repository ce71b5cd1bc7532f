"""What every test shares: checked shapes, three backends, one seed, no display and a clean working directory."""

import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import install_import_hook

# Before the first import of the package: from here on every annotated shape and type is checked at each call.
install_import_hook("vantage", "beartype.beartype")

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
# The tests compile hundreds of programs and run each for a moment: XLA's older emitters compile in half the time.
os.environ["XLA_FLAGS"] = f"--xla_cpu_use_fusion_emitters=false {os.environ.get('XLA_FLAGS', '')}"

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, configuration, settings  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent

configuration.set_hypothesis_home_dir(ROOT / ".hypothesis")
_COMMON: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
settings.register_profile("ci", max_examples=25, derandomize=True, database=None, **_COMMON)
settings.register_profile("thorough", max_examples=1000, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_addoption(parser):
    parser.addoption("--seed", type=int, default=0, help="seed of the `rng` fixture (default 0)")


def pytest_terminal_summary(terminalreporter):
    seed = terminalreporter.config.getoption("--seed")
    terminalreporter.write_line(f"random seed {seed}; another one: pytest --seed N")


@pytest.fixture
def rng(request) -> np.random.Generator:
    """A generator that depends on --seed and on the test's name, not on the order in which tests run."""
    return np.random.default_rng([request.config.getoption("--seed"), zlib.crc32(request.node.nodeid.encode())])


@pytest.fixture(scope="module")
def compile_fast():
    """JAX without LLVM's optimisations, for modules in which each test compiles an update of its own: half the time."""
    import jax

    old = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", old)


@dataclass(frozen=True, kw_only=True)
class Backend:
    """One array library: how to make its arrays (float64 kept) and how to read them back."""

    name: str
    asarray: Callable[[Any], Any]
    to_numpy: Callable[[Any], np.ndarray]
    context: Callable[[], AbstractContextManager]

    def arrays(self, *values: Any) -> tuple[Any, ...]:
        """Each value as an array of this library."""
        return tuple(self.asarray(value) for value in values)


def numpy_backend() -> Backend:
    return Backend(name="numpy", asarray=np.asarray, to_numpy=np.asarray, context=nullcontext)


def jax_backend() -> Backend:
    jax = pytest.importorskip("jax")
    return Backend(name="jax", asarray=jax.numpy.asarray, to_numpy=np.asarray, context=lambda: jax.enable_x64(True))


def torch_backend() -> Backend:
    torch = pytest.importorskip("torch")
    return Backend(
        name="torch",
        asarray=lambda value: torch.as_tensor(np.asarray(value)),
        to_numpy=lambda x: x.detach().numpy(),
        context=nullcontext,
    )


BACKENDS = {"numpy": numpy_backend, "jax": jax_backend, "torch": torch_backend}


@pytest.fixture(params=BACKENDS)
def backend(request) -> Iterator[Backend]:
    """Each array library in turn, in float64; JAX's 64-bit mode is on only inside the test."""
    made = BACKENDS[request.param]()
    with made.context():
        yield made


@pytest.fixture(scope="session")
def _empty_directory(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cwd")


@pytest.fixture(autouse=True)
def leaves_no_files(_empty_directory, monkeypatch) -> Iterator[None]:
    """Run each test in an empty directory and fail it if it leaves a file there: output belongs in `tmp_path`."""
    monkeypatch.chdir(_empty_directory)
    yield
    left = sorted(path.name for path in _empty_directory.iterdir())
    for name in left:
        path = _empty_directory / name
        path.rename(_empty_directory.parent / f"left-by-a-test-{len(list(_empty_directory.parent.iterdir()))}-{name}")
    assert not left, f"the test left {left} in the working directory; write to tmp_path instead"
