"""Which model: short names, ``moderation.json``, and how a folder or repository becomes a running engine."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from guardreasoner_moderation import weights
from guardreasoner_moderation.cache import cache_dir, cached_entry, forget_hashes
from guardreasoner_moderation.checkpoint import add_lora, read_gguf, read_json
from guardreasoner_moderation.checks import known_word
from guardreasoner_moderation.errors import (
    IncompatibleModelError,
    InputError,
    ModelNotFoundError,
    UnsafeModelError,
    nearest,
    shown,
)
from guardreasoner_moderation.hub import fetch_repository
from guardreasoner_moderation.prompts import PromptFormat
from guardreasoner_moderation.results import Mode, Task
from guardreasoner_moderation.spec_values import READERS
from guardreasoner_moderation.verdicts import DEFAULT_THRESHOLDS, Calibration

if TYPE_CHECKING:
    from guardreasoner_moderation.engines.base import Engine

SPEC_FILE = "moderation.json"
CONVERTER_VERSION = 3  # part of the cache key; raised when the conversion to CTranslate2 writes something else
SHORT_NAMES: Mapping[str, str] = {"embedded": "smollm2-135m"}
"""Names of the adapters that the package ships, and their folders."""

EngineName = Literal["auto", "ctranslate2", "transformers", "llamacpp", "openai", "vllm"]
Quantization = Literal["4bit", "8bit"]
_ENGINES = ("auto", "ctranslate2", "transformers", "llamacpp", "openai", "vllm")
_QUANTIZATIONS = ("4bit", "8bit")
_DTYPES = ("bfloat16", "float16", "float32")
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".h5", ".msgpack")
_FRAME_TOKENS = 1024  # instruction, headings and answers, with room to spare
_ADAPTERS = Path(__file__).parent / "adapters"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What ``moderation.json`` says of a model: how it was trained to be asked, and how its scores are read.

    Attributes:
        prompt_format: which prompt it was trained on.
        chat: for ``guardreasoner``: whether it was trained inside the base model's chat template.
        policy: whether it was trained to read a policy in the prompt.
        categories: the category words that it writes; empty when it writes none.
        base: short name or id of the base model that the adapter belongs to; None for a merged model.
        base_sha256: hash of that base's weights, as :func:`weights_sha256` takes it; None for any.
        calibration: Platt scaling for each mode and task.
        thresholds: default thresholds.
        window_tokens: the longest text that it judges at once, in tokens.
        passage_tokens: the longest passage, in tokens, where it judges longer requests by passages too; 0 where not.
        reasoning_tokens: default budget of the reasoning.
        auto_bounds: ``auto`` mode reasons when a harm score lies between these.
    """

    prompt_format: PromptFormat = PromptFormat.GUARDREASONER
    chat: bool = False
    policy: bool = False
    categories: tuple[str, ...] = ()
    base: str | None = None
    base_sha256: str | None = None
    calibration: Mapping[Mode, Mapping[Task, Calibration]] = field(default_factory=dict)
    thresholds: Mapping[Task, float] = field(default_factory=lambda: dict(DEFAULT_THRESHOLDS))
    window_tokens: int = 2048
    passage_tokens: int = 0
    reasoning_tokens: int = 768
    auto_bounds: tuple[float, float] = (0.2, 0.8)

    def calibration_of(self, mode: Mode, task: Task) -> Calibration:
        """How the scores of a task are read in a mode."""
        return self.calibration.get(mode, {}).get(task, Calibration())

    @property
    def weighs_first_answers(self) -> bool:
        """Whether think mode also needs the answers that the model gives without reasoning."""
        return any(calibration.first_scale for calibration in self.calibration.get(Mode.THINK, {}).values())

    def to_json(self) -> str:
        """The content of a ``moderation.json``."""
        record = dataclasses.asdict(self)
        return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def read_spec(file: Path) -> ModelSpec:
    """Reads a ``moderation.json`` strictly.

    Raises:
        IncompatibleModelError: an unknown key (with the nearest known one) or a value of a wrong kind.
    """
    content = read_json(file)
    for key in content:
        if key not in READERS:
            raise IncompatibleModelError(f"{file}: unknown key {shown(key)}{nearest(key, READERS)}")
    try:
        return ModelSpec(**{key: READERS[key](key, value) for key, value in content.items() if value is not None})
    except InputError as exc:
        raise IncompatibleModelError(f"{file}: {exc}") from exc


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A running model.

    Attributes:
        name: as the caller asked for it.
        engine, spec: what runs, and how it is asked.
        folder: where its files lie; None for a single file, a server's model, and an engine of the caller's own.
        sha256: of the adapter's or the model's weights; None where they are not at hand.
    """

    name: str
    engine: Engine
    spec: ModelSpec
    folder: Path | None = None
    sha256: str | None = None


def load_model(
    id_or_path: str | Path,
    *,
    base: str | Path | None = None,
    revision: str | None = None,
    quantization: str | None = None,
    engine: str = "auto",
    device: str | None = None,
    dtype: str | None = None,
    spec: str | Path | None = None,
    server: str | None = None,
    api_key: str | None = None,
    tokenizer: str | Path | None = None,
    progress: bool = True,
) -> LoadedModel:
    """Finds a model, fetches what is missing, and starts the engine that fits.

    Raises:
        InputError: an unknown engine or quantization, or arguments that do not go together.
        ModelNotFoundError: there is no such model.
        IncompatibleModelError, UnsafeModelError: its files cannot be used.
        WeightsError: the base weights could not be fetched.
        MissingDependencyError: the engine needs an extra that is not installed.
    """
    known_word("engine", engine, _ENGINES)
    if quantization is not None:
        known_word("quantization", quantization, _QUANTIZATIONS)
    if dtype is not None:
        known_word("dtype", dtype, _DTYPES)
    if engine == "openai" or (engine == "auto" and server is not None):
        local = {"base": base, "revision": revision, "quantization": quantization, "device": device, "dtype": dtype}
        return _served(str(id_or_path), spec, server, api_key, tokenizer, local)
    remote = {"server": server, "api_key": api_key, "tokenizer": tokenizer}
    _refuse(remote, f"the {engine} engine runs here; only engine='openai' takes them")
    path = find_model(id_or_path, revision=revision)
    refuse_pickles(path)
    found = _spec_of(path) if spec is None else read_spec(Path(spec))
    digest = weights_sha256(path)
    if path.is_file():
        if engine not in ("auto", "llamacpp"):
            raise InputError(f"{path} is a GGUF file, which the {engine} engine cannot run; use engine='llamacpp'")
        _refuse(
            {"base": base, "quantization": quantization, "dtype": dtype},
            "a GGUF file is a whole model, whose weights are kept as they are",
        )
        from guardreasoner_moderation.engines.llamacpp import LlamaCppEngine

        room = found.window_tokens + found.reasoning_tokens + _FRAME_TOKENS
        gguf = LlamaCppEngine(path, device=device, context_tokens=max(4096, room))
        return LoadedModel(str(id_or_path), gguf, found, sha256=digest)
    base = fitting_base(path, found, base or found.base)
    light = is_converted(path) or (base is not None and str(base) in weights.BASES)
    if engine == "auto":
        plain = is_converted(path) or (quantization is None and device in (None, "cpu"))
        engine = "ctranslate2" if light and plain else "transformers"
    running: Engine
    if engine == "ctranslate2":
        if quantization is not None:
            raise InputError(
                "the ctranslate2 engine is always int8; leave quantization out, or use engine='transformers'"
            )
        if not light:
            raise IncompatibleModelError(
                f"{path} needs the base {base or 'of its own'!s}, which the ctranslate2 engine cannot convert; "
                "use engine='transformers'"
            )
        from guardreasoner_moderation.engines.ctranslate2 import CTranslate2Engine

        ready = path if is_converted(path) else converted(path, digest, base=str(base), progress=progress)
        running = CTranslate2Engine(ready)
    elif engine == "llamacpp":
        raise InputError(
            f"{path} is no GGUF file, which is what the llamacpp engine runs; training/export.py writes one"
        )
    elif is_converted(path):
        raise InputError(f"{path} holds a model in CTranslate2's format; leave engine out, or use engine='ctranslate2'")
    elif engine == "vllm":
        from guardreasoner_moderation.engines.vllm import VllmEngine

        running = VllmEngine(path, base=base, quantization=quantization, dtype=dtype)
    else:
        from guardreasoner_moderation.engines.transformers import TransformersEngine

        running = TransformersEngine(path, base=base, quantization=quantization, device=device, dtype=dtype)
    return LoadedModel(str(id_or_path), running, found, path, digest)


def load_in_worker(id_or_path: str | Path, **options: Any) -> LoadedModel:
    """:func:`load_model`, with the engine in a process of its own, which is started again when it dies.

    Raises:
        InputError: the model runs on a server, or in processes that its engine starts by itself.
        ModerationError: as for :func:`load_model`.
        EngineError: the process died while it loaded the model.
    """
    engine = options.get("engine", "auto")
    if engine in ("openai", "vllm") or (engine == "auto" and options.get("server") is not None):
        raise InputError("the openai and vllm engines run in other processes already; leave own_process out")
    from guardreasoner_moderation.engines.worker import WorkerEngine

    running = WorkerEngine(partial(_load_apart, id_or_path, **options))
    return LoadedModel(engine=running, **running.about)


def _load_apart(id_or_path: str | Path, **options: Any) -> tuple[Engine, dict[str, Any]]:
    """A running engine, and what else is known of its model."""
    model = load_model(id_or_path, **options)
    facts = {entry.name: getattr(model, entry.name) for entry in dataclasses.fields(model)}
    return facts.pop("engine"), facts


def _served(
    name: str,
    spec: str | Path | None,
    server: str | None,
    api_key: str | None,
    tokenizer: str | Path | None,
    local: Mapping[str, object],
) -> LoadedModel:
    """A model that runs on a server; what is known of it lies beside its tokenizer, or in a file of its own."""
    if server is None:
        raise InputError("the openai engine needs server=, such as 'http://localhost:8000/v1'")
    _refuse(local, "the server decides how it runs its model")
    from guardreasoner_moderation.engines.openai import OpenAIEngine

    folder = None if tokenizer is None else find_folder(tokenizer)
    known = ModelSpec() if folder is None else _spec_of(folder)
    found = known if spec is None else read_spec(Path(spec))
    running = OpenAIEngine(name, server, api_key=api_key, tokenizer=folder)
    return LoadedModel(name, running, found)


def _refuse(arguments: Mapping[str, object], why: str) -> None:
    given = [name for name, value in arguments.items() if value is not None]
    if given:
        raise InputError(f"{', '.join(given)} cannot be used here: {why}")


def converted(
    folder: Path, digest: str, *, base: str, quantization: str | None = "int8", progress: bool = True
) -> Path:
    """The folder, in the cache, of an embedded base with an adapter in CTranslate2's format; made once."""
    from guardreasoner_moderation.engines.ctranslate2 import convert

    def build(target: Path) -> None:
        checkpoint = read_gguf(weights.base_file(base, progress=progress))
        add_lora(checkpoint, folder)
        convert(checkpoint, target, quantization=quantization)

    return cached_entry(converted_folder(digest, base=base, quantization=quantization).name, build)


