#!/usr/bin/env bash
# Renders everything committed that is made of results files anew: the decision on the embedded adapter, the results
# tables, the page on thresholds, measured speed, the cards with their plots, the pages with the papers' tables, the
# demo's figures, docs/reliability.md.
#
#     scripts/render_pages.sh            or: make pages
#     scripts/render_pages.sh RUN        takes a new embedded adapter and its results into the checkout first
#
# RUN is a folder as scripts/reproduce_embedded.sh leaves it: run.json, calibration.json, adapter/, verdict/ and think/
# (run folders of evaluation.run), errors.md and .json, reasoning.md and .json. All must be there, and of one adapter.
# thresholds.json and score_curves.json (evaluation.threshold_figures, evaluation.curve_points) may be missing; the pages
# then say so, or show no curves.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python}
ADAPTER=guardreasoner_moderation/adapters/smollm2-135m
RESULTS=evaluation/results

if [ $# -gt 1 ]; then
    echo "usage: scripts/render_pages.sh [RUN]" >&2
    exit 2
fi

if [ $# -eq 1 ]; then
    for name in run.json calibration.json adapter/{adapter_config.json,adapter_model.safetensors,moderation.json} \
        {verdict,think}/results.json {errors,reasoning}.{md,json}; do
        if [ ! -f "$1/$name" ]; then
            echo "there is no file $1/$name; nothing was changed" >&2
            exit 2
        fi
    done
    cp "$1/run.json" "$1/calibration.json" "$ADAPTER/"
    cp "$1"/adapter/{adapter_config.json,adapter_model.safetensors,moderation.json} "$ADAPTER/"
    for mode in verdict think; do
        cp "$1/$mode/results.json" "$RESULTS/embedded.$mode.json"
    done
    cp "$1"/{errors,reasoning}.{md,json} "$RESULTS/"
    rm -f "$RESULTS"/{thresholds,score_curves}.json # of other weights than these
    for name in thresholds score_curves; do
        [ ! -f "$1/$name.json" ] || cp "$1/$name.json" "$RESULTS/"
    done
fi

"$PYTHON" -m evaluation.decide "$RESULTS/embedded.verdict.json" -o "$ADAPTER/decision.json" || [ $? -ne 2 ]
"$PYTHON" -m evaluation.tables README.md "$RESULTS/README.md"
"$PYTHON" -m evaluation.threshold_page
"$PYTHON" -m evaluation.measured_pages
"$PYTHON" -m model_cards.pages
"$PYTHON" -m reliability.pages
