"""The sentences, figures and rows of an answer, whatever the format."""

from __future__ import annotations

from typing import Any, NamedTuple

from advisor.results import PARTS, Estimate, Plan


class Unit(NamedTuple):
    """What the figures of a plan are counted in."""

    name: str
    bytes: int

    def figure(self, size: int) -> str:
        """``12.55``; at most nine signs, so that tables keep to their width.

        >>> [Unit("GiB", 2**30).figure(round(size * 2**30)) for size in (0.001, 12.546, 123456.789, 6.9665e14)]
        ['<0.01', '12.55', '123,457', '6.97e+14']
        """
        if 0 < size < self.bytes / 200:
            return "<0.01"
        amount = size / self.bytes
        return f"{amount:,.2f}" if amount < 10**5 - 1 else f"{amount:,.0f}" if amount < 10**7 - 1 else f"{amount:.2e}"

    def amount(self, size: int) -> str:
        """``12.55 GiB``."""
        return f"{self.figure(size)} {self.name}"


def unit(plan: Plan) -> Unit:
    return unit_of(plan.job["estimator"])


def unit_of(estimator: str) -> Unit:
    """The memory guide's estimators speak its GB, which is 10⁹ bytes here."""
    return Unit("GiB", 2**30) if estimator == "detailed" else Unit("GB", 10**9)


def verdict(plan: Plan) -> str:
    """The answer in one sentence; what decides comes first, then the figures."""
    u = unit(plan)
    asked = _need(plan.initial, plan, u)
    if plan.verdict == "fits":
        return f"Fits: {asked} of {u.amount(plan.usable_bytes)} on {_cards(plan)}{_beside_host(plan.initial, plan)}."
    has = f"{_cards(plan)} has {u.figure(plan.usable_bytes)}"
    if plan.final is not None:
        count = sum(step.needed for step in plan.steps)
        steps = "1 step makes" if count == 1 else f"{count} steps make"
        planned = _need(plan.final.estimate, plan, u)
        return (
            f"Does not fit as asked; {steps} it fit{_more_gpus(plan)}: {planned} {u.name} instead of {asked}, and {has}"
            f"{_beside_host(plan.final.estimate, plan)}.{_short_host(plan)}"
        )
    tried = f", {u.figure(plan.steps[-1].after_bytes)} after every step" if plan.steps else ""
    if plan.steps and plan.steps[-1].after_bytes <= plan.usable_bytes:
        tried += " (more at the upper end)"
    return (
        f"Does not fit, and nothing within the limits makes it fit{_more_gpus(plan)}: "
        f"{asked} {u.name} as asked{tried}, and {has}.{_short_host(plan)}"
    )


def _beside_host(estimate: Estimate, plan: Plan) -> str:
    """What the machine's own memory holds, where it is limited."""
    if estimate.host is None or plan.job["host_ram"] is None:
        return ""
    u = unit(plan)
    return f", with {u.figure(estimate.host.bytes)} of {u.amount(plan.job['host_ram'])} in {_machine(plan)}'s own memory"


def _short_host(plan: Plan) -> str:
    """That it is the host whose memory is short, where it is."""
    host, limit = plan.initial.host, plan.job["host_ram"]
    if host is None or limit is None or host.bytes <= limit:
        return ""
    u = unit(plan)
    card = " The card alone would hold it." if plan.initial.high_bytes <= plan.usable_bytes else ""
    return f"{card} {_machine(plan).capitalize()}'s own memory is short as asked: {u.figure(host.bytes)} of {u.amount(limit)}."


def _machine(plan: Plan) -> str:
    return "each machine" if plan.job["nodes"] > 1 else "the machine"


def host(plan: Plan) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of what one machine's own memory holds; nothing where it is not asked for and nothing is moved there."""
    u = unit(plan)
    known = {name: estimate.host for name, estimate in budgets(plan).items() if estimate.host}
    if not known:
        return [], []
    sizes = {name: {part.name: part.bytes for part in need.parts} for name, need in known.items()}
    names = dict.fromkeys(part for parts in sizes.values() for part in parts)
    rows = [[part, *(u.figure(parts[part]) if part in parts else "-" for parts in sizes.values())] for part in names]
    total = [f"{u.figure(need.bytes)}" for need in known.values()]
    return ["part", *(f"{name}, {u.name}" for name in known)], [*rows, ["total", *total]]


def host_title(plan: Plan) -> str:
    """``Host memory of the machine, of 64.00 GiB``."""
    limit = plan.job["host_ram"]
    return f"Host memory of {_machine(plan)}" + (f", of {unit(plan).amount(limit)}" if limit is not None else "")


def _cards(plan: Plan) -> str:
    """``a Tesla V100 SXM2 16GB``, or each of several."""
    name = str(plan.gpu["name"])
    return f"each {name.removeprefix('a ')}" if gpus(plan) > 1 else a_card(name)


