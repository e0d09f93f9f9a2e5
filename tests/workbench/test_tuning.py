"""Studies: what is measured, kept, gone on with, and said; on scripted gains."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from scripted_tuning import PROMPTS, ScriptedSite, gain, scripted_confirm, tune_spec

from engine.errors import DecodeError, UserError
from workbench.comparing.decoders import StoppedError
from workbench.events import MeasuringStarted, Progress
from workbench.specfile import parse_spec, spec_text
from workbench.tuning import wording
from workbench.tuning.run import tune
from workbench.tuning.spec import TAU, TuneSpec, read_duration, study_name
from workbench.tuning.study import load_study, open_journal, study_file, study_names


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def site() -> ScriptedSite:
    return ScriptedSite()


def search(spec: TuneSpec, site: ScriptedSite, runs: Path, **settings):
    return tune(spec, runs=runs, open_site=site, confirm=scripted_confirm, **settings)


def test_a_study_begins_with_the_defaults_and_finds_better(runs: Path, site: ScriptedSite) -> None:
    events: list = []
    found = search(tune_spec(trials=25), site, runs, emit=events.append)
    assert found.status == "finished"
    assert len(found.trials) == 25
    assert found.trials[0].options == {"nodes": 6, "depth": 4}
    assert found.best is not None
    assert found.best.value == pytest.approx(gain(found.best.options), rel=1e-4)
    assert found.best.value > gain({"nodes": 6, "depth": 4})
    points = [tuple(one.options.items()) for one in found.trials]
    assert len(set(points)) == 25, "no point is measured twice"
    states = {one.state for one in found.trials}
    assert "pruned" in states
    assert all(one.prompts == PROMPTS for one in found.trials if one.state == "measured")
    assert all(one.prompts < PROMPTS for one in found.trials if one.state == "pruned")
    assert site.opened == 1
    assert events[0] == MeasuringStarted("trees")
    shares = [e.fraction for e in events if isinstance(e, Progress) and e.phase == "measure"]
    assert shares == sorted(shares)
    assert repr(load_study("trees", runs).trials) == repr(found.trials)
    assert study_names(runs) == ["trees"]


def test_a_refused_combination_is_infeasible_and_no_crash(runs: Path, site: ScriptedSite) -> None:
    space = {"nodes": "[6,7]", "depth": "[3,4]"}
    found = search(tune_spec(space=space, only=["nodes"], trials=9), site, runs)
    refused = [one for one in found.trials if one.state == "infeasible"]
    assert {one.options["nodes"] for one in refused} == {7}
    assert all("seven nodes are refused" in one.why for one in refused)
    assert len(found.trials) == 4, "all combinations, and no more"
    assert any("only 4 combinations" in note for note in found.notes)


def test_a_stopped_study_goes_on_and_a_half_trial_does_not_count(
    runs: Path, site: ScriptedSite
) -> None:
    def stop_in_the_fourth(number: int) -> None:
        if number == 4:
            raise StoppedError

    site.before = stop_in_the_fourth
    found = search(tune_spec(), site, runs)
    assert (found.status, len(found.trials), found.confirmed) == ("cancelled", 3, None)
    assert "not measured again yet" in wording.verdict(found)
    half = site.measured[3]
    again = ScriptedSite()
    found = search(tune_spec(), again, runs)
    assert (found.status, len(found.trials)) == ("finished", 12)
    assert again.measured[0] == half, "the trial that was cut short is made anew, first"
    third = ScriptedSite()
    found = search(tune_spec(), third, runs)
    assert (third.opened, len(found.trials)) == (0, 12), "nothing is left"
    more = search(tune_spec(trials=14), third, runs)
    assert len(more.trials) == 14


def test_a_killed_process_loses_no_finished_trial(runs: Path) -> None:
    here = Path(__file__).parent
    code = (
        f"import sys, os; sys.path[:0] = [{str(here)!r}, {str(here.parents[1])!r}]\n"
        "from scripted_tuning import *\n"
        "from workbench.tuning.run import tune\n"
        "site = ScriptedSite()\n"
        "site.before = lambda number: os._exit(9) if number == 3 else None\n"
        f"tune(tune_spec(), runs=__import__('pathlib').Path({str(runs)!r}), open_site=site,\n"
        "     confirm=scripted_confirm)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=120)
    assert done.returncode == 9
    left = load_study("trees", runs)
    assert (left.status, len(left.trials)) == ("interrupted", 2)
    with study_file("trees", runs).open("ab") as journal:
        journal.write(b'{"op_code": 4, "wor')  # what a full disk leaves of a line
    found = search(tune_spec(), ScriptedSite(), runs)
    assert (found.status, len(found.trials)) == ("finished", 12)


def test_another_protocol_does_not_go_into_the_same_study(runs: Path, site: ScriptedSite) -> None:
    search(tune_spec(trials=2), site, runs)
    with pytest.raises(UserError, match=r"was made with limit 4, and now it is 2.*--name.*--fresh"):
        search(tune_spec(limit=2), site, runs)
    fresh = search(tune_spec(limit=2, trials=2), site, runs, fresh=True)
    assert fresh.spec.limit == 2
    assert len(fresh.trials) == 2


def test_a_study_under_way_elsewhere_is_left_alone(runs: Path, site: ScriptedSite) -> None:
    search(tune_spec(trials=2), site, runs)
    from workbench.tuning.study import open_journal

    stored = open_journal("trees", runs)
    import psutil

    parent = psutil.Process(os.getppid())
    stored.set_user_attr("process", (parent.pid, parent.create_time()))
    stored.set_user_attr("status", "running")
    with pytest.raises(UserError, match=f"under way in process {parent.pid}"):
        search(tune_spec(trials=4), site, runs)


def test_a_trial_that_breaks_off_is_failed_with_its_reason(runs: Path, site: ScriptedSite) -> None:
    def break_off(number: int) -> None:
        if number == 2:
            raise DecodeError("NaN logits")

    site.before = break_off
    found = search(tune_spec(trials=5), site, runs)
    assert [one.state for one in found.trials].count("failed") == 1
    assert found.trials[1].why == "NaN logits"
    assert found.status == "finished"


def test_what_cannot_be_written_is_a_sentence(
    runs: Path, site: ScriptedSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optuna.storages.journal import JournalFileBackend

    whole = JournalFileBackend.append_logs

    def full(self, logs):
        if len(site.measured) >= 3:
            raise OSError(28, "No space left on device")
        whole(self, logs)

    monkeypatch.setattr(JournalFileBackend, "append_logs", full)
    with pytest.raises(UserError, match=r"trees\.journal: No space left on device"):
        search(tune_spec(), site, runs)
    monkeypatch.undo()
    assert len(load_study("trees", runs).trials) == 2
    (runs / "studies" / "broken.journal").write_text("no journal\n{}\n")
    with pytest.raises(UserError, match="cannot be read as a study"):
        load_study("broken", runs)


def test_a_small_space_is_not_given_up_early(runs: Path, site: ScriptedSite) -> None:
    space = {"nodes": "8..13", "depth": "[3,4,5]"}
    found = search(tune_spec(space=space, trials=16), site, runs)
    assert len(found.trials) == 16, "of 18 combinations: TPE alone proposes few of them again"
    assert found.notes == []


def test_tokens_per_step_as_objective(runs: Path, site: ScriptedSite) -> None:
    found = search(tune_spec(objective=TAU, trials=20), site, runs)
    best = found.best
    assert best is not None
    assert best.speedup is None, "plain decoding is not timed for it"
    assert best.value == best.tokens_per_step
    assert "2.40 tokens per step against 2.10 of the defaults" in wording.verdict(found)


def test_the_search_ends_in_time(runs: Path, site: ScriptedSite) -> None:
    found = search(tune_spec(timeout=1e-6), site, runs)
    assert (found.status, found.trials) == ("finished", [])
    assert "with 0 of 12 trials" in found.notes[0]
    assert wording.verdict(found) == "No trial was measured to its end yet."


def test_the_best_is_said_and_written_as_a_spec(runs: Path, site: ScriptedSite) -> None:
    found = search(tune_spec(fix={"policy": "best-first"}, trials=20), site, runs)
    said = wording.verdict(found)
    best = found.best
    assert best is not None
    assert said.startswith("It pays: policy best-first")
    assert f"nodes {best.options['nodes']}" in said
    assert "as fast as the defaults" in said
    assert "4 prompts that no trial saw" in said
    spec = wording.best_spec(found)
    assert spec is not None
    assert spec.options["policy"] == "best-first"
    assert spec.workload == "code"
    fields = parse_spec(spec_text(spec).encode(), where="file")
    assert type(spec).model_validate(fields) == spec
    assert wording.lossless_told(found).endswith("token for token")
    told = wording.as_object(found, runs)
    assert told["best"] == best.number
    assert len(told["trials"]) == 20


def test_a_best_that_does_not_hold_is_not_written(runs: Path, site: ScriptedSite) -> None:
    from workbench.statistics import Interval

    def worse(*words, **known):
        return scripted_confirm(*words, **known)._replace(ratio=Interval(0.9, 0.85, 0.95))

    found = tune(tune_spec(trials=20), runs=runs, open_site=site, confirm=worse)
    assert wording.verdict(found).startswith("The defaults are better")
    spec = wording.best_spec(found)
    assert spec is not None
    assert spec.options == {}


def test_what_it_was_measured_beside_is_named_and_written(runs: Path, site: ScriptedSite) -> None:
    from workbench.statistics import Interval

    def worse(*words, **known):
        return scripted_confirm(*words, **known)._replace(ratio=Interval(0.9, 0.85, 0.95))

    spec = tune_spec(space={"nodes": "[4,9]", "depth": "2..6"}, trials=10)
    found = tune(spec, runs=runs, open_site=site, confirm=worse)
    assert "the space's nearest to the defaults (nodes 4)" in wording.verdict(found)
    written = wording.best_spec(found)
    assert written is not None
    assert written.options == {"nodes": 4}


def test_by_tokens_per_step_more_of_them_win(runs: Path, site: ScriptedSite) -> None:
    from workbench.statistics import Interval

    def slower(*words, **known):
        return scripted_confirm(*words, **known)._replace(ratio=Interval(0.5, 0.4, 0.6))

    spec = tune_spec(objective=TAU, trials=20)
    found = tune(spec, runs=runs, open_site=site, confirm=slower)
    best = found.best
    assert best is not None
    assert wording.tone(found) == "pays"
    assert wording.best_spec(found) == found.spec.run(best.options)


def test_other_models_under_the_same_name_are_noticed(runs: Path, site: ScriptedSite) -> None:
    search(tune_spec(trials=3), site, runs)
    site.on = {"target": "a2", "prompts": "b2"}
    with pytest.raises(UserError, match=r"other contents \(target\)"):
        search(tune_spec(trials=6), site, runs)
    kept = load_study("trees", runs)
    assert (len(kept.trials), kept.status) == (3, "failed")
    assert len(search(tune_spec(trials=4), site, runs, fresh=True).trials) == 4


def test_a_fresh_study_that_cannot_begin_costs_nothing(runs: Path, site: ScriptedSite) -> None:
    search(tune_spec(trials=4), site, runs)

    def broken(*words):
        raise UserError("There is no such model.")

    with pytest.raises(UserError, match="no such model"):
        tune(tune_spec(trials=4), runs=runs, fresh=True, open_site=broken)
    assert len(load_study("trees", runs).trials) == 4
    file = study_file("trees", runs)
    file.write_text("no journal\n")
    found = tune(
        tune_spec(trials=3), runs=runs, fresh=True, open_site=site, confirm=scripted_confirm
    )
    assert len(found.trials) == 3
    assert [one.name for one in file.parent.iterdir()] == [file.name]


def test_a_study_of_another_version_is_a_sentence(runs: Path, site: ScriptedSite) -> None:
    search(tune_spec(trials=3), site, runs)
    stored = open_journal("trees", runs)
    stored.set_user_attr("spec", {"nods": 1})
    with pytest.raises(UserError, match="of another version"):
        load_study("trees", runs)


def test_a_small_space_is_done_once_all_of_it_was_tried(runs: Path, site: ScriptedSite) -> None:
    spec = tune_spec(space={"nodes": "[8,9]", "depth": "[4,5]"}, trials=30)
    found = search(spec, site, runs)
    assert (len(found.trials), found.left) == (4, 0)
    opened = site.opened
    search(spec, site, runs)
    assert site.opened == opened, "nothing is loaded for nothing"


def test_text_with_spaces_names_the_same_arm(runs: Path) -> None:
    from workbench.comparing.arms import parse_arm

    spec = tune_spec(methods=["static-tree"], only=[], space={"expansion": "[2, 2|3, 1]"})
    label = spec.arm({"expansion": "3, 1"})
    assert parse_arm(label).label == label == "static-tree:expansion=3,1"


def test_names_and_lengths_of_time() -> None:
    assert study_name("dynamic-tree", "code") == "dynamic-tree-code"
    assert study_name("ngram", "/x/my prompts.txt", TAU) == "ngram-my-prompts-tau"
    assert [read_duration(text) for text in ("90", "90s", "10m", "1.5h")] == [90, 90, 600, 5400]
    for wrong in ("soon", "0", "-3m"):
        with pytest.raises(UserError, match="--timeout"):
            read_duration(wrong)
    with pytest.raises(ValueError, match="one each"):
        tune_spec(workloads=["code", "edit"])
