"""scikit-build-core, which leaves the extension out where there is no C++ compiler.

Such a wheel has a tag of its own, py3-none-any, so that no folder and no index mixes it up with one
that has the extension. A compiler that is there is used; where it fails, the build fails with what
the compiler said. Depends on scikit-build-core and the standard library.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Callable
from typing import Any

from scikit_build_core import build

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

Settings = dict[str, Any]

# The names that CMake looks for by itself.
_COMPILERS = ("c++", "CC", "g++", "clang++", "icpx", "icpc", "xlC", "cl")
# What compiled Python, which need not be on this machine.
_PYTHONS = sysconfig.get_config_var("CXX")
# Whoever names one of these, as a setting or in the environment, has decided: CMake is to compile.
_DECISION = r"(\b|-D)(CMAKE_CXX_COMPILER|CMAKE_TOOLCHAIN_FILE|FASTSAMPLE_REQUIRE_COMPILER)\b"


def _first_word(command: str | None) -> str:
    return (shlex.split(command or "", posix=os.name == "posix") or [""])[0]


def find_compiler() -> str | None:
    """Return the path of the C++ compiler, be it broken, if there is one on the PATH.

    CMake looks in other folders too; but what it finds there mostly lacks its assembler.
    """
    named = _first_word(os.environ.get("CXX"))
    if named:
        return shutil.which(named)
    names = filter(None, (_first_word(_PYTHONS), *_COMPILERS))
    return next(filter(None, map(shutil.which, names)), None)


def _settings(settings: Settings | None) -> Settings:
    settings = dict(settings or {})
    environment = {k: v for k, v in os.environ.items() if k.startswith(("CMAKE_", "SKBUILD_"))}
    said = repr((settings, environment))
    # Microsoft's is on no path, and CMake finds it.
    if re.search(_DECISION, said) or sys.platform == "win32":
        return settings
    found = find_compiler()
    if found is None:
        print("fastsample: no C++ compiler found: building without the extension", file=sys.stderr)
        settings.setdefault("wheel.cmake", "false")
    elif not os.environ.get("CXX") and not shutil.which(_first_word(_PYTHONS)):
        os.environ["CXX"] = shlex.quote(found)  # else scikit-build-core names that of Python
    return settings


def _with_settings(hook: Callable[..., Any], position: int) -> Callable[..., Any]:
    """Return the hook, called with the settings of this module at that position."""

    def call(*arguments: Any, **named: Any) -> Any:
        given = list(arguments)
        if "config_settings" in named or len(given) <= position:
            named["config_settings"] = _settings(named.get("config_settings"))
        else:
            given[position] = _settings(given[position])
        return hook(*given, **named)

    return call


build_sdist = build.build_sdist
get_requires_for_build_sdist = build.get_requires_for_build_sdist
get_requires_for_build_wheel = _with_settings(build.get_requires_for_build_wheel, 0)
get_requires_for_build_editable = _with_settings(build.get_requires_for_build_editable, 0)
prepare_metadata_for_build_wheel = _with_settings(build.prepare_metadata_for_build_wheel, 1)
prepare_metadata_for_build_editable = _with_settings(build.prepare_metadata_for_build_editable, 1)
build_wheel = _with_settings(build.build_wheel, 1)
build_editable = _with_settings(build.build_editable, 1)
