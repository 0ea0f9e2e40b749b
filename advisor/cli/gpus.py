"""`advise gpus`: the cards of the catalogue."""

from __future__ import annotations

from advisor.cli.options import listing_command
from advisor.cli.output import Answer, width


def gpus(words: tuple[str, ...], format: str | None, output: str | None) -> Answer:
    """List the cards, or those that every word fits: a name, a maker, an architecture, a size.

    The memory is what a job can use of the card, either measured on a real one or estimated from its kind.
    """
    from advisor import catalog
    from advisor.render.listing import Listing, render

    text = " ".join(words)
    found = catalog.gpus(text) or [catalog.find_gpu(text)]  # which says what is near
    rows = [
        [gpu.slug, f"{gpu.usable_bytes / 2**30:.2f}", "measured" if gpu.usable_seen else "estimated", gpu.architecture,
         _formats(gpu.bf16, gpu.fp8), str(gpu.per_node)]
        for gpu in found
    ]  # fmt: skip
    headers = ["gpu", "GiB", "figure", "architecture", "formats", "a node"]
    listing = Listing(headers, rows, (1, 5), [gpu.to_dict() for gpu in found])
    return Answer(render(listing, format or "table", width(output)), output=output)


def _formats(bf16: bool, fp8: bool) -> str:
    """The number formats that a card computes in besides fp32 and fp16."""
    return " ".join(name for name, has in (("bf16", bf16), ("fp8", fp8)) if has) or "-"


command = listing_command("gpus", gpus, "TEXT...", "The cards, or those that words fit.")
