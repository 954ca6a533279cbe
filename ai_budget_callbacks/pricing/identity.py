"""Which model a name means: what clients and responses write, in the catalogue's words. Pure.

Facts: facts/pricing.md 1.3; resource names (cloud.google.com/vertex-ai, docs.aws.amazon.com/bedrock); routing suffixes
(openrouter.ai/docs/features/provider-routing), which change who serves a model and not its list price, but for `:free`,
which is a listing of its own.
"""

from __future__ import annotations

import re

__all__ = ["is_listed", "needs_mapping", "plain_name"]

_OPAQUE = re.compile(
    r"\Aarn:aws[\w-]*:(?:bedrock|sagemaker):.*:(?:application-inference-profile|(?:default-)?prompt-router|endpoint|"
    r"provisioned-model|custom-model|custom-model-deployment|imported-model)/"
)
_RESOURCE = re.compile(
    r"\Aarn:aws[\w-]*:bedrock:(?P<region>[^:]*):[^:]*:(?:foundation-model|inference-profile)/(?P<id>.+)\Z"
)
_GOVERNMENT = re.compile(r"(?:\A|[/:])us-gov[.-]", re.IGNORECASE)
# Claude at a region's endpoint is a tenth dearer than at the global one (docs.claude.com, Claude on Vertex AI)
_REGIONAL_CLAUDE = re.compile(r"/locations/(?!global/)[^/]+/publishers/anthropic/")
_ROUTES = (":nitro", ":floor", ":exacto", ":online")


def plain_name(provider: str, model: str) -> str:
    """A model's name without what says where it lives or how it is reached.

    Args:
        provider: Catalogue provider id.
        model: As requested, or as the response reports it.
    """
    if provider == "google" and _REGIONAL_CLAUDE.search(model) is None:
        return model.rpartition("models/")[2] if "models/" in model else model
    resource = _RESOURCE.match(model) if provider == "aws" else None
    if resource is not None and (not _GOVERNMENT.match(resource["region"]) or _GOVERNMENT.match(resource["id"])):
        return resource["id"]
    if provider in {"openai", "azure"} and model.startswith("ft:"):
        return ":".join(model.split(":")[:2])  # ft:BASE:organisation:name:id
    if provider == "openrouter":
        for route in _ROUTES:
            model = model.removesuffix(route)
    return model


def is_listed(provider: str, model: str) -> bool:
    """Whether the catalogue's own rules may be asked: they match some names to models of another price.

    A fine-tuned model costs more than its base; only OpenAI's are in the catalogue under names of their own.
    """
    elsewhere = _GOVERNMENT.search(model) or _REGIONAL_CLAUDE.search(model)
    return elsewhere is None and (provider == "openai" or not model.lower().startswith("ft:"))


def needs_mapping(provider: str, model: str) -> bool:
    """Whether a name says nothing about the model behind it: an AWS resource of the user's own."""
    return provider == "aws" and _OPAQUE.match(model) is not None
