"""Tables and views of the ledger file, as migrations. The views are the file's public interface.

A migration is never edited once released; a new one is appended. CHECKs, triggers and STRICT types are there so
that the file itself refuses what would falsify it.
"""

from __future__ import annotations

from typing import Any

from sqlite_utils import Database, Migrations

from ai_budget_callbacks.errors import LedgerError

__all__ = ["inspect", "is_current", "migrate"]

_migrations = Migrations("ai_budget_callbacks")


_BOOKS = (
    """CREATE TABLE budget(
     key TEXT PRIMARY KEY, name TEXT, unit TEXT NOT NULL, identity TEXT NOT NULL,
     last_limit INTEGER NOT NULL, created_at TEXT NOT NULL) STRICT""",
    """CREATE TABLE balance(
     id INTEGER PRIMARY KEY,
     budget TEXT NOT NULL, unit TEXT NOT NULL CHECK(unit IN ('usd', 'tokens', 'calls')),
     window_key TEXT NOT NULL, scope TEXT NOT NULL,
     spent INTEGER NOT NULL DEFAULT 0,
     held INTEGER NOT NULL DEFAULT 0 CHECK(held >= 0),
     UNIQUE(budget, window_key, scope)) STRICT""",
    # open holds only, so it stays tiny; amounts: {balance id: amount in its unit}
    """CREATE TABLE hold(
     call_id TEXT PRIMARY KEY, amounts TEXT NOT NULL, scopes TEXT NOT NULL, call TEXT NOT NULL,
     estimate_pico INTEGER, estimate_tokens INTEGER NOT NULL,
     owner TEXT NOT NULL, opened_at TEXT NOT NULL, expires_at TEXT NOT NULL) STRICT, WITHOUT ROWID""",
    """CREATE TABLE entry(
     id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE,
     kind TEXT NOT NULL CHECK(kind IN ('call', 'charge', 'adjustment')),
     status TEXT NOT NULL
       CHECK(status IN ('priced', 'reported', 'estimated', 'free', 'unknown', 'unpriced')),
     reason TEXT, at TEXT NOT NULL, started_at TEXT NOT NULL,
     call_id TEXT NOT NULL, framework TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL,
     requested_model TEXT NOT NULL, response_model TEXT, response_id TEXT,
     run_id TEXT, user TEXT, thread TEXT, agent TEXT, node TEXT, tool TEXT, tool_call_id TEXT,
     metadata TEXT, usage TEXT, raw_usage TEXT,
     input_tokens INTEGER, output_tokens INTEGER, text_bytes INTEGER,
     cost_pico INTEGER, cost_usd TEXT, booked_pico INTEGER, booked_tokens INTEGER NOT NULL,
     amounts TEXT NOT NULL, held TEXT NOT NULL, adjusts INTEGER REFERENCES entry(id),
     reader TEXT, flags TEXT, lines TEXT, source TEXT, content TEXT,
     CHECK((kind = 'adjustment') = (adjusts IS NOT NULL)),
     -- a priced answer that costs nothing is the fault this package exists to catch
     CHECK(status NOT IN ('priced', 'reported') OR kind <> 'call' OR cost_pico > 0),
     CHECK(status NOT IN ('unknown', 'unpriced') OR cost_pico IS NULL)) STRICT""",
    """CREATE TABLE entry_scope(
     scope TEXT NOT NULL, entry INTEGER NOT NULL REFERENCES entry(id),
     PRIMARY KEY(scope, entry)) STRICT, WITHOUT ROWID""",
    "CREATE INDEX entry_run ON entry(run_id, id)",
    """CREATE TRIGGER entry_no_update BEFORE UPDATE ON entry
     BEGIN SELECT RAISE(ABORT, 'ledger entries are immutable'); END""",
    """CREATE TRIGGER entry_no_delete BEFORE DELETE ON entry
     BEGIN SELECT RAISE(ABORT, 'ledger entries are immutable'); END""",
)


@_migrations()
def m001_books(db: Database) -> None:
    """Balances, open holds, immutable entries."""
    for statement in _BOOKS:
        db.execute(statement)


