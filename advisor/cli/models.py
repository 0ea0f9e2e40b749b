"""`advise models`: the models of the catalogue."""

from __future__ import annotations

from dataclasses import asdict

from advisor.cli.options import listing_command
from advisor.cli.output import Answer, width


def models(words: tuple[str, ...], format: str | None, output: str | None) -> Answer:
    """List the models, or those that every word fits: a name, a family, a Hugging Face id.

    Other models are read from their folder or config.json: advise --train ./folder.
    """
    from advisor import catalog
    from advisor.render.listing import Listing, render

    text = " ".join(words)
    found = catalog.models(text)
    if not found:
        catalog.find_model(text)  # says what is near
    rows = [
        [model.slug, _count(model.published or model.nominal), _context(model.context), model.family, model.hf_id or "-"]
        for model in found
    ]
    listing = Listing(
        ["model", "parameters", "context", "family", "Hugging Face"], rows, (1, 2), [asdict(model) for model in found]
    )
    return Answer(render(listing, format or "table", width(output)), output=output)


def _count(parameters: int | None) -> str:
    return f"{parameters:,}" if parameters else "-"


def _context(tokens: int | None) -> str:
    return f"{tokens:,}" if tokens else "-"


command = listing_command("models", models, "TEXT...", "The models, or those that words fit.")
