# Sourced by the scripts: goes to the checkout and says which dependency set fits here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Exit 69: this machine cannot do what was asked, and says why.
unfit() { printf '%s\n' "$@" >&2; exit 69; }

glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | cut -d' ' -f2) || glibc=

glibc_is_at_least() { [ -n "$glibc" ] && printf '%s\n' "$1" "$glibc" | sort -VC; }

# The newest set whose wheels this machine's C library can load, or nothing.
own_stack() {
    if glibc_is_at_least 2.39; then echo current
    elif glibc_is_at_least 2.28; then echo old
    fi
}

# Installs the machine's own set, or the one given, and puts its programs first on PATH.
activate() {
    scripts/install ${1:+--stack "$1"}
    venv=${PENSTOCK_VENV:-$PWD/.venv}
    if [ -n "${1-}" ] && [ "$1" != "$(own_stack)" ]; then venv=$venv-$1; fi
    export PATH="$venv/bin:$PATH" VIRTUAL_ENV="$venv" PYTHONNOUSERSITE=1
    # TensorFlow tells on every start which GPUs it does not find.
    export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-3}"
}
