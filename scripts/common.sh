# Sourced by the scripts: goes to the checkout and says which dependency set fits here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Two exit codes tell .ci/run why nothing ran: what was asked cannot be done on this
# machine, or it can and the packages were not got.
unfit() { printf '%s\n' "$@" >&2; exit 69; }
not_set_up() { printf '%s\n' "$@" >&2; exit 70; }

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
    local status=0
    scripts/install ${1:+--stack "$1"} || status=$?
    case $status in
        0) ;;
        69) exit 69 ;;
        *) not_set_up "The packages could not be installed; the lines above say why." ;;
    esac
    venv=${PENSTOCK_VENV:-$PWD/.venv}
    if [ -n "${1-}" ] && [ "$1" != "$(own_stack)" ]; then venv=$venv-$1; fi
    export PATH="$venv/bin:$PATH" VIRTUAL_ENV="$venv" PYTHONNOUSERSITE=1
    # TensorFlow tells on every start which GPUs it does not find.
    export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-3}"
}
