"""Installations: without a compiler, with a broken extension, and what the environment forces.

Each runs in a process of its own; those that install, in a virtual environment of their own.
No package index is a reported skip; FASTSAMPLE_NO_SKIP=1 makes it a failure.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fastsample

ROOT = Path(__file__).resolve().parents[1]
BACKENDS = fastsample.backends()

# Prints what a first use gives, as JSON: the token, what ran, warnings, or the error.
FIRST_USE = """
import json, warnings
result = {}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    try:
        import fastsample
        result["token"] = fastsample.sample([3.0, 2.5, 2.0, 1.0], u=0.6)
        fastsample.sample([3.0, 2.5, 2.0, 1.0], u=0.6)
        result |= {k: v for k, v in fastsample.build_info().items() if k in ("backend", "isa")}
        result["backends"] = fastsample.backends()
    except Exception as error:
        result["error"] = f"{type(error).__name__}: {error}"
result["warnings"] = [f"{w.category.__name__}: {w.message}" for w in caught]
print(json.dumps(result))
"""


def call(
    *command: str | Path, timeout: int = 600, cwd: str | Path = "/", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command away from the source folder; only `environment` concerns fastsample."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CMAKE_", "FASTSAMPLE_", "SKBUILD_", "PYTHON"))
    }
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=inherited | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )


def first_use(python: str | Path = sys.executable, **environment: str) -> dict[str, Any]:
    done = call(python, "-c", FIRST_USE, **environment)
    assert done.returncode == 0, done.stdout
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


# ---- what the environment forces --------------------------------------------------------------


@pytest.mark.parametrize("backend", ["core", "numba", "reference"])
def test_forced_backend_is_the_one_that_runs(backend: str) -> None:
    result = first_use(FASTSAMPLE_BACKEND=backend)
    if backend in BACKENDS:
        assert result["backend"] == backend
        assert result["token"] == 1
        assert result["warnings"] == []
    else:
        assert result["error"].startswith(f"ImportError: backend '{backend}' is not installed")


def test_without_force_the_best_backend_runs() -> None:
    assert first_use()["backend"] == BACKENDS[0]
    assert first_use(FASTSAMPLE_BACKEND="")["backend"] == BACKENDS[0]


def test_unknown_backend() -> None:
    error = first_use(FASTSAMPLE_BACKEND="fortran")["error"]
    assert (
        error
        == "ValueError: FASTSAMPLE_BACKEND must be one of core, numba, reference, got 'fortran'"
    )


def isas() -> tuple[str, ...]:
    if "core" not in BACKENDS:
        return ()
    from fastsample import _core  # type: ignore[attr-defined,unused-ignore]

    names: str = _core.isas()
    return tuple(names.split(","))


@pytest.mark.parametrize("isa", isas())
def test_forced_isa_is_the_one_that_runs(isa: str) -> None:
    result = first_use(FASTSAMPLE_ISA=isa)
    assert (result["backend"], result["isa"], result["token"]) == ("core", isa, 1)


@pytest.mark.skipif("core" not in BACKENDS, reason="fastsample._core is not installed")
@pytest.mark.parametrize("isa", ["sse9", "AVX2", "avx2,scalar"])
def test_unknown_isa(isa: str) -> None:
    error = first_use(FASTSAMPLE_ISA=isa)["error"]
    expected = f"FASTSAMPLE_ISA must be one of {','.join(isas())} on this machine, got {isa}"
    assert error == f"ValueError: {expected}"


@pytest.mark.skipif("core" not in BACKENDS, reason="fastsample._core is not installed")
def test_isa_that_this_machine_lacks() -> None:
    lacking = sorted({"avx512", "avx2", "neon"} - set(isas()))[0]
    error = first_use(FASTSAMPLE_ISA=lacking)["error"]
    assert error.startswith("ValueError: FASTSAMPLE_ISA must be one of ")
    assert error.endswith(f"on this machine, got {lacking}")


def test_the_extension_needs_no_gil() -> None:
    """It says so in its module definition; where Python has none, none comes back."""
    if "core" in BACKENDS:
        done = call(sys.executable, ROOT / "tests" / "free_threaded.py")
        assert done.stdout.startswith("8 threads drew what one draws, with"), done.stdout
        assert done.returncode == 0, done.stdout
    bindings = (ROOT / "csrc" / "bindings" / "module.cpp").read_text()
    assert "PYBIND11_MODULE(_core, m, py::mod_gil_not_used())" in bindings


# ---- the compiler that a build takes ----------------------------------------------------------

# Prints the settings that scikit-build-core is given, and the compiler that it finds named.
HOOK = """
import json, os, sys, sysconfig, types
def hook(*arguments, config_settings=None):
    return config_settings
names = ["build_sdist"] + [f"{do}_{what}" for what in ("wheel", "editable") for do in
    ("build", "get_requires_for_build", "prepare_metadata_for_build")] + [
    "get_requires_for_build_sdist"]
