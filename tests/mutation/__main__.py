"""Mutation testing of one module at a time with mutmut; what it found is kept, and the next run goes on from there.

    python -m tests.mutation ai_budget_callbacks/money.py      one module
    python -m tests.mutation --report                          the score of every module that has been run
    python -m tests.mutation --survivors ai_budget_callbacks/money.py

Each module has a working copy in .mutation/, because mutmut knows one configuration and one set of tests a folder.
A mutant that survived is tried again once a test file has changed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORK = ROOT / ".mutation"
SHARED = os.environ.get("AI_BUDGET_SHARED", str(ROOT.parent / "shared"))
READERS = ("tests/laws/test_readers.py", "tests/laws/test_goldens.py", "tests/laws/test_wire.py")
PRICES = ("tests/laws/test_pricing_laws.py", "tests/laws/test_estimate.py", "tests/laws/test_goldens.py")
LEDGER = ("tests/contract/test_ledger.py", "tests/laws/test_ledger_machine.py")
METER = ("tests/contract/test_meter.py",)
# Module → the test files that matter. The order is that of the decision's table.
TESTS = {
    f"ai_budget_callbacks/{name}.py": tests
    for name, tests in {
        "money": ("tests/laws/test_money_errors.py",),
        "usage/_counts": READERS,
        "usage/openai": ("tests/laws/test_units.py", *READERS),
        "usage/anthropic": ("tests/laws/test_others.py", *READERS),
        "usage/google": (
            "tests/laws/test_google.py",
            "tests/laws/test_interactions.py",
            "tests/laws/test_goldens.py",
        ),
        "usage/bedrock": ("tests/laws/test_bedrock.py",),
        "usage/cohere": ("tests/laws/test_cohere.py",),
        "usage/flat": ("tests/laws/test_ollama.py", "tests/laws/test_flat.py"),
        "usage/perplexity": ("tests/laws/test_perplexity.py",),
        "usage/wire": (
            "tests/laws/test_wire.py",
            *(f"tests/laws/test_{name}.py" for name in ("bedrock", "cohere", "flat", "google", "interactions")),
        ),
        "usage/__init__": READERS,
        "pricing/identity": ("tests/laws/test_identity.py",),
        "pricing/limits": ("tests/laws/test_limits.py",),
        "pricing/tokenizer": ("tests/laws/test_tokenizer.py",),
        "pricing/card": tuple(f"tests/laws/test_{name}.py" for name in ("card", "others", "own_prices")) + PRICES,
        "pricing/reported": ("tests/laws/test_reported.py",),
        "pricing/corrections": PRICES,
        "pricing/book": tuple(f"tests/laws/test_{name}.py" for name in ("book", "own_prices", "prices_file")) + PRICES,
        "pricing/own": ("tests/laws/test_own_prices.py", *PRICES),
        "pricing/file": ("tests/laws/test_prices_file.py",),
        "pricing/currency": ("tests/laws/test_prices_file.py",),
        "pricing/snapshot": ("tests/laws/test_snapshot.py",),
        "pricing/estimate": ("tests/laws/test_limits.py", *PRICES),
        "pricing/catalogue": ("tests/laws/test_catalogue.py", *PRICES),
        "budget": ("tests/laws/test_budget.py",),
        "booking": ("tests/laws/test_booking.py",),
        "admission": ("tests/laws/test_admission.py", "tests/laws/test_own_prices.py", *METER),
        "ledger/rows": ("tests/laws/test_rows.py", *LEDGER),
        "ledger/adjusting": ("tests/flow/test_reprice.py", *LEDGER),
        "ledger/owner": ("tests/contract/test_owner.py", "tests/contract/test_ledger.py"),
        "ledger/verify": LEDGER,
        "ledger/sqlite": LEDGER,
        "reprice": ("tests/flow/test_reprice.py", "tests/docs/test_books_cli.py"),
        "standing": ("tests/flow/test_reprice.py", "tests/docs/test_books_cli.py", "tests/laws/test_ledger_machine.py"),
        "exports": ("tests/docs/test_books_cli.py",),
        "sizes": ("tests/laws/test_sizes.py",),
        "learned": ("tests/contract/test_learned.py", "tests/contract/test_meter.py"),
        "watch": METER,
        "meter": (
            "tests/laws/test_own_prices.py",
            "tests/laws/test_tokenizer.py",
            "tests/laws/test_prices_file.py",
            *METER,
        ),
    }.items()
}
# Prices are cached in the process, so only the first test that needs one is seen to reach the code behind it; what a test
# reaches in a process of its own is not seen at all. For these modules every test is taken to reach every function.
UNSEEN = {
    "ai_budget_callbacks/pricing/" + name
    for name in (
        *("card.py", "corrections.py", "book.py", "own.py", "estimate.py", "catalogue.py"),
        *("snapshot.py", "tokenizer.py"),
    )
}
COPIED = (
    "ai_budget_callbacks",
    "tests/conftest.py",
    "tests/__init__.py",
    "tests/support",
    "tests/laws",
    "tests/contract",
    "tests/flow/conftest.py",
    "tests/flow/kit.py",
    "tests/flow/test_reprice.py",
    "tests/docs/test_books_cli.py",
    "docs/reference.md",
    "docs/how-to/corrections.md",
)
CONFIG = """
[tool.mutmut]
source_paths = ["ai_budget_callbacks"]
only_mutate = [{module}]
also_copy = ["docs"]
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = [
  "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:recording",
  # A mutant's process collects for the second time, and pytest would escape an id with … in it once more: "not found".
  "-o", "disable_test_id_escaping_and_forfeit_all_rights_to_community_support=true",
]
# Each mutant starts from a process that has collected and run no test: what the product caches at first use is empty.
process_isolation = "forkserver"
forkserver_warmup = "collect"
timeout_multiplier = 6.0
timeout_constant = 4.0
track_dependencies = false
use_git_change_detection = false
on_dependency_change = "ignore"
"""
# pytest's 2 and 3: collection broke or pytest itself did, which no suite would call green. 255 is none of these: mutmut's
# runner raised before any test ran, which says nothing about the tests; such a mutant is tried again.
STATUS = {
    0: "survived",
    1: "killed",
    2: "killed",
    3: "killed",
    5: "no tests",
    33: "no tests",
    None: "not run",
}
TIMEOUTS = {-24, -9}  # the signals of mutmut's limits


def folder(module: str) -> Path:
    return WORK / module.removesuffix(".py").replace("/", ".")


def prepare(module: str) -> tuple[Path, bool]:
    """The module's working copy, brought up to date, and whether one of its tests changed since the last run."""
    where = folder(module)
    where.mkdir(parents=True, exist_ok=True)
    changed = False
    wanted = set()
    for name in COPIED:
        source = ROOT / name
        for path in [source] if source.is_file() else sorted(source.rglob("*")):
            if path.is_dir() or "__pycache__" in path.parts:
                continue
            relative = path.relative_to(ROOT)
            wanted.add(relative)
            changed |= copied(path, where / relative) and relative.parts[0] == "tests"
    for path in [*where.glob("tests/**/*.py"), *where.glob("ai_budget_callbacks/**/*.py")]:
        if path.relative_to(where) not in wanted:
            path.unlink()
    # mutmut deletes nothing from its own copy, and refreshes no data in it
    for path in where.glob("mutants/ai_budget_callbacks/**/*"):
        source = where / path.relative_to(where / "mutants")
        if path.suffix == ".py" and not source.exists():
            path.unlink()
        elif path.suffix in {".toml", ".json"} and source.is_file():
            copied(source, path)
    text = (ROOT / "pyproject.toml").read_text() + CONFIG.format(
        module=json.dumps(module), tests=json.dumps([name for name in TESTS[module] if (ROOT / name).exists()])
    )
    if not (where / "pyproject.toml").exists() or (where / "pyproject.toml").read_text() != text:
        (where / "pyproject.toml").write_text(text)
    return where, changed


