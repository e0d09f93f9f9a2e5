"""What a report says of machine, models, workload and protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.comparing import wording
from workbench.comparing.result import Comparison
from workbench.loading.spec import LoadSpec
from workbench.spec import RunSpec

Facts = list[tuple[str, str]]


def environment(known: Mapping[str, Any]) -> Facts:
    """Machine and software, as far as the run knows them."""
    gpu = known.get("gpu") or {}
    git = known.get("git") or {}
    packages = known.get("packages") or {}
    commit = str(git.get("commit") or "")[:12] + (" with local changes" if git.get("dirty") else "")
    switches = known.get("switches") or {}
    found = {
        "processor": f"{known.get('cpu', '')}, {known.get('cores', '?')} cores",
        "threads": known.get("threads"),
        "GPU": f"{gpu.get('name')}, driver {gpu.get('driver')}, CUDA {gpu.get('cuda')}"
        if gpu
        else "",
        "system": known.get("system"),
        "attention": known.get("attention"),
        "execution": known.get("mode"),
        "python": known.get("python"),
        "packages": ", ".join(f"{name} {version}" for name, version in packages.items()),
        "draftree commit": commit,
        "switches": ", ".join(f"{name}={value}" for name, value in switches.items()),
    }
    return [(name, str(value)) for name, value in found.items() if value]


def models(known: Mapping[str, Any]) -> Facts:
    """Both models with the hashes of their contents."""
    found = []
    for role, model in (known.get("models") or {}).items():
        text = (
            f"{model.get('name')}, {model.get('dtype')}, {model.get('vocab_size')} tokens, "
            f"context {model.get('context_length')}, content {model.get('content_hash')}, "
            f"from {model.get('path')}"
        )
        found.append((role, text))
    match = known.get("tokenizers_match")
    if match is not None:
        found.append(("tokenizers", "the same" if match else "differ"))
    return found


def workloads(comparison: Comparison) -> Facts:
    """What was decoded."""
    found = []
    for name, about in comparison.workloads.items():
        low, high = about["prompt_tokens"]
        lengths = f"{low}" if low == high else f"{low} to {high}"
        text = f"{wording.count(about['requests'], 'prompt')} of {lengths} tokens"
        if about["questions"] != about["requests"]:
            text += f", from {wording.count(about['questions'], 'question')} with several turns"
        if about["categories"] and about["categories"] != [name]:
            text += f"; {', '.join(about['categories'])}"
        found.append((name, text))
    return found


def protocol(comparison: Comparison) -> Facts:
    """How it was measured, so that it can be believed and done again."""
    spec = comparison.spec
    return [
        ("counts", f"{spec.max_new_tokens} new tokens per prompt, end of text ignored"),
        ("sampling", sampling(spec)),
        (
            "order",
            "all arms built, compiled and warmed up first; then prompt after prompt by all arms in "
            "turn, another one beginning each time",
        ),
        ("repeats", f"{spec.repeats}; each prompt counts with its median"),
        (
            "speedup",
            "plain decoding's total time over the arm's, same engine, same prompts; 95% bootstrap "
            "interval, paired by prompt",
        ),
        (
            "decoding time",
            "from the end of prefill to the last token; end to end has prefill included",
        ),
    ]


def sampling(spec: Any) -> str:
    """`greedy`, or temperature and cuts with the seed."""
    if spec.temperature == 0:
        return "greedy"
    parts = [f"temperature {spec.temperature:g}"]
    parts += [f"top-k {spec.top_k}"] if spec.top_k else []
    parts += [f"top-p {spec.top_p:g}"] if spec.top_p < 1 else []
    return ", ".join([*parts, f"seed {spec.seed}"])


def _load(spec: LoadSpec) -> str:
    """How requests came and were served."""
    came = f"{spec.arrivals} arrivals"
    if spec.arrivals == "closed":
        came += f" of {spec.clients} clients"
    elif spec.trace is None:
        came += f", {spec.rate:g} requests per second"
    return f"{came}; {spec.slots} slots, {spec.policy}, budgets {spec.budgets}"


def run_protocol(spec: RunSpec) -> Facts:
    """How one run decoded."""
    options = ", ".join(f"{name}={value}" for name, value in spec.options.items())
    found = {
        "method": spec.method + (f" ({options})" if options else ""),
        "prompts": spec.workload or "one prompt",
        "counts": f"up to {spec.max_new_tokens} new tokens"
        + (", end of text ignored" if spec.ignore_eos else ""),
        "sampling": sampling(spec),
        "verification": (spec.verify if spec.temperature else "")
        + (", lossy" if spec.lossy else ""),
        "cache": "" if spec.cache else "off: every pass recomputes the prefix",
        "load": _load(spec) if isinstance(spec, LoadSpec) else "",
        "batch": str(spec.batch) if spec.batch > 1 else "",
        "repeats": str(spec.repeats) if spec.repeats > 1 else "",
    }
    return [(name, value) for name, value in found.items() if value]
