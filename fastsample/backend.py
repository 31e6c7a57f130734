"""Which backend runs: ``core`` (C++), ``numba`` (its twin) or ``reference`` (the specification).

A backend is a module with the functions of ``reference``. Only where the extension is absent
does another one take its place; an extension that fails to import is an error, never a fallback.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import ContextDecorator
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np

_MODULES = {
    "core": "fastsample._core",
    "numba": "fastsample._numba",
    "reference": "fastsample.reference",
}
_NEEDS = {"core": "fastsample._core", "numba": "numba", "reference": "numpy"}

BackendName: TypeAlias = Literal["core", "numba", "reference"]
Function = TypeVar("Function", bound=Callable[..., Any])

_active: ModuleType | None = None
_active_name = ""
_lock = threading.Lock()


def backends() -> tuple[str, ...]:
    """Return the names of the backends that can run here, best first.

    Returns
    -------
    tuple of str
        Out of ``"core"``, ``"numba"`` and ``"reference"``.

    Examples
    --------
    >>> import fastsample
    >>> "reference" in fastsample.backends()
    True
    """
    return tuple(name for name, module in _NEEDS.items() if find_spec(module) is not None)


def load(name: str) -> ModuleType:
    """Import a backend by its name."""
    if not isinstance(name, str) or name not in _MODULES:
        raise ValueError(f"backend must be one of {', '.join(_MODULES)}, got {name!r}")
    if name not in backends():
        hint = {
            "core": "install a C++ compiler and repeat pip install with "
            "--no-cache-dir --force-reinstall",
            "numba": "pip install numba",
        }
        raise ImportError(f"backend {name!r} is not installed here: {hint[name]}")
    try:
        return import_module(_MODULES[name])
    except ImportError as error:
        raise ImportError(
            f"backend {name!r} is installed but failed to import: {error}. "
            "Reinstall fastsample for this Python, or set FASTSAMPLE_BACKEND to another backend."
        ) from error


def active() -> ModuleType:
    """Return the backend in use; the first call chooses it."""
    if _active is None:
        with _lock:
            if _active is None:
                _choose()
    assert _active is not None
    return _active


def history(rules: Sequence[Any]) -> Any:
    """Return a new history of a row in the backend in use, with these rules."""
    module = active()
    return (getattr(module, "History", None) or load("reference").History)(rules)


def _choose() -> None:
    forced = os.environ.get("FASTSAMPLE_BACKEND")
    if forced and forced not in _MODULES:
        raise ValueError(f"FASTSAMPLE_BACKEND must be one of {', '.join(_MODULES)}, got {forced!r}")
    name = forced or backends()[0]
    if name == "reference" and not forced:
        warnings.warn(
            "fastsample runs on its slow NumPy reference, because this installation has no "
            "compiled extension: install a C++ compiler and repeat pip install with "
            "--no-cache-dir --force-reinstall (pip keeps what it built without one), "
            "or pip install numba",
            RuntimeWarning,
            stacklevel=_stacklevel_of_the_caller(),
        )
    _set(name, load(name))


def _stacklevel_of_the_caller() -> int:
    """Return the stacklevel at which a warning names the line that called into the package."""
    package = os.path.dirname(__file__) + os.sep
    frame, level = sys._getframe(1), 1
    while frame.f_code.co_filename.startswith(package) and frame.f_back is not None:
        frame, level = frame.f_back, level + 1
    return level


def _set(name: str, module: ModuleType | None) -> None:
    global _active, _active_name
    _active, _active_name = module, name


class use_backend(ContextDecorator):
    """Run on another backend, from the call on; affects all threads.

    With ``with``, or as a decorator, for a block or a function only.

    Parameters
    ----------
    name : {"core", "numba", "reference"}
        The backend.

    Raises
    ------
    ValueError
        The name is unknown.
    ImportError
        The backend is not installed here.

    Examples
    --------
    >>> import fastsample
    >>> with fastsample.use_backend("reference"):
    ...     fastsample.sample([3.0, 2.5, 2.0, 1.0], u=0.6)
    1
    """

    def __init__(self, name: BackendName) -> None:
        self._name, self._module = name, load(name)
        self._before: tuple[str, ModuleType | None] | None = None
        self._begin()

    def _begin(self) -> None:
        self._before = _active_name, _active
        _set(self._name, self._module)

    def __enter__(self) -> None:
        if self._before is None:  # once more
            self._begin()

    def __exit__(self, *raised: object) -> None:
        if self._before is not None:
            _set(*self._before)
        self._before = None

    def __call__(self, function: Function) -> Function:
        """Decorate a function: nothing changes until it is called."""
        self.__exit__()
        return super().__call__(function)

    def _recreate_cm(self) -> use_backend:
        return use_backend(self._name)  # so that calls may be inside of each other


def build_info() -> dict[str, Any]:
    """Return what runs here: backend, instruction set, versions.

    Returns
    -------
    dict
        ``version``, ``backend`` (in use), ``backends`` (all that can run), ``isa`` and ``isas``
        (of the core, or None), ``python``, ``numpy`` and ``numba`` versions.

    Examples
    --------
    >>> import fastsample
    >>> fastsample.build_info()["version"] == fastsample.__version__
    True
    """
    from . import __version__

    active()
    core = load("core") if "core" in backends() else None
    return {
        "version": __version__,
        "backend": _active_name,
        "backends": backends(),
        "isa": core.isa() if core else None,
        "isas": tuple(core.isas().split(",")) if core else None,
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "numba": version("numba") if "numba" in backends() else None,
    }
