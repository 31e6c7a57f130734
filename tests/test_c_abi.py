"""The C library as a stranger meets it: built by CMake alone, installed, found, linked, called.

What the library computes is checked by the C programs in ``tests/c``; here they are built and run.
A missing tool is a reported skip; FASTSAMPLE_NO_SKIP=1 makes it a failure.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import fastsample
from fastsample.chains import make_records

ROOT = Path(__file__).resolve().parents[1]
CLIENT = ROOT / "tests" / "c"

EXPORTS = {
    "fs_chain_init",
    "fs_details_init",
    "fs_drafts_init",
    "fs_draw_init",
    "fs_find_stage",
    "fs_force_isa",
    "fs_free_thread_buffers",
    "fs_isa",
    "fs_isas",
    "fs_last_error",
    "fs_log_softmax",
    "fs_logits_init",
    "fs_masks_init",
    "fs_order_init",
    "fs_orders",
    "fs_probs",
    "fs_rule_init",
    "fs_rule_kind_of",
    "fs_rule_name",
    "fs_sample",
    "fs_sample_details",
    "fs_sampler_accept",
    "fs_sampler_copy",
    "fs_sampler_edits",
    "fs_sampler_free",
    "fs_sampler_get",
    "fs_sampler_new",
    "fs_sampler_push",
    "fs_sampler_reset",
    "fs_sampler_rollback",
    "fs_sampler_seek",
    "fs_sampler_set_state",
    "fs_sampler_start",
    "fs_softmax",
    "fs_source_init",
    "fs_stage_init",
    "fs_stage_kind_of",
    "fs_stage_name",
    "fs_step",
    "fs_step_details",
    "fs_survivors",
    "fs_uniform",
    "fs_uniform_for",
    "fs_verify",
    "fs_version",
}
ISAS = {
    "x86_64": {"scalar", "avx2", "avx512"},
    "aarch64": {"scalar", "neon"},
}
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1"]
LANGUAGES = {
    "C": ("CC", "cc", ["-std=c99"]),
    "C++": ("CXX", "c++", ["-std=c++17", "-x", "c++"]),
}


def missing(what: str) -> None:
    """Skip, or fail where nothing may be skipped."""
    if os.environ.get("FASTSAMPLE_NO_SKIP") == "1":
        pytest.fail(f"{what}, and FASTSAMPLE_NO_SKIP=1", pytrace=False)
    pytest.skip(what)


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        missing(f"{name} is not installed")
    assert path is not None
    return path


def compiler(language: str) -> str:
    variable, usual, _ = LANGUAGES[language]
    return tool(os.environ.get(variable, usual))


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    """Run a command and return what it prints, or fail with it."""
    done = subprocess.run(
        [str(part) for part in command],
        env=os.environ | (env or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"{shlex.join(done.args)}\n{done.stdout}"
    return done.stdout


def header_version() -> str:
    header = (ROOT / "csrc" / "fastsample.h").read_text()
    found = re.search(r'^#define FASTSAMPLE_VERSION "(.+)"$', header, re.MULTILINE)
    assert found is not None
    return found[1]


class Library(NamedTuple):
    kind: str
    build: Path
    prefix: Path

    @property
    def libdir(self) -> Path:
        (found,) = self.prefix.rglob("libfastsample.*[a-z]")
        return found.parent


@pytest.fixture(scope="module", params=["shared", "static"])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Library:
    """The library, built without Python and installed; the prefix is chosen only at the end."""
    compiler("C++")
    cmake, folder = tool("cmake"), tmp_path_factory.mktemp(request.param)
    build, prefix = folder / "build", folder / "a prefix"
    options = {
        "shared": ["-DBUILD_SHARED_LIBS=ON"],
        "static": ["-DCMAKE_CXX_FLAGS_RELEASE=-O1"],  # half of the time
    }
    run(cmake, "-S", ROOT, "-B", build, *options[request.param])
    run(cmake, "--build", build, "--parallel", "2")
    run(cmake, "--install", build, "--prefix", prefix)
    return Library(request.param, build, prefix)


shared_only = pytest.mark.parametrize("library", ["shared"], indirect=True)


def assert_passed(output: str) -> None:
    closing = output.strip().splitlines()[-1]
    found = re.fullmatch(r"([1-9]\d*) passed, 0 failed", closing)
    assert found is not None, output


@pytest.mark.parametrize("language", LANGUAGES)
def test_client_through_pkg_config(library: Library, language: str, tmp_path: Path) -> None:
    pkg_config = tool("pkg-config")
    env = {"PKG_CONFIG_PATH": str(library.libdir / "pkgconfig")}
    static = ["--static"] if library.kind == "static" else []
    flags = shlex.split(run(pkg_config, "--cflags", "--libs", *static, "fastsample", env=env))
    program = tmp_path / "client"
    standard = LANGUAGES[language][2]
    source = [*STRICT, *standard, str(CLIENT / "client.c"), "-x", "none"]
    run(compiler(language), *source, *flags, "-lm", "-o", program)
    assert_passed(run(program, env={"LD_LIBRARY_PATH": str(library.libdir)}))
    assert run(pkg_config, "--modversion", "fastsample", env=env).strip() == header_version()


def test_programs_through_find_package(library: Library, tmp_path: Path) -> None:
    """Also in C++, from many threads, after a fork, counting allocations, and on random bytes."""
    cmake = tool("cmake")
    compiler("C")
    run(cmake, "-S", CLIENT, "-B", tmp_path, f"-DCMAKE_PREFIX_PATH={library.prefix}",
        f"-DREQUIRED_VERSION={header_version()}", "-DFUZZ_RUNS=2000")  # fmt: skip
    run(cmake, "--build", tmp_path, "--parallel", "2")
    for program in (
        "client", "client_cpp", "sampler", "serving", "step", "threads", "allocations"
    ):  # fmt: skip
        assert_passed(run(tmp_path / program))
    assert_passed(run(tmp_path / "fuzz", "2000"))
    assert_passed(run(tmp_path / "fuzz_sampler", "1000"))
    assert_passed(run(tmp_path / "fuzz_serving", "1000"))


@pytest.mark.parametrize("how", ["add_subdirectory", "FetchContent"])
def test_as_a_guest(how: str, tmp_path: Path) -> None:
    """A host with other flags and a target named core, which installs itself alone."""
    cmake, build, prefix = tool("cmake"), tmp_path / "build", tmp_path / "prefix"
    compiler("C++")
    shared = "OFF" if how == "add_subdirectory" else "ON"
    run(cmake, "-S", CLIENT / "guest", "-B", build, f"-DGUEST={ROOT}", f"-DHOW={how}",
        "-DCMAKE_BUILD_TYPE=Debug", f"-DBUILD_SHARED_LIBS={shared}")  # fmt: skip
    run(cmake, "--build", build, "--parallel", "2")
    assert_passed(run(build / "host"))
    run(cmake, "--install", build, "--prefix", prefix)
    installed = [path.relative_to(prefix) for path in prefix.rglob("*") if path.is_file()]
    assert installed == [Path("bin/host")]
    guests = (build / "guests.txt").read_text().split()
    assert {"fastsample", "fastsample_core"} <= set(guests)
    assert [name for name in guests if not name.startswith("fastsample")] == []
    cache = (build / "CMakeCache.txt").read_text()
    assert "FASTSAMPLE_INSTALL:BOOL=OFF" in cache
    assert "FASTSAMPLE_PYTHON:BOOL=OFF" in cache


@pytest.mark.parametrize("flags", ["-ffast-math", "-ffinite-math-only"])
def test_other_arithmetic_is_refused(flags: str, tmp_path: Path) -> None:
    command = [compiler("C++"), "-std=c++17", f"-I{ROOT / 'csrc'}", "-fsyntax-only"]
    source = ROOT / "csrc" / "simd" / "kernels_scalar.cpp"
    run(*command, source)
    done = subprocess.run(
        [*command, flags, source], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode != 0
    assert "fastsample needs IEEE arithmetic: compile without" in done.stderr


@pytest.fixture(scope="module")
def old_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that was built with the header and against the library of 0.1."""
    folder, old = tmp_path_factory.mktemp("old"), CLIENT / "old"
    cc = [compiler("C"), *STRICT, "-std=c99"]
    library = folder / "libfastsample.so.0"
    run(*cc, "-shared", "-fPIC", f"-Wl,-soname,{library.name}", old / "stub.c", "-o", library)
    program = folder / "program"
    run(*cc, old / "program.c", library, "-o", program)
    assert "intact" in run(program, env={"LD_LIBRARY_PATH": str(folder)})
    return program


