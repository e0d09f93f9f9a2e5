"""SQL over stored runs: what it answers, what it refuses, and that it reaches nothing else."""

from __future__ import annotations

import csv
import io
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from query_runs import write_run

from engine.errors import UserError
from workbench import cli
from workbench.query import EXAMPLES, Limits, Query, ask, columns, queryable
from workbench.query.asking import error_sentence
from workbench.query.output import to_csv, to_json
from workbench.query.tables import NAMES
from workbench.store import run_file
from workbench.store.meanings import COLUMN_MEANINGS, TABLE_MEANINGS
from workbench.store.schema import TABLES

QUICK = Limits(seconds=2.0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("queried")
    first = write_run(folder, method="speculative", steps=2)
    while f"{datetime.now(UTC):%Y%m%d-%H%M%S}" == first[:15]:  # ids sort by the second
        time.sleep(0.02)
    write_run(folder, method="dynamic-tree", options={"nodes": 8}, steps=3)
    return folder


@pytest.fixture(scope="module")
def ids(runs: Path) -> list[str]:
    return queryable(folder=runs).run_ids


def rows(sql: str, runs: Path, ids: list[str], limits: Limits = QUICK) -> list[tuple]:
    return ask(sql, ids, limits=limits, folder=runs).rows


def test_every_table_and_column_has_a_meaning():
    assert set(TABLE_MEANINGS) == set(TABLES)
    for table, stored in TABLES.items():
        assert list(COLUMN_MEANINGS[table]) == list(stored), table
    for table in NAMES:
        assert all(column.meaning.endswith(".") for column in columns(table)), table


def test_all_runs_answer_as_one_table(runs: Path, ids: list[str]):
    assert rows("SELECT run, count(*) FROM step GROUP BY ALL ORDER BY ALL", runs, ids) == [
        (ids[1], 2),
        (ids[0], 3),
    ]
    assert rows("SELECT arm, steps FROM run ORDER BY steps", runs, ids) == [
        ("speculative", 2),
        ("dynamic-tree:nodes=8", 3),
    ]
    one = ids[:1]
    assert rows("SELECT DISTINCT run FROM node", runs, one) == [(ids[0],)]
    described = ask("SELECT * FROM piece", one, folder=runs)
    assert described.columns == ["run", "token", "text"]
    assert all(row[0] == ids[0] for row in described.rows)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_every_example_answers(example, runs: Path, ids: list[str]):
    found = ask(example.sql, ids, folder=runs)
    assert found.columns
    assert found.complete
    no_rows_here = ("Saved by a second choice", "Waiting under load", "Trees under load")
    assert found.rows or example.name in no_rows_here


def test_an_example_means_what_it_says(runs: Path, ids: list[str]):
    """The scripted tree: depth 1 accepts its one tested node, depth 2 one of two."""
    example = next(one for one in EXAMPLES if one.name == "Acceptance by depth")
    found = rows(example.sql, runs, ids)
    assert found == [
        ("dynamic-tree:nodes=8", 1, 3, 1.0),
        ("dynamic-tree:nodes=8", 2, 6, 0.5),
        ("speculative", 1, 2, 1.0),
        ("speculative", 2, 4, 0.5),
    ]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('{secret}')",
        "SELECT * FROM read_text('{secret}')",
        "SELECT * FROM read_blob('{secret}')",
        "SELECT * FROM read_json('{secret}')",
        "SELECT * FROM read_parquet('{secret}')",
        "SELECT * FROM sniff_csv('{secret}')",
        "SELECT * FROM '{secret}'",
        "FROM '{secret}'",
        "SELECT * FROM glob('{folder}/*')",
        "SELECT * FROM query('SELECT * FROM read_text(''{secret}'')')",
        "SELECT * FROM duckdb_secrets()",
        "COPY (SELECT 1) TO '{folder}/out.csv'",
        "COPY run TO '{folder}/out.parquet'",
        "EXPORT DATABASE '{folder}/out'",
        "ATTACH '{folder}/new.duckdb'",
        "ATTACH '{other}' AS other",
        "DETACH r0",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET threads = 64",
        "SET enable_external_access = true",
        "RESET enable_external_access",
        "PRAGMA memory_limit = '64GB'",
        "PRAGMA database_list",
        "CREATE TABLE mine AS SELECT 1",
        "CREATE MACRO f() AS 1",
        "INSERT INTO run SELECT * FROM run",
        "UPDATE r0.run SET status = 'finished'",
        "DELETE FROM r0.node",
        "DROP VIEW node",
        "CALL checkpoint()",
        "CHECKPOINT",
        "BEGIN TRANSACTION",
        "EXPLAIN ANALYZE SELECT 1",
        "PREPARE p AS SELECT 1",
        "USE r0",
        "VACUUM",
        "SELECT 1; SELECT 2",
        "SELECT 1; COPY (SELECT 1) TO '{folder}/out.csv'",
        "SELECT getenv('HOME')",
        "SELECT * FROM run_",
    ],
)
def test_nothing_but_the_chosen_runs_is_reached(
    sql: str, runs: Path, ids: list[str], tmp_path: Path
):
    secret = tmp_path / "secret.csv"
    secret.write_text("token,word\n1,classified\n")
    other = tmp_path / "other.duckdb"
    with duckdb.connect(other) as connection:
        connection.execute("CREATE TABLE t AS SELECT 'classified' AS word")
    before = {path: path.read_bytes() for path in runs.glob("*.duckdb")}
    kept = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as refused:
        ask(sql.format(secret=secret, folder=tmp_path, other=other), ids, limits=QUICK, folder=runs)
    assert "classified" not in str(refused.value)
    assert str(refused.value).endswith(".")
    assert sorted(tmp_path.rglob("*")) == kept
    assert {path: path.read_bytes() for path in runs.glob("*.duckdb")} == before


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT count(*) FROM range(10000000) a, range(10000000) b, node", "longer than 1 second"),
        ("WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t",
         "longer than 1 second"),
        ("SELECT length(repeat('x', 4000000000))", "MB of memory"),
        ("SELECT list(a.range) FROM range(1000000000) a", "MB of memory"),
    ],
)  # fmt: skip
def test_a_huge_query_ends_in_time_with_a_sentence(sql: str, said: str, runs: Path, ids: list[str]):
    begun = time.monotonic()
    with pytest.raises(UserError, match=said):
        ask(sql, ids, limits=Limits(seconds=1.0, memory_mb=256), folder=runs)
    assert time.monotonic() - begun < 20


