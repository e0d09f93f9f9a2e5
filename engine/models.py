"""Loading a Hugging Face causal LM from a local folder or hub id, with errors for people."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from engine.errors import UserError
from engine.paths import data_folder

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
#: soft-capped attention scores exist in eager attention alone
EAGER_ATTENTION = {"gemma2"}
#: recurrent or position-free models: a tree cannot be scored in one pass
REFUSED = {
    "bloom": "ALiBi positions",
    "mpt": "ALiBi positions",
    "falcon_mamba": "recurrence",
    "mamba": "recurrence",
    "mamba2": "recurrence",
    "rwkv": "recurrence",
    "jamba": "recurrence",
}
_FULL_HASH_BYTES = 2 << 30
_CHUNK = 1 << 20


@dataclass(slots=True)
class LoadedModel:
    """A model ready to decode, and what identifies it."""

    model: PreTrainedModel
    tokenizer: Any
    name: str
    path: str
    content_hash: str  # of config and weights; 16 hex digits
    vocab_size: int
    context_length: int
    eos_ids: frozenset[int]
    dtype: str
    device: str
    attention: str
    #: sliding window in tokens, 0: none
    window: int = 0
    #: some layers are windowed and some not: the model takes a mask for each kind
    windowed_dict: bool = False
    #: of a head that stands as a model: where its target lies
    target_path: str = ""


def resolve_device(device: str) -> str:
    """'auto' becomes cuda where there is one. Raises UserError for a device that is not there."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device != "cpu" and not device.startswith("cuda"):
        raise UserError(f"Device {device!r} is unknown; use cpu, cuda, cuda:N or auto.")
    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            raise UserError("No CUDA device is visible to torch here; use --device cpu.")
        index = device.partition(":")[2]
        if index and (not index.isdigit() or int(index) >= torch.cuda.device_count()):
            raise UserError(
                f"Device {device} does not exist; torch sees {torch.cuda.device_count()}."
            )
    return device


def resolve_path(name_or_path: str) -> str:
    """An embedded name, a local folder, or a hub id (returned as it is)."""
    embedded = data_folder() / "models" / name_or_path
    if "/" not in name_or_path and embedded.is_dir():
        return str(embedded)
    local = Path(name_or_path).expanduser()
    if local.is_dir():
        return str(local)
    if local.exists():
        raise UserError(f"{name_or_path} is a file; a model is a folder with config.json.")
    if name_or_path.startswith((".", "/", "~")) or name_or_path.count("/") != 1:
        raise UserError(
            f"There is no model folder {name_or_path!r}, nor an embedded model of that name."
        )
    return name_or_path


def content_hash(folder: str) -> str:
    """Hash of config.json and the weight files (of a sample of each very large one)."""
    digest = hashlib.sha256()
    root = Path(folder)
    for file in sorted([*root.glob("config.json"), *root.glob("*.safetensors")]):
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}".encode())
        with file.open("rb") as stream:
            if size <= _FULL_HASH_BYTES:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
            else:
                for at in range(0, size, size // 64):
                    stream.seek(at)
                    digest.update(stream.read(_CHUNK))
    return digest.hexdigest()[:16]


def load_model(name_or_path: str, *, dtype: str = "float32", device: str = "auto") -> LoadedModel:
    """Load model and tokenizer.

    Raises UserError for a path that is no model, a model that is not a causal LM, damaged weights,
    an architecture that cannot score trees.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r} is unknown; use one of {', '.join(DTYPES)}.")
    device = resolve_device(device)
    path, config = _read_config(name_or_path)
    is_folder = Path(path).is_dir()
    refuse_unsuitable(config, name_or_path)
    attention = "eager" if config.model_type in EAGER_ATTENTION else "sdpa"
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path, dtype=DTYPES[dtype], attn_implementation=attention, use_safetensors=True
        )
        tokenizer = AutoTokenizer.from_pretrained(path)
    except SafetensorError as error:
        raise UserError(
            f"The weights in {path} are damaged or cut short ({first_line(error)});"
            " fetch them again."
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"{name_or_path} cannot be loaded: {first_line(error)}") from error
    model.to(device)  # type: ignore[arg-type]
    model.eval()
    model.requires_grad_(False)
    text_config = config.get_text_config(decoder=True)
    layer_types = getattr(text_config, "layer_types", None) or []
    window = int(getattr(text_config, "sliding_window", None) or 0)
    windowed_dict = "sliding_attention" in layer_types
    if layer_types and not windowed_dict:
        window = 0
    if getattr(text_config, "use_sliding_window", True) is False:
        window, windowed_dict = 0, False
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        name=Path(path).name if is_folder else name_or_path,
        path=path,
        content_hash=content_hash(path)
        if is_folder
        else str(getattr(config, "_commit_hash", None) or path),
        vocab_size=int(text_config.vocab_size),
        context_length=int(getattr(text_config, "max_position_embeddings", 2048)),
        eos_ids=_eos_ids(model, tokenizer),
        dtype=dtype,
        device=device,
        attention=attention,
        window=window,
        windowed_dict=windowed_dict,
    )


def num_layers(name_or_path: str) -> int:
    """Layers of a model, from its config alone. Raises UserError for a path that is no model."""
    _, config = _read_config(name_or_path)
    return int(config.get_text_config(decoder=True).num_hidden_layers)


def _read_config(name_or_path: str) -> tuple[str, Any]:
    """Where the model lies, and its config."""
    path = resolve_path(name_or_path)
    if Path(path).is_dir() and not (Path(path) / "config.json").is_file():
        raise UserError(f"{path} has no config.json; a model folder holds config.json and weights.")
    try:
        return path, AutoConfig.from_pretrained(path)
    except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
        raise UserError(
            f"{name_or_path} cannot be loaded as a model: {first_line(error)}"
        ) from error


def first_line(error: BaseException) -> str:
    """An exception's message, cut to a line that fits in a sentence."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]


def refuse_unsuitable(config: Any, name: str) -> None:
    """Raise UserError for an architecture that cannot score trees, by its config alone."""
    kind = config.model_type
    if kind in REFUSED:
        raise UserError(
            f"{name} is a {kind} model: {REFUSED[kind]} rule out scoring a tree in one pass."
        )
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(
            f"{name} is an encoder-decoder ({kind}); Draftree decodes with decoder-only causal LMs."
        )
    architectures = getattr(config, "architectures", None) or []
    if architectures and not any(
        "CausalLM" in a or "LMHead" in a or "ConditionalGeneration" in a for a in architectures
    ):
        raise UserError(f"{name} is {architectures[0]}, not a causal language model.")


def _eos_ids(model: PreTrainedModel, tokenizer: Any) -> frozenset[int]:
    """From the generation config first: chat models end on several tokens."""
    found = getattr(model.generation_config, "eos_token_id", None)
    if found is None:
        found = tokenizer.eos_token_id
    if found is None:
        return frozenset()
    return frozenset(found if isinstance(found, list | tuple) else [int(found)])