def a_card(name: str) -> str:
    """``an A100 40GB``, ``a card sold as 24GB``."""
    name = name.removeprefix("a ")
    return f"{'an' if _spoken_with_a_vowel(name) else 'a'} {name}"


def _spoken_with_a_vowel(name: str) -> bool:
    """An A100, an Instinct, an RTX and an H100, but a Tesla and a GeForce."""
    spelled = name.split()[0].isupper()
    return name[0] in ("AEFHILMNORSX" if spelled else "AEIO")


def _need(estimate: Estimate, plan: Plan, u: Unit) -> str:
    """The estimate, and the end of its interval where that is what decides."""
    if estimate.device_bytes <= plan.usable_bytes < estimate.high_bytes:
        return f"{u.figure(estimate.device_bytes)} (up to {u.figure(estimate.high_bytes)})"
    return u.figure(estimate.device_bytes)


def _more_gpus(plan: Plan) -> str:
    before, after = plan.job["gpus"], gpus(plan)
    where = "on" if plan.final is not None else "not even on"
    return f", {where} {after} GPUs instead of {before}" if after > before else ""


def gpus(plan: Plan) -> int:
    """How many GPUs the plan ends with."""
    if plan.final is not None:
        return int(plan.final.job["gpus"])
    return int(next((step.change["gpus"][1] for step in reversed(plan.steps) if "gpus" in step.change), plan.job["gpus"]))


def budgets(plan: Plan) -> dict[str, Estimate]:
    """The estimates of a plan by what they are of: the job as asked, and as planned where that is another."""
    if plan.final is None or not plan.steps:
        return {"asked": plan.initial}
    return {"asked": plan.initial, "planned": plan.final.estimate}


def interval(plan: Plan) -> str:
    """What the figures stand for; nothing where the estimator gives one figure only."""
    u = unit(plan)
    ranges = [
        f"between {u.figure(estimate.low_bytes)} and {u.amount(estimate.high_bytes)} {name}"
        for name, estimate in budgets(plan).items()
        if estimate.low_bytes < estimate.high_bytes
    ]
    if not ranges:
        return ""
    return f"In {runs(plan.job['confidence'])} the device holds {', '.join(ranges).replace(' asked', ' as asked')}."


