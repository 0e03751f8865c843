#!/bin/sh
# Makes the planner that the shipped student went on from, and its blank twin, from nothing: data, two stages of
# training with three seeds, export, evaluation, closed loop, report. Every step resumes; all is in out/host, and
# nothing that ships is replaced. The student: latentvla-train all. Usage: scripts/train_nano.sh BIN_FOLDER
set -eu
train="$1/latentvla-train"
cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
made=out/host
results=$made/results
mkdir -p "$results"
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
    "$train" export --run "nano_s$seed" --name nano --revision 3 --out "$made/nano_s$seed"
    "$train" release-baselines --blank-run "nano_blank_s$seed" --out "$made/baselines_s$seed"
    for split in test longtail ood; do
        "$train" evaluate --bundle "$made/nano_s$seed" --baselines "$made/baselines_s$seed" --split "$split" \
            --json "$results/open_loop_${split}_s$seed.json"
    done
done
# The closed loop drives seed 0.
for split in test longtail ood; do
    "$train" world gates --split "$split" --json "$results/gates_$split.json" || true # a missed gate is reported
    for driver in constant_velocity ego_status_mlp blank_images bundle expert; do
        case $driver in # the others take no baselines
            ego_status_mlp | blank_images) made_here="--baselines $made/baselines_s0" ;;
            bundle) made_here="--bundle $made/nano_s0" ;;
            *) made_here="" ;;
        esac
        # shellcheck disable=SC2086 # two words or none
        "$train" drive --driver "$driver" $made_here --split "$split" --routes 12 \
            --json "$results/drive_${split}_$driver.json"
    done
done
"$train" probe-lights --bundle "$made/nano_s0" --json "$results/lights.json" || true
"$train" report --bundle "$made/nano_s0" --results "$results" --out "$made/results.md"
