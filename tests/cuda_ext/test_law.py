"""The exact law of rules 2 and 3 as kernels and twins have them, by enumeration.

Every draft tree comes with its probability, and uniforms steer a verdict along every path: what it
says of its chances and of the law that is left then gives the joint law of the next tokens.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

import cuda_ext.accept as accept_module
import cuda_ext.drawn as drawn_module
from cuda_ext.accept import Settings, accept
from cuda_ext.arrays import MULTI_STEP, WITHOUT_REPLACEMENT
from tests.cuda_ext.cases import Batch, Case, batch_of
from tests.engine.test_law import SHAPES, TRUTH, P, Q, Script, V, branches, draft_tree

LAST = np.nextafter(1.0, 0.0)
NAMES = {"rule 2": MULTI_STEP, "rule 3": WITHOUT_REPLACEMENT}


def every_tree(counts, rule: int) -> list[tuple[Case, float]]:
    """All trees that may be drawn, with their probability and without uniforms."""
    found = []

    def run(script: Script) -> tuple[int, ...]:
        found.append([draft_tree(script, counts, replacement=rule == MULTI_STEP), 0.0])
        return ()

    for at, (_, weight) in enumerate(branches(run)):
        found[at][1] = weight
    cases = []
    for tree, weight in found:
        paths = [
            tuple(tree.tokens_M[tree.path_to(node)[1:]].tolist()) for node in range(tree.num_nodes)
        ]
        with np.errstate(divide="ignore"):
            logits = np.log([P[path] if len(path) < 2 else np.ones(V) / V for path in paths])
        draft = np.array([Q.get(path, np.ones(V) / V) for path in paths])
        shape = (tree.num_nodes, V)
        cases.append((
            Case(
                tree.tokens_M.tolist(), tree.parents_M.tolist(), logits.astype(np.float32),
                np.zeros(shape), draft, np.zeros((tree.num_nodes, 2)),
            ),
            weight,
        ))  # fmt: skip
    return cases


def steered(case: Case) -> list[tuple[list[int], Case]]:
    """The tree once for every path a verdict may take, with uniforms that lead along it."""
    kids = [
        [c for c, p in enumerate(case.parents) if p == node] for node in range(len(case.parents))
    ]
    open_, out = [[0]], []
    while open_:
        path = open_.pop()
        open_ += [[*path, child] for child in kids[path[-1]]]
        uniforms = np.full((len(case.parents), 2), LAST)
        uniforms[path[1:], 0] = 0.0
        out.append((path, case._replace(uniforms_N2=uniforms)))
    return out


def law(rule: int, counts, judge) -> np.ndarray:
    """Joint law of the next two tokens (V, V)."""
    runs = [
        (weight, path, case)
        for tree, weight in every_tree(counts, rule)
        for path, case in steered(tree)
    ]
    batch = judge(Settings(rule), batch_of([case for *_, case in runs], Settings(rule)))
    joint = np.zeros((V, V))
    for b, (weight, path, case) in enumerate(runs):
        chance = batch.out.accept_prob_BN[b].astype(float)
        for node in range(1, len(case.parents)):
            if case.parents[node] in path and not np.isnan(chance[node]):
                weight *= chance[node] if node in path else 1.0 - chance[node]
        length = batch.out.path_len_B[b]
        if batch.out.path_BN[b, :length].tolist() != path:
            continue  # the chance of going there is 0, or another run's
        emitted = [case.tokens[node] for node in path[1:]]
        left = batch.scratch.residual_BV[b]
        for token in range(V):
            tokens = [*emitted, token][:2]
            share = weight * left[token] / left.sum()
            if len(tokens) == 2:
                joint[tuple(tokens)] += share
            else:  # the next step samples the second token from p itself
                joint[token] += share * P[token,]
    return joint


def judged(how: str):
    def judge(settings: Settings, batch: Batch) -> Batch:
        accept(
            settings, batch.trees, batch.logits_RV, draws=batch.draws, stats=batch.stats,
            scratch=batch.scratch, out=batch.out, how=how,
        )  # fmt: skip
        return batch

    return judge


@pytest.mark.parametrize("rule", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("counts", [*SHAPES, (2, 0), (3, 0)])
def test_the_law_is_the_targets(how, rule, counts):
    if how == "kernel" and counts not in ((1, 1), (2, 0), (3, 0)):
        pytest.skip("hundreds of trees: the twin has them, the simulator a few")
    np.testing.assert_allclose(law(rule, counts, judged(how)), TRUTH, atol=2e-6)


MUTANTS = {
    "rule 2: p again": (MULTI_STEP, "residual", "pass"),
    "rule 3: p again": (WITHOUT_REPLACEMENT, "residual", "pass"),
    "rule 3: q kept": (WITHOUT_REPLACEMENT, "taken", "pass"),
    "rule 3: q not normalised": (WITHOUT_REPLACEMENT, "normalised", "pass"),
}
LINES = {
    "twin": {
        "residual": "residual_V[v] = max(residual_V[v] - left_V[v], 0.0) / mass",
        "taken": "left_V[token] = 0.0",
        "normalised": "left_V /= remaining",
    },
    "kernel": {
        "residual": "residual_BV[b, v] = max(residual_BV[b, v] - left_BV[b, v], 0.0) / mass",
        "taken": "left_BV[b, v] = 0.0",
        "normalised": "left_BV[b, v] /= remaining",
    },
}


def mutated(old: str, new: str) -> ModuleType:
    """`cuda_ext.drawn` with one line changed, its twins left as Python."""
    from pathlib import Path

    text = Path(drawn_module.__file__).read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} is not one place"
    text = text.replace(old, new)
    text = text.replace(
        "from numba import cuda, njit",
        "from numba import cuda\nnjit = lambda **options: lambda function: function",
    )
    module = ModuleType("mutant")
    exec(compile(text, "mutant", "exec"), module.__dict__)
    return module


@pytest.mark.parametrize(("rule", "line", "new"), MUTANTS.values(), ids=MUTANTS)
def test_mutants_are_caught(how, monkeypatch, rule, line, new):
    mutant = mutated(LINES[how][line], new)
    monkeypatch.setattr(accept_module, "walk_drawn", mutant.walk_drawn)
    monkeypatch.setattr(accept_module, "drawn_twin", mutant.drawn_twin)
    counts = (3, 0) if line == "normalised" else (2, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = law(rule, counts, judged(how))
    assert not abs(found - TRUTH).max() < 1e-3
