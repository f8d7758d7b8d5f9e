#!/usr/bin/env bash
# The seed's experiment 18 and its continuation to 5 epochs on one GPU with 16 GB, with phases 1 to 3 of its plan:
# evaluate, decide, validate for publication.
#
#     scripts/reproduce_llama32_3b.sh BENCHMARKS LICENSE_FILE [OUT] [--dry-run]
#
# BENCHMARKS holds the benchmark files (evaluation/README.md), LICENSE_FILE is the LICENSE.txt that comes with
# meta-llama/Llama-3.2-3B-Instruct, whose terms must be accepted on the Hub first. OUT is runs/llama32-3b by default.
# Needs pip install -e '.[train,eval]' with CUDA. The seed's run of one epoch took 8.09 hours and ended with a
# training loss of 0.833; its untrained baseline had 57.5% accuracy, and 60% was to be reached. The recipes' headers tell
# what else to expect. A step that was stopped goes on when the script is run again. --dry-run prints the commands.
#
# Of the environment: SOURCE and LIMIT (training data: GuardReasonerTrain, 11,396 samples), RECIPE, CONTINUATION,
# MODEL_OPTIONS (how the model is loaded: --quantization 4bit), REPO_ID, RELEASE_OPTIONS (none), PYTHON.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python}
SOURCE=${SOURCE:-GuardReasonerTrain}
LIMIT=${LIMIT:-11396}
RECIPE=${RECIPE:-training/recipes/llama32_3b_exp18.yaml}
CONTINUATION=${CONTINUATION:-training/recipes/llama32_3b_exp18_5epochs.yaml}
REPO_ID=${REPO_ID:-you/Llama-3.2-3B-GuardReasoner}
read -r -a options <<<"${MODEL_OPTIONS:---quantization 4bit}"
read -r -a release_options <<<"${RELEASE_OPTIONS:-}"

dry=
places=()
for word in "$@"; do
    if [ "$word" = --dry-run ]; then dry=1; else places+=("$word"); fi
done
if [ "${#places[@]}" -lt 2 ] || [ "${#places[@]}" -gt 3 ]; then
    echo "usage: scripts/reproduce_llama32_3b.sh BENCHMARKS LICENSE_FILE [OUT] [--dry-run]" >&2
    exit 2
fi
BENCHMARKS=${places[0]} LICENSE_FILE=${places[1]} OUT=${places[2]:-runs/llama32-3b}
for file in "$RECIPE" "$CONTINUATION" "$LICENSE_FILE"; do
    if [ ! -f "$file" ]; then
        echo "there is no file $file" >&2
        [ -n "$dry" ] || exit 2
    fi
done

step() {
    echo "+ $*"
    [ -n "$dry" ] || "$@"
}

# Phase 1 and 2 of a run: evaluate, decide. Exit code of the decision: 0 publish, 1 continue training, 3 not decided yet.
evaluate_and_decide() {
    step "$PYTHON" -m evaluation.run --model "$1/adapter" "${options[@]}" --data-dir "$BENCHMARKS" \
        --benchmarks WildGuardTest1554 --training-data "$OUT/data/train.jsonl" --mode think --out "$1/think"
    step "$PYTHON" -m evaluation.decide "$1/think" --benchmark WildGuardTest1554 --baseline 0.575 --success 0.60 \
        -o "$1/decision.json" || [ $? -ne 2 ]
    step "$PYTHON" -m model_cards.card "$1" --results "$1/think/results.json" -o "$1/README.md"
}

# Data: 11,396 samples, none of whose prompts is in a benchmark.
step "$PYTHON" -m training.data "$SOURCE" --benchmarks "$BENCHMARKS" --limit "$LIMIT" --seed 3407 \
    --out "$OUT/data/train.jsonl"

# Experiment 18: one epoch.
step "$PYTHON" -m training.trl_sft "$RECIPE" --data-dir "$OUT/data" --out "$OUT/exp18"
evaluate_and_decide "$OUT/exp18"

# The continuation: 5 epochs, a look at the validation split after each, and which of them to take.
step "$PYTHON" -m training.trl_sft "$CONTINUATION" --data-dir "$OUT/data" --out "$OUT/exp18-5epochs"
step "$PYTHON" -m evaluation.decide "$OUT/exp18-5epochs" --metric auprc || [ $? -ne 2 ]
evaluate_and_decide "$OUT/exp18-5epochs"

# Phase 3: all benchmarks of the data folder, and everything that a release checks.
step "$PYTHON" -m evaluation.run --model "$OUT/exp18-5epochs/adapter" "${options[@]}" --data-dir "$BENCHMARKS" \
    --benchmarks all --training-data "$OUT/data/train.jsonl" --mode verdict --out "$OUT/exp18-5epochs/verdict"
step "$PYTHON" -m model_cards.release "$OUT/exp18-5epochs" --repo-id "$REPO_ID" --license-file "$LICENSE_FILE" --dry-run \
    "${options[@]}" ${release_options[@]+"${release_options[@]}"} \
    --results "$OUT/exp18-5epochs/think/results.json" "$OUT/exp18-5epochs/verdict/results.json"
