"""Writing a run. The decode loop appends to a buffer; a thread of its own does the rest.

Every 300 ms the thread turns what lies in the buffer into columns and commits them in one
transaction. A kill -9 loses what was not yet committed; the file opens again.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pyarrow as pa

from engine.errors import UserError
from engine.records import RequestRecord, StepRecord
from engine.requests import Request
from engine.serving.trace import ArrivalRow, LaneRow, Tick
from workbench import metrics
from workbench.events import RunSummary
from workbench.steptext import StepTexts
from workbench.store import columns, index
from workbench.store.columns import Taken
from workbench.store.request_rows import request_index, request_rows, update_request
from workbench.store.schema import SCHEMA_VERSION, TABLES, RunStatus, create_statements
from workbench.store.serving_rows import ServingBuffer

logger = logging.getLogger(__name__)

FLUSH_S = 0.3
_INDEX_EVERY_S = 1.0
_CONFIG: dict[str, Any] = {"threads": 1, "memory_limit": "512MB"}


class Recorder:
    """Keeps one run. `append` is all the decode loop calls; it costs under a microsecond.

    `summary` is folded on the writer's thread and complete after `finish`. `error` is a sentence
    once writing has failed (a full disk, say): the caller then ends the run as failed.
    """

    def __init__(
        self,
        spec: dict[str, Any],
        *,
        texts: StepTexts,
        folder: Path | None = None,
        flush_s: float | None = None,
    ) -> None:
        """Create file and index line. `texts` is asked on the writer's thread.

        Raises UserError where the folder cannot be written to.
        """
        self._folder = index.prepare_folder(folder)
        self._texts = texts
        self._flush_s = FLUSH_S if flush_s is None else flush_s
        self._spec = spec
        self.summary = RunSummary()
        self.error: str | None = None
        self._buffer: deque[Taken | tuple[Request | RequestRecord, int]] = deque()
        self._serving = ServingBuffer()
        self._pieces: set[int] = set()
        self._asked: set[tuple[int, int]] = set()  # request and repeat of rows in `request`
        self._stop = threading.Event()
        self._indexed_at = 0.0
        self._entry: index.RunEntry
        self._connection: duckdb.DuckDBPyConnection
        self.run_id = self._create()
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)

    # --- called by the decode loop ---

    def begin(self, *, mode: str, plain_step_ns: int | None, environment: dict[str, Any]) -> None:
        """Say how the run is executed, and start the writer's thread."""
        self._entry = replace(self._entry, mode=mode)
        self._update(mode=mode, plain_step_ns=plain_step_ns, environment=json.dumps(environment))
        self._thread.start()

    def append(self, record: StepRecord, repeat: int = 0) -> None:
        """Keep a step. Its arrays must not change afterwards."""
        self._buffer.append(Taken(record, repeat))

    def request_started(self, request: Request) -> None:
        """Keep a prompt, so that an interrupted request can still be read."""
        self._buffer.append((request, request.repeat))

    def request_done(self, record: RequestRecord) -> None:
        """Keep a request's outcome."""
        self._buffer.append((record, record.repeat))

    def arrivals(self, rows: Iterable[ArrivalRow]) -> None:
        """Keep how requests stand. Of each the last row is stored, once it has ended."""
        self._serving.tell(rows)

    def ticks(self, ticks: Iterable[Tick]) -> None:
        """Keep steps of batches with their shares."""
        self._serving.tell(ticks)

    def lanes(self, rows: Iterable[LaneRow]) -> None:
        """Keep stretches of work of ranks."""
        self._serving.tell(rows)

    def finish(self, status: RunStatus, message: str = "") -> RunStatus:
        """Write what is left, then the status; returns it, FAILED where writing failed."""
        if self._thread.is_alive():
            self._stop.set()
            self._thread.join()
        self._guarded(lambda: self._flush(last=True))
        if self.error is not None:
            status, message = RunStatus.FAILED, message or self.error
        finished = index.now_iso()
        ending = {"status": str(status), "message": message, "finished": finished}
        self._guarded(lambda: self._update(summary=self._summary_json(), **ending))
        self._guarded(lambda: self._connection.execute("CHECKPOINT"))
        self._guarded(self._connection.close)
        if self.error is not None:  # the last writes may have failed as well
            status, message = RunStatus.FAILED, message or self.error
        self._entry = replace(
            self._entry, status=status, message=message, finished=finished, pid=None
        )
        self._write_index()
        return status

    def flush(self) -> None:
        """Commit what lies in the buffer now, for callers whose writer's thread sleeps."""
        self._guarded(self._flush)

    def discard(self) -> None:
        """Remove a run that never began to decode."""
        self._connection.close()
        path = index.run_file(self.run_id, self._folder)
        for file in (path, path.with_name(path.name + ".wal")):
            file.unlink(missing_ok=True)
        index.sidecar(self.run_id, self._folder).unlink(missing_ok=True)

    # --- the writer's thread ---

    def _work(self) -> None:
        while not self._stop.wait(self._flush_s) and self.error is None:
            self.flush()
            if time.monotonic() - self._indexed_at > _INDEX_EVERY_S:
                self._write_index()

    def _guarded(self, work: Callable[[], Any]) -> None:
        """Run `work`; a failure becomes the sentence in `error`, the first one counts."""
        try:
            work()
        except Exception as error:  # whatever it was, the run must end with a status
            logger.debug("recording failed", exc_info=True)
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            place = index.run_file(self.run_id, self._folder)
            self.error = self.error or f"The run could not be written to {place}: {reason}"

    def _flush(self, *, last: bool = False) -> None:
        """Commit what lies in the buffers, all or nothing."""
        told = self._serving.waiting or (last and self._serving.unended)
        if self.error is not None or not (self._buffer or told):
            return
        steps: list[Taken] = []
        started: list[Request] = []
        done: list[RequestRecord] = []
        for _ in range(len(self._buffer)):
            item = self._buffer.popleft()
            if isinstance(item, Taken):
                metrics.add_step(self.summary, item.record)
                steps.append(item)
            elif isinstance(item[0], Request):
                started.append(item[0])
            else:
                metrics.add_request(self.summary, item[0])
                done.append(item[0])
        self._connection.execute("BEGIN")
        try:
            self._insert_started(started)
            if steps:
                self._insert("step", columns.step_table(self.run_id, steps))
                self._insert("node", columns.node_table(self.run_id, steps))
                texts = [text for taken in steps for text in self._texts.emitted(taken.record)]
                self._insert("token", columns.token_table(self.run_id, steps, texts))
                self._insert_pieces(steps)
            self._insert_done(done)
            self._insert_serving(last=last)
            self._update(summary=self._summary_json())
            self._connection.execute("COMMIT")
        except Exception:
            with suppress(duckdb.Error):  # the failure itself may have ended the transaction
                self._connection.execute("ROLLBACK")
            raise

    def _insert(self, table: str, rows: pa.Table) -> None:
        assert list(rows.column_names) == list(TABLES[table]), table
        self._connection.register("rows", rows)
        self._connection.execute(f"INSERT INTO {table} SELECT * FROM rows")
        self._connection.unregister("rows")

    def _insert_started(self, started: Sequence[Request | RequestRecord]) -> None:
        if started:
            self._asked.update((request_index(item), item.repeat) for item in started)
            self._insert("request", request_rows(self.run_id, started))

    def _insert_done(self, done: list[RequestRecord]) -> None:
        self._insert_started([r for r in done if (r.request, r.repeat) not in self._asked])
        for record in done:
            update_request(self._connection, record)
            self._asked.discard((record.request, record.repeat))
            self._texts.ended(record.request)

    def _insert_serving(self, *, last: bool) -> None:
        for table, rows, again in self._serving.tables(self.run_id, last=last):
            if again:
                self._connection.execute(
                    f"DELETE FROM {table} WHERE list_contains(?, request)", [again]
                )
            self._insert(table, rows)

    def _insert_pieces(self, steps: list[Taken]) -> None:
        new = [t for t in columns.tokens_in(steps).tolist() if t not in self._pieces]
        if new:
            self._pieces.update(new)
            text = [self._texts.piece(token) for token in new]
            self._insert("piece", pa.table({"token": new, "text": text}))

    # --- the run's own row ---

    def _create(self) -> str:
        for _ in range(100):
            run_id = index.new_run_id()
            try:
                index.sidecar(run_id, self._folder).touch(exist_ok=False)
                break
            except FileExistsError:
                continue
        else:
            raise UserError(f"No free run id in {self._folder}.")
        self._entry = index.RunEntry(
            run_id=run_id,
            status=RunStatus.RUNNING,
            started=index.now_iso(),
            spec=self._spec,
            pid=os.getpid(),
            pid_started=psutil.Process().create_time(),
        )
        try:
            index.write_entry(self._entry, self._folder)
            self._connection = duckdb.connect(index.run_file(run_id, self._folder), config=_CONFIG)
            for statement in create_statements():
                self._connection.execute(statement)
            self._connection.execute("INSERT INTO schema_version VALUES (?)", [SCHEMA_VERSION])
            self._connection.execute(
                "INSERT INTO run (run, status, started, message, spec) VALUES (?, ?, ?, '', ?)",
                [run_id, str(RunStatus.RUNNING), self._entry.started, json.dumps(self._spec)],
            )
        except (duckdb.Error, OSError) as error:
            index.sidecar(run_id, self._folder).unlink(missing_ok=True)
            raise UserError(f"The run cannot be stored in {self._folder}: {error}") from None
        return run_id

    def _update(self, **values: Any) -> None:
        assignments = ", ".join(f"{name} = ?" for name in values)
        self._connection.execute(f"UPDATE run SET {assignments}", list(values.values()))

    def _summary_json(self) -> str:
        return json.dumps(self.summary.as_json())

    def _write_index(self) -> None:
        self._indexed_at = time.monotonic()
        self._entry = replace(self._entry, summary=self.summary.as_json())
        self._guarded(lambda: index.write_entry(self._entry, self._folder))