def copied(source: Path, target: Path) -> bool:
    """Copy what differs; True when it did. Times are kept: mutmut compares them."""
    if target.exists() and target.read_bytes() == source.read_bytes():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
    return True


def results(module: str) -> dict[str, str]:
    meta = folder(module) / "mutants" / f"{module}.meta"
    if not meta.exists():
        return {}
    codes = json.loads(meta.read_text())["exit_code_by_key"]
    return {name: status(code) for name, code in codes.items()}


def status(code: int | None) -> str:
    return "timeout" if code in TIMEOUTS else STATUS.get(code, "other")


def functions(module: str) -> set[str]:
    """mutmut's names of the functions it changed."""
    return {name.partition("__mutmut_")[0] for name in results(module)}


def forget(module: str, *, changed: bool) -> None:
    """Try again what said nothing, and after a change of the tests what survived."""
    meta = folder(module) / "mutants" / f"{module}.meta"
    if meta.exists():
        again = {"survived", "no tests", "other"} if changed else {"other"}
        found = json.loads(meta.read_text())
        codes = found["exit_code_by_key"]
        found["exit_code_by_key"] = {name: None if status(code) in again else code for name, code in codes.items()}
        meta.write_text(json.dumps(found, indent=4))
    if changed:
        (folder(module) / "mutants" / "mutmut-stats.json").unlink(missing_ok=True)  # which test reaches what


