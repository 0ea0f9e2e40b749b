"""Names to cards, models and engines, as catalog/*.jsonl lists them.

A record is a line, and only the lines that may hold a name are parsed. Names are compared squeezed:
lower case, letters and digits only. The same is done to the bytes of the whole file, which leaves
its quotes and line ends in place, so that a quoted name is found by a plain search.
"""

import json
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from advisor.data import data_folder
from advisor.engines import Engine, Reserves, of_version
from advisor.errors import RequestError
from advisor.hardware import Gpu
from advisor.model import Model
from advisor.vocabulary import ENGINES

MIB = 2**20
SPECULATIVE = "Engines load such layers for speculative decoding only."
# Median of nvidia-smi's total less the runtime's over the NVIDIA cards where both were seen; a test recomputes it.
DRIVER_RESERVE_MIB = 447
MOST_NAMED = 8  # in one message

KEPT = b'abcdefghijklmnopqrstuvwxyz0123456789/"\n'
SQUEEZED_OUT = bytes(set(range(256)) - set(KEPT))
# What a driver or a shop puts around a card's name
MAKER = re.compile(r"^\s*(?:nvidia|amd|intel|apple|google|aws|huawei|tenstorrent)\b")
BRAND = re.compile(r"\b(?:nvidia|geforce|tesla|amd|radeon|instinct|intel|apple|gpu|hbm\d?e?)\b")
TUNED = re.compile(r"(?:[-_](?:instruct|chat|it|base|hf|pt|v\d[\d.]*))+$")
SAME_SHAPE = re.compile(r"^meta-(?=llama)|-(?:instruct|chat|it|base|hf|pt)$")
UNIT = re.compile(r"(?<=\d)\s*gi?b\b")

Record = dict[str, Any]


class ModelRecord(NamedTuple):
    """What the catalogue says of a model besides its shape. Parameters are counts, ``context`` is in tokens."""

    slug: str
    hf_id: str | None
    family: str
    published: int | None
    nominal: int | None
    counted: int | None  # by the shape
    difference: str | None  # why the two counts differ, where they do
    context: int | None
    license: str | None
    source: str
    aliases: tuple[str, ...] = ()
    estimated: bool = True  # False: a shape that is refused by name


def squeeze(name: str) -> str:
    """The form in which names are compared; a slash stays, because it separates owner and model.

    >>> squeeze("meta-llama/Llama-3.1-8B")
    'metallama/llama318b'
    """
    return re.sub("[^a-z0-9/]", "", name.lower())


def find_gpu(name: str) -> Gpu:
    """The card of that slug, alias or product name; ``24GB`` is a card sold as that; ``auto`` is the local one."""
    if name.strip().lower() == "auto":
        from advisor.local_gpu import local_gpu

        return local_gpu()
    return _find_gpu(name)


@lru_cache(maxsize=256)
def _find_gpu(name: str) -> Gpu:
    size = re.fullmatch(r"\s*(\d{1,7}(?:\.\d{1,3})?)\s*([gm])i?b\s*", name.lower(), re.ASCII)
    if size:
        return _sold_as(name.strip(), round(float(size[1]) * (1024 if size[2] == "g" else 1)))
    spellings = _gpu_spellings(name)
    record = _lookup("gpus", spellings)
    if record is None:
        raise _unknown("GPU", "gpus", name, spellings, "A size such as 24GB works too; `advise gpus` lists all")
    return _gpu(record)


def gpus(text: str = "") -> list[Gpu]:
    """The cards that every word of ``text`` fits: slug, name, vendor, architecture or size (``24GB``)."""
    fits = _filter(text)
    return [gpu for gpu in map(_gpu, _records("gpus"))
            if fits(gpu.slug, gpu.name, gpu.vendor, gpu.architecture, f"{gpu.marketed_gb:g}GB", *gpu.aliases)]  # fmt: skip


@lru_cache(maxsize=64)
def find_model(name: str) -> Model:
    """The model of that slug, alias or Hugging Face id, with or without its owner."""
    from advisor.model_files.config import model_from_config

    record = _listed_model(name)
    if record is None:
        hint = "A folder or a config.json works too; `advise models` lists all"
        raise _unknown("model", "models", name, _similar_models(name), hint)
    model = model_from_config(record["config"], record["slug"])
    notes = (*model.notes, *_not_counted(record))
    return model._replace(
        nominal=record.get("nominal"), max_context=record.get("context"), source=record["source"], notes=notes
    )