def test_rows_are_cut_without_making_the_rest(runs: Path, ids: list[str]):
    found = ask("FROM range(1000000000000)", ids, limits=Limits(rows=7), folder=runs)
    assert [row[0] for row in found.rows] == list(range(7))
    assert not found.complete
    assert ask("FROM range(7)", ids, limits=Limits(rows=7), folder=runs).complete


def test_a_query_is_cancelled_at_once(runs: Path, ids: list[str]):
    query = Query(
        "SELECT count(*) FROM range(10000000) a, range(10000000) b, node", ids, folder=runs
    )
    assert not query.wait(0.2)
    begun = time.monotonic()
    query.cancel()
    with pytest.raises(UserError, match="cancelled"):
        query.result()
    assert time.monotonic() - begun < 2


def test_errors_name_the_place(runs: Path, ids: list[str]):
    with pytest.raises(UserError, match=r"nope.*Line 2, at “nope FROM node”"):
        rows("SELECT depth,\n nope FROM node", runs, ids)
    with pytest.raises(UserError, match=r"Syntax error.*Line 1, at “SELEC 1”"):
        rows("SELEC 1", runs, ids)
    with pytest.raises(UserError, match="query is empty"):
        rows("  -- nothing\n", runs, ids)
    with pytest.raises(UserError, match="Only SELECT is answered here, and this is COPY"):
        rows("COPY (SELECT 1) TO 'x'", runs, ids)
    assert error_sentence("Binder Error: bad\n\nLINE 3: SELECT x\n               ^") == (
        "Bad. Line 3, at “x”."
    )


