"""Without the extras: nothing imports them, and what needs one says how to get it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module

import pytest

from fastsample import cli

RUNTIMES = (
    "llama_cpp", "transformers", "torch", "onnxruntime_genai", "matplotlib", "vllm",
    "mlx", "mlx_lm",
    "dask", "distributed", "ray", "tqdm", "zarr",
)  # fmt: skip


def test_no_runtime_is_imported():
    code = "import sys, fastsample, fastsample.cli, fastsample.integrations; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, check=True)
    assert not set(RUNTIMES) & set(done.stdout.decode().split())


def test_the_plugin_of_vllm_imports_nothing_while_it_is_off():
    code = "import sys; from fastsample.integrations.vllm import register; register()"
    environment = {n: v for n, v in os.environ.items() if n != "FASTSAMPLE_VLLM"}
    command = [sys.executable, "-c", f"{code}; print(*sys.modules)"]
    done = subprocess.run(command, cwd="/", env=environment, capture_output=True, check=True)
    assert not set(RUNTIMES) & set(done.stdout.decode().split())


@pytest.fixture
def without(monkeypatch):
    def hide(name):
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delitem(sys.modules, f"fastsample.integrations.{name}", raising=False)

    return hide


@pytest.mark.parametrize(
    ("adapter", "missing", "names", "extra"),
    [
        ("llama_cpp", "llama_cpp", "llama-cpp-python", "llama"),
        ("transformers", "transformers", "transformers and torch", "transformers"),
        ("transformers", "torch", "transformers and torch", "transformers"),
        ("onnxruntime_genai", "onnxruntime_genai", "onnxruntime-genai", "onnxruntime-genai"),
        ("mlx", "mlx.core", "mlx and mlx-lm", "mlx"),
    ],
)
def test_an_adapter_says_what_it_needs(without, adapter, missing, names, extra):
    without(adapter)
    without(missing)
    with pytest.raises(ImportError) as caught:
        import_module(f"fastsample.integrations.{adapter}")
    message = str(caught.value)
    assert message.startswith(f"this needs {names} (")
    assert message.endswith(
        f"): pip install '.[{extra}]' in a checkout, or pip install 'fastsample[{extra}]'"
    )


def test_generate_without_llama_cpp(without, capsys):
    without("llama_cpp")
    with pytest.raises(SystemExit) as exit_:
        cli.main(["generate", "x"])
    assert exit_.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "llama-cpp-python" in err
    assert "pip install '.[llama]' in a checkout, or pip install 'fastsample[llama]'" in err
