#!/bin/sh
# Installs what Longspan builds with, and any Debian packages named as arguments, on Debian and Ubuntu.
# Does nothing where all of it is there.
set -eu
packages="gcc cmake ninja-build pkg-config libopenblas-openmp-dev libhwloc-dev libomp-dev $*"
missing=
for p in $packages; do
  # any OpenBLAS will do: the library asks the one it finds how it threads
  [ "$p" = libopenblas-openmp-dev ] && dpkg-query -W -f '${db:Status-Status}\n' 'libopenblas*-dev' 2>/dev/null | grep -qx installed && continue
  dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null | grep -qx installed || missing="$missing $p"
done
[ -z "$missing" ] && exit 0
command -v apt-get >/dev/null || { echo "longspan: install$missing by your system's package manager" >&2; exit 1; }
sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
$sudo apt-get update -qq
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
