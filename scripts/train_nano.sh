#!/bin/sh
# Makes the nano bundle from nothing: data, two stages of training, export, evaluation. Every step resumes.
# Usage: scripts/train_nano.sh BIN_FOLDER
set -eu
train="$1/latentvla-train"
cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
for split in train val test; do
    "$train" world make --split "$split" --workers "$cores"
done
for recipe in nano nano_fine; do
    "$train" train --recipe "$recipe" --processes "$cores"
done
"$train" export --run nano_fine --name nano --out out/bundles/nano
mkdir -p out
"$train" evaluate --bundle out/bundles/nano --split test --json out/evaluation.json
echo "The bundle is out/bundles/nano, its figures are in out/evaluation.json. To ship it:"
echo "  $train export --run nano_fine --name nano"
echo "The baselines it is compared with ship in training/latentvla_training/released; to make them anew:"
echo "  $train train --recipe nano_blank && $train train --recipe nano_blank_fine"
echo "  $train release-baselines --blank-run nano_blank_fine"
