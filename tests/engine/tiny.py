"""Tiny random models of real architectures, and a loop that decodes requests with an engine."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from engine.decode import Engine
from engine.engine import EngineConfig, build_engine
from engine.models import LoadedModel
from engine.records import RequestRecord, StepRecord
from engine.registry import METHODS, parse_options
from engine.requests import Request
from engine.sampling import Sampling
from tests.engine.heads_fixture import with_head

VOCAB = 61
_SIZES = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 160,
    "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip

CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**_SIZES),
    "mistral": MistralConfig(**_SIZES, sliding_window=24),
    "qwen2": Qwen2Config(**_SIZES),
    "qwen3": Qwen3Config(**_SIZES, head_dim=8),
    "gpt2": GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=160),
    "gpt-neox": GPTNeoXConfig(**{k: v for k, v in _SIZES.items() if k != "num_key_value_heads"}),
    "gemma2": Gemma2Config(**_SIZES, head_dim=8, sliding_window=24),
    "gemma3": Gemma3TextConfig(**_SIZES, head_dim=8, sliding_window=24),
    "opt": OPTConfig(
        vocab_size=VOCAB, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=160, word_embed_proj_dim=32,
    ),
}  # fmt: skip


class IdTokenizer:
    """Tokens are their numbers in words."""

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(str(int(i)) for i in ids)

    def encode(self, text: str, **_: Any) -> list[int]:
        return [int(word) for word in text.split()]

    def get_vocab(self) -> dict[str, int]:
        return {str(i): i for i in range(VOCAB)}


TOKENIZER = IdTokenizer()


def tiny(architecture: str = "llama", *, seed: int = 0, eos: int | None = None) -> LoadedModel:
    """A random model, sharp enough that its choices are not ties."""
    torch.manual_seed(seed)
    config = CONFIGS[architecture]
    attention = "eager" if architecture == "gemma2" else "sdpa"
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                weight.mul_(4.0 if "embed" not in name and "wte" not in name else 8.0)
    model.requires_grad_(False)
    window = int(getattr(config, "sliding_window", None) or 0)
    layer_types = getattr(config, "layer_types", None) or []
    if architecture.startswith("qwen"):
        window = 0
    return LoadedModel(
        model=model, tokenizer=TOKENIZER, name=architecture, path="", content_hash="0",
        vocab_size=VOCAB, context_length=160,
        eos_ids=frozenset() if eos is None else frozenset({eos}),
        dtype="float32", device="cpu", attention=attention, window=window,
        windowed_dict="sliding_attention" in layer_types and window > 0,
    )  # fmt: skip


def near(loaded: LoadedModel, *, noise: float = 0.2, seed: int = 5) -> LoadedModel:
    """A draft that often agrees: the same model, its weights shaken."""
    import copy

    draft = copy.copy(loaded)
    draft.model = copy.deepcopy(loaded.model)
    draft.name = loaded.name + "-draft"
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in draft.model.parameters():
            if weight.ndim == 2:
                weight.add_(torch.randn(weight.shape, generator=rng) * noise * weight.std())
    return draft


def engine_for(
    method: str,
    options: dict[str, Any],
    target: LoadedModel,
    draft: LoadedModel | None,
    *others: LoadedModel,
    **config: Any,
) -> Engine:
    """An eager engine; more drafts to merge follow; `sampling`, `batch`, ... as keywords.

    Methods with a trained head get an untrained one where `options` name none.
    """
    config.setdefault("sampling", Sampling())
    config.setdefault("execution", "eager")
    config.setdefault("capacity", 160)
    options = with_head(method, options, target)
    return build_engine(
        EngineConfig(method=method, options=parse_options(method, options), **config),
        target=target,
        draft=draft if METHODS[method].needs_draft else None,
        other_drafts=others,
    )


def requests(
    count: int = 5, *, max_new_tokens: int = 24, stop: tuple[str, ...] = ()
) -> list[Request]:
    """Prompts of different length, wanting different amounts."""
    return [
        Request(
            i,
            "",
            tuple((7 * i + 3 * j) % VOCAB for j in range(1 + 5 * i)),
            max_new_tokens + i,
            stop=stop,
        )
        for i in range(count)
    ]


def decode_all(
    engine: Engine, wanted: list[Request]
) -> tuple[dict[int, RequestRecord], list[StepRecord]]:
    """Run requests as slots come free."""
    waiting, done, steps = list(wanted), {}, []
    while waiting or engine.busy:
        now, waiting = waiting[: engine.num_free], waiting[engine.num_free :]
        if now:
            engine.add(*now)
        output = engine.step()
        steps += output.steps
        for record in output.finished:
            done[record.request] = record
    return done, steps


def tokens_of(done: dict[int, RequestRecord]) -> dict[int, list[int]]:
    """New tokens by request."""
    return {index: record.token_ids for index, record in sorted(done.items())}
