"""On loading: does this architecture respect tree masks and positions? Trust is not enough."""

from __future__ import annotations

import weakref

import numpy as np
import torch

from engine.errors import UserError
from engine.models import DTYPES, LoadedModel
from engine.runner import Nodes, TreeRunner

PARENTS = [-1, 0, 0, 1, 1, 2, 3]
PREFIX = 11
#: largest difference of log-probabilities that two orders of summation explain
TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 0.6, torch.float16: 0.1}

_checked: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()


def check_tree_attention(loaded: LoadedModel) -> None:
    """Score a small random tree and compare it with plain causal passes over each path.

    Raises UserError if they differ: such a model cannot be decoded with trees. NaN is left to the
    first step, whose error names it.
    """
    if loaded.model in _checked:
        return
    rng = np.random.default_rng(0)
    prefix_len = max(PREFIX, loaded.window + 3) if 0 < loaded.window <= 64 else PREFIX
    prefix_len = min(prefix_len, loaded.context_length - 8)
    prefix = rng.integers(0, loaded.vocab_size, prefix_len).tolist()
    tokens = rng.integers(0, loaded.vocab_size, len(PARENTS)).tolist()
    runner = TreeRunner(loaded, num_slots=1, capacity=prefix_len + 8, max_tree=len(PARENTS))
    runner.admit(0, prefix)
    tree = torch.log_softmax(runner.forward({0: Nodes(tokens, PARENTS)}).logits_RV.float(), -1)
    worst = 0.0
    for node in range(len(PARENTS)):
        path = [node]
        while PARENTS[path[-1]] >= 0:
            path.append(PARENTS[path[-1]])
        ids = torch.tensor([prefix + [tokens[n] for n in reversed(path)]], device=loaded.device)
        with torch.inference_mode():
            plain = loaded.model(input_ids=ids, use_cache=False).logits[0, -1].float()
        worst = max(worst, float((torch.log_softmax(plain, -1) - tree[node]).abs().max()))
    if worst > TOLERANCE[DTYPES[loaded.dtype]]:
        raise UserError(
            f"{loaded.name} ({loaded.model.config.model_type}) does not respect tree masks or"
            f" positions: a tree's log-probabilities differ from plain passes by {worst:.2g}."
            " It cannot be decoded with trees."
        )
    _checked.add(loaded.model)
