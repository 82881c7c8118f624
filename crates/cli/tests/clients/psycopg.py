import os
import sys

import psycopg

# Connection and TLS come from the PG* environment, as in any program of libpq.
with psycopg.connect() as conn:
    assert conn.info.parameter_status("server_version")
    assert conn.execute("select 1").fetchone() == (1,)
    assert conn.execute("select %s::int + %s::int", (40, 2)).fetchone() == (42,)
    conn.rollback()

    with conn.transaction():
        conn.execute("create table psycopg_rows (id int, name text)")
        conn.execute("insert into psycopg_rows values (%s, %s)", (1, "one"))
    try:
        with conn.transaction():
            conn.execute("delete from psycopg_rows")
            raise RuntimeError("roll back")
    except RuntimeError:
        pass
    with conn.cursor() as cur:
        with cur.copy("copy psycopg_rows from stdin") as copy:
            copy.write_row((2, "two"))
        cur.executemany("insert into psycopg_rows values (%s, %s)", [(3, "three"), (4, "four")])
        with conn.pipeline():
            count = conn.execute("select count(*) from psycopg_rows", prepare=True)
            names = conn.execute("select name from psycopg_rows where id = %b", (2,), prepare=True)
        assert count.fetchone() == (4,)
        assert names.fetchone() == ("two",)
        try:
            cur.execute("select 1 / 0")
        except psycopg.errors.DivisionByZero:
            conn.rollback()

conn = psycopg.connect(autocommit=True)
print("READY", psycopg.__version__, psycopg.pq.version(), flush=True)
try:
    conn.execute("select pg_sleep(30)")
except psycopg.errors.AdminShutdown as error:
    print("CUT", error.sqlstate, error.diag.message_primary, conn.closed, flush=True)

try:
    psycopg.connect()
except psycopg.OperationalError as error:
    print("REFUSED", str(error).replace("\n", " "), flush=True)
