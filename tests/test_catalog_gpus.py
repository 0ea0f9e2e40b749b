"""The catalogue of cards: known facts, names forgiven, the nearest offered, and nothing parsed that need not be."""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advisor import catalog
from advisor.catalog import DRIVER_RESERVE_MIB, find_gpu, find_model, gpus, is_model_name, models, squeeze
from advisor.data import data_folder
from advisor.errors import RequestError
from advisor.hardware import Gpu
from advisor.model import Model

GIB, MIB = 2**30, 2**20
LINES = (data_folder("catalog") / "gpus.jsonl").read_text().splitlines()
ALL = gpus()


def test_every_line_is_a_card() -> None:
    """270 records, each with a source that says where its usable memory comes from."""
    assert len(ALL) == len(LINES) == 270
    for line, gpu in zip(LINES, ALL, strict=True):
        assert isinstance(gpu, Gpu)
        assert json.loads(line)["slug"] == gpu.slug
        assert gpu.source
        assert gpu.year
        assert ("estimated" in gpu.source or "default limit" in gpu.source) is not gpu.usable_seen


def test_usable_memory_is_at_most_the_total() -> None:
    """The runtime never hands out more than the driver counts, nor less than half of it."""
    for gpu in ALL:
        assert gpu.total_bytes / 2 <= gpu.usable_bytes <= gpu.total_bytes, gpu.slug


def test_no_name_is_two_cards() -> None:
    """Slugs, names and aliases are unique over all rows, also when squeezed."""
    owners: dict[str, str] = {}
    for gpu in ALL:
        for name in (gpu.slug, gpu.name, *gpu.aliases):
            assert owners.setdefault(squeeze(name), gpu.slug) == gpu.slug, name


def test_aliases_that_the_slug_covers_are_left_out() -> None:
    """An alias is there because its squeezed form is neither the slug's nor the name's."""
    for gpu in ALL:
        assert not {squeeze(alias) for alias in gpu.aliases} & {squeeze(gpu.slug), squeeze(gpu.name)}, gpu.slug


def test_every_card_is_found_by_each_of_its_names() -> None:
    """Also with the vendor before it, as drivers print it."""
    for gpu in ALL:
        for name in (gpu.slug, gpu.name, *gpu.aliases, f"{gpu.vendor.upper()} {gpu.name}"):
            assert find_gpu(name) == gpu, name


@pytest.mark.parametrize(
    ("slug", "low", "high"),
    [
        ("v100-16", 15.75, 15.78),  # torch totals in public logs
        ("v100-32", 31.73, 31.75),
        ("a100-80", 79.13, 79.16),  # Ultralytics, torch 2.3
        ("a100-40", 39.39, 39.56),
        ("h100-80", 79.15, 79.33),
        ("h200", 139.68, 139.73),
        ("rtx-3090", 23.55, 23.58),
    ],
)
def test_usable_memory_as_seen(slug: str, low: float, high: float) -> None:
    """GiB that the runtime hands out, from logs of real cards."""
    assert low <= find_gpu(slug).usable_bytes / GIB <= high
    assert find_gpu(slug).usable_seen


def test_usable_memory_in_mib() -> None:
    """T4 with ECC on: 14,913 MiB (a new driver); RTX 4090: 24,074 MiB; both from Unsloth logs."""
    assert find_gpu("t4").usable_bytes == 14_913 * MIB
    assert find_gpu("t4").total_bytes == 15_360 * MIB
    assert find_gpu("rtx-4090").usable_bytes == 24_074 * MIB


