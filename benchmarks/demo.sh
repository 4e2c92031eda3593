#!/bin/sh
# `make demo`: on scikit-learn's digits, standard training, TRADES and TRADES + TRAIN, three seeds each,
# then the comparison and one figure. Everything goes to demo/, which may be deleted.
set -eu
export TRAINCTL_HOME="${TRAINCTL_HOME:-$PWD/demo/home}"
rm -rf demo
mkdir -p demo

say() { printf '\n$ %s\n' "$*"; "$@"; }

say trainctl run digits-standard --seeds 0-2
say trainctl run digits-trades --pair --seeds 0-2
say trainctl compare recipe:digits-standard recipe:digits-trades
say trainctl plot recipe:digits-trades -o demo/curves.png
printf '\nLook around: TRAINCTL_HOME=%s trainctl\n' "$TRAINCTL_HOME"