def refused(program: Path, folder: Path) -> str:
    """What a program says that ends before its first line, by an exit and not by a signal."""
    done = subprocess.run(
        [program],
        env=os.environ | {"LD_LIBRARY_PATH": str(folder), "LD_BIND_NOW": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode > 0, done
    assert done.stdout == ""
    return done.stderr


@shared_only
def test_an_old_program_does_not_start(library: Library, old_program: Path) -> None:
    if platform.system() != "Linux":
        missing("names of shared libraries are those of Linux")
    assert "libfastsample.so.0" in refused(old_program, library.libdir)


@shared_only
def test_an_old_program_on_the_new_file(
    library: Library, old_program: Path, tmp_path: Path
) -> None:
    """Also where somebody has renamed the library: a function that it calls is not there."""
    if platform.system() != "Linux":
        missing("names of shared libraries are those of Linux")
    shutil.copy(library.libdir / "libfastsample.so", tmp_path / "libfastsample.so.0")
    assert "fs_params_init" in refused(old_program, tmp_path)


@shared_only
def test_name_of_the_library(library: Library) -> None:
    if platform.system() != "Linux":
        missing("names of shared libraries are those of Linux")
    dynamic = run(tool("readelf"), "-d", library.libdir / "libfastsample.so")
    major, minor, _ = header_version().split(".")
    assert f"[libfastsample.so.{major}.{minor}]" in dynamic


@pytest.mark.parametrize("version", ["0.1", "0.3", "1.0"])
@shared_only
def test_find_package_refuses_other_versions(
    library: Library, version: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [tool("cmake"), "-S", CLIENT, "-B", tmp_path, f"-DCMAKE_PREFIX_PATH={library.prefix}",
         f"-DREQUIRED_VERSION={version}"],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode != 0
    assert f'compatible with requested version "{version}"' in " ".join(done.stderr.split())


def symbols(path: Path, *options: str) -> list[tuple[str, str]]:
    """Name and kind (see nm) of all defined symbols."""
    listed = run(tool("nm"), "--defined-only", "--format=posix", *options, path)
    return [(line.split()[0], line.split()[1]) for line in listed.splitlines()]


@shared_only
def test_exported_symbols(library: Library) -> None:
    exported = symbols(library.libdir / "libfastsample.so", "-D")
    assert dict(exported) == dict.fromkeys(EXPORTS, "T")


def test_header_declares_what_is_exported() -> None:
    header = (ROOT / "csrc" / "fastsample.h").read_text()
    assert set(re.findall(r"^FASTSAMPLE_API [^(]*\b(fs_\w+)\(", header, re.MULTILINE)) == EXPORTS


def test_extension_exports_its_init_alone() -> None:
    spec = find_spec("fastsample._core")
    if spec is None or spec.origin is None:
        missing("fastsample._core is not installed")
    assert spec is not None
    assert spec.origin is not None
    exported = {name for name, _ in symbols(Path(spec.origin), "-D")}
    assert not exported & EXPORTS
    assert "PyInit__core" in exported


def leaks(objects: Sequence[Path]) -> list[str]:
    """Symbols of object files that the linker may share with other object files."""
    table = re.compile(r"_ZN10fastsample\d[a-z]+\d*7kernelsE")  # fastsample::<isa>::kernels
    return [
        f"{path.name}: {name} ({kind})"
        for path in objects
        for name, kind in symbols(path)
        if (kind.isupper() or kind in "uvw") and not table.fullmatch(name)
    ]


def test_instruction_sets_share_nothing_but_their_table(library: Library) -> None:
    """A weak symbol compiled for AVX-512 could be the copy that the linker picks for everybody."""
    objects = sorted(library.build.rglob("kernels_*.o"))
    isas = {re.sub(r"kernels_(\w+).*", r"\1", path.name) for path in objects}
    assert isas == ISAS.get(platform.machine(), {"scalar"})
    assert not leaks(objects)
    for path in objects:
        assert sum(kind.isupper() for _, kind in symbols(path)) == 1


def test_a_shared_symbol_would_be_noticed(tmp_path: Path) -> None:
    source, compiled = tmp_path / "kernels_bad.cpp", tmp_path / "kernels_bad.o"
    source.write_text("inline int f(int x) { return x; }\nint (*table)(int) = f;\n")
    run(compiler("C++"), "-c", source, "-o", compiled)
    assert leaks([compiled]) == ["kernels_bad.o: _Z1fi (W)", "kernels_bad.o: table (D)"]


@shared_only
def test_versions_agree(library: Library) -> None:
    expected = header_version()
    assert version("fastsample") == fastsample.__version__ == expected
    loaded = ctypes.CDLL(str(library.libdir / "libfastsample.so"))
    loaded.fs_version.restype = ctypes.c_char_p
    assert loaded.fs_version().decode() == expected


def test_version_of_the_extension() -> None:
    if find_spec("fastsample._core") is None:
        missing("fastsample._core is not installed")
    from fastsample import _core  # type: ignore[attr-defined,unused-ignore]

    assert _core.version == header_version()


def test_the_extension_refuses_other_memory() -> None:
    # The public functions hand on what fits; whoever calls past them must not crash either.
    core = pytest.importorskip("fastsample._core", reason="fastsample._core is not installed")
    rows, u, tokens = np.zeros((3, 4), np.float32), np.zeros(3), np.empty(3, np.int64)
    params = make_records(1, temperature=0.9)
    unaligned = np.zeros(3 * 8 + 1, np.uint8)[1:].view(np.float64)
    core.sample(rows, params, u, False, tokens)
    for wrong in (
        (rows.astype(">u2"), params, u, tokens),
        (rows, np.zeros(1, "S56"), u, tokens),
        (rows, np.zeros(1, [("a", object, 7)]), u, tokens),
        (rows, np.zeros(1, [("a", "i4")]), u, tokens),
        (rows, np.zeros(1, [("a", "i8", 3)]), u, tokens),
        (rows, np.zeros(1, [("a", "i8"), ("b", "V48", 65)]), u, tokens),
        (rows, params, u.astype(object), tokens),
        (rows, params, u.astype(">f8"), tokens),
        (rows, params, unaligned, tokens),
        (rows, params, u, np.empty(3, object)),
        (rows, params, u, np.empty(3, ">i8")),
    ):
        with pytest.raises(TypeError):
            core.sample(*wrong[:3], False, wrong[3])