def _not_counted(record: Record) -> Iterable[str]:
    """What its checkpoint holds that the shape does not: layers that predict more tokens, encoders of pictures and sound."""
    told = record.get("difference") or {}
    name, parameters = told.get("name", ""), told.get("parameters", 0)
    if "multi-token-prediction" in name:
        yield f"Not counted: {name}. {SPECULATIVE}"
    elif any(word in name for word in ("vision", "audio", "tower")):
        yield f"Not counted: {name}, {parameters:,} parameters, which come on top where they are loaded."


def model_config(name: str) -> dict[str, Any]:
    """The config.json of a model of the catalogue, as far as it shapes the model."""
    find_model(name)  # which refuses what is unknown, and says what is near
    record = _listed_model(name)
    assert record is not None
    return dict(record["config"])


def is_model_name(name: str) -> bool:
    """Whether the catalogue has a model of that name. Makes no model."""
    return _listed_model(name) is not None


def hf_id(name: str) -> str | None:
    """The Hugging Face id of a model of the catalogue; one that is given stays, since a tuning has its own."""
    record = _listed_model(name)
    known: str | None = record.get("hf_id") if record else None
    return name.strip() if known and "/" in name else known


@lru_cache(maxsize=256)
def _listed_model(name: str) -> Record | None:
    """The record of that name; an owner's tuning of it (``-Instruct``) counts as well, since it keeps the shape."""
    owner, _, own = name.strip().rpartition("/")
    record = _lookup("models", [name])
    if record is None:
        sibling = _lookup("models", [own, SAME_SHAPE.sub("", own.lower())])
        its = (sibling.get("hf_id") or "").rpartition("/")[0] if sibling else ""
        if own == name.strip() or (squeeze(owner) and squeeze(owner) == squeeze(its)):
            return sibling
    return record


def models(text: str = "") -> list[ModelRecord]:
    """The models that every word of ``text`` fits: slug, Hugging Face id, family or alias."""
    fits = _filter(text)
    return [model for model in map(_model_record, _records("models"))
            if fits(model.slug, model.hf_id or "", model.family, *model.aliases)]  # fmt: skip


@lru_cache(maxsize=32)
def find_engine(name: str, version: str | None = None) -> Engine:
    """The habits of that engine, in that version of it."""
    record = _lookup("engines", [name])
    if record is None:
        raise _unknown("engine", "engines", name, [name], f"They are {', '.join(ENGINES)}")
    facts = _frozen(of_version(record, version))
    return Engine(**{**facts, "reserves": Reserves(**facts.get("reserves", {}))})


def _frozen(value: Any) -> Any:
    """Lists as tuples, all the way down."""
    if isinstance(value, list):
        return tuple(_frozen(part) for part in value)
    return {name: _frozen(part) for name, part in value.items()} if isinstance(value, dict) else value


def _gpu(record: Record) -> Gpu:
    rest = {key: value for key, value in record.items() if key not in ("total_mib", "usable_mib", "aliases")}
    return Gpu(total_bytes=record["total_mib"] * MIB, usable_bytes=record["usable_mib"] * MIB,
               aliases=tuple(record.get("aliases", ())), **rest)  # fmt: skip


def _model_record(record: Record) -> ModelRecord:
    keys = ("hf_id", "published", "nominal", "counted", "context", "license")
    return ModelRecord(slug=record["slug"], family=record["family"], source=record["source"],
                       difference=(record.get("difference") or {}).get("name"),
                       aliases=tuple(record.get("aliases", ())), estimated=record.get("estimated", True),
                       **{key: record.get(key) for key in keys})  # fmt: skip


def _sold_as(name: str, mib: int) -> Gpu:
    if not 1024 <= mib <= 2048 * 1024:
        raise RequestError(f"no card is sold as {name}: a size from 1GB to 2048GB, or a name of `advise gpus`")
    return Gpu(
        slug=name,
        name=f"a card sold as {name}",
        vendor="",
        marketed_gb=mib / 1024,
        total_bytes=mib * MIB,
        usable_bytes=(mib - DRIVER_RESERVE_MIB) * MIB,
        source="median over the NVIDIA cards of the catalogue whose usable memory was seen",
        note=f"{mib / 1024:g} GiB less {DRIVER_RESERVE_MIB} MiB, what the driver usually keeps; bf16 is taken for granted",
    )


def _gpu_spellings(name: str) -> list[str]:
    """The name as it stands, and with less and less around it."""
    lower = name.lower()
    bare = BRAND.sub("", lower)
    return list(dict.fromkeys((lower, MAKER.sub("", lower), bare, UNIT.sub("", bare))))


def _similar_models(name: str) -> list[str]:
    """The name, without its owner, and without what only tells how it was trained: good to suggest, not to answer."""
    own = name.lower().rpartition("/")[2]
    return list(dict.fromkeys((name, own, TUNED.sub("", own))))