def test_formats() -> None:
    """bf16 from compute capability 8.0 on, fp8 from 8.9, fp4 from 10.0 (torch, vLLM)."""
    for gpu in ALL:
        if gpu.vendor == "nvidia":
            capability = float(gpu.compute_capability)
            assert (gpu.bf16, gpu.fp8, gpu.fp4) == (capability >= 8, capability >= 8.9, capability >= 10), gpu.slug
    assert not find_gpu("v100-16").bf16
    assert not find_gpu("t4").bf16


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("rtx4090", "rtx-4090"),
        ("4090", "rtx-4090"),
        ("RTX_4090", "rtx-4090"),
        ("A100-SXM4-80GB", "a100-80"),
        ("NVIDIA A100-SXM4-80GB", "a100-80"),
        ("NVIDIA A100-SXM4-40GB", "a100-40"),
        ("NVIDIA A100-PCIE-40GB", "a100-40-pcie"),
        ("NVIDIA A100 80GB PCIe", "a100-80-pcie"),
        ("Tesla V100-SXM2-16GB", "v100-16"),
        ("Tesla V100-SXM2-32GB", "v100-32"),
        ("H100 80GB HBM3", "h100-80"),
        ("NVIDIA H100 80GB HBM3", "h100-80"),
        ("NVIDIA H100 PCIe", "h100-80-pcie"),
        ("NVIDIA GH200 480GB", "gh200-96"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "rtx-4090-laptop"),
        ("NVIDIA RTX A6000", "a6000"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx-6000-ada"),
        ("Tesla T4", "t4"),
        ("AMD Instinct MI300X", "mi300x"),
        ("AMD Radeon RX 7900 XTX", "rx-7900-xtx"),
        ("Apple M1 Max 64 GB", "m1-max-64"),
    ],
)
def test_names_as_drivers_and_people_write_them(name: str, slug: str) -> None:
    """Case, punctuation, vendor and the unit of the size are forgiven."""
    assert find_gpu(name).slug == slug


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("v100", "v100 is v100-16 or v100-32: say which"),
        ("A100", "A100 is a100-40 or a100-80: say which"),
        ("rtx 4060 ti", "rtx 4060 ti is rtx-4060-ti-8 or rtx-4060-ti-16: say which"),
        ("m4", "or 2 more"),
        ("rtx 409", "did you mean rtx-4090"),
        ("h1000", "did you mean h100"),
        ("zzzzzzzzzzzz", "advise gpus"),
        ("", "advise gpus"),
        ("/", "advise gpus"),
        ("sxm2", "advise gpus"),
        ("vendor", "advise gpus"),  # a key of the records, not a name
        ("x" * 4000, "advise gpus"),
    ],
)
def test_a_name_that_is_none(name: str, said: str) -> None:
    """A family gets its members, anything else the nearest names, on one short line."""
    with pytest.raises(RequestError) as problem:
        find_gpu(name)
    assert said in str(problem.value)
    assert "\n" not in str(problem.value)
    assert len(str(problem.value)) < 250


@pytest.mark.parametrize("name", ["24GB", "24GiB", "24 gb", "24576MiB", "24576 MB"])
def test_a_size_is_a_card_sold_as_that(name: str) -> None:
    """24 GiB less what the driver keeps; the note says how much."""
    gpu = find_gpu(name)
    assert gpu.slug == name
    assert gpu.total_bytes == 24 * GIB
    assert gpu.usable_bytes == 24 * GIB - DRIVER_RESERVE_MIB * MIB
    assert f"{DRIVER_RESERVE_MIB} MiB" in gpu.note
    assert not gpu.usable_seen


def test_the_driver_reserve_is_the_median_of_the_catalogue() -> None:
    """nvidia-smi's total less the runtime's, over the NVIDIA cards with memory of their own where the latter was seen."""
    cards = [gpu for gpu in ALL if gpu.vendor == "nvidia" and gpu.usable_seen and not gpu.unified]
    assert len(cards) > 50
    assert statistics.median(gpu.total_bytes - gpu.usable_bytes for gpu in cards) == DRIVER_RESERVE_MIB * MIB


@pytest.mark.parametrize("name", ["0GB", "0.3GB", "9999999GB", "2049GB"])
def test_a_size_that_no_card_has(name: str) -> None:
    """Sizes run from 1 GB to 2 TB."""
    with pytest.raises(RequestError, match="from 1GB to 2048GB"):
        find_gpu(name)


@given(st.text(max_size=30))
def test_any_text_is_a_card_or_refused(name: str) -> None:
    """Nothing but RequestError comes out of a name."""
    if name.strip().lower() == "auto":
        return
    try:
        found = find_gpu(name)
    except RequestError:
        return
    assert found.usable_bytes > 0


def test_the_list_is_filtered_by_words() -> None:
    """Every word must begin a word of the card: slug, name, vendor, architecture or size."""
    assert [gpu.slug for gpu in gpus("v100 32gb")] == ["v100-32", "v100-32-pcie", "v100s-32"]
    assert {gpu.architecture for gpu in gpus("nvidia hopper")} == {"Hopper"}
    assert {gpu.marketed_gb for gpu in gpus("24GB")} == {24}
    assert gpus("no such card") == []


