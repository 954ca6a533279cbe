"""Apply each sabotage to a copy of the tree, one at a time; its test must go red, and say what broke.

A survivor is given the whole suite before it fails the target: then either a test is missing or the sabotage
names the wrong one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.sabotage.patches import SABOTAGES, Sabotage

ROOT = Path(__file__).parents[2]
LIMIT_S = 120
SHARED = os.environ.get("AI_BUDGET_SHARED", str(ROOT.parent / "shared"))


def run_pytest(tree: Path, *args: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(tree), "AI_BUDGET_SHARED": SHARED, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header", *args]
    return subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, timeout=900, check=False)


def copy_tree(where: Path) -> Path:
    tree = where / "tree"
    skip = shutil.ignore_patterns(
        ".venv*", ".compat", ".compare", "mutants", ".mutation", ".git", "__pycache__", ".*_cache", ".hypothesis"
    )
    shutil.copytree(ROOT, tree, ignore=skip)
    return tree


def attempt(sabotage: Sabotage) -> tuple[bool, str, float]:
    """Whether it was caught, what the red test said, and seconds."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sabotage-") as where:
        tree = copy_tree(Path(where))
        sabotage.apply(tree)
        result = run_pytest(tree, sabotage.test)
        if result.returncode == 1:
            return True, said(result.stdout), time.monotonic() - started
        if result.returncode != 0:
            return (
                False,
                f"the test did not run: {result.stdout[-800:]}{result.stderr[-400:]}",
                time.monotonic() - started,
            )
        whole = run_pytest(tree, "-n", "2", "--ignore=tests/sabotage", "tests")
        found = [line for line in whole.stdout.splitlines() if line.startswith("FAILED")]
        return False, f"SURVIVED {sabotage.test}; the whole suite: {found[:3] or 'green'}", time.monotonic() - started


def said(output: str) -> str:
    """The first line of the assertion that failed."""
    for line in output.splitlines():
        if line.startswith("E  "):
            return line[1:].strip()[:150]
    return output.strip().splitlines()[-1][:150] if output.strip() else ""


def main() -> int:
    names = sys.argv[1:]
    chosen = [s for s in SABOTAGES if not names or s.name in names]
    green = subprocess.run([sys.executable, "-c", "import ai_budget_callbacks"], cwd=ROOT, check=False)
    assert green.returncode == 0
    killed = 0
    with ThreadPoolExecutor(2) as pool:
        for sabotage, (caught, text, seconds) in zip(chosen, pool.map(attempt, chosen), strict=True):
            killed += caught
            print(
                f"{'killed  ' if caught else 'SURVIVED'} {seconds:5.1f} s  {sabotage.name}: {sabotage.what}\n           {text}",
                flush=True,
            )
    print(f"{killed} passed, {len(chosen) - killed} failed")
    return 0 if killed == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