def converted_folder(digest: str, *, base: str, quantization: str | None = "int8") -> Path:
    """Where :func:`converted` keeps its result: the name tells base, adapter, converter and quantization apart."""
    kind = quantization or "float32"
    key = hashlib.sha256(f"{weights.BASES[base].sha256} {digest} {CONVERTER_VERSION}".encode()).hexdigest()[:32]
    return cache_dir() / f"ctranslate2-{kind}-{key}"


def find_model(id_or_path: str | Path, *, revision: str | None = None) -> Path:
    """A model's folder, as :func:`find_folder` finds it, or its GGUF file."""
    if not isinstance(id_or_path, (str, os.PathLike)):
        raise InputError(f"a model is named by a text or a path, found {shown(id_or_path)}")
    path = Path(id_or_path)
    if path.suffix.lower() == ".gguf":
        if os.path.isfile(os.path.expanduser(path)):
            return path.expanduser()
        raise ModelNotFoundError(f"there is no file {shown(str(path))}")
    return find_folder(id_or_path, revision=revision)


def find_folder(id_or_path: str | Path, *, revision: str | None = None) -> Path:
    """The folder of a model: a short name's, a local one, or a repository's in the Hub's cache.

    Raises:
        ModelNotFoundError: nothing has that name.
    """
    name = str(id_or_path)
    if name in SHORT_NAMES:
        return _ADAPTERS / SHORT_NAMES[name]
    path = Path(os.path.expanduser(name))
    if name and os.path.isdir(path):  # of os.path, as Path's raise OSError for names that are too long
        return path
    if os.path.isfile(path):
        if path.suffix in _PICKLES:
            raise UnsafeModelError(
                f"{path} may be a pickle, which can run code when it is read. Pass a folder with safetensors, or GGUF"
            )
        raise ModelNotFoundError(f"{path} is a file; pass the folder of a model")
    if isinstance(id_or_path, Path) or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelNotFoundError(
            f"there is no model {shown(name)}: not a folder, not a repository id (owner/name)"
            f"{nearest(name, SHORT_NAMES)}"
        )
    return fetch_repository(name, revision=revision)


