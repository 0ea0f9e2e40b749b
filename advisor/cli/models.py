"""`advise models`: the models of the catalogue."""

from __future__ import annotations

from advisor.cli.options import listing_command
from advisor.cli.output import Answer, width


def models(words: tuple[str, ...], format: str | None, output: str | None) -> Answer:
    """List the models, or those that every word fits: a name, a family, a Hugging Face id.

    Other models are read from their folder or config.json: advise --train ./folder.
    """
    from advisor import catalog
    from advisor.render.listing import Listing, render

    text = " ".join(words)
    found = catalog.models(text) or [one for one in catalog.models() if one.slug == catalog.find_model(text).name]
    rows = [
        [
            model.slug,
            _count(model.published or model.counted or model.nominal),
            _context(model.context),
            model.family if model.estimated else f"{model.family}, not estimated yet",
            model.hf_id or "-",
        ]
        for model in found
    ]
    listing = Listing(["model", "weights", "context", "family", "HF id"], rows, (1, 2), [model._asdict() for model in found])
    return Answer(render(listing, format or "table", width(output)), output=output)


def _count(parameters: int | None) -> str:
    return f"{parameters / 10**9:.2f} B" if parameters else "-"


def _context(tokens: int | None) -> str:
    """As ``--seq`` takes it: 128k is 131,072."""
    if not tokens:
        return "-"
    return f"{tokens // 1024}k" if tokens % 1024 == 0 else str(tokens)


command = listing_command("models", models, "TEXT...", "The models, or those that words fit.")