@_migrations()
def m002_views(db: Database) -> None:
    """What sqlite-utils, Datasette and BI tools read. Money stays exact: pico-dollars and plain text."""
    sign = "CASE WHEN {0} < 0 THEN '-' ELSE '' END"
    money = f"printf('%s%d.%012d', {sign}, abs({{0}}) / 1000000000000, abs({{0}}) % 1000000000000)"
    total = "SUM(COALESCE(cost_pico, booked_pico, 0))"
    for statement in (
        f"""CREATE VIEW calls AS SELECT id, at, status, reason, provider, model, run_id, user, thread, agent,
              node, tool, input_tokens, output_tokens, cost_usd, {money.format("booked_pico")} AS booked_usd,
              flags, call_id, response_id FROM entry WHERE kind = 'call'""",
        f"""CREATE VIEW runs AS SELECT run_id, MIN(started_at) AS started_at, MAX(at) AS ended_at,
              SUM(kind = 'call') AS calls, SUM(input_tokens) AS input_tokens, SUM(output_tokens) AS output_tokens,
              {money.format(total)} AS spent_usd, SUM(status = 'unpriced') AS unpriced_calls
              FROM entry GROUP BY run_id""",
        f"""CREATE VIEW spend_by_day AS SELECT substr(at, 1, 10) AS day, SUM(kind = 'call') AS calls,
              SUM(input_tokens) AS input_tokens, SUM(output_tokens) AS output_tokens,
              {money.format(total)} AS spent_usd FROM entry GROUP BY 1""",
        f"""CREATE VIEW spend_by_model AS SELECT provider, model, SUM(kind = 'call') AS calls,
              SUM(input_tokens) AS input_tokens, SUM(output_tokens) AS output_tokens,
              {money.format(total)} AS spent_usd FROM entry GROUP BY 1, 2""",
        """CREATE VIEW open_holds AS SELECT call_id, opened_at, expires_at, owner, amounts FROM hold""",
        f"""CREATE VIEW balances AS SELECT COALESCE(budget.name, balance.budget) AS budget, balance.unit,
              window_key, scope,
              CASE balance.unit WHEN 'usd' THEN {money.format("spent")} ELSE CAST(spent AS TEXT) END AS spent,
              CASE balance.unit WHEN 'usd' THEN {money.format("held")} ELSE CAST(held AS TEXT) END AS held
              FROM balance LEFT JOIN budget ON budget.key = balance.budget""",
    ):
        db.execute(statement)


@_migrations()
def m003_path(db: Database) -> None:
    """Where in the tree of chains, agents and tools a call was made, for `ai-budget show`."""
    db.execute("ALTER TABLE entry ADD COLUMN path TEXT")


@_migrations()
def m004_corrections(db: Database) -> None:
    """A late answer replaces what its lost call was booked at; the sums of m002 counted both."""
    sign = "CASE WHEN {0} < 0 THEN '-' ELSE '' END"
    money = f"printf('%s%d.%012d', {sign}, abs({{0}}) / 1000000000000, abs({{0}}) % 1000000000000)"
    lost = "COALESCE((SELECT lost.booked_pico FROM entry AS lost WHERE lost.id = entry.adjusts), 0)"
    total = f"SUM(COALESCE(cost_pico - CASE kind WHEN 'adjustment' THEN {lost} ELSE 0 END, booked_pico, 0))"
    sums = f"""SUM(kind = 'call') AS calls, SUM(input_tokens) AS input_tokens, SUM(output_tokens) AS output_tokens,
              {money.format(total)} AS spent_usd"""
    for name, statement in {
        "runs": f"""SELECT run_id, MIN(started_at) AS started_at, MAX(at) AS ended_at, {sums},
              SUM(status = 'unpriced') AS unpriced_calls FROM entry GROUP BY run_id""",
        "spend_by_day": f"SELECT substr(at, 1, 10) AS day, {sums} FROM entry GROUP BY 1",
        "spend_by_model": f"SELECT provider, model, {sums} FROM entry GROUP BY 1, 2",
    }.items():
        db.execute(f"DROP VIEW {name}")
        db.execute(f"CREATE VIEW {name} AS {statement}")


