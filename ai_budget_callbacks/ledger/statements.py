"""The SQL that moves money, as text, so that the fault tests run these very statements on another driver.

The decision to admit a call is inside the UPDATE that holds its amount, one statement for each balance, all in one
immediate transaction. One statement a row without RETURNING measured 2.3 µs against 11.9 for one UPDATE over
json_each with RETURNING (SQLite 3.40.1; docs/decisions/0005). Amounts are integers in the balance's unit.
"""

__all__ = [
    "ADJUST",
    "CLOSE_HOLD",
    "DEAD_HOLDS",
    "ENTRY_SCOPES",
    "FIND_BALANCE",
    "FIND_ENTRY",
    "HAS_ENTRY",
    "HISTORY",
    "INSERT_ENTRY",
    "INSERT_HOLD",
    "INSERT_SCOPE",
    "MAKE_BALANCE",
    "MERGE_HOLD",
    "OPEN_HOLD",
    "RELEASE",
    "RESERVE",
    "RESERVE_REST",
    "SAMPLES",
    "SETTLE",
    "SPENT_AT",
    "STATE",
]

MAKE_BALANCE = "INSERT INTO balance(budget, unit, window_key, scope) VALUES(?, ?, ?, ?) ON CONFLICT DO NOTHING"
FIND_BALANCE = "SELECT id FROM balance WHERE budget = ? AND window_key = ? AND scope = ?"
STATE = "SELECT unit, spent, held FROM balance WHERE id = ?"

# A balance that stops admits a call when something is free and the amount fits. :lim is null for one that only warns.
RESERVE = """
UPDATE balance SET held = held + :amount
WHERE id = :id AND (:lim IS NULL OR (spent + held < :lim AND spent + held + :amount <= :lim))
"""
# Nothing is held, and at least the floor fits: hold what is free, so that a pessimistic guess starves no lone call.
RESERVE_REST = """
UPDATE balance SET held = :lim - spent
WHERE id = :id AND held = 0 AND spent < :lim AND spent + :floor <= :lim
"""

INSERT_HOLD = """
INSERT INTO hold(call_id, amounts, scopes, call, estimate_pico, estimate_tokens, owner, opened_at, expires_at)
VALUES(:call_id, :amounts, :scopes, :call, :estimate_pico, :estimate_tokens, :owner, :opened_at, :expires_at)
"""
OPEN_HOLD = "SELECT amounts, scopes, owner FROM hold WHERE call_id = ?"
MERGE_HOLD = """
UPDATE hold SET amounts = :amounts, scopes = :scopes, expires_at = MAX(expires_at, :expires_at),
    estimate_pico = MAX(COALESCE(estimate_pico, :estimate_pico), COALESCE(:estimate_pico, estimate_pico)),
    estimate_tokens = MAX(estimate_tokens, :estimate_tokens)
WHERE call_id = :call_id
"""
CLOSE_HOLD = "DELETE FROM hold WHERE call_id = ? RETURNING amounts, scopes"
DEAD_HOLDS = """
SELECT call_id, call, estimate_pico, estimate_tokens, owner, expires_at FROM hold WHERE expires_at <= ? OR owner <> ?
"""

# Books an outcome on one balance of a hold and takes the hold off it.
SETTLE = "UPDATE balance SET held = held - :held, spent = spent + :added WHERE id = :id"
RELEASE = "UPDATE balance SET held = held - :held WHERE id = :id"
# Moves a balance by what an adjustment says, where an outcome was booked before it was known.
ADJUST = "UPDATE balance SET spent = spent + :added WHERE id = :id"

# the order is that of rows.row_of
_ENTRY_COLUMNS = (
    "key, kind, status, reason, at, started_at, call_id, framework, provider, model, requested_model, response_model, "
    "response_id, run_id, user, thread, agent, node, tool, tool_call_id, cost_pico, booked_pico, booked_tokens, "
    "adjusts, metadata, usage, raw_usage, input_tokens, output_tokens, text_bytes, cost_usd, amounts, held, "
    "reader, flags, lines, source, content, path, terms"
)
_PLACES = ", ".join("?" * len(_ENTRY_COLUMNS.split(",")))
INSERT_ENTRY = f"INSERT INTO entry({_ENTRY_COLUMNS}) VALUES({_PLACES}) ON CONFLICT(key) DO NOTHING"
INSERT_SCOPE = "INSERT OR IGNORE INTO entry_scope(scope, entry) VALUES(?, ?)"
FIND_ENTRY = "SELECT * FROM entry WHERE key = ?"
# An entry and its adjustments, in the order they were posted.
HISTORY = "SELECT * FROM entry WHERE id = ?1 OR adjusts = ?1 ORDER BY id"
# What was spent once an entry was booked: without what later ones moved, which are few when it is asked for.
SPENT_AT = """
SELECT spent - (SELECT COALESCE(SUM(part.value), 0) FROM entry, json_each(entry.amounts) AS part
    WHERE entry.id > :entry AND CAST(part.key AS INTEGER) = :id)
FROM balance WHERE id = :id
"""
HAS_ENTRY = "SELECT 1 FROM entry WHERE key = ?"
ENTRY_SCOPES = "SELECT scope FROM entry_scope WHERE entry = ?"
# Of the latest 5,000 entries only: a range of the primary key, where an index would cost every settle a page. A
# correction has signed differences, not the counts of an answer.
SAMPLES = """
SELECT node, text_bytes, input_tokens, output_tokens FROM entry
WHERE id > (SELECT COALESCE(MAX(id), 0) - 5000 FROM entry)
  AND provider = ? AND requested_model = ? AND status IN ('priced', 'reported') AND input_tokens IS NOT NULL
  AND key NOT LIKE 'adjust:%'
ORDER BY id DESC LIMIT ?
"""
