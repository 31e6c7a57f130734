"""However the tests are started, the backend that was meant is the one that ran, or they fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastsample as fs

ROOT = Path(__file__).resolve().parents[1]
ONE_TEST = "test_oracles.py::test_softmax_of_four"
QUIET = ("-p", "no:cacheprovider", "-p", "no:benchmark")  # which leave folders behind
BACKEND = fs.build_info()["backend"]


def start(
    *command: str, cwd: Path = ROOT, **environment: str | None
) -> subprocess.CompletedProcess[str]:
    """Run a command with some variables set, or unset where None."""
    merged = {k: v for k, v in (dict(os.environ) | environment).items() if v is not None}
    return subprocess.run(
        command, cwd=cwd, env=merged, capture_output=True, text=True, check=False, timeout=300
    )


def pytest_from(
    cwd: Path, *options: str, **environment: str | None
) -> subprocess.CompletedProcess[str]:
    test = str(ROOT / "tests" / ONE_TEST)
    command = (sys.executable, "-m", "pytest", *QUIET, test, *options)
    return start(*command, cwd=cwd, **environment)


def test_tests_of_all_variants_can_be_left_out(tmp_path: Path) -> None:
    done = pytest_from(tmp_path, "--default-only", "-k", "softmax")
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done.stdout + done.stderr
    assert " deselected" in done.stdout


@pytest.mark.every_variant
def test_variant_runs(variant: str) -> None:
    assert fs.build_info()["backend"] == variant.partition("-")[0]
    assert fs.sample([0.0, 1.0, 0.0], u=0.5) == 1


@pytest.mark.parametrize("folder", [".", "tests", "fastsample", "csrc"])
def test_from_any_folder_the_installed_package_is_tested(folder: str) -> None:
    # `python -m pytest` puts the folder on the path; from the root that is the trap.
    if not (ROOT / "fastsample").is_dir():
        pytest.skip("these tests run outside of a checkout, which has the source folder")
    done = pytest_from(ROOT / folder, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"backend: {BACKEND} of " in done.stdout
    assert f"in {Path(fs.__file__).parent}" in done.stdout


def test_the_source_folder_is_refused() -> None:
    if BACKEND != "core" or Path(fs.__file__).parent == ROOT / "fastsample":
        pytest.skip("needs an installation with the extension beside the source folder")
    done = start(sys.executable, "-c", "import fastsample", cwd=ROOT)
    assert done.returncode == 1
    assert "ImportError: fastsample was imported from its source folder" in done.stderr


def test_another_backend_is_refused_unless_it_is_meant(tmp_path: Path) -> None:
    reference = {"FASTSAMPLE_BACKEND": "reference", "FASTSAMPLE_EXPECT_BACKEND": None}
    done = pytest_from(tmp_path, **reference)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "meant for the backend 'core', but the installation" in done.stderr
    assert "runs 'reference'" in done.stderr
    done = pytest_from(tmp_path, **reference | {"FASTSAMPLE_EXPECT_BACKEND": "reference"})
    assert done.returncode == 0, done.stdout + done.stderr
    done = pytest_from(tmp_path, FASTSAMPLE_EXPECT_BACKEND="cuda")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "FASTSAMPLE_EXPECT_BACKEND must be one of core, numba, reference" in done.stderr


def test_a_required_variant_must_run(tmp_path: Path) -> None:
    done = pytest_from(tmp_path, "--require-variant=reference")
    assert done.returncode == 0, done.stdout + done.stderr
    done = pytest_from(tmp_path, "--require-variant=reference", "--require-variant=core-mmx")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "core-mmx is none of " in done.stdout
