"""The public benchmarks: the 13 cells of arXiv 2501.18492, table 3, and some more.

Eleven files hold the 13 cells. Their authors released them in the repository ``yueliu1999/GuardReasoner`` on GitHub,
folder ``data/benchmark``; put copies into the folder that is passed as ``--data-dir``. Where the Hub's original holds
the same rows it can be loaded from there too, at a pinned commit. Borderline is this project's own, in ``own/``.

Licences are the data sets' own. "Adversarial" follows the column of that name in table 3: whether the prompts include
jailbreaks.
"""

from __future__ import annotations

from collections.abc import Mapping

from evaluation.items import Columns
from evaluation.loading import Benchmark, HubSource, LocalFile
from guardreasoner_moderation.errors import InputError, nearest
from guardreasoner_moderation.models import SHORT_NAMES, LoadedModel
from guardreasoner_moderation.results import Label, Task

_RISKY_IS_1 = {"1": Label.HARMFUL, "0": Label.UNHARMFUL}
_WILDGUARD = {"test/wildguard_test.parquet": None}


def _wildguard(label: str) -> HubSource:
    columns = Columns(response="response", label=label, group="subcategory", blank=True)
    return HubSource(
        "allenai/wildguardmix", "d29c47f41c8b51348b5c8e8c81c039b3132b66d1", _WILDGUARD, columns, gated=True
    )


def _xstest(split: str) -> HubSource:
    files = {f"data/{split}-*.parquet": None}
    revision = "4cd03695944eb5940c5a2dfcdf2a493a8f288dbc"
    return HubSource("allenai/xstest-response", revision, files, Columns(response="response"), gated=True)