def run(module: str, children: int) -> int:
    where, changed = prepare(module)
    forget(module, changed=changed)
    env = os.environ | {
        "AI_BUDGET_SHARED": SHARED,
        "AI_BUDGET_MUTATION": module,
        "PYTEST_ADDOPTS": "-p no:unraisableexception",  # it collects garbage five times a run, half of a run's time
        "HYPOTHESIS_STORAGE_DIRECTORY": str(WORK / "hypothesis"),
    }
    if Path("/dev/shm").is_dir():
        env["TMPDIR"] = "/dev/shm"  # ledgers of tests: no disk has to be waited for
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(children)]
    stats = where / "mutants" / "mutmut-stats.json"
    if module in UNSEEN and not stats.exists():
        subprocess.run(
            [*command, "no such mutant"], cwd=where, env=env, check=False, capture_output=True
        )  # makes the stats
        found = json.loads(stats.read_text())
        found["tests_by_mangled_function_name"] = dict.fromkeys(functions(module), list(found["duration_by_test"]))
        stats.write_text(json.dumps(found))
    code = subprocess.run(command, cwd=where, env=env, check=False).returncode
    report([module])
    return code


def report(modules: list[str]) -> None:
    heads = ("module", "mutants", "killed", "survived", "timeout", "no tests", "other", "not run", "score")
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for module in modules:
        found = Counter(results(module).values())
        total = sum(found.values())
        if not total:
            continue
        tried = total - found["not run"]
        score = f"{100 * (found['killed'] + found['timeout']) / tried:.1f} %" if tried else ""
        numbers = [found[name] for name in heads[2:-1]]
        print("| " + " | ".join(map(str, (module, total, *numbers, score))) + " |")


def survivors(module: str) -> None:
    for name, found in results(module).items():
        if found not in {"killed", "timeout", "not run"}:
            shown = subprocess.run(
                [sys.executable, "-m", "mutmut", "show", name],
                cwd=folder(module),
                capture_output=True,
                text=True,
                check=False,
            )
            print(f"# {found}: {shown.stdout.removeprefix('# ').strip()}\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("module", nargs="?", choices=sorted(TESTS))
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--survivors", action="store_true")
    parser.add_argument("--children", type=int, default=1)
    asked = parser.parse_args()
    if asked.report:
        report([asked.module] if asked.module else list(TESTS))
        return 0
    if not asked.module:
        parser.error("which module?")
    if asked.survivors:
        survivors(asked.module)
        return 0
    return run(asked.module, asked.children)


if __name__ == "__main__":
    sys.exit(main())
