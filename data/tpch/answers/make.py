#!/usr/bin/env python3
"""Makes the expected answers of the 22 TPC-H queries with DuckDB, an engine that shares no code with Strata.

    pip install duckdb==2.0.0 tpchgen-cli==4.0.0
    data/tpch/answers/make.py --scale 0.01 --scale 1

Rows come from tpchgen-cli as Parquet (the same generator version that `strata tpch` runs in process), are loaded into
tables made by ../schema.sql, and the queries of ../queries run over them; then ../changes.sql is applied and they run
again into sfN-changed/. Next to the answers, rows.csv holds per table the row count and a sum over each numeric column,
so that a difference in the data shows before a difference in an answer does.
"""

import argparse
import datetime
import decimal
import pathlib
import subprocess
import tempfile

import duckdb

HERE = pathlib.Path(__file__).resolve().parent
TPCH = HERE.parent
TABLES = ["region", "nation", "part", "supplier", "partsupp", "customer", "orders", "lineitem"]


def kind(duck_type):
    """The comparison a column gets: exact for everything but float."""
    name = str(duck_type).upper()
    if name.startswith("DECIMAL"):
        return "decimal"
    if "INT" in name:
        return "int"
    return {"DOUBLE": "float", "FLOAT": "float", "DATE": "date", "VARCHAR": "text"}[name]


def field(value):
    """NULL is empty and unquoted; text is always quoted, so that an empty string differs from NULL."""
    if value is None:
        return ""
    if isinstance(value, str):
        return '"' + value.replace('"', '""') + '"'
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, datetime.date):
        return value.isoformat()
    return str(value)


def run(con, sql):
    """Header and rows of one query, both as text lines."""
    cursor = con.execute(sql)
    kinds = [kind(column[1]) for column in cursor.description]
    header = ",".join(f"{column[0]}:{k}" for column, k in zip(cursor.description, kinds))
    return header, [",".join(field(v) for v in row) for row in cursor.fetchall()]


def query_text(number, scale):
    text = (TPCH / "queries" / f"q{number:02}.sql").read_text()
    fraction = format(decimal.Decimal("0.0001") / decimal.Decimal(str(scale)), "f")
    lines = [line for line in text.splitlines() if not line.startswith("--")]
    return "\n".join(lines).strip().rstrip(";").replace(":fraction", fraction)


def check_limit(con, number, sql):
    """A tie across the LIMIT would leave the answer to the engine's taste: refuse to store such an answer."""
    head, _, limit = sql.rpartition("limit ")
    if not head:
        return
    order = head.rpartition("order by")[2]
    keys = ", ".join(part.strip().removesuffix(" desc") for part in order.split(","))
    near = con.execute(f"select {keys} from ({sql[:-len(limit)]} {int(limit) + 1})").fetchall()
    if len(near) > int(limit) and near[-1] == near[-2]:
        raise SystemExit(f"query {number}: rows {limit} and {int(limit) + 1} tie in the sort key")


def write(directory, con, scale):
    directory.mkdir(parents=True, exist_ok=True)
    for number in range(1, 23):
        sql = query_text(number, scale)
        check_limit(con, number, sql)
        header, rows = run(con, sql)
        (directory / f"q{number:02}.csv").write_text("\n".join([header, *rows]) + "\n")
    lines = ["table:text,column:text,value:decimal"]
    for table in TABLES:
        lines.append(f'"{table}","*",' + field(con.execute(f"select count(*) from {table}").fetchone()[0]))
        columns = con.execute(f"select column_name, data_type from duckdb_columns() where table_name = '{table}'")
        for name, type_name in columns.fetchall():
            if kind(type_name) in ("int", "decimal"):
                value = con.execute(f"select sum({name}) from {table}").fetchone()[0]
                lines.append(f'"{table}","{name}",' + field(value))
    (directory / "rows.csv").write_text("\n".join(lines) + "\n")
    print(directory.relative_to(TPCH))


def make(scale, tpchgen, parquet):
    subprocess.run([tpchgen, "parquet", "-s", str(scale), "-o", parquet, "--overwrite", "-q"], check=True)
    con = duckdb.connect()
    con.execute((TPCH / "schema.sql").read_text())
    for table in TABLES:
        con.execute(f"insert into {table} select * from read_parquet('{parquet}/{table}.parquet')")
    write(HERE / f"sf{scale}", con, scale)
    con.execute((TPCH / "changes.sql").read_text())
    write(HERE / f"sf{scale}-changed", con, scale)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", action="append", required=True, help="0.01, 1")
    parser.add_argument("--tpchgen", default="tpchgen-cli", help="the tpchgen-cli 4.0.0 binary")
    arguments = parser.parse_args()
    for scale in arguments.scale:
        with tempfile.TemporaryDirectory() as parquet:
            make(scale, arguments.tpchgen, parquet)


if __name__ == "__main__":
    main()
