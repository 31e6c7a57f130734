"""What all tests share: proof that the installed backend is the one under test, and its variants.

A variant is what can compute a draw: each instruction set of the core, numba, the reference.
"""

from __future__ import annotations

import os
import platform
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]

# `python -m pytest`, or PYTHONPATH, may have put the root on the path, where `import fastsample`
# finds the source folder, which is not built and refuses; or that folder, where `import rows` finds
# the package's.
_TRAPS = (ROOT, ROOT / "fastsample")
sys.path[:] = [p for p in sys.path if Path(p or os.curdir).resolve() not in _TRAPS]
# Import mode importlib adds nothing to the path; rows.py is shared by the test modules.
sys.path.append(str(ROOT / "tests"))

EXPECT = "FASTSAMPLE_EXPECT_BACKEND"
BACKENDS = ("core", "numba", "reference")

_ISAS = {"x86_64": ("avx512", "avx2"), "amd64": ("avx512", "avx2")} | dict.fromkeys(
    ("aarch64", "arm64"), ("neon",)
)
#: All that a machine of this architecture may run.
VARIANTS = (
    *(f"core-{isa}" for isa in (*_ISAS.get(platform.machine().lower(), ()), "scalar")),
    "numba",
    "reference",
)

for _profile, _examples in (("moderate", 300), ("ci-short", 25), ("long", 3000)):
    settings.register_profile(
        _profile,
        max_examples=_examples,
        deadline=None,
        derandomize=True,
        print_blob=True,
        database=None,
        # Fixtures here are constant during a test; examples need not be set up one by one.
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "moderate"))


def wrong_backend() -> str | None:
    """Why this session would not test what was meant, or None."""
    expected = os.environ.get(EXPECT, "core")
    if expected not in BACKENDS:
        return f"{EXPECT} must be one of {', '.join(BACKENDS)}, got {expected!r}"
    try:
        import fastsample

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the reference is slow
            ran = fastsample.build_info()["backend"]
    except ImportError as error:
        return (
            f"fastsample does not import: {error}. Run: {sys.executable} -m pip install '.[test]'"
        )
    folder = Path(fastsample.__file__).resolve().parent
    if ran == expected:
        return None
    where = "the source folder" if folder == ROOT / "fastsample" else "the installation"
    return (
        f"the tests are meant for the backend {expected!r}, but {where} {folder} runs {ran!r}. "
        f"Install fastsample with its extension (pip install '.[test]', a C++ compiler at hand), "
        f"or set {EXPECT}={ran} where that is what you mean to test"
    )


def why_not(variant: str) -> str | None:
    """Why a variant cannot run here, or None."""
    backend, _, isa = variant.partition("-")
    if variant not in VARIANTS:
        return f"{variant} is none of {', '.join(VARIANTS)}"
    if backend != "reference" and find_spec(f"fastsample._{backend}") is None:
        return f"{variant} cannot run here: fastsample._{backend} is not installed"
    if backend == "numba" and find_spec("numba") is None:
        return f"{variant} cannot run here: numba is not installed"
    if isa and isa not in import_module("fastsample._core").isas().split(","):
        return f"{variant} cannot run here: this processor lacks it"
    return None


@contextmanager
def activated(variant: str) -> Iterator[None]:
    """Run a block of code on a variant, and prove that it is the one."""
    import fastsample

    backend, _, isa = variant.partition("-")
    with fastsample.use_backend(backend):
        assert fastsample.build_info()["backend"] == backend
        if not isa:
            yield
            return
        core = import_module("fastsample._core")
        before = core.isa()
        core.force_isa(isa)
        try:
            assert fastsample.build_info()["isa"] == isa
            yield
        finally:
            core.force_isa(before)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-variant",
        action="append",
        default=[],
        metavar="NAME",
        help=f"fail, rather than skip, where a variant cannot run: {', '.join(VARIANTS)}",
    )
    parser.addoption(
        "--default-only",
        action="store_true",
        help="leave out the tests that choose a variant: they do the same on any default",
    )
    parser.addoption("--no-skips", action="store_true", help="fail where anything is skipped")


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--no-skips") and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--default-only"):
        return
    sides: dict[bool, list[pytest.Item]] = {True: [], False: []}
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        sides[{"variant", "fast_variant", "fast_variants"}.isdisjoint(fixtures)].append(item)
    config.hook.pytest_deselected(items=sides[False])
    items[:] = sides[True]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "every_variant: run, or skip, also where it cannot run here")
    error = wrong_backend()
    if error is not None:
        raise pytest.UsageError(error)


def pytest_report_header(config: pytest.Config) -> list[str]:
    import fastsample

    info = fastsample.build_info()
    able = [name for name in VARIANTS if why_not(name) is None]
    unable = [name for name in VARIANTS if why_not(name) is not None]
    return [
        f"fastsample: {info['version']} in {Path(fastsample.__file__).parent}",
        f"backend: {info['backend']} of {', '.join(info['backends'])}; isa: {info['isa']}",
        f"variants: {', '.join(able)}" + (f"; not here: {', '.join(unable)}" if unable else ""),
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    required = metafunc.config.getoption("--require-variant")
    names = [*VARIANTS, *(name for name in required if name not in VARIANTS)]
    if metafunc.definition.get_closest_marker("every_variant") is None:
        # What cannot run is reported once, by the test with that mark, and not by all of them.
        names = [name for name in names if name in required or why_not(name) is None]
    for fixture in {"variant", "fast_variant"}.intersection(metafunc.fixturenames):
        chosen = [name for name in names if fixture == "variant" or name != "reference"]
        metafunc.parametrize(fixture, chosen, indirect=True)


def _run_on(request: pytest.FixtureRequest) -> Iterator[str]:
    name: str = request.param
    reason = why_not(name)
    if reason is not None:
        if name in request.config.getoption("--require-variant"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    with activated(name):
        yield name


@pytest.fixture
def variant(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each variant in turn, active."""
    yield from _run_on(request)


@pytest.fixture
def fast_variant(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each variant but the reference, which is too slow for some tests."""
    yield from _run_on(request)


@pytest.fixture(scope="session")
def fast_variants() -> tuple[str, ...]:
    """Those that run here and must give equal bits: all but the reference."""
    names = tuple(name for name in VARIANTS[:-1] if why_not(name) is None)
    if not names:
        pytest.skip("only the reference can run here")
    return names


@pytest.fixture(scope="session")
def activate() -> Callable[[str], AbstractContextManager[None]]:
    """Context manager that runs a block of code on a named variant."""
    return activated


class CommandLine:
    """The command `fastsample`, run in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def run(self, *arguments: object) -> str:
        """Return what it prints where all is well."""
        from fastsample import cli

        assert cli.main([*map(str, arguments)]) == 0
        out, err = self.capsys.readouterr()
        assert err == ""
        return out

    def refusal(self, *arguments: object) -> str:
        """Return the first line of what it says against its arguments."""
        from fastsample import cli

        with pytest.raises(SystemExit) as exit_:
            cli.main([*map(str, arguments)])
        assert exit_.value.code == 2
        out, err = self.capsys.readouterr()
        assert out == ""
        return err.splitlines()[0]


@pytest.fixture
def command_line(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """`fastsample` with its arguments."""
    return CommandLine(capsys)
