"""`draftree tune layer-skip`: what is searched, where it begins, what is kept and said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scripted_tuning import PROMPTS, ScriptedSite, scripted_confirm
from tiny_pair import EOS, write_pair
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from engine.drafters.skip_sets import parse_set, set_text
from engine.errors import UserError
from engine.parts import Sublayer
from workbench.cli import run_command
from workbench.statistics import Interval
from workbench.terminal import reset_consoles
from workbench.tuning import wording
from workbench.tuning.run import tune
from workbench.tuning.space import derive, first_points, num_points
from workbench.tuning.spec import ACCEPTANCE, TuneSpec
from workbench.tuning.study import load_study
from workbench.tuning.sublayers import Sublayers


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DRAFTREE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("DRAFTREE_SKIPS", str(tmp_path / "skips"))
    monkeypatch.chdir(tmp_path)
    reset_consoles()
    yield
    reset_consoles()


@pytest.fixture(scope="module")
def spared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target of 4 layers whose layer 2 adds nothing: to skip it is free."""
    folder = tmp_path_factory.mktemp("spared")
    tokenizer = AutoTokenizer.from_pretrained(write_pair(folder / "pair").target)
    torch.manual_seed(4)
    config = LlamaConfig(
        vocab_size=257, hidden_size=32, intermediate_size=48, num_hidden_layers=4,
        num_attention_heads=4, max_position_embeddings=256, initializer_range=0.4,
        eos_token_id=EOS, bos_token_id=None,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        layer = model.model.layers[2]
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    model.save_pretrained(folder / "target")
    tokenizer.save_pretrained(folder / "target")
    (folder / "prompts.txt").write_text('"def add(a, b):"\n"import os"\n"class A:"\n"x = 1"\n')
    return folder


def spec_for(folder: Path, **changes) -> TuneSpec:
    values = {
        "name": "sets", "methods": ["layer-skip"], "workloads": [str(folder / "prompts.txt")],
        "target": str(folder / "target"), "draft": None, "only": ["skip"], "trials": 12,
        "limit": PROMPTS, "device": "cpu", "threads": 1,
    }  # fmt: skip
    return TuneSpec(**values | changes)


# -- the space -----------------------------------------------------------------------------------


def test_sets_and_the_length_are_searched_and_nothing_else() -> None:
    found = {one.name: one for one in derive("layer-skip", num_layers=8)}
    assert set(found) == {"skip", "length"}
    assert found["skip"] == Sublayers("skip", 8)
    assert num_points([found["skip"]]) == 4**8 - 1
    fixed = derive("layer-skip", fix={"policy": "eagle2"}, num_layers=8)
    assert {one.name for one in fixed} == {"skip", "nodes", "depth", "top_k", "width"}
    shown = {one.name: str(one) for one in derive("layer-skip")}
    assert shown["skip"] == "any set of sublayers", "a form knows no model"


def test_known_starts_come_first_and_the_answers_stand_for_them() -> None:
    space = derive("layer-skip", only=["skip"], num_layers=8)
    points = first_points("layer-skip", space, {})
    chosen = ["+".join(name for name, yes in point.items() if yes) for point in points]
    assert chosen[0] == "a1+m1+a3+m3+a5+m5"
    assert "a1+a2+a3+a4+a5+a6" in chosen
    assert "m1+m2+m3+m4+m5+m6" in chosen
    assert all(len(point) == 16 for point in points)
    begun = first_points("layer-skip", space, {"skip": "a1"})
    assert begun[0] == {name: name == "a1" for name in points[0]}


class _Trial:
    """Answers what it is told to."""

    def __init__(self, *yes: str) -> None:
        self.yes = yes

    def suggest_categorical(self, name: str, choices: tuple[bool, ...]) -> bool:
        assert choices == (False, True)
        return name in self.yes


def test_a_set_is_what_was_answered_and_nothing_is_no_set() -> None:
    one = Sublayers("skip", 3)
    assert one.suggest(_Trial("a1", "m1", "m2")) == "l1+m2"
    assert one.suggest(_Trial()) is None
    assert one.nearest("m2") == "m2"
    assert one.nearest("auto") == one.nearest("m7") == "l1"


# -- searching -----------------------------------------------------------------------------------


class SkipSite(ScriptedSite):
    """Layer 2 is free to skip; every other sublayer costs."""

    def __call__(self, spec, defaults, telling):
        site = super().__call__(spec, defaults, telling)
        return site._replace(measure=self._measure(spec))

    def _measure(self, spec):
        from workbench.tuning.bench import Measured

        def measure(options, after_prompt):
            self.measured.append(options)
            found = Measured(spec.objective)
            for at in range(PROMPTS):
                self.before(len(self.measured))
                found.plain_ns.append(1_000_000)
                found.own_ns.append(int(1_000_000 / skip_gain(options)))
                found.steps, found.emitted, found.kept = at + 1, 3 * (at + 1), 3 * (at + 1)
                found.drafted, found.accepted = 4 * (at + 1), 2 * (at + 1)
                after_prompt(at + 1, found)
            return found

        return measure


def skip_gain(options) -> float:
    skipped = parse_set(options["skip"])
    assert skipped, "a set that skips nothing was tried"
    free = {Sublayer("attention", 2), Sublayer("mlp", 2)}
    return 1.0 + 0.2 * len(skipped & free) - 0.1 * len(skipped - free)


def skip_confirm(spec, best, defaults, **known):
    shown = scripted_confirm(spec, {"nodes": 9, "depth": 4}, {"nodes": 9, "depth": 4}, **known)

    def around(value: float) -> Interval:
        return Interval(value, value - 0.02, value + 0.02)

    ours, usual = skip_gain(best), skip_gain(defaults)
    return shown._replace(
        options=best, baseline=defaults, ratio=around(ours / usual), speedup=around(ours),
        defaults_speedup=around(usual), same=best == defaults, acceptance_rate=0.5,
        defaults_acceptance_rate=0.4,
    )  # fmt: skip


def test_the_free_layer_is_found_kept_and_told_of(spared: Path) -> None:
    site = SkipSite()
    spec = spec_for(spared, trials=60)
    assert spec.executions == ["eager"], "compiling each set would take minutes"
    found = tune(spec, open_site=site, confirm=skip_confirm)
    assert found.best is not None
    assert found.best.options == {"skip": "l2"}
    assert found.trials[0].options == {"skip": "l1"}
    assert len({one.options["skip"] for one in found.trials}) == 60
    assert all(one.acceptance_rate == 0.5 for one in found.trials), "reported for every trial"
    file = spared / "target" / "layer-skip" / "sets.json"
    kept = json.loads(file.read_text())
    file.unlink()
    assert (kept["skip"], kept["target_hash"], kept["num_layers"]) == ("l2", site.on["target"], 4)
    assert kept["how"]["speedup"] == pytest.approx([1.4, 1.38, 1.42])
    assert kept["how"]["acceptance_rate"] == 0.5
    told = "\n".join(found.notes)
    assert f"saved in {file}: -m layer-skip -o skip=sets" in told
    assert "eager plain decoding" in told
    assert "layer-skip:skip=l2" in told
    assert "--execution compiled" in told
    assert "None of" not in told
    assert wording.verdict(found).startswith("It pays: skip l2")
    spec = wording.best_spec(found)
    assert spec is not None
    assert (spec.options, spec.draft) == ({"skip": "l2"}, None)


def test_where_no_set_beats_skipping_nothing_that_is_said(spared: Path) -> None:
    def confirm(*words, **known):
        slow = Interval(0.7, 0.68, 0.72)
        return skip_confirm(*words, **known)._replace(speedup=slow)

    found = tune(spec_for(spared, trials=30), open_site=SkipSite(), confirm=confirm)
    assert found.notes[0].startswith("None of 30 sets was measurably faster than skipping nothing")
    assert wording.verdict(found).startswith("It does not pay")
    assert wording.tone(found) == "costs"
    (spared / "target" / "layer-skip" / "sets.json").unlink()


def test_acceptance_as_objective(spared: Path) -> None:
    spec = spec_for(spared, objective=ACCEPTANCE, trials=8)
    found = tune(spec, open_site=SkipSite(), confirm=skip_confirm)
    assert {one.value for one in found.trials if one.state == "measured"} == {0.5}
    assert "has 50 % accepted against 40 % of" in wording.verdict(
        replace(found, confirmed=found.confirmed | {"same": False})
    )
    (spared / "target" / "layer-skip" / "sets.json").unlink()


def test_a_killed_search_goes_on_and_loses_no_trial(spared: Path, tmp_path: Path) -> None:
    here = Path(__file__).parent
    code = (
        f"import sys, os; sys.path[:0] = [{str(here)!r}, {str(here.parents[1])!r}]\n"
        "from test_tune_layer_skip import *\n"
        "site = SkipSite()\n"
        "site.before = lambda number: os._exit(9) if number == 4 else None\n"
        f"tune(spec_for(Path({str(spared)!r})), open_site=site, confirm=skip_confirm)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=300, env=os.environ)
    assert done.returncode == 9
    left = load_study("sets")
    assert (left.status, len(left.trials)) == ("interrupted", 3)
    site = SkipSite()
    found = tune(spec_for(spared), open_site=site, confirm=skip_confirm)
    assert (found.status, len(found.trials)) == ("finished", 12)
    assert len(site.measured) == 9, "three were not measured again"
    (spared / "target" / "layer-skip" / "sets.json").unlink()


# -- for real, on a tiny target ------------------------------------------------------------------


def test_as_typed_the_free_layer_is_found_and_its_name_decodes(spared: Path, capsys) -> None:
    """Acceptance is exact where seconds are not: to skip what adds nothing loses no token."""
    target = str(spared / "target")
    words = ["-w", str(spared / "prompts.txt"), "--target", target, "-n", "24", "--limit", "2",
             "--repeats", "1", "--device", "cpu", "--threads", "1", "--name", "real"]  # fmt: skip
    arguments = ["tune", "layer-skip", "--only", "skip", "--fix", "exit=0", "--fix", "length=3",
                 "--objective", "acceptance-rate", "--trials", "14", "--json"]  # fmt: skip
    assert run_command([*arguments, *words]) == 0
    found = json.loads(capsys.readouterr().out)
    best = found["trials"][found["best"] - 1]
    skipped = parse_set(best["options"]["skip"])
    assert skipped is not None
    assert {layer for _, layer in skipped} == {2}, "nothing that counts is skipped"
    assert best["value"] == best["acceptance_rate"] == 1.0
    assert all(one["tokens_per_second"] > 0 for one in found["trials"])
    assert all(one["matched"] == one["compared"] for one in found["trials"]), "lossless"
    assert "acceptance-rate" in found["objective"]
    assert (spared / "target" / "layer-skip" / "real.json").is_file()
    run = ["run", "--method", "layer-skip", "-o", "skip=real", "-o", "exit=0", "--target", target,
           "--device", "cpu", "-n", "8", "--prompt", "x = 1", "--json"]  # fmt: skip
    assert run_command(run) == 0
    assert run_command(["tune", "--show", "real"]) == 0
    assert "100%" in capsys.readouterr().out
    assert set_text(skipped) in (spared / "target" / "layer-skip" / "real.json").read_text()


def test_wrong_sets_are_sentences(spared: Path, capsys) -> None:
    target = str(spared / "target")
    for skip, reason in (("a7", "has 4"), ("a3-1", "backwards"), ("zz", "neither a set")):
        run = ["run", "--method", "layer-skip", "-o", f"skip={skip}", "--target", target,
               "--device", "cpu", "-n", "4", "--prompt", "x"]  # fmt: skip
        assert run_command(run) == 2
        assert reason in capsys.readouterr().err.replace("\n", " ")
    with pytest.raises(UserError, match="no model folder"):
        tune(spec_for(spared, target="./absent"), open_site=SkipSite(), confirm=skip_confirm)