def is_converted(folder: Path) -> bool:
    """Whether a folder holds a model in CTranslate2's format, as ``training/export.py`` writes it."""
    return (folder / "engine.json").is_file()


def refuse_pickles(model: Path) -> None:
    """Refuses a folder whose weights are pickles: reading one can run any code.

    Files such as ``training_args.bin`` beside weights in safetensors are let be: nothing reads them.

    Raises:
        UnsafeModelError: there are pickled weights and no safetensors.
        IncompatibleModelError: there are no weights at all.
    """
    # An adapter's must be the file that peft would otherwise look for as a pickle.
    wanted = "adapter_model.safetensors" if (model / "adapter_config.json").exists() else "*.safetensors"
    if model.is_file() or is_converted(model) or any(model.glob(wanted)):
        return
    pickles = sorted(file.name for file in model.iterdir() if file.suffix in _PICKLES)
    if pickles:
        raise UnsafeModelError(
            f"{model} has its weights in {pickles[0]}, a pickle, which can run code when it is read. "
            "Ask its author for safetensors, or convert it where you trust it."
        )
    raise IncompatibleModelError(
        f"{model} holds no weights: expected adapter_model.safetensors or model.safetensors. Of the Hub's repositories "
        "nothing else is fetched, as pickles (.bin, .pt) can run code when they are read"
    )