build = types.SimpleNamespace(**dict.fromkeys(names, hook))
sys.modules["scikit_build_core"] = types.SimpleNamespace(build=build)
sysconfig.get_config_vars()["CXX"] = "pythons-own -pthread"
import fastsample_build
print(json.dumps([fastsample_build.build_wheel("folder"), os.environ.get("CXX")]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Microsoft's compiler is on no path")
@pytest.mark.parametrize(
    ("there", "environment", "settings", "named"),
    [
        (["pythons-own", "c++"], {}, {}, None),
        (["clang++", "g++"], {}, {}, "{path}/g++"),
        (["clang++"], {}, {}, "{path}/clang++"),
        (["pythons-own"], {}, {}, None),
        (["ccache"], {}, {"wheel.cmake": "false"}, None),
        ([], {}, {"wheel.cmake": "false"}, None),
        (["c++"], {"CXX": "absent -O1"}, {"wheel.cmake": "false"}, "absent -O1"),
        (["other"], {"CXX": "other -O1"}, {}, "other -O1"),
        ([], {"CMAKE_ARGS": "-DCMAKE_CXX_COMPILER=absent"}, {}, None),
        ([], {"CMAKE_ARGS": "-DX=1 -DFASTSAMPLE_REQUIRE_COMPILER=ON"}, {}, None),
        ([], {"SKBUILD_CMAKE_DEFINE": "FASTSAMPLE_REQUIRE_COMPILER=ON"}, {}, None),
        ([], {"CMAKE_TOOLCHAIN_FILE": "absent"}, {}, None),
    ],
    ids=str,
)
def test_the_compiler_of_a_build(
    tmp_path: Path,
    there: list[str],
    environment: dict[str, str],
    settings: dict[str, str],
    named: str | None,
) -> None:
    for name in there:
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": str(tmp_path), "PYTHONPATH": str(ROOT / "build_backend")} | environment
    done = call(sys.executable, "-c", HOOK, **environment)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == [settings, named and named.format(path=tmp_path)], done.stdout


# ---- installations ----------------------------------------------------------------------------


def without_compiler(python: Path) -> dict[str, str]:
    """An environment in which no compiler, and no other tool of the machine, is found."""
    return {"PATH": str(python.parent), "CC": "/nonexistent/cc", "CXX": "/nonexistent/c++"}


def make_venv(folder: Path) -> Path:
    done = call(sys.executable, "-m", "venv", folder)
    assert done.returncode == 0, done.stdout
    return folder / "bin" / "python"


def pip(
    python: Path, *arguments: str | Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run pip without a compiler; a build needs scikit-build-core from the package index."""
    done = call(python, "-m", "pip", *arguments, **(without_compiler(python) | environment))
    if done.returncode != 0 and "Could not find a version that satisfies" in done.stdout:
        if os.environ.get("FASTSAMPLE_NO_SKIP") == "1":
            pytest.fail(f"no package index, and FASTSAMPLE_NO_SKIP=1\n{done.stdout}")
        pytest.skip("no package index")
    return done


@pytest.fixture(scope="module")
def pure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a virtual environment where fastsample was installed without a compiler."""
    python = make_venv(tmp_path_factory.mktemp("pure") / "venv")
    done = pip(python, "install", ROOT)
    assert done.returncode == 0, done.stdout
    return python


def installed_package(python: Path) -> Path:
    done = call(python, "-c", "import fastsample; print(fastsample.__path__[0])")
    folder = Path(done.stdout.strip())
    assert folder.is_relative_to(python.parents[1]), done.stdout
    return folder


def test_without_a_compiler_the_reference_runs_and_says_so(pure: Path) -> None:
    files = {path.name for path in installed_package(pure).iterdir()}
    assert not [name for name in files if name.startswith("_core.") and name.endswith(".so")]
    assert {"py.typed", "reference", "_numba"} <= files
    result = first_use(pure)
    assert result["backends"] == ["reference"]
    assert (result["backend"], result["isa"], result["token"]) == ("reference", None, 1)
    (warning,) = result["warnings"]
    assert warning.startswith("RuntimeWarning: ")
    assert "install a C++ compiler and repeat pip install" in warning
    assert "--no-cache-dir --force-reinstall" in warning
    assert "pip install numba" in warning


@pytest.mark.parametrize(
    "use",
    [
        "fastsample.sample([3.0, 2.5], u=0.6)",
        "fastsample.survivors([3.0, 2.5])",
        "fastsample.Sampler(seed=1)([3.0, 2.5])",
        "next(fastsample.stream(lambda ids: [3.0, 2.5], [1], max_new_tokens=1))",
        "fastsample.build_info()",
    ],
)
def test_the_warning_names_the_line_of_the_caller(pure: Path, tmp_path: Path, use: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"import fastsample\n\n{use}\n")
    done = call(pure, program)
    assert done.returncode == 0, done.stdout
    assert f"{program}:3: RuntimeWarning: fastsample runs on its slow" in done.stdout


def test_without_a_compiler_a_forced_reference_does_not_warn(pure: Path) -> None:
    result = first_use(pure, FASTSAMPLE_BACKEND="reference")
    assert (result["token"], result["warnings"]) == (1, [])


@pytest.mark.parametrize("backend", ["core", "numba"])
def test_forced_backend_that_is_not_installed(pure: Path, backend: str) -> None:
    error = first_use(pure, FASTSAMPLE_BACKEND=backend)["error"]
    assert error.startswith(f"ImportError: backend '{backend}' is not installed here: ")


@pytest.fixture
def broken(pure: Path) -> Iterator[Path]:
    """The same installation, with an extension that cannot be loaded."""
    extension = installed_package(pure) / f"_core{sysconfig.get_config_var('EXT_SUFFIX')}"
    extension.write_bytes(b"not a shared library")
    yield pure
    extension.unlink()


def test_a_broken_extension_is_an_error_and_no_fallback(broken: Path) -> None:
    for forced in ({}, {"FASTSAMPLE_BACKEND": "core"}):
        result = first_use(broken, **forced)
        assert "token" not in result
        error = result["error"]
        assert error.startswith("ImportError: backend 'core' is installed but failed to import: ")
        assert "Reinstall fastsample" in error
        assert "FASTSAMPLE_BACKEND" in error
        assert result["warnings"] == []


def test_the_hint_of_a_broken_extension_helps(broken: Path) -> None:
    done = call(
        broken,
        "-c",
        "import fastsample; print(fastsample.sample([3.0, 2.5, 2.0, 1.0], u=0.6))",
        FASTSAMPLE_BACKEND="reference",
    )
    assert done.stdout.strip() == "1", done.stdout


def test_a_release_build_needs_a_compiler(pure: Path, tmp_path: Path) -> None:
    release = "--config-settings=cmake.define.FASTSAMPLE_REQUIRE_COMPILER=ON"
    done = pip(pure, "wheel", "--no-deps", "-w", tmp_path, ROOT, release)
    assert done.returncode != 0, done.stdout
    assert "Could not find the compiler" in done.stdout
    assert not list(tmp_path.glob("*.whl"))


def test_a_wheel_without_the_extension_has_a_tag_of_its_own(pure: Path, tmp_path: Path) -> None:
    done = pip(pure, "wheel", "--no-deps", "-w", tmp_path, ROOT)
    assert done.returncode == 0, done.stdout
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"fastsample-{fastsample.__version__}-py3-none-any.whl"


def test_a_broken_compiler_is_not_an_absent_one(pure: Path, tmp_path: Path) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho 'the licence has run out' >&2\nexit 1\n")
    compiler.chmod(0o755)
    done = pip(pure, "wheel", "--no-deps", "-w", tmp_path, ROOT, CXX=str(compiler))
    assert done.returncode != 0, done.stdout
    assert "the licence has run out" in done.stdout
    assert not list(tmp_path.glob("*.whl"))
    # Whoever has no other one leaves the extension out, as the README says.
    left_out = ("--no-deps", "-w", tmp_path, "--config-settings=wheel.cmake=false")
    done = pip(pure, "wheel", *left_out, ROOT, CXX=str(compiler))
    assert done.returncode == 0, done.stdout
    assert [path.name.endswith("-py3-none-any.whl") for path in tmp_path.glob("*.whl")] == [True]


# ---- the source folder ------------------------------------------------------------------------


def test_the_unbuilt_source_folder_refuses(tmp_path: Path) -> None:
    """Also where fastsample is installed: Python takes the folder that it was started in."""
    ignore = shutil.ignore_patterns("_build.py", "*.so", "__pycache__")
    shutil.copytree(ROOT / "fastsample", tmp_path / "fastsample", ignore=ignore)
    error = first_use(PYTHONPATH=str(tmp_path))["error"]
    source = f"fastsample was imported from its source folder {tmp_path / 'fastsample'}"
    assert error.startswith(f"ImportError: {source}, where it is not built. ")
    assert "Start Python in another folder" in error
    assert "pip install -e ." in error


def test_an_editable_installation_uses_the_source_folder(tmp_path: Path) -> None:
    python = make_venv(tmp_path / "venv")
    done = pip(python, "install", "-e", ROOT)
    assert done.returncode == 0, done.stdout
    use = "import fastsample; print(fastsample.sample([3.0, 2.5], u=0.6), fastsample.__file__)"
    for folder in ("/", ROOT):
        done = call(python, "-c", use, cwd=folder, FASTSAMPLE_BACKEND="reference")
        assert done.stdout.split() == ["0", str(ROOT / "fastsample" / "__init__.py")]
