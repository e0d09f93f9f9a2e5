"""A target that verifies with its later layers alone: the draft has run the first ones already.

Early exit (LayerSkip, 2404.16710) and Kangaroo (2404.18911) draft with the target's first E layers.
Their keys, values and hidden states at the exit are what a full pass would compute there, so that
verification goes on from them. Nodes that drafting never ran run first.
"""

from __future__ import annotations

from engine.parts import Part
from engine.runner import TreeRunner
from engine.sharing import SharedRunner
from engine.target import Scores, Target
from engine.tree import TokenTree


class TwoPartTarget(Target):
    """Scores trees by `runner`, a part from layer E on, behind what `shallow` has run."""

    def __init__(self, runner: TreeRunner, shallow: SharedRunner) -> None:
        super().__init__(runner)
        self._shallow = shallow

    def score(self, trees: dict[int, TokenTree]) -> dict[int, Scores]:
        for slot, rows_N in self._shallow.run_all(trees).items():
            self._shallow.arrange(slot, rows_N)
        return super().score(trees)

    def whole(self) -> Target:
        """Two passes cost more than one, and the exit's logits come on top.

        This target itself where one pass is not to be had: on a share of the model, or where its
        packages are not compiled and those of the parts are.
        """
        runner, forward = self.runner, None
        if self._shallow.loaded is not runner.loaded:
            return self
        if runner.run is not runner.eager:
            from engine.compiled import forward_for
            from engine.packages import at_hand

            if not at_hand(runner.loaded, runner.num_slots):
                return self
            forward = forward_for(runner.loaded, runner.num_slots, lambda *_: None)
        whole = SharedRunner(runner, Part(), forward=forward)
        whole.active_B[:] = runner.active_B
        return Target(whole)

    def commit(self, slot: int, path_A: list[int]) -> None:
        super().commit(slot, path_A)
        self._shallow.keep(slot, [])