def fitting_base(path: Path, spec: ModelSpec, base: str | Path | None) -> str | Path | None:
    """The base of an adapter, checked: its weights are no pickles, and those that the adapter was trained on.

    Args:
        path: of the adapter, for messages.
        spec: with the hash of the base, if it insists on one.
        base: short name, folder, or repository id; None for a merged model.

    Returns:
        The base, or the folder of its repository where that had to be looked at.

    Raises:
        IncompatibleModelError, UnsafeModelError: it does not fit, or its weights are pickles.
        ModelNotFoundError, WeightsError: it had to be fetched, and could not be.
    """
    if base is None:
        return None
    known = weights.BASES.get(str(base))
    folder = Path(base) if known is None and os.path.isdir(base) else None
    if spec.base_sha256 is not None and known is None and folder is None:
        folder = base = fetch_repository(str(base))
    if folder is not None:
        refuse_pickles(folder)
    if spec.base_sha256 is not None:
        found = known.sha256 if known is not None else weights_sha256(Path(base))
        if found != spec.base_sha256:
            raise IncompatibleModelError(
                f"{path} was trained on a base whose weights have the sha256 {spec.base_sha256}; those of {base} have "
                f"{found}. Pass base= with the right one"
            )
    return base


def weights_sha256(model: Path) -> str:
    """Hash of a model's weight files, in the order of their names."""
    digest = hashlib.sha256()
    files = [model] if model.is_file() else sorted(model.glob("model.bin" if is_converted(model) else "*.safetensors"))
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def spec_beside(file: Path) -> Path:
    """Where the ``moderation.json`` of a GGUF file stands: ``NAME.moderation.json`` for ``NAME.gguf``."""
    return file.with_suffix(f".{SPEC_FILE}")