def phases(plan: Plan) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of the highest allocation in each phase, the peak with a mark."""
    u, estimates = unit(plan), budgets(plan)
    names = list(dict.fromkeys(phase for estimate in estimates.values() for phase in estimate.phases))
    rows = [
        [name, *(f"{'>' * (phase == estimate.peak_phase)}{u.figure(estimate.phases.get(phase, 0))}" for phase in names)]
        for name, estimate in estimates.items()
        if estimate.phases
    ]
    told = f"allocated, {u.name}" if len(names) < 7 else u.name  # GRPO's seven leave no room for more in 80 columns
    return [told, *names], rows


PHASES = {
    "load": "reading the weights, with what has to be whole beside them for a moment, and setting the training up",
    "forward": "the forward pass of a step after the first, so that optimizer state is there",
    "backward": "the backward pass",
    "step": "the optimizer's step; its states are made in the first one, and are in every phase after it",
    "eval": "an evaluation of the loss between two steps, with the batch of training. The Trainer's own per_device_eval_batch_size is 8;"
    " with compute_metrics it keeps the logits of the whole set on the card unless eval_accumulation_steps is set",
    "save": "writing a checkpoint: what is sharded is made whole piece by piece on its way to the host",
    "prefill": "the prompt",
    "decode": "the last token that is generated",
}


def told_phases(plan: Plan) -> list[tuple[str, str]]:
    """The phases that there are, each with what happens in it."""
    names = dict.fromkeys(phase for estimate in budgets(plan).values() for phase in estimate.phases)
    return [(name, PHASES[name]) for name in names if name in PHASES]


def share(size: int, estimate: Estimate) -> str:
    """``38 %`` of the whole."""
    percent = 100 * size / estimate.device_bytes
    return f"{percent:.0f} %" if percent >= 0.5 else "<1 %"


def runs(share: float) -> str:
    """``9 of 10 runs`` of 0.9.

    >>> runs(0.95), runs(0.683)
    ('19 of 20 runs', '68.3 % of runs')
    """
    for of in (10, 20, 100):
        if abs(share * of - round(share * of)) < 1e-9:
            return f"{round(share * of)} of {of} runs"
    return f"{100 * share:g} % of runs"


def assumptions(plan: Plan) -> list[tuple[str, str]]:
    """The job as decided: what the figures hang on, and nothing that is left at its neutral value."""
    job = plan.job
    rows = [("model", _model(plan)), ("card", _card(plan))]
    rows += _training(job) if job["train"] is not None else _inference(job)
    rows += [("parallel", _parallel(job)), ("offloaded", ", ".join(job["offload"]))]
    rows += [("engine", " ".join(filter(None, (job["engine"], job["engine_version"], "with torch.compile" * job["compile"]))))]
    if job["estimator"] != "detailed":
        rows += [("estimator", f"{job['estimator']}, the memory guide's formulas")]
    return [(name, text) for name, text in rows if text]


def global_batch(job: dict[str, Any]) -> int:
    """Sequences of one optimizer step over all GPUs."""
    ranks = job["gpus"] // (job["tp"] * job["pp"] * job["cp"])
    return int(job["batch"] * job["accumulation"] * ranks)


def _model(plan: Plan) -> str:
    model = plan.model
    parameters, active = model["parameters"], model.get("active_parameters")
    some = f", {active:,} of them active" if active and active != parameters else ""
    return f"{model['name']}, {parameters:,} parameters{some} in {model['layers']} layers"


def _card(plan: Plan) -> str:
    job, u = plan.job, unit(plan)
    count = f"{job['gpus']} × " if job["gpus"] > 1 else ""
    known = "measured on a real card" if plan.gpu["usable_seen"] else "estimated"
    if job["free"] is not None and plan.usable_bytes == job["free"]:
        known = "free"
    elif u.name == "GB":
        known = "as it is sold"
    elif job["memory_fraction"] is not None and plan.usable_bytes < plan.gpu["usable_bytes"]:
        known = f"{job['memory_fraction']:g} of the total"
    machines = f" in {job['nodes']} machines" if job["nodes"] > 1 else ""
    return f"{count}{plan.gpu['name']}{machines}, {u.amount(plan.usable_bytes)} usable ({known})"


def _training(job: dict[str, Any]) -> list[tuple[str, str]]:
    adapters = "" if job["method"] == "full" else f" of rank {job['lora_rank']} on {','.join(job['lora_targets'])}"
    numbers = [job["precision"], *([f"frozen weights {job['quantization']}"] if job["quantization"] != "none" else [])]
    if adapters:
        numbers.append(f"adapters {job['adapter_precision']}")
    return [
        ("training", f"{job['method']}{adapters}, optimizer {job['optimizer']}"),
        ("objective", job["objective"] if job["objective"] != "lm" else ""),
        (
            "batch",
            f"{job['batch']} × {job['seq']:,} tokens, accumulation {job['accumulation']}: global batch {global_batch(job)}",
        ),
        ("numbers", ", ".join(numbers)),
        ("kernels", f"attention {job['attention']}, loss {job['loss']}, checkpointing {job['checkpointing']}{_allocator(job)}"),
    ]


def _inference(job: dict[str, Any]) -> list[tuple[str, str]]:
    weights = job["precision"] if job["quantization"] == "none" else f"{job['quantization']} computed in {job['precision']}"
    prompt = f", {job['prompt']:,} of them prompt" if job["prompt"] < job["seq"] else ""
    return [
        ("inference", f"{job['batch']} × {job['seq']:,} tokens{prompt}"),
        ("numbers", f"weights {weights}, KV cache {job['kv_precision']}"),
        ("kernels", f"attention {job['attention']}{_allocator(job)}"),
    ]


def _allocator(job: dict[str, Any]) -> str:
    return "" if job["allocator"] == "default" else f", allocator {job['allocator']}"


def _parallel(job: dict[str, Any]) -> str:
    degrees = [f"{name} {job[name]}" for name in ("tp", "pp", "cp", "ep") if job[name] > 1]
    if job["zero"]:
        degrees.append(f"ZeRO {job['zero']} as {job['sharding']} does it")
    return ", ".join(degrees)


def part_names(estimates: list[Estimate]) -> list[str]:
    """The parts of any of the estimates, in the order of a budget; the memory guide's parts in its own."""
    names = dict.fromkeys(part.name for estimate in estimates for part in estimate.parts)
    return [name for name in PARTS if name in names] if names.keys() <= set(PARTS) else list(names)


def parts(plan: Plan) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of the budget; the last row is the total."""
    u, estimates = unit(plan), budgets(plan)
    sizes = {name: {part.name: part.bytes for part in estimate.parts} for name, estimate in estimates.items()}
    rows = [[part] for part in part_names(list(estimates.values()))]
    for row in rows:
        for name, estimate in estimates.items():
            size = sizes[name].get(row[0], 0)
            row += [u.figure(size), share(size, estimate)] if size else ["-", ""]
    total = [cell for estimate in estimates.values() for cell in (u.figure(estimate.device_bytes), "")]
    headers = [header for name in estimates for header in (f"{name}, {u.name}", "share")]
    return ["part", *headers], [*rows, ["total", *total]]


def every_part(name: str, estimate: Estimate) -> list[tuple[dict[str, Any], str]]:
    """The parts of an estimate with their origins, and what each is of: the card's memory, then the host's."""
    ours = [(part.to_dict(), name) for part in estimate.parts]
    return ours + [(part.to_dict(), f"{name}, host") for part in (estimate.host.parts if estimate.host else ())]
