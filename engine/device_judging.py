"""Verdicts by the kernels of `cuda_ext` on logits that never leave the device.

One launch judges all trees of a pass and moves their accepted cache rows; what the host needs of
the outcome comes back in one copy.
"""

from __future__ import annotations

import numpy as np
import torch

from cuda_ext import memory
from cuda_ext.accept import Scratch, Settings
from cuda_ext.arrays import GREEDY, Draws, RowStats, Trees, Verdicts
from cuda_ext.checks import check_draws, check_trees
from cuda_ext.step import Cache, step
from engine.device_buffers import Layout, Packed
from engine.device_sampling import DeviceNoise, warp_on_device
from engine.device_scores import DeviceScores
from engine.drafters.base import Sequence
from engine.judging import draft_rows, is_drawn, uniforms_of, verdict_of
from engine.records import Verdict
from engine.runner import TreeRunner
from engine.sampling import Sampling
from engine.tree import TokenTree

_INPUTS = ("tokens", "parents", "num_nodes", "first")
_OUTPUTS = ("path", "path_len", "next_token", "origin", "fate", "accept_prob")


def layouts(num_trees: int, num_nodes: int, num_slots: int) -> tuple[Layout, Layout]:
    """What goes to the device, and what comes back."""
    each, grid = (num_trees,), (num_trees, num_nodes)
    given: Layout = {
        "tokens": (grid, "int64"), "uniforms": ((*grid, 2), "float64"),
        "parents": (grid, "int32"), "num_nodes": (each, "int32"), "first": (each, "int32"),
        "noise_row": (grid, "int32"), "draft_row": (grid, "int32"), "slot": (each, "int32"),
        "length": ((num_slots,), "int32"),
    }  # fmt: skip
    found: Layout = {
        "next_token": (each, "int64"), "path": (grid, "int32"), "path_len": (each, "int32"),
        "origin": (each, "int32"), "accept_prob": (grid, "float32"), "fate": (grid, "uint8"),
        "next_logprob": (each, "float32"),
    }  # fmt: skip
    return given, found


class _Envelope:
    """Persistent memory of a batch of trees of a size."""

    def __init__(self, num_trees: int, num_nodes: int, num_slots: int, device: torch.device):
        given, found = layouts(num_trees, num_nodes, num_slots)
        self.given, self.found = Packed(given, device), Packed(found, device)
        grid = (num_trees, num_nodes)
        self.done = memory.on_device(torch.zeros(num_trees, dtype=torch.int32, device=device))
        self.stats = RowStats(
            *(
                memory.on_device(torch.zeros(grid, dtype=dtype, device=device))
                for dtype in (torch.int64, torch.float64, torch.float64)
            )
        )


