#!/bin/sh
# Makes the nano bundle from nothing: data, training, export, evaluation. Every step resumes.
# Usage: scripts/train_nano.sh BIN_FOLDER [RUN]
set -eu
train="$1/latentvla-train"
run=${2:-nano}
cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
for split in train val test; do
    "$train" world make --split "$split" --workers "$cores"
done
"$train" train --recipe nano --run "$run" --processes "$cores"
"$train" export --run "$run" --name nano --out "out/bundles/nano"
mkdir -p out
"$train" evaluate --bundle out/bundles/nano --split test --json out/evaluation.json
echo "The bundle is out/bundles/nano, its figures are in out/evaluation.json. To ship it:"
echo "  $train export --run $run --name nano"