@_migrations()
def m005_adjustments(db: Database) -> None:
    """Entries can be adjusted more than once, and an adjustment's cost is what it adds to the cost known before it.

    `terms`: the conditions of sale, without which a usage cannot be priced again.
    """
    db.execute("ALTER TABLE entry ADD COLUMN terms TEXT")
    db.execute("CREATE INDEX entry_adjusts ON entry(adjusts, id) WHERE adjusts IS NOT NULL")
    sign = "CASE WHEN {0} < 0 THEN '-' ELSE '' END"
    money = f"printf('%s%d.%012d', {sign}, abs({{0}}) / 1000000000000, abs({{0}}) % 1000000000000)"
    root = "COALESCE(entry.adjusts, entry.id)"
    before = f"FROM entry AS old WHERE (old.id = {root} OR old.adjusts = {root}) AND old.id < entry.id"
    # the first cost that is known replaces what was booked until then
    first = f"""cost_pico - CASE WHEN adjusts IS NULL OR EXISTS (SELECT 1 {before} AND old.cost_pico IS NOT NULL)
              THEN 0 ELSE COALESCE((SELECT SUM(old.booked_pico) {before}), 0) END"""
    unpriced = f"""status = 'unpriced' AND NOT EXISTS (SELECT 1 FROM entry AS later
              WHERE later.adjusts = {root} AND later.id > entry.id)"""
    sums = f"""SUM(kind = 'call') AS calls, SUM(input_tokens) AS input_tokens, SUM(output_tokens) AS output_tokens,
              {money.format(f"SUM(COALESCE({first}, booked_pico, 0))")} AS spent_usd"""
    for name, statement in {
        "runs": f"""SELECT run_id, MIN(started_at) AS started_at, MAX(at) AS ended_at, {sums},
              SUM({unpriced}) AS unpriced_calls FROM entry GROUP BY run_id""",
        "spend_by_day": f"SELECT substr(at, 1, 10) AS day, {sums} FROM entry GROUP BY 1",
        "spend_by_model": f"SELECT provider, model, {sums} FROM entry GROUP BY 1, 2",
    }.items():
        db.execute(f"DROP VIEW {name}")
        db.execute(f"CREATE VIEW {name} AS {statement}")


@_migrations()
def m006_ends(db: Database) -> None:
    """A run ends with its last call or charge, whenever it is corrected."""
    ((view,),) = db.execute("SELECT sql FROM sqlite_master WHERE type = 'view' AND name = 'runs'").fetchall()
    db.execute("DROP VIEW runs")
    db.execute(view.replace("MAX(at)", "MAX(CASE WHEN adjusts IS NULL THEN at END)"))


_ALL = {"m001_books", "m002_views", "m003_path", "m004_corrections", "m005_adjustments", "m006_ends"}
_OURS = "SELECT name FROM _sqlite_migrations WHERE migration_set = 'ai_budget_callbacks'"


def _tables(conn: Any) -> set[str]:
    return {row[0] for row in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()}


def _applied(conn: Any) -> set[str]:
    return {row[0] for row in conn.execute(_OURS).fetchall()} if "_sqlite_migrations" in _tables(conn) else set()


def is_current(conn: Any) -> bool:
    """Whether a file has every migration of this code."""
    return _applied(conn) >= _ALL


def inspect(conn: Any, path: str) -> None:
    """Refuse a file that is another program's, or newer than this code, before anything is written to it.

    Raises:
        LedgerError: It is.
    """
    tables, ours = _tables(conn), _applied(conn)
    others = sorted(tables - {"_sqlite_migrations"})
    if others and not ours:
        raise LedgerError(
            f"{path} is no ledger: it is another program's database (with {', '.join(others[:3])}). "
            "Nothing was written to it; give the ledger a file of its own."
        )
    newer = sorted(ours - _ALL)
    if newer:
        raise LedgerError(
            f"The ledger {path} was written by a newer ai-budget-callbacks (it has {', '.join(newer)}). "
            "Upgrade the package, or give another path; nothing was changed."
        )


def migrate(conn: Any) -> None:
    """Bring a fresh or older file up to date. The caller holds the file lock."""
    _migrations.apply(Database(conn, execute_plugins=False))  # no third-party code on a ledger connection
    # one real write, so that a read-only or full file is found now and not in the first request
    conn.execute("PRAGMA user_version=1")
