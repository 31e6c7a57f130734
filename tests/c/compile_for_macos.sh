#!/usr/bin/env bash
# Compiles and links the library and tests/c/client.c for macOS on both of its architectures, which
# cannot be run here:   tests/c/compile_for_macos.sh PYTHON     with the module ziglang
set -euo pipefail
python=$(realpath -s "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for arch in x86_64 aarch64; do
  export ARCH=$arch AR="$python -m ziglang ar"
  export CXX="$python -m ziglang c++ -target $arch-macos.11.0" CXXFLAGS="-Wall -Wextra -Werror -O1"
  docs/examples/vendor.sh csrc "$work/$arch"
  # As C++, which it is too: the runtime of C++ comes with that.
  $CXX -DFASTSAMPLE_STATIC -Icsrc -std=c++17 -x c++ tests/c/client.c -x none \
    "$work/$arch/libfastsample.a" -o "$work/$arch/client"
  file=$(od -An -tx4 -N8 "$work/$arch/client")
  case $arch,$file in
    x86_64,*feedfacf*01000007*) echo "macOS, x86-64: compiled and linked" ;;
    aarch64,*feedfacf*0100000c*) echo "macOS, arm64: compiled and linked" ;;
    *) echo "not a program for macOS on $arch:$file" >&2 && exit 1 ;;
  esac
done
