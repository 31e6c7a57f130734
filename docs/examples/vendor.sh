#!/bin/sh
# Builds libfastsample.a without CMake, for a project that has a copy of csrc:
#   vendor.sh CSRC FOLDER     CXX, CXXFLAGS, AR and ARCH (x86_64, aarch64) may be set
set -eu
csrc=$1 folder=$2 arch=${ARCH:-$(uname -m)}
# GCC fuses a * b + c unless told otherwise, and then other bits come out.
flags="-std=c++17 -O3 -fPIC -ffp-contract=off -fvisibility=hidden -DFASTSAMPLE_STATIC -I$csrc"
avx2="-mavx2 -mfma -mf16c -mpopcnt"
case $arch in
  x86_64 | amd64) isas="avx2 avx512 scalar" ;;
  aarch64 | arm64) isas="neon scalar" flags="$flags -DFASTSAMPLE_NEON" ;;
  *) isas=scalar ;;
esac
mkdir -p "$folder"
compile() {
  source=$1
  shift
  ${CXX:-c++} $flags "$@" ${CXXFLAGS-} -c "$source" -o "$folder/$(basename "$(dirname "$source")")_$(basename "$source" .cpp).o"
}
for isa in $isas; do
  case $isa in
    avx2) compile "$csrc/simd/kernels_avx2.cpp" $avx2 ;;
    avx512) compile "$csrc/simd/kernels_avx512.cpp" -mavx512f -mavx512bw -mavx512dq -mavx512vl $avx2 ;;
    *) compile "$csrc/simd/kernels_$isa.cpp" ;;
  esac
done
for source in "$csrc"/*.cpp "$csrc"/*/*.cpp; do
  case $source in
    */bindings/* | */simd/kernels_*) ;; # Python's, and done above
    *) compile "$source" ;;
  esac
done
${AR:-ar} rcs "$folder/libfastsample.a" "$folder"/*.o
