#!/usr/bin/env bash
# The default tests as other processors would run them: PyTorch without AVX-512 and without AVX2, oneDNN with AVX2 alone,
# one thread, and without the compiled kernels. Takes about six times as long as `make test`.
#
#   scripts/test_processors.sh                   all settings
#   scripts/test_processors.sh avx2 no-kernels     these only (avx2, default, onednn, one-thread, no-kernels)
#
# PYTEST_ARGS adds arguments. These settings steer PyTorch, not onnxruntime, which chooses its own instructions. Killed
# without notice during no-kernels, it leaves the kernels in a temporary folder: `pip install -e .` makes them anew.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-.venv/bin/python}
settings=("$@")
all=(avx2 default onednn one-thread no-kernels)
[ ${#settings[@]} -gt 0 ] || settings=("${all[@]}")
for setting in "${settings[@]}"; do
    if [[ " ${all[*]} " != *" $setting "* ]]; then
        echo "there is no setting $setting: ${all[*]}" >&2
        exit 2
    fi
done

# Compiled kernels are put aside for as long as they are to be absent, so that started programs do without them too.
aside=$(mktemp -d)
bring_back() {
    find "$aside" -name '_kernels*.so' -exec mv -t tfnas/supernet/cpu {} +
}
trap 'bring_back; rm -rf "$aside"' EXIT

tests() {
    env "$@" "$python" -m pytest --numprocesses 2 --dist loadscope -q ${PYTEST_ARGS:-}
}

failed=()
for setting in "${settings[@]}"; do
    echo "== $setting"
    case $setting in
        avx2) tests ATEN_CPU_CAPABILITY=avx2 ;;
        default) tests ATEN_CPU_CAPABILITY=default ;;
        onednn) tests ONEDNN_MAX_CPU_ISA=AVX2 ;;
        one-thread) tests OMP_NUM_THREADS=1 ;;
        no-kernels)
            find tfnas/supernet/cpu -name '_kernels*.so' -exec mv -t "$aside" {} +
            tests _=
            status=$?
            bring_back
            (exit $status)
            ;;
    esac || failed+=("$setting")
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed under: ${failed[*]}" >&2
    exit 1
fi
echo "All tests passed under: ${settings[*]}"
