"""Does this machine compute in a number format? Asked of a child process, which may die of it.

Some processors and libraries offer a format whose instructions then kill the process (SIGILL).
"""

from __future__ import annotations

import signal
import subprocess
import sys
from functools import cache

_TIMEOUT_S = 180
_PROBE = """
import sys, torch
import torch.nn.functional as F
dtype = getattr(torch, sys.argv[1])
with torch.inference_mode():
    for rows in (1, 2, 3, 8, 64):
        for size in (96, 384):
            x = torch.randn(rows, size).to(dtype)
            hidden = F.silu(F.linear(x, torch.randn(3 * size, size).to(dtype)))
            hidden @ torch.randn(3 * size, size).to(dtype)
            q = x.view(1, rows, -1, 24).transpose(1, 2)
            mask = torch.zeros(1, 1, rows, rows, dtype=dtype)
            F.scaled_dot_product_attention(q, q, q, attn_mask=mask).float().softmax(-1)
            F.scaled_dot_product_attention(q, q, q, is_causal=True)
"""


@cache
def why_unusable(dtype: str, device: str) -> str | None:
    """A sentence why `dtype` cannot be used on `device`, None where it can. Takes seconds once."""
    if dtype == "float32" or device != "cpu":
        return None
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE, dtype],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{dtype} did not answer within {_TIMEOUT_S} seconds on this processor; use float32."
    if done.returncode == 0:
        return None
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return f"{dtype} arithmetic ends the process with {name} on this processor; use float32."
    reason = (done.stderr.strip().splitlines() or ["no message"])[-1][:200]
    return f"{dtype} does not work on this processor ({reason}); use float32."