class DeviceJudge:
    """Keeps what persists between steps: buffers, scratch, noise that drafting may share."""

    def __init__(self, noise: DeviceNoise | None = None) -> None:
        self._envelopes: dict[tuple[int, ...], _Envelope] = {}
        self._noise = noise or DeviceNoise()
        self._laws: dict[tuple[int, int], torch.Tensor] = {}

    def judge(
        self,
        settings: Settings,
        trees: list[TokenTree],
        scores: list[DeviceScores],
        *,
        sampling: Sampling,
        sequences: list[Sequence],
        runner: TreeRunner,
    ) -> list[Verdict]:
        """Verdicts of one pass of `runner`, whose accepted rows are moved where that is one launch.

        Raises ValueError for trees that no kernel may see, DecodeError where logits are not finite.
        """
        found = scores[0].whole.found
        logits_RV = found.logits_RV
        device, vocab_size = logits_RV.device, logits_RV.shape[1]
        if logits_RV.dtype is torch.float16:
            logits_RV = logits_RV.float()
        num_nodes = 1 << (max(tree.num_nodes for tree in trees) - 1).bit_length()
        key = (len(trees), num_nodes, runner.num_slots)
        if key not in self._envelopes:
            self._envelopes[key] = _Envelope(*key, device)
        envelope = self._envelopes[key]
        given = envelope.given
        given.host["length"][:] = runner.length_B
        given.host["first"][:] = [found.first[sequence.slot] for sequence in sequences]
        self._fill(given.host, trees, sequences)
        noise_RV, laws_RV = self._randomness(
            settings, given.host, trees, sampling, sequences, device
        )
        self._check(settings, given.host, len(logits_RV), vocab_size, noise_RV, laws_RV)
        given.upload()
        judged_RV = logits_RV
        if sampling.is_cut and settings.rule != GREEDY:
            judged_RV = warp_on_device(logits_RV, sampling)
            settings = settings._replace(scale=1.0)
        moves = runner.use_cache and len(runner.words) == 1
        words = runner.words[0] if moves else runner.words[0][:0]
        at, out = given.kernel, envelope.found.kernel
        step(
            settings,
            Trees(*(at[name] for name in _INPUTS)),
            judged_RV,
            draws=Draws(
                memory.on_device(noise_RV), at["noise_row"], at["uniforms"],
                memory.on_device(laws_RV), at["draft_row"],
            ),
            stats=envelope.stats,
            scratch=self._scratch(settings, len(trees), vocab_size, device),
            out=Verdicts(*(out[name] for name in _OUTPUTS)),
            cache=Cache(memory.on_device(words), at["slot"], at["length"]),
            done_B=envelope.done,
            how="kernel",
        )  # fmt: skip
        self._logprob_of_next(envelope, logits_RV, found.log_norm_R)
        envelope.found.download()
        assert scores[0].whole.facts  # NaN is named before anybody trusts a verdict
        if moves:
            runner.rows_moved.update(sequence.slot for sequence in sequences)
        return self._read(envelope.found.host, trees, scores)

    def _fill(
        self,
        host: dict[str, np.ndarray],
        trees: list[TokenTree],
        sequences: list[Sequence],
    ) -> None:
        host["tokens"][:], host["parents"][:] = 0, 0
        host["draft_row"][:], host["noise_row"][:] = -1, 0
        for b, (tree, sequence) in enumerate(zip(trees, sequences, strict=True)):
            size = tree.num_nodes
            host["tokens"][b, :size] = tree.tokens_M[:size]
            host["parents"][b, :size] = tree.parents_M[:size]
            host["num_nodes"][b], host["slot"][b] = size, sequence.slot

    def _randomness(
        self,
        settings: Settings,
        host: dict[str, np.ndarray],
        trees: list[TokenTree],
        sampling: Sampling,
        sequences: list[Sequence],
        device: torch.device,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tables of noise and of draft laws on the device, and their rows by node in `host`."""
        nothing = torch.zeros(0, 0, dtype=torch.float64, device=device)
        if settings.rule == GREEDY:
            return nothing, nothing
        if not is_drawn(settings):
            table = self._noise.on(device)
            for b, (tree, sequence) in enumerate(zip(trees, sequences, strict=True)):
                depth_N = tree.depth_M[: tree.num_nodes]
                positions = range(sequence.position, sequence.position + int(depth_N.max()) + 1)
                rows_D = np.asarray([table.row(sequence.noise, at) for at in positions], np.int32)
                host["noise_row"][b, : len(depth_N)] = rows_D[depth_N]
            return table.table_RV, nothing
        laws: list[np.ndarray] = []
        for b, (tree, sequence) in enumerate(zip(trees, sequences, strict=True)):
            own, row_N = draft_rows(tree)
            host["draft_row"][b, : len(row_N)] = np.where(row_N < 0, -1, row_N + len(laws))
            host["uniforms"][b, : len(row_N)] = uniforms_of(len(row_N), sampling, sequence)
            laws += own
        if not laws:
            return nothing, nothing
        laws_RV = torch.from_numpy(np.stack(laws))
        if device.type == "cuda":
            laws_RV = laws_RV.pin_memory()
        return nothing, laws_RV.to(device, non_blocking=True)

    def _check(
        self,
        settings: Settings,
        host: dict[str, np.ndarray],
        num_rows: int,
        vocab_size: int,
        noise_RV: torch.Tensor,
        laws_RV: torch.Tensor,
    ) -> None:
        check_trees(
            host["tokens"], host["parents"], host["num_nodes"],
            vocab_size=vocab_size, first_B=host["first"], num_rows=num_rows,
        )  # fmt: skip
        draws = Draws(noise_RV, host["noise_row"], host["uniforms"], laws_RV, host["draft_row"])
        drawn = is_drawn(settings)
        noisy = settings.rule != GREEDY and not drawn
        check_draws(draws, host["num_nodes"], uniforms=drawn, noise=noisy)

    def _scratch(
        self, settings: Settings, num_trees: int, vocab_size: int, device: torch.device
    ) -> Scratch:
        key = (num_trees, vocab_size if is_drawn(settings) else 0)
        if key not in self._laws:
            self._laws[key] = torch.zeros(2, *key, dtype=torch.float64, device=device)
        return Scratch(*(memory.on_device(law) for law in self._laws[key]))

    def _logprob_of_next(
        self, envelope: _Envelope, logits_RV: torch.Tensor, norm_R: torch.Tensor
    ) -> None:
        """log p of the token after each path, queued behind the verdict that it depends on."""
        given, found = envelope.given.there, envelope.found.there
        last_B1 = found["path"].long().gather(1, found["path_len"].long()[:, None] - 1)
        row_B = given["first"].long() + last_B1[:, 0]
        found["next_logprob"].copy_(logits_RV[row_B, found["next_token"]] - norm_R[row_B])

    def _read(
        self, host: dict[str, np.ndarray], trees: list[TokenTree], scores: list[DeviceScores]
    ) -> list[Verdict]:
        out = Verdicts(*(host[name] for name in _OUTPUTS))
        verdicts = []
        for b, (tree, seen) in enumerate(zip(trees, scores, strict=True)):
            verdict = verdict_of(out, b, tree.num_nodes)
            seen.known[verdict.path_A[-1], verdict.next_token] = float(host["next_logprob"][b])
            verdicts.append(verdict)
        return verdicts
