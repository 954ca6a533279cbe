"""The SQL that moves money, as text, so that the fault tests run these very statements on another driver.

Every statement is written to be the whole of its decision: nothing is read, thought about in Python, and
written back. Amounts are integers in the balance's unit. `json_each` keeps it one statement for any number of
balances (one UPDATE: 47 µs with three balances, one statement each: 52; facts/ledger.md 10).
"""

__all__ = [
    "ADJUST",
    "CLOSE_HOLD",
    "DEAD_HOLDS",
    "FIND_BALANCE",
    "FIND_ENTRY",
    "INSERT_ENTRY",
    "INSERT_HOLD",
    "INSERT_SCOPE",
    "MAKE_BALANCE",
    "MERGE_HOLD",
    "OPEN_HOLD",
    "RELEASE",
    "RESERVE",
    "SAMPLES",
    "SETTLE",
    "STATE",
]

MAKE_BALANCE = "INSERT INTO balance(budget, unit, window_key, scope) VALUES(?, ?, ?, ?) ON CONFLICT DO NOTHING"
FIND_BALANCE = "SELECT id FROM balance WHERE budget = ? AND window_key = ? AND scope = ?"
STATE = "SELECT spent, held FROM balance WHERE id = ?"

# A balance that stops admits a call when something is free and the amount fits, or when nothing is held and the
# floor fits: then it holds what is free. `lim` is null for a balance that only warns.
RESERVE = """
UPDATE balance SET held = held + CASE
    WHEN want.lim IS NULL OR spent + held + want.amount <= want.lim THEN want.amount
    ELSE want.lim - spent - held END
FROM (SELECT value ->> 'id' AS id, value ->> 'amount' AS amount, value ->> 'floor' AS floor, value ->> 'lim' AS lim
      FROM json_each(:wants)) AS want
WHERE balance.id = want.id
  AND (want.lim IS NULL
       OR (spent + held < want.lim
           AND (spent + held + want.amount <= want.lim
                OR (held = 0 AND want.floor IS NOT NULL AND spent + want.floor <= want.lim))))
RETURNING balance.id, held
"""

INSERT_HOLD = """
INSERT INTO hold(call_id, amounts, scopes, call, estimate_pico, estimate_tokens, owner, opened_at, expires_at)
VALUES(:call_id, :amounts, :scopes, :call, :estimate_pico, :estimate_tokens, :owner, :opened_at, :expires_at)
"""
OPEN_HOLD = "SELECT amounts, scopes, estimate_pico, estimate_tokens FROM hold WHERE call_id = ?"
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

# Books an outcome on every balance of a hold and takes the hold off it. With :keep, at least what was held.
SETTLE = """
UPDATE balance SET held = held - part.amount,
    spent = spent + MAX(CASE unit WHEN 'usd' THEN :usd WHEN 'tokens' THEN :tokens ELSE :calls END, :keep * part.amount)
FROM (SELECT CAST(key AS INTEGER) AS id, value AS amount FROM json_each(:amounts)) AS part
WHERE balance.id = part.id
RETURNING balance.id, unit, spent
"""
RELEASE = """
UPDATE balance SET held = held - part.amount
FROM (SELECT CAST(key AS INTEGER) AS id, value AS amount FROM json_each(:amounts)) AS part
WHERE balance.id = part.id
RETURNING balance.id
"""
# Moves balances by what an adjustment says, where an outcome was booked before it was known.
ADJUST = """
UPDATE balance SET spent = spent
    + CASE unit WHEN 'usd' THEN :usd WHEN 'tokens' THEN :tokens ELSE :calls END - part.booked
FROM (SELECT CAST(key AS INTEGER) AS id, value AS booked FROM json_each(:amounts)) AS part
WHERE balance.id = part.id
RETURNING balance.id, unit, spent
"""

# the order is that of rows.row_of
_ENTRY_COLUMNS = (
    "key, kind, status, reason, at, started_at, call_id, framework, provider, model, requested_model, response_model, "
    "response_id, run_id, user, thread, agent, node, tool, tool_call_id, cost_pico, booked_pico, booked_tokens, "
    "adjusts, metadata, usage, raw_usage, input_tokens, output_tokens, text_bytes, cost_usd, amounts, flags, lines, "
    "source, content"
)
INSERT_ENTRY = (
    f"INSERT INTO entry({_ENTRY_COLUMNS}) VALUES({', '.join('?' * len(_ENTRY_COLUMNS.split(',')))}) "
    "ON CONFLICT(key) DO NOTHING RETURNING id"
)
INSERT_SCOPE = "INSERT OR IGNORE INTO entry_scope(scope, entry) SELECT value, :entry FROM json_each(:scopes)"
FIND_ENTRY = "SELECT * FROM entry WHERE key = ?"
SAMPLES = """
SELECT node, text_bytes, input_tokens, output_tokens FROM entry
WHERE provider = ? AND requested_model = ? AND status IN ('priced', 'reported') AND input_tokens IS NOT NULL
ORDER BY id DESC LIMIT ?
"""