@lru_cache(maxsize=8)
def _read(kind: str) -> tuple[list[bytes], bytes]:
    """The lines of a catalogue file, and the whole of it squeezed, with as many lines."""
    content = (data_folder("catalog") / f"{kind}.jsonl").read_bytes()
    return content.split(b"\n"), content.lower().translate(None, SQUEEZED_OUT)


@lru_cache(maxsize=8)
def _records(kind: str) -> tuple[Record, ...]:
    return tuple(json.loads(line) for line in _read(kind)[0] if line)


def _names(record: Record) -> list[str]:
    """Every name of a record: a Hugging Face id counts with and without its owner."""
    hf_id = record.get("hf_id") or ""
    given = (record.get("slug"), record.get("name"), hf_id, hf_id.rpartition("/")[2], *record.get("aliases", ()))
    return [name for name in given if name]


def _lookup(kind: str, spellings: Iterable[str]) -> Record | None:
    for spelling in spellings:
        found = [record for record in _candidates(kind, squeeze(spelling)) if _called(record, spelling, squeeze)]
        if len(found) > 1:  # opt-13b and opt-1.3b
            found = [record for record in found if _called(record, spelling, _with_points)]
        if len(found) == 1:
            return found[0]
    return None


def _candidates(kind: str, key: str) -> list[Record]:
    """The records whose line has that as the whole or the end of a quoted text."""
    lines, squeezed = _read(kind)
    end = key.encode() + b'"'
    numbers: dict[int, None] = {}
    position = squeezed.find(end) if key else -1
    while position >= 0:
        if squeezed[position - 1 : position] in (b'"', b"/"):
            numbers[squeezed.count(b"\n", 0, position)] = None
        position = squeezed.find(end, position + 1)
    return [json.loads(lines[number]) for number in numbers]


def _called(record: Record, spelling: str, form: Callable[[str], str]) -> bool:
    return form(spelling) in map(form, _names(record))


def _with_points(name: str) -> str:
    return re.sub("[^a-z0-9/.]", "", name.lower())


def _filter(text: str) -> Callable[..., bool]:
    """A test of names: every word of the text begins one of their words, or one of them."""
    wanted = text.lower().split()

    def fits(*names: str) -> bool:
        words = [word for name in names for word in (name.lower(), *re.split(r"[\s/_-]+", name.lower()))]
        return all(any(word.startswith(want) for word in words) for want in wanted)

    return fits


def _unknown(what: str, kind: str, name: str, spellings: list[str], hint: str) -> RequestError:
    """What to say of a name that is none: the members of the family it names, the nearest names, or those with its words."""
    shown = name if len(name) <= 60 else name[:57] + "..."
    slugs = [record.get("slug") or record["name"] for record in _records(kind)]
    family = _family(spellings, slugs) if "/" not in name else []
    if family:
        return RequestError(f"{shown} is {_listed(family)}: say which")
    from difflib import get_close_matches

    owner = {squeeze(called): slug for slug, record in zip(slugs, _records(kind), strict=True) for called in _names(record)}
    keys = [squeeze(spelling)[:60] for spelling in reversed(spellings)]
    near = list(dict.fromkeys(owner[match] for key in keys for match in get_close_matches(key, owner, 3)))[:3]
    words = set(re.split(r"[\s/_-]+", name.lower())) - {""}
    whole = [slug for slug in slugs if words and words <= set(slug.split("-"))]
    meant = whole if whole and len(words) == 1 else near or whole  # 1b is llama-3.2-1b, not 13b
    question = f"did you mean {_listed(meant)}?" if meant else "none is like it."
    return RequestError(f'no {what} "{shown}": {question} {hint}')


def _family(spellings: list[str], slugs: list[str]) -> list[str]:
    """The slugs that go on where the name ends, at a word: v100 gives v100-16 and v100-32, not v100-16-pcie as well."""
    wanted = set(map(_with_points, spellings)) - set(map(_with_points, slugs))
    members: list[str] = []
    for slug in sorted(slugs, key=lambda slug: (len(slug), slug)):
        words = slug.split("-")
        begins = {_with_points("".join(words[:count])) for count in range(1, len(words))}
        if begins & wanted and not any(slug.startswith(f"{member}-") for member in members):
            members.append(slug)
    return members


def _listed(names: list[str]) -> str:
    """``a, b or c``."""
    if len(names) > MOST_NAMED:
        names = [*names[:MOST_NAMED], f"{len(names) - MOST_NAMED} more"]
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
