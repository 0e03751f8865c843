#!/bin/sh
# Makes the nano bundle and docs/results from nothing: data, two stages of training with three seeds, export,
# evaluation, closed loop, report. Every step resumes. Usage: scripts/train_nano.sh BIN_FOLDER
set -eu
train="$1/latentvla-train"
cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
results=docs/results
mkdir -p out "$results"
for split in train val test longtail ood; do
    "$train" world make --split "$split" --workers "$cores"
done
for recipe in nano nano_blank; do
    "$train" train --recipe "$recipe" --processes "$cores"
    for seed in 0 1 2; do
        "$train" train --recipe "${recipe}_fine" --run "${recipe}_s$seed" --seed "$seed" --processes "$cores"
    done
done
for seed in 0 1 2; do
    "$train" export --run "nano_s$seed" --name nano --revision 3 --out "out/bundles/nano_s$seed"
    "$train" release-baselines --blank-run "nano_blank_s$seed" --out "out/baselines/s$seed"
    for split in test longtail ood; do
        "$train" evaluate --bundle "out/bundles/nano_s$seed" --baselines "out/baselines/s$seed" --split "$split" \
            --json "$results/open_loop_${split}_s$seed.json"
    done
done
# What ships is seed 0; the closed loop drives it.
"$train" export --run nano_s0 --name nano --revision 3
"$train" release-baselines --blank-run nano_blank_s0
for split in test longtail ood; do
    "$train" world gates --split "$split" --json "$results/gates_$split.json" || true # a missed gate is reported
    for driver in constant_velocity ego_status_mlp blank_images bundle expert; do
        "$train" drive --driver "$driver" --split "$split" --routes 12 --json "$results/drive_${split}_$driver.json"
    done
done
"$train" probe-lights --bundle nano --json "$results/lights.json" || true
"$train" report
