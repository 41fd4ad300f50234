#!/usr/bin/env bash
# Starts a program on N ranks of one machine, with the options that its MPI needs there.
#
#   scripts/mpirun.sh openmpi|mpich N PROGRAM [ARGUMENT...]
set -euo pipefail

if [ $# -lt 3 ]; then
    sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
implementation=$1 ranks=$2
shift 2

# Debian installs several MPIs side by side, each with a suffix.
launcher=$(command -v "mpirun.$implementation" || command -v mpirun) || {
    echo "no mpirun for $implementation; install it: apt-get install ${implementation/openmpi/openmpi-bin}" >&2
    exit 127
}

options=(-n "$ranks")
case $implementation in
openmpi)
    # Ranks have threads of their own, which must not share one core with the rank.
    options+=(--bind-to none --oversubscribe)
    if [ "$(id -u)" = 0 ]; then options+=(--allow-run-as-root); fi
    ;;
mpich) ;;
*)
    echo "unknown MPI '$implementation': openmpi or mpich" >&2
    exit 2
    ;;
esac
exec "$launcher" "${options[@]}" "$@"
