"""Makes pricing/data/model_limits.json from the model profiles that ship in LangChain's integrations (models.dev, MIT).

    python -m tests.support.model_limits FOLDER

FOLDER has their wheels, unpacked (`pip download --no-deps langchain-openai==1.7.4 …`, then unzip). Nothing is installed.
"""

from __future__ import annotations

import json
import runpy
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

# package → catalogue provider
PACKAGES = {
    "langchain_openai": "openai",
    "langchain_anthropic": "anthropic",
    "langchain_google_genai": "google",
    "langchain_aws": "aws",
    "langchain_deepseek": "deepseek",
    "langchain_groq": "groq",
    "langchain_mistralai": "mistral",
    "langchain_perplexity": "perplexity",
    "langchain_xai": "x-ai",
    "langchain_openrouter": "openrouter",
}
ABOUT = (
    "Maximum output tokens of one answer (reasoning included) and whether the model reasons out of sight. Derived from "
    "the models.dev data (MIT) in {versions}."
)


def limits(folder: Path) -> dict[str, Any]:
    """The table: provider → model → its limits."""
    versions = []
    table: dict[str, Any] = {}
    for package, provider in PACKAGES.items():
        module = runpy.run_path(str(folder / package / "data" / "_profiles.py"))
        profiles = next(
            value for name, value in module.items() if isinstance(value, dict) and not name.startswith("__")
        )
        table[provider] = {
            name.lower(): {
                "max_output_tokens": profile["max_output_tokens"],
                "reasons": bool(profile.get("reasoning_output")),
            }
            for name, profile in sorted(profiles.items())
            if profile.get("max_output_tokens") and profile.get("text_outputs")
        }
        info = next(folder.glob(f"{package}-*.dist-info")).name
        name, _, version = info.removesuffix(".dist-info").partition("-")
        versions.append(f"{name.replace(chr(95), chr(45))} {version}")
    return {"_about": ABOUT.format(versions=", ".join(versions)), **table}


if __name__ == "__main__":
    target = files("ai_budget_callbacks").joinpath("pricing/data/model_limits.json")
    Path(str(target)).write_text(json.dumps(limits(Path(sys.argv[1])), indent=1) + "\n", encoding="utf-8")
