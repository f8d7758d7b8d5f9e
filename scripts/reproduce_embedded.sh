#!/usr/bin/env bash
# Makes the embedded adapter again, step by step: data, training, calibration, evaluation, decision, card.
#
#     scripts/reproduce_embedded.sh DATA BENCHMARKS [OUT] [--dry-run]
#
# DATA holds the files that the recipe names (training/README.md), BENCHMARKS the benchmark files (evaluation/README.md);
# OUT is runs/reproduction by default. Needs pip install -e '.[train,eval]', two CPU cores and 6 GB of memory.
# What it takes and what should come out is printed first, from the committed run; both stand side by side at the end.
# Machines and versions differ in their last digits, and training makes more of that: expect figures within the intervals.
# A step that was stopped goes on when the script is run again. --dry-run prints the commands.
#
# OUT then holds all that scripts/render_pages.sh takes into the checkout.
#
# Of the environment: RECIPE, SECOND (recipe of the second round, or none), HIDDEN (training items that hide requests
# among other texts, for the second round), EVALUATE (benchmarks of both runs), DECIDE (the one that decides), THINK_ITEMS
# (of each benchmark, in think mode), PYTHON.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python}
RECIPE=${RECIPE:-training/recipes/embedded.yaml}
SECOND=${SECOND:-training/recipes/embedded_second_round.yaml}
HIDDEN=${HIDDEN:-2800}
EVALUATE=${EVALUATE:-all}
DECIDE=${DECIDE:-WildGuardTest1554}
THINK_ITEMS=${THINK_ITEMS:-300}
COMMITTED=guardreasoner_moderation/adapters/smollm2-135m

dry=
places=()
for word in "$@"; do
    if [ "$word" = --dry-run ]; then dry=1; else places+=("$word"); fi
done
if [ "${#places[@]}" -lt 2 ] || [ "${#places[@]}" -gt 3 ]; then
    echo "usage: scripts/reproduce_embedded.sh DATA BENCHMARKS [OUT] [--dry-run]" >&2
    exit 2
fi
DATA=${places[0]} BENCHMARKS=${places[1]} OUT=${places[2]:-runs/reproduction}
for folder in "$DATA" "$BENCHMARKS"; do
    if [ -z "$dry" ] && [ ! -d "$folder" ]; then
        echo "there is no folder $folder" >&2
        exit 2
    fi
done
ADAPTER=$OUT/adapter

step() {
    echo "+ $*"
    [ -n "$dry" ] || "$@"
}

step "$PYTHON" -m model_cards.compare "$COMMITTED"

# 1. Data: each file without what a benchmark asks (but for the two whose texts are trained on), and requests hidden among
#    other texts (minutes). Benchmarks that the training data overlaps with are marked in the results.
PREPARED=$OUT/data
trained_on=()
for name in 0_3_harmbench_prompt 0_5_harmbench_response; do
    [ ! -f "$BENCHMARKS/$name.json" ] || trained_on+=(--trained-on "$name")
done
seen=()
prepared=()
for file in "$DATA"/*.jsonl; do
    step "$PYTHON" -m training.data "$file" --benchmarks "$BENCHMARKS" ${trained_on[@]+"${trained_on[@]}"} \
        --out "$PREPARED/$(basename "$file")"
    prepared+=("$PREPARED/$(basename "$file")")
    seen+=(--training-data "$file")
done

# 2. Training: the adapter, and run.json with the loss of every step.
LAST=$RECIPE
if [ "$SECOND" = none ]; then
    step "$PYTHON" -m training.rsft "$RECIPE" --data-dir "$PREPARED" --out "$OUT"
else
    LAST=$SECOND
    step "$PYTHON" -m training.hidden "${prepared[@]}" --count "$HIDDEN" --out "$PREPARED/hidden.jsonl"
    step "$PYTHON" -m training.rsft "$RECIPE" --data-dir "$PREPARED" --out "$OUT/first"
    step "$PYTHON" -m training.rsft "$SECOND" --data-dir "$PREPARED" --start "$OUT/first/adapter" --out "$OUT"
fi

# 3. Calibration on the validation split; how the adapter is asked is taken from the committed one.
[ -n "$dry" ] || [ -e "$ADAPTER/moderation.json" ] || cp "$COMMITTED/moderation.json" "$ADAPTER/"
step "$PYTHON" -m training.calibrate "$ADAPTER" "$LAST" --data-dir "$PREPARED" --out "$OUT" --think-items 320

# 4. Evaluation: verdict mode in full, think mode on a fixed sample; then where it fails, and how good its reasoning is.
step "$PYTHON" -m evaluation.run --model "$ADAPTER" --data-dir "$BENCHMARKS" --benchmarks "$EVALUATE" \
    "${seen[@]}" --mode verdict --out "$OUT/verdict"
step "$PYTHON" -m evaluation.run --model "$ADAPTER" --data-dir "$BENCHMARKS" --benchmarks "$EVALUATE" \
    "${seen[@]}" --mode think --limit "$THINK_ITEMS" --seed 0 --out "$OUT/think"
step "$PYTHON" -m evaluation.errors "$OUT/verdict" --data-dir "$BENCHMARKS" -o "$OUT/errors.md"
step "$PYTHON" -m evaluation.reasoning "$OUT/think" --data-dir "$BENCHMARKS" -o "$OUT/reasoning.md"
step "$PYTHON" -m evaluation.curve_points "$OUT/verdict" "$OUT/think" --out "$OUT/score_curves.json"
step "$PYTHON" -m evaluation.threshold_figures "$DATA"/*.jsonl --out "$OUT/thresholds.json"

# 5. Decision: exit code 0 publish, 1 continue training, 3 not decided yet; the card prints it.
step "$PYTHON" -m evaluation.decide "$OUT/verdict" --benchmark "$DECIDE" -o "$OUT/decision.json" || [ $? -ne 2 ]

# 6. Card.
results=("$OUT/verdict/results.json" "$OUT/think/results.json" "$OUT/errors.json" "$OUT/reasoning.json")
step "$PYTHON" -m model_cards.card "$OUT" --name guardreasoner-smollm2-135m --results "${results[@]}" -o "$OUT/README.md"

step "$PYTHON" -m model_cards.compare "$COMMITTED" "$OUT" --results "${results[@]}"