BENCHMARKS: Mapping[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            "ToxicChat",
            Task.REQUEST,
            2853,
            "CC-BY-NC-4.0",
            adversarial=True,
            hub=HubSource(
                "lmsys/toxic-chat",
                "573f1d6e47d44f91bc13e3d59650734e22f349b0",
                {"data/0124/toxic-chat_annotation_test.csv": None},
                Columns("user_input", label="toxicity", labels=_RISKY_IS_1, only=("human_annotation", "true")),
            ),
            local=LocalFile("0_8_toxic_chat.json"),
        ),
        Benchmark(
            "HarmBenchPrompt",
            Task.REQUEST,
            239,
            "MIT",
            adversarial=False,
            hub=HubSource("walledai/HarmBench"),
            local=LocalFile("0_3_harmbench_prompt.json"),
        ),
        Benchmark(
            "OpenAIModeration",
            Task.REQUEST,
            1680,
            "MIT",
            adversarial=False,
            hub=HubSource(
                "mmathys/openai-moderation-api-evaluation",
                "f1cc01adedb39eaa2071affd41b3d4119f47fbc3",
                {"samples-1680.jsonl.gz": None},
                Columns(flags=("S", "H", "V", "HR", "SH", "S3", "H2", "V2")),
            ),
            local=LocalFile("0_2_OpenAIModeration.json"),
        ),
        Benchmark(
            "AegisSafetyTest",
            Task.REQUEST,
            359,
            "CC-BY-4.0",
            adversarial=False,
            hub=HubSource("nvidia/Aegis-AI-Content-Safety-Dataset-1.0"),
            local=LocalFile("0_1_AegisSafetyTest.json"),
        ),
        Benchmark(
            "SimpleSafetyTests",
            Task.REQUEST,
            100,
            "CC-BY-2.0",
            adversarial=False,
            hub=HubSource(
                "Bertievidgen/SimpleSafetyTests",
                "a60cd2b298bb1c010d9855b95a9596502f170caf",
                {"sst_test_cases.csv": Label.HARMFUL},
            ),
            local=LocalFile("0_0_SimpleSafetyTests.json"),
        ),
        Benchmark(
            "WildGuardTestPrompt",
            Task.REQUEST,
            1756,
            "ODC-BY",
            adversarial=True,
            hub=_wildguard("prompt_harm_label"),
            local=LocalFile("0_4_wild_guard_test.json", label="prompt_harm_label"),
        ),
        Benchmark(
            "HarmBenchResponse",
            Task.RESPONSE,
            602,
            "MIT",
            adversarial=True,
            hub=HubSource("walledai/HarmBench"),
            local=LocalFile("0_5_harmbench_response.json"),
        ),
        Benchmark(
            "SafeRLHF",
            Task.RESPONSE,
            2000,
            "CC-BY-NC-4.0",
            adversarial=False,
            hub=HubSource("PKU-Alignment/PKU-SafeRLHF"),
            local=LocalFile("0_9_safe_rlhf.json"),
        ),
        Benchmark(
            "BeaverTails",
            Task.RESPONSE,
            3021,
            "CC-BY-NC-4.0",
            adversarial=False,
            hub=HubSource(
                "PKU-Alignment/BeaverTails",
                "8401fe609d288129cc684a9b3be6a93e41cfe678",
                {"round0/30k/test.jsonl.gz": None},
                Columns(
                    response="response",
                    label="is_safe",
                    labels={"true": Label.UNHARMFUL, "false": Label.HARMFUL},
                ),
            ),
            local=LocalFile("0_A_beaver_tails.json"),
        ),
        Benchmark(
            "XSTestResponseHarmful",
            Task.RESPONSE,
            446,
            "ODC-BY",
            adversarial=False,
            hub=_xstest("response_harmfulness"),
            local=LocalFile("0_6_xstest_response_harmful.json"),
        ),
        Benchmark(
            "WildGuardTestResponse",
            Task.RESPONSE,
            1768,
            "ODC-BY",
            adversarial=True,
            hub=_wildguard("response_harm_label"),
            local=LocalFile("0_4_wild_guard_test.json", label="response_harm_label"),
        ),
        Benchmark(
            "XSTestResponseRefusal",
            Task.COMPLETION,
            499,  # the released file, like the original on the Hub, has 449
            "ODC-BY",
            adversarial=False,
            hub=_xstest("response_refusal"),
            local=LocalFile("0_7_xstest_response_refusal.json"),
        ),
        Benchmark(
            "WildGuardTestRefusal",
            Task.COMPLETION,
            1777,
            "ODC-BY",
            adversarial=True,
            hub=_wildguard("response_refusal_label"),
            local=LocalFile("0_4_wild_guard_test.json", label="response_refusal_label"),
        ),
        Benchmark(
            "WildGuardTest1554",
            Task.REQUEST,
            1554,
            "ODC-BY",
            adversarial=True,
            hub=HubSource("allenai/wildguardmix", gated=True),
            local=LocalFile("wildguard_test_1554.json", Columns("text", group="source")),
            table3=False,
        ),
        Benchmark(
            "XSTest",
            Task.REQUEST,
            450,
            "CC-BY-4.0",
            adversarial=False,
            hub=HubSource(
                "walledai/XSTest",
                "f1d713187c61b6ae64e602d74f0b3d812cc2e8e8",
                {"data/*.parquet": None},
                Columns(group="type"),
                gated=True,
            ),
            table3=False,
        ),
        Benchmark(
            "ORBench",
            Task.REQUEST,
            1974,
            "CC-BY-4.0",
            adversarial=False,
            hub=HubSource(
                "bench-llm/or-bench",
                "e36d8b80e81837c8a8f264bbb2a49f1b32c7e272",
                {"or-bench-hard-1k.csv": Label.UNHARMFUL, "or-bench-toxic.csv": Label.HARMFUL},
                Columns(group="category"),
            ),
            table3=False,
        ),
        Benchmark(
            "JailbreakBench",
            Task.REQUEST,
            200,
            "MIT",
            adversarial=False,
            hub=HubSource(
                "JailbreakBench/JBB-Behaviors",
                "d8d87b8fdcb7806e3b4e45fffb2bc24aa6b17f32",
                {"data/harmful-behaviors.csv": Label.HARMFUL, "data/benign-behaviors.csv": Label.UNHARMFUL},
                Columns("Goal", group="Category"),
            ),
            table3=False,
        ),
        Benchmark(
            "StrongREJECT",
            Task.REQUEST,
            313,
            "MIT",
            adversarial=False,
            hub=HubSource(
                "walledai/StrongREJECT",
                "df54272b395ce9e584d2f8140519935425d8549f",
                {"data/train-00000-of-00001.parquet": Label.HARMFUL},
                Columns(group="category"),
                gated=True,
            ),
            table3=False,
        ),
        Benchmark(
            "Aegis2Prompt",
            Task.REQUEST,
            1964,
            "CC-BY-4.0",
            adversarial=True,
            hub=HubSource(
                "nvidia/Aegis-AI-Content-Safety-Dataset-2.0",
                "d86bb8bedff51d25ac834ab7838f1cc61acb7a2c",
                {"test.json": None},
                Columns(label="prompt_label", group="violated_categories", blank=True, drop=("prompt", "redacted")),
            ),
            table3=False,
        ),
        Benchmark(
            "Aegis2Response",
            Task.RESPONSE,
            1964,  # prompts; those without a labelled response are left out, and the difference is printed
            "CC-BY-4.0",
            adversarial=True,
            hub=HubSource(
                "nvidia/Aegis-AI-Content-Safety-Dataset-2.0",
                "d86bb8bedff51d25ac834ab7838f1cc61acb7a2c",
                {"test.json": None},
                Columns(
                    response="response",
                    label="response_label",
                    group="violated_categories",
                    blank=True,
                    drop=("prompt", "redacted"),
                ),
            ),
            table3=False,
        ),
        Benchmark(
            "Borderline",
            Task.REQUEST,
            298,
            "CC0-1.0",
            adversarial=False,
            hub=HubSource(""),
            local=LocalFile("borderline.jsonl", Columns(group="style"), shipped=True),
            table3=False,
        ),
    )
}
"""All benchmarks by name: the 13 cells in the paper's order, then the others."""

TRAINED_ON: Mapping[str, tuple[str, ...]] = {"embedded": ("HarmBenchPrompt", "HarmBenchResponse")}
"""Benchmarks whose texts a model was trained on, by the model's short name: never report them as unseen."""


def trained_on(model: LoadedModel) -> tuple[str, ...]:
    """The benchmarks that a model is declared to have been trained on."""
    for name, folder in SHORT_NAMES.items():
        if model.name == name or (model.folder is not None and model.folder.name == folder):
            return TRAINED_ON.get(name, ())
    return TRAINED_ON.get(model.name, ())


def find(name: str) -> Benchmark:
    """A benchmark by its name.

    Raises:
        InputError: there is none; the message names the nearest.
    """
    if name not in BENCHMARKS:
        raise InputError(f"unknown benchmark {name!r}{nearest(name, BENCHMARKS)}")
    return BENCHMARKS[name]