def _spec_of(model: Path) -> ModelSpec:
    """The model's own ``moderation.json``, or what upstream's models are like (DESIGN: arXiv 2501.18492).

    For a GGUF file that of its own name, then one that its folder's files share.
    """
    for file in (spec_beside(model), model.parent / SPEC_FILE) if model.is_file() else (model / SPEC_FILE,):
        if file.exists():
            return read_spec(file)
    adapter = model / "adapter_config.json"
    if model.is_file() or not adapter.exists():
        return ModelSpec()  # upstream's released checkpoints: merged, run on the raw string
    base = read_json(adapter).get("base_model_name_or_path")
    if base is not None and not isinstance(base, str):
        raise IncompatibleModelError(f"{adapter}: base_model_name_or_path must be text, found {shown(base)}")
    return ModelSpec(chat=True, base=base)


def prepare(model: str) -> Path:
    """Fetches a model, its base, and converts what the default engine needs converted.

    What is in the cache is read in full and compared with its hashes.

    Returns:
        The folder, or the GGUF file, that is ready.
    """
    forget_hashes()
    path = find_model(model)
    refuse_pickles(path)
    base = _spec_of(path).base
    if base is None:
        return path
    if base in weights.BASES:
        return converted(path, weights_sha256(path), base=base)
    if not os.path.isdir(base):
        fetch_repository(base)
    return path


def describe(model: str) -> dict[str, str]:
    """What ``guardreasoner info`` prints, as name and value. Fetches and loads nothing but a repository's folder."""
    from importlib.metadata import PackageNotFoundError, version

    def installed(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "not installed"

    path = find_model(model)
    spec = _spec_of(path)
    digest = weights_sha256(path)
    light = is_converted(path) or spec.base in weights.BASES
    facts = {
        "model": model,
        "file" if path.is_file() else "folder": str(path),
        "weights sha256": digest,
        "prompt format": spec.prompt_format.value + (" in the base's chat template" if spec.chat else ""),
        "engine": "llamacpp" if path.is_file() else "ctranslate2" if light else "transformers",
        "base": spec.base or "merged",
    }
    if spec.base is not None and spec.base in weights.BASES:
        base = weights.BASES[spec.base]
        entry = converted_folder(digest, base=base.name)
        facts |= {
            "base sha256": base.sha256,
            "base from": f"{base.source} ({base.license}), package {base.package} {base.version}",
            "converted": str(entry) if entry.exists() else "not yet; run guardreasoner pull",
        }
    facts |= {"cache": str(cache_dir()), "window tokens": str(spec.window_tokens)}
    packages = ("guardreasoner-moderation", "ctranslate2", "tokenizers", "torch", "transformers", "peft")
    return facts | {package: installed(package) for package in packages}