def test_one_name_parses_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A known name is found in the text of the file; its line alone is parsed."""
    parsed: list[bytes] = []

    def loads(line: bytes) -> object:
        parsed.append(line)
        return json.loads(line)

    catalog._find_gpu.cache_clear()
    monkeypatch.setattr(catalog, "json", type("json", (), {"loads": staticmethod(loads)}))
    assert find_gpu("NVIDIA A100-SXM4-80GB").slug == "a100-80"
    assert len(parsed) == 1


def test_looking_up_loads_no_heavy_package() -> None:
    """advisor.catalog and a lookup need neither pydantic nor durable_rules nor click."""
    code = (
        "import sys; from advisor.catalog import find_gpu, find_engine; find_gpu('rtx 4090'); find_engine('vllm');"
        "print(*sorted({'pydantic', 'durable', 'click', 'tabulate', 'difflib', 'subprocess'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


# --- models, over records of this test's own ---


@pytest.fixture
def few_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A catalogue of three models, and a reader of configs that makes next to nothing."""
    records = [
        {"slug": "tiny-1.5b", "aliases": ["tiny"], "hf_id": "Some-Org/Tiny-1.5B-Instruct", "family": "Tiny", "published": 1_500,
         "nominal": None, "counted": 1_400, "difference": {"name": "tied head", "parameters": 100}, "context": 2048, "source": "hub", "config": {"model_type": "llama"}},
        {"slug": "7b", "aliases": [], "hf_id": None, "family": "Size class", "published": None, "nominal": 7 * 10**9,
         "difference": None, "context": None, "source": "guide", "config": {"model_type": "llama"}},
        {"slug": "tiny-15b", "aliases": [], "hf_id": "Some-Org/Tiny-15B", "family": "Tiny", "published": 15_000, "nominal": None,
         "difference": None, "context": 2048, "source": "hub", "config": {"model_type": "llama"}},
    ]  # fmt: skip
    (tmp_path / "models.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))

    def model_from_config(config: dict[str, str], name: str) -> Model:
        return Model(name, config["model_type"], 8, 32, (), max_context=64)

    reader = type(sys)("advisor.model_files.config")
    reader.model_from_config = model_from_config  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "advisor.model_files.config", reader)
    monkeypatch.setattr(catalog, "data_folder", lambda name: tmp_path)
    caches = (catalog._read, catalog._records, catalog.find_model)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.mark.usefixtures("few_models")
@pytest.mark.parametrize(
    "name",
    [
        "tiny-1.5b",
        "TINY 1.5B",
        "tiny",
        "Some-Org/Tiny-1.5B-Instruct",
        "some_org/tiny-1.5b-instruct",
        "Tiny-1.5B-Instruct",
        "Some-Org/tiny",
    ],
)
def test_a_model_by_any_of_its_names(name: str) -> None:
    """Slug, alias, Hugging Face id with and without its owner, alias behind the owner; the context is the catalogue's."""
    model = find_model(name)
    assert (model.name, model.max_context, model.source) == ("tiny-1.5b", 2048, "hub")
    assert is_model_name(name)


@pytest.mark.usefixtures("few_models")
@pytest.mark.parametrize(
    "name",
    ["./7b", "../tiny", "/tiny", "7b/", "models/7b", "Other-Org/tiny", "Other-Org/Tiny-1.5B-Instruct", "", "llama", "slug"],
)
def test_what_is_no_name_of_a_model(name: str) -> None:
    """A path is no name, nor another owner's model, nor a word that stands in the record elsewhere."""
    assert not is_model_name(name)
    with pytest.raises(RequestError, match="advise models"):
        find_model(name)


@pytest.mark.usefixtures("few_models")
def test_size_classes_carry_their_nominal_count_and_no_maximum() -> None:
    """7b is 7 × 10⁹ by name, and as long as one likes."""
    model = find_model("7b")
    assert (model.nominal, model.max_context) == (7_000_000_000, None)


@pytest.mark.usefixtures("few_models")
def test_models_are_listed_with_what_is_known_of_them() -> None:
    """All of them, or those that every word fits."""
    assert [model.slug for model in models()] == ["tiny-1.5b", "7b", "tiny-15b"]
    (found,) = models("some-org tiny-1.5b")
    assert (found.family, found.published, found.counted, found.difference) == ("Tiny", 1_500, 1_400, "tied head")


@pytest.mark.usefixtures("few_models")
def test_a_point_is_minded_where_it_tells_two_models_apart() -> None:
    """OPT has a 1.3b and a 13b: punctuation is forgiven only as long as one model is meant."""
    assert find_model("Tiny 15b").name == "tiny-15b"
    assert find_model("tiny_1.5B").name == "tiny-1.5b"


@pytest.mark.usefixtures("few_models")
def test_an_unknown_tuning_gets_the_model_it_is_like() -> None:
    """Another owner's or another tuning of a known model is not taken for it, but suggested first."""
    with pytest.raises(RequestError, match=r"did you mean tiny-15b"):
        find_model("Other-Org/Tiny-15B-Chat-v0.2")


def test_boards_of_linked_cards() -> None:
    """NVLink is on SXM boards and Grace superchips, Infinity Fabric on OAM boards; PCIe cards have bridges at most, sold apart."""
    linked = {gpu.slug for gpu in ALL if gpu.link}
    assert {"v100-16", "a100-40", "a100-80", "h100-80", "h200", "b200", "mi300x"} <= linked
    assert not linked & {"l40s", "a40", "a6000", "rtx-4090", "a100-80-pcie", "h100-80-pcie", "v100-16-pcie", "rtx-pro-6000"}
    assert all(f"{gpu.link}: " in gpu.source for gpu in ALL if gpu.link)
