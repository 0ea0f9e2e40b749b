"""A graphics card as facts."""

from typing import Any, NamedTuple


class Gpu(NamedTuple):
    """One card. Memory in bytes.

    ``total_bytes`` is what nvidia-smi calls the card's total, ``usable_bytes`` what the runtime can
    hand out before anything of ours is loaded; ``usable_seen`` says whether that was read off a real card.
    ``link``: what joins the cards of its board, NVLink or Infinity Fabric; empty: PCIe alone, or bridges that are sold apart.
    """

    slug: str
    name: str
    vendor: str = "nvidia"
    architecture: str = ""
    compute_capability: str = ""
    marketed_gb: float = 0.0
    total_bytes: int = 0
    usable_bytes: int = 0
    usable_seen: bool = False
    bf16: bool = True
    fp8: bool = False
    fp4: bool = False
    bandwidth_gbs: float | None = None
    link: str = ""
    per_node: int = 8
    unified: bool = False
    year: int | None = None
    source: str = ""
    note: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def cuda(self) -> bool:
        """A card of NVIDIA; one known by its size alone counts as such."""
        return self.vendor in ("nvidia", "")

    def reaches(self, capability: float) -> bool:
        """Whether it has this compute capability. Other vendors' cards and those of unknown capability do."""
        return self.vendor != "nvidia" or not self.compute_capability or float(self.compute_capability) >= capability

    def to_dict(self) -> dict[str, Any]:
        return {**self._asdict(), "aliases": list(self.aliases)}
