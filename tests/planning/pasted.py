"""Snippets read as the frameworks would read them: where each block goes, and what it sets there."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator
from typing import Any, NamedTuple

YAML = ("accelerate", "axolotl", "llama-factory", "torchtune")
# What a heading begins with, where its block goes, and how that is written. The first that fits counts; none is without a heading.
PLACES: dict[str, list[tuple[str, str, str]]] = {
    "any": [
        (r"environment", "environment", "environment"),
        (r"launch", "launch", "shell"),
        (r"script", "script", "python"),
        (r"Trainer\.Config|converters of", "config_registry.py", "items"),
        (r"(in place of|once)", "command", "shell"),
        (r"(TrainingArguments|Trainer|SFTConfig|SFTTrainer|from_pretrained|model\.generate|tokenizer)\b", r"\1", "keywords"),
        (r"(FastLanguageModel\.\w+)", r"\1", "keywords"),
        (r"in (model_init_kwargs) of SFTConfig", r"\1", "entries"),
        (r"in zero_optimization of (\S+\.json)", r"\1", "zero_optimization"),
        (r"(ds_z\d\.json)", r"\1", "document"),
        (r"(accelerate launch|litgpt \w+|pretrain_gpt\.py|torchtitan\.train)", r"\1", "flags"),
        (r"(vllm serve|python -m sglang\.launch_server|llama-server|text-generation-launcher)", r"\1", "flags"),
        (r"Modelfile", "Modelfile", "modelfile"),
    ],
    "transformers": [(r"configuration for deepspeed", "configuration", "members"), (r"^$", "script", "python")],
    "deepspeed": [(r"configuration", "configuration", "members")],
    "tensorrt-llm": [(r"configuration", "configuration", "yaml"), (r"trtllm-serve", "trtllm-serve", "flags")],
    **{name: [(r"configuration|config\.ya?ml|^$", "configuration", "yaml")] for name in YAML},
}


class Block(NamedTuple):
    place: str
    form: str
    lines: list[str]


def blocks(framework: str, text: str) -> Iterator[Block]:
    """The blocks of a snippet under their headings; a comment that nothing stands under sets nothing."""
    heading, lines = "", list[str]()
    for line in [*text.strip("\n").split("\n"), "# end"]:
        if not line.startswith("# "):
            lines.append(line)
        elif lines:
            yield _block(framework, heading, lines)
            heading, lines = line[2:], []
        else:
            heading = f"{heading} {line[2:]}".strip()


def _block(framework: str, heading: str, lines: list[str]) -> Block:
    for pattern, place, form in (*PLACES.get(framework, []), *PLACES["any"]):
        found = re.match(pattern, heading)
        if found:
            return Block(found.expand(place), form, lines)
    raise AssertionError(f"{framework}: no place is known for {heading!r}: {lines}")


def settings(block: Block) -> dict[str, Any]:
    """What a block sets, by key; raises where it cannot be read."""
    return READERS[block.form](block.lines)


def _keywords(lines: list[str]) -> dict[str, Any]:
    call = ast.parse("f(\n" + "\n".join(lines) + "\n)", mode="eval").body
    assert isinstance(call, ast.Call)
    assert not call.args, f"no keywords: {lines}"
    return {str(each.arg): _plain(each.value) for each in call.keywords}


def _plain(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def _entries(lines: list[str]) -> dict[str, Any]:
    return dict(ast.literal_eval("{" + "\n".join(lines) + "}"))


def _items(lines: list[str]) -> dict[str, Any]:
    body = ast.parse("f(\n" + "\n".join(lines) + "\n)", mode="eval").body
    assert isinstance(body, ast.Call)
    converters = {ast.unparse(each.func): ast.unparse(each) for each in body.args if isinstance(each, ast.Call)}
    return {**{str(each.arg): _plain(each.value) for each in body.keywords}, **converters}


def _python(lines: list[str]) -> dict[str, Any]:
    """What is assigned anew; a value made from its own old one goes with another."""
    assigned = [node for node in ast.parse("\n".join(lines)).body if isinstance(node, ast.Assign)]
    return {
        target: ast.unparse(node.value)
        for node in assigned
        for target in [ast.unparse(node.targets[0])]
        if target not in {each.id for each in ast.walk(node.value) if isinstance(each, ast.Name)}
    }


def _members(lines: list[str]) -> dict[str, Any]:
    return dict(json.loads("{" + "\n".join(lines) + "}", object_pairs_hook=_once))


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs), f"a key twice: {pairs}"
    return dict(pairs)


def _zero_optimization(lines: list[str]) -> dict[str, Any]:
    return {"zero_optimization": _members(lines)}


def _document(lines: list[str]) -> dict[str, Any]:
    return dict(json.loads("\n".join(lines), object_pairs_hook=_once))


def _yaml(lines: list[str]) -> dict[str, Any]:
    """The few forms of YAML that snippets use: maps by indentation, plain scalars and lists."""
    root: dict[str, Any] = {}
    stack: list[tuple[int, Any]] = [(-1, root)]
    for line in lines:
        body = re.sub(r"\s+# .*", "", line)
        depth = len(body) - len(body.lstrip())
        body = body.strip()
        while stack[-1][0] >= depth:
            stack.pop()
        parent = stack[-1][1]
        if body.startswith("- "):
            parent.setdefault("-", []).append(body[2:])
            continue
        key, colon, value = body.partition(":")
        assert colon, f"no YAML: {line}"
        assert re.fullmatch(r"\w+", key), f"no YAML: {line}"
        assert not value or value.startswith(" "), f"no YAML: {line}"
        assert key not in parent, f"{key} twice"
        parent[key] = value.strip() or {}
        if not value.strip():
            stack.append((depth, parent[key]))
    return root


def _flags(lines: list[str]) -> dict[str, Any]:
    return _of_words(_words(lines))


def _words(lines: list[str]) -> list[str]:
    return shlex.split("\n".join(lines).replace("\\\n", " "))


def _of_words(words: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    flag = ""
    for word in words:
        if re.match(r"--?[a-z]", word):
            flag = word
            assert flag not in found, f"{flag} twice"
            found[flag] = ""
        else:
            assert flag, f"no flag: {word}"
            found[flag] = f"{found[flag]} {word}".strip()
    return found


def _shell(lines: list[str]) -> dict[str, Any]:
    """The flags of a command, and its variables; other words stand for files."""
    words = _words(lines)
    variables = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
    flags = [word for word in words if not re.match(r"[A-Z_]+=", word)]
    first = next((place for place, word in enumerate(flags) if word.startswith("-")), len(flags))
    assert first or variables, f"no command: {lines}"
    return {**variables, **_of_words([word for word in flags[first:] if word != "--"])}


def _environment(lines: list[str]) -> dict[str, Any]:
    return dict(line.split("=", 1) for line in lines)


def _modelfile(lines: list[str]) -> dict[str, Any]:
    words = [line.split() for line in lines]
    assert all(len(each) == 3 and each[0] == "PARAMETER" for each in words), f"no Modelfile: {lines}"
    return {name: value for _, name, value in words}


READERS = {
    "keywords": _keywords,
    "entries": _entries,
    "items": _items,
    "python": _python,
    "members": _members,
    "zero_optimization": _zero_optimization,
    "document": _document,
    "yaml": _yaml,
    "flags": _flags,
    "shell": _shell,
    "environment": _environment,
    "modelfile": _modelfile,
}


def names(sets: dict[str, Any]) -> Iterator[str]:
    """The keys, those of maps with what they stand under: fsdp_config.version."""
    for key, value in sets.items():
        yield from [f"{key}.{name}" for name in names(value)] if isinstance(value, dict) else [key]


def contradictions(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Keys that both set, to different values; maps are gone through."""
    found = []
    for key in one.keys() & other.keys():
        if isinstance(one[key], dict) and isinstance(other[key], dict):
            found += [f"{key}.{each}" for each in contradictions(one[key], other[key])]
        elif one[key] != other[key]:
            found.append(f"{key}: {one[key]!r} and {other[key]!r}")
    return found


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Both, with maps put together."""
    both = dict(one)
    for key, value in other.items():
        both[key] = merged(one[key], value) if isinstance(value, dict) and isinstance(one.get(key), dict) else value
    return both