def test_older_and_damaged_files_do_not_stop_the_others(tmp_path: Path):
    good = write_run(tmp_path, method="speculative", steps=1)
    old = write_run(tmp_path, method="dynamic-tree", steps=1)
    with duckdb.connect(run_file(old, tmp_path)) as connection:
        connection.execute("CREATE TABLE node2 AS SELECT * EXCLUDE (accept_prob) FROM node")
        connection.execute("DROP TABLE node")
        connection.execute("ALTER TABLE node2 RENAME TO node")
        connection.execute("DROP TABLE piece")
    broken = write_run(tmp_path, method="static-tree", steps=1)
    run_file(broken, tmp_path).write_bytes(b"no database")
    found = ask(
        "SELECT run, count(accept_prob) FROM node GROUP BY ALL", [broken, old, good],
        folder=tmp_path,
    )  # fmt: skip
    assert dict(found.rows) == {good: 3, old: 0}
    assert found.left_out == [(broken, "cannot be read")]
    assert found.num_runs == 2


def test_no_runs_at_all_is_an_empty_table(tmp_path: Path):
    assert queryable(folder=tmp_path) == ([], 0)
    assert rows("SELECT * FROM run JOIN node USING (run)", tmp_path, []) == []


def test_csv_and_json_keep_hostile_text_as_data(runs: Path, ids: list[str]):
    found = ask(
        """SELECT '</script>"; \x1b[31m' AS "a,b", NULL AS n, [1, 2] AS l, DATE '2026-01-02' AS d,
        1.5::DECIMAL(4,2) AS x, 'nan'::DOUBLE AS q""",
        ids, folder=runs,
    )  # fmt: skip
    (header, line) = list(csv.reader(io.StringIO(to_csv(found))))
    assert header == ["a,b", "n", "l", "d", "x", "q"]
    assert line == ['</script>"; \x1b[31m', "", "[1, 2]", "2026-01-02", "1.50", "nan"]
    values = json.loads(json.dumps(to_json(found), allow_nan=False))
    assert values["rows"] == [['</script>"; \x1b[31m', None, [1, 2], "2026-01-02", 1.5, None]]


def test_the_command(runs: Path, ids: list[str], capfd, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DRAFTREE_RUNS", str(runs))
    sql = "SELECT run, steps, '\x1b[31m' AS hostile FROM run ORDER BY steps"
    assert cli.run_command(["query", sql]) == 0
    shown = capfd.readouterr().out
    assert "\\x1b[31m" in shown
    assert "\x1b" not in shown
    assert ids[0] in shown
    assert cli.run_command(["query", sql, "--format", "csv", "--run", "last"]) == 0
    assert capfd.readouterr().out == f"run,steps,hostile\n{ids[0]},3,\x1b[31m\n"
    assert cli.run_command(["query", sql, "--json", "--newest", "1"]) == 0
    said = capfd.readouterr()
    assert [row[:2] for row in json.loads(said.out)["rows"]] == [[ids[0], 3]]
    assert "newest 1 runs of 2" in said.err
    assert cli.run_command(["query", "SELECT * FROM range(9)", "--rows", "3"]) == 0
    assert "first 3 rows" in capfd.readouterr().err
    assert cli.run_command(["query", "DROP TABLE run"]) == 2
    assert "Only SELECT" in capfd.readouterr().err
    assert cli.run_command(["query"]) == 2
    assert cli.run_command(["query", "SELECT 1", "--format", "xml"]) == 2
    capfd.readouterr()
    assert cli.run_command(["query", "--tables"]) == 0
    assert "top2_gap" in capfd.readouterr().out
    assert cli.run_command(["query", "--examples"]) == 0
    assert EXAMPLES[0].sql in capfd.readouterr().out
