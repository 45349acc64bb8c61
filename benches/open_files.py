#!/usr/bin/env python3
"""Open data (P8), seen from outside: compacts a table, then reads the files listed in `strata.segments` with pyarrow and
DuckDB, which know nothing of Strata, and compares their user columns with `SELECT *`.

    pip install duckdb==2.0.0 pyarrow
    cargo run --release -- tpch --dir target/tpch-sf1 --changes
    benches/open_files.py --strata target/release/strata --dir target/tpch-sf1 --table lineitem

Exits with 1 and the counts if anything differs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import pyarrow.dataset


def strata(arguments: argparse.Namespace, sql: str, form: str) -> bytes:
    command = [arguments.strata, "sql", "--dir", arguments.dir, "--format", form, "-c", sql]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def rows(arguments: argparse.Namespace, sql: str) -> list:
    return json.loads(strata(arguments, sql, "json"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strata", required=True, help="the binary")
    parser.add_argument("--dir", required=True, help="a database directory")
    parser.add_argument("--table", default="lineitem")
    arguments = parser.parse_args()
    table = arguments.table

    before = rows(arguments, f"SELECT count(*) AS segments, sum(marks) AS marks FROM strata.segments WHERE table_name = '{table}'")
    started = time.monotonic()
    strata(arguments, f"CALL strata.compact('{table}')", "csv")
    print(f"before: {before[0]}; compacted in {time.monotonic() - started:.1f} s")
    left = rows(arguments, f"SELECT count(*) AS runs FROM strata.runs WHERE table_name = '{table}'")[0]["runs"]
    segments = rows(arguments, f"SELECT path, rows, marks FROM strata.segments WHERE table_name = '{table}'")
    files = [segment["path"] for segment in segments]
    marks = sum(segment["marks"] for segment in segments)
    print(f"after: {left} runs, {len(files)} segments, {sum(s['rows'] for s in segments):,} rows, {marks} marks")

    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.parquet"
        answer.write_bytes(strata(arguments, f"SELECT * FROM {table}", "parquet"))
        columns = ", ".join(f'"{name}"' for name in pyarrow.dataset.dataset(answer).schema.names)
        theirs = pyarrow.dataset.dataset(files).count_rows()
        database = duckdb.connect()
        database.execute(f"CREATE VIEW ours AS SELECT {columns} FROM read_parquet('{answer}')")
        database.execute(f"CREATE VIEW files AS SELECT {columns} FROM read_parquet({files!r})")
        total = database.sql("SELECT count(*) FROM ours").fetchall()[0][0]
        missing = database.sql("SELECT count(*) FROM (FROM ours EXCEPT ALL FROM files)").fetchall()[0][0]
        foreign = database.sql("SELECT count(*) FROM (FROM files EXCEPT ALL FROM ours)").fetchall()[0][0]
        types = pyarrow.dataset.dataset(files).to_table().select([name.strip('"') for name in columns.split(", ")])
        print(f"SELECT *: {total:,} rows; pyarrow {pyarrow.__version__} reads {theirs:,} rows, {types.num_columns} columns")
        print(f"DuckDB {duckdb.__version__}: {missing} rows only in SELECT *, {foreign} only in the files")
    return 0 if (left, marks, missing, foreign) == (0, 0, 0, 0) and theirs == total == types.num_rows else 1


if __name__ == "__main__":
    sys.exit(main())
