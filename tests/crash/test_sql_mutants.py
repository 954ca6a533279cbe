"""Would the contract notice? Each mutant breaks one decision in a copy of the ledger; the contract must turn red.

A mutant whose text is no longer found fails too: then the statement was rewritten and its mutant must be as well.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = "tests/contract/test_ledger.py"


@dataclass(frozen=True)
class Mutant:
    file: str
    old: str
    new: str
    tests: str  # the tests that are to notice, as for -k


SQL, STORE, ADJUSTING = "statements.py", "sqlite.py", "adjusting.py"
CONNECTION, SCHEMA = "connection.py", "schema.py"
FITS = "spent + held + :amount <= :lim"
EDGE = "refused_exactly or exactly_what_remains"
MUTANTS = {
    "reserve: exactly what remains is refused": Mutant(SQL, FITS, "spent + held + :amount < :lim", EDGE),
    "reserve: one more than remains fits": Mutant(SQL, FITS, "spent + held + :amount <= :lim + 1", EDGE),
    "reserve: what is held is not counted": Mutant(SQL, FITS, "spent + :amount <= :lim", EDGE),
    "reserve: what is spent is not counted": Mutant(SQL, FITS, "held + :amount <= :lim", EDGE),
    "reserve: a used-up balance admits a zero hold": Mutant(SQL, "spent + held < :lim AND ", "", "zero_hold"),
    "reserve: used up means past the limit": Mutant(SQL, "spent + held < :lim AND", "spent + held <= :lim AND", "zero_hold"),
    "reserve: held is not moved": Mutant(SQL, "SET held = held + :amount", "SET held = held", "holds_on_every or refused_exactly"),
    "reserve: a budget that warns refuses": Mutant(SQL, ":lim IS NULL OR ", "", "only_warns"),
    "floor: beside another hold": Mutant(SQL, "AND held = 0 ", "", "partial_hold"),
    "floor: on a used-up balance": Mutant(SQL, "AND spent < :lim AND", "AND", "zero_hold"),
    "floor: exactly the floor is refused": Mutant(SQL, "spent + :floor <= :lim", "spent + :floor < :lim", "lone_call"),
    "floor: not looked at": Mutant(SQL, "AND spent + :floor <= :lim", "", "lone_call"),
    "floor: holds the whole limit": Mutant(SQL, "SET held = :lim - spent", "SET held = :lim", "lone_call"),
    "settle: held is not moved": Mutant(SQL, "SET held = held - :held, spent", "SET spent", "books_the_truth"),
    "settle: spent is not moved": Mutant(SQL, "SET held = held - :held, spent = spent + :added", "SET held = held - :held", "books_the_truth"),
    "settle: spent is overwritten": Mutant(SQL, ":held, spent = spent + :added", ":held, spent = :added", "moved_says or late_settle"),
    "settle: the hold stays open": Mutant(SQL, "DELETE FROM hold WHERE call_id = ? RETURNING amounts, scopes", "SELECT amounts, scopes FROM hold WHERE call_id = ?", "books_the_truth"),
    "settle: amounts and scopes swapped": Mutant(SQL, "RETURNING amounts, scopes", "RETURNING scopes, amounts", "books_the_truth"),
    "settle: duplicates are not looked for": Mutant(SQL, "SELECT * FROM entry WHERE key = ?", "SELECT * FROM entry WHERE key = ? AND id < 0", "settle_twice"),
    "reserve: a booked id is not looked for": Mutant(SQL, "SELECT 1 FROM entry WHERE key = ?", "SELECT 1 FROM entry WHERE key = ? AND id < 0", "id_used_again"),
    "release: adds": Mutant(SQL, 'RELEASE = "UPDATE balance SET held = held - :held', 'RELEASE = "UPDATE balance SET held = held + :held', "release"),
    "release: gives nothing back": Mutant(SQL, 'RELEASE = "UPDATE balance SET held = held - :held', 'RELEASE = "UPDATE balance SET held = held', "release"),
    "late settle: subtracts": Mutant(SQL, 'ADJUST = "UPDATE balance SET spent = spent + :added', 'ADJUST = "UPDATE balance SET spent = spent - :added', "late_settle"),
    "late settle: moves nothing": Mutant(SQL, 'ADJUST = "UPDATE balance SET spent = spent + :added', 'ADJUST = "UPDATE balance SET spent = spent', "late_settle"),
    "late settle: what was booked is not taken back": Mutant(ADJUSTING, "added = amount - self.now.amounts[balance]", "added = amount", "late_settle_makes"),
    "late settle: a free one is dropped": Mutant(ADJUSTING, 'or posting.status == "unknown":', 'or posting.status == "unknown" or not posting.booked_pico:', "costs_nothing"),
    "correct: earlier corrections are forgotten": Mutant(SQL, "WHERE id = ?1 OR adjusts = ?1", "WHERE id = ?1", "corrections_follow"),
    "correct: the same is written again": Mutant(ADJUSTING, 'if last["status"] == correction.status and', "if False and", "correction_twice or right_already"),
    "correct: only the cost is looked at": Mutant(ADJUSTING, "and truth == now.amounts and not any(differences)", "and not differences[0]", "better_reading"),
    "correct: the known cost is not taken back": Mutant(ADJUSTING, "pico - (now.cost_pico or 0),", "pico,", "corrections_follow"),
    "correct: the hold is forgotten": Mutant(ADJUSTING, "truth[balance] = max(amount, kept if correction.keep_hold else 0)", "truth[balance] = amount", "kept_beyond"),
    "correct: the hold is always kept": Mutant(ADJUSTING, "kept if correction.keep_hold else 0", "kept", "that_is_found"),
    "correct: an adjustment can be corrected": Mutant(ADJUSTING, ' or books.rows[0]["kind"] == "adjustment"', "", "no_entry_of_its_own"),
    "correct: teaches estimates": Mutant(SQL, "AND key NOT LIKE 'adjust:%'", "", "teaches_no"),
    "views: a first cost is added to what was booked": Mutant(SCHEMA, "ELSE COALESCE((SELECT SUM(old.booked_pico) {before}), 0) END", "ELSE 0 END", "that_is_found"),
    "views: every cost takes back what was booked": Mutant(SCHEMA, "WHEN adjusts IS NULL OR EXISTS (SELECT 1 {before} AND old.cost_pico IS NOT NULL)", "WHEN adjusts IS NULL", "corrections_follow"),
    "merge: amounts are not written": Mutant(SQL, "SET amounts = :amounts, scopes", "SET scopes", "second_claim_adds"),
    "merge: scopes are not written": Mutant(SQL, "scopes = :scopes, expires_at", "expires_at", "second_claim_adds"),
    "merge: amounts overwrite those held": Mutant(STORE, "held |= self._take", "held = self._take", "second_claim_adds"),
    "merge: balances are held twice": Mutant(STORE, " if balance not in held}", "}", "second_claim"),
    "merge: the earlier expiry counts": Mutant(SQL, "MAX(expires_at, :expires_at)", "MIN(expires_at, :expires_at)", "merged_hold"),
    "merge: the last expiry counts": Mutant(SQL, "MAX(expires_at, :expires_at)", ":expires_at", "merged_hold"),
    "merge: the last estimate counts": Mutant(SQL, "MAX(COALESCE(estimate_pico, :estimate_pico), COALESCE(:estimate_pico, estimate_pico))", ":estimate_pico", "merged_hold"),
    "sweep: not at the moment of expiry": Mutant(SQL, "WHERE expires_at <= ?", "WHERE expires_at < ?", "sweep_books_an_expired"),
    "sweep: only of other processes": Mutant(SQL, "expires_at <= ? OR owner <> ?", "expires_at <= ? AND owner <> ?", "sweep_books_an_expired"),
    "sweep: the hold is not kept": Mutant(STORE, 'if lost.kind == "call" else 0,\n                    keep_hold=True', 'if lost.kind == "call" else 0,\n                    keep_hold=False', "sweep_books_an_expired"),
    "sweep: a lost fee is a call": Mutant(STORE, 'booked_calls=1 if lost.kind == "call" else 0', "booked_calls=1", "swept_as_a_charge"),
    "keep_hold: forgotten": Mutant(ADJUSTING, "max(amount, held) if posting.keep_hold else amount", "amount", "keep_hold"),
    "keep_hold: always": Mutant(ADJUSTING, "max(amount, held) if posting.keep_hold else amount", "max(amount, held)", "books_the_truth"),
    "keep_hold: the smaller": Mutant(ADJUSTING, "max(amount, held) if posting", "min(amount, held) if posting", "keep_hold"),
    "balances: windows are one": Mutant(SQL, "WHERE budget = ? AND window_key = ? AND", "WHERE budget = ? AND window_key <= ? AND", "windows_and_scopes"),
    "balances: scopes are one": Mutant(SQL, "window_key = ? AND scope = ?", "window_key = ? AND scope >= ?", "windows_and_scopes"),
    "samples: estimates teach": Mutant(SQL, "('priced', 'reported')", "('priced', 'reported', 'estimated')", "samples"),
    "transaction: a refusal commits": Mutant(CONNECTION, 'conn.execute("ROLLBACK")', 'conn.execute("COMMIT")', "refused_by_one_balance"),
    "file: entries can be deleted": Mutant(SCHEMA, "entry_no_delete BEFORE DELETE ON entry", "entry_no_delete BEFORE DELETE ON hold", "refuses_to_change"),
    "file: entries can be changed": Mutant(SCHEMA, "entry_no_update BEFORE UPDATE ON entry", "entry_no_update BEFORE UPDATE ON budget", "refuses_to_change"),
    "file: a priced call may cost nothing": Mutant(SCHEMA, "OR cost_pico > 0", "OR cost_pico >= 0", "costs_nothing_is_refused"),
}  # fmt: skip


def run_contract(folder, mutant, tests):
    """Run tests of the contract against a copy of the package with this mutant: "green", "red", or what went wrong."""
    package = folder / "ai_budget_callbacks"
    shutil.copytree(ROOT / "ai_budget_callbacks", package, ignore=shutil.ignore_patterns("__pycache__"))
    if mutant is not None:
        source = package / "ledger" / mutant.file
        text = source.read_text()
        if text.count(mutant.old) < 1:
            return f"{mutant.file} has no {mutant.old!r} any more: bring this mutant up to date"
        source.write_text(text.replace(mutant.old, mutant.new))
    seen = folder / "seen"
    with open(package / "ledger" / "__init__.py", "a") as out:  # proof that the copy is what was tested
        out.write(f"\nopen({str(seen)!r}, 'w').write('seen')\n")
    (folder / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--import-mode=importlib",
            "-c", str(folder / "pytest.ini"), "--rootdir", str(ROOT), "--confcutdir", str(ROOT / "tests"), str(ROOT / CONTRACT),
            "-k", f"sqlite-memory and ({tests})",
        ],
        env={**os.environ, "PYTHONPATH": f"{folder}:{ROOT}", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if not seen.exists():
        return f"the copy was not tested: {done.stdout[-500:]}{done.stderr[-500:]}"
    return {0: "green", 1: "red"}.get(done.returncode, f"pytest ended with {done.returncode}: {done.stdout[-500:]}")


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    """What the contract says of each mutant, and of the unchanged ledger, which must pass the very same tests."""
    everything = " or ".join(sorted({f"({mutant.tests})" for mutant in MUTANTS.values()}))
    work = {"unchanged": (None, everything)} | {name: (mutant, mutant.tests) for name, mutant in MUTANTS.items()}
    folders = {name: tmp_path_factory.mktemp(f"mutant-{index}") for index, name in enumerate(work)}
    with ThreadPoolExecutor(2) as pool:
        futures = {name: pool.submit(run_contract, folders[name], *what) for name, what in work.items()}
        return {name: future.result() for name, future in futures.items()}


@pytest.mark.timeout(180)
def test_the_unchanged_ledger_passes(verdicts):
    assert verdicts["unchanged"] == "green"


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", MUTANTS)
def test_the_contract_notices(verdicts, name):
    assert verdicts[name] == "red", f"{name}: {verdicts[name]}"
