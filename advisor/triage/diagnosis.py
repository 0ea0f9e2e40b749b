"""A log, a text or an exception to what went wrong and what to do."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from advisor.triage import extract, facts, reader, rulebook
from advisor.triage.extract import Passage
from advisor.triage.facts import Situation
from advisor.triage.grammar import compiled
from advisor.triage.root import root
from advisor.triage.text import ANSI, Line, joined

if TYPE_CHECKING:
    from advisor.results import Plan

MOST_REFINED = 12  # messages whose lines are looked at for breaks
MOST_EVIDENCE = 6  # lines
LONGEST_SHOWN = 400  # characters of one
FRAME_LINES = 40  # before the message, where its phase may be seen


class Remedy(NamedTuple):
    """One thing to do: its name, its title, why it helps here, and the framework's words for it."""

    action: str
    title: str
    why: str
    how: str

    def to_dict(self) -> dict[str, str]:
        return self._asdict()


class Diagnosis(NamedTuple):
    """Why memory ran out, and what to do, the right thing first. Sizes in ``fields`` are bytes.

    ``cause`` is ``unknown`` and ``family`` None where the log has no message of memory that ran out.
    """

    family: str | None
    framework: str | None
    phase: str
    cause: str
    certainty: str
    why: str
    fields: dict[str, Any]
    evidence: tuple[str, ...]
    remedies: tuple[Remedy, ...]
    plan: Plan | None = None
    notes: tuple[str, ...] = ()
    settings: dict[str, Any] | None = None  # keys of a job that the log tells

    @property
    def found(self) -> bool:
        """Whether the log told a cause."""
        return self.family is not None

    @property
    def exit_code(self) -> int:
        return 0 if self.found else 4

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "family": self.family,
            "framework": self.framework,
            "phase": self.phase,
            "cause": self.cause,
            "certainty": self.certainty,
            "why": self.why,
            "fields": dict(self.fields),
            "evidence": list(self.evidence),
            "remedies": [remedy.to_dict() for remedy in self.remedies],
            "plan": self.plan and self.plan.to_dict(),
            "notes": list(self.notes),
        }

    def _repr_markdown_(self) -> str:
        from advisor.render.diagnosis import render

        return render(self, "markdown")


NOTHING = Diagnosis(
    None, None, "unknown", "unknown", "low", "The log has no message of memory that ran out.", {}, (), (),
    notes=("Give the whole output, from the first line of the failure on.",),
)  # fmt: skip


def diagnose(text: str | bytes, **job: Any) -> Diagnosis:
    """Why memory ran out, from the text of a log or of an error; with keys of a job (``gpu``, ``train``, ...) a plan too.

    >>> diagnose("RuntimeError: DataLoader worker (pid 7) is killed by signal: Killed.").cause
    'host-memory'
    """
    raw = text.encode("utf-8", "replace") if isinstance(text, str) else bytes(text)
    found = diagnose_stream(io.BytesIO(raw))
    if not job:
        return found
    from advisor.triage.plan import with_plan

    return with_plan(found, job)


def explain_oom(exception: BaseException, **job: Any) -> Diagnosis:
    """The same of an exception, with its traceback and what it came from: for an ``except`` block."""
    import traceback

    return diagnose("".join(traceback.format_exception(exception)), **job)


def diagnose_stream(stream: BinaryIO) -> Diagnosis:
    """The same of a binary stream of any size, read once."""
    log = reader.read(stream)
    chosen = root([*map(extract.refined, log.spots[:MOST_REFINED]), *log.spots[MOST_REFINED:]])
    if chosen is None:
        return NOTHING
    spot, fatal = chosen
    text = extract.passage(spot)
    values = extract.fields(spot, text)
    of = facts.situation(spot.message, fatal, values, text)
    found = rulebook.cause(of.facts)
    remedies = rulebook.treatment({**of.facts, "cause": found.cause})
    from advisor.triage.settings import settings

    told = settings(log, text, of)
    return Diagnosis(
        spot.message.family,
        of.framework,
        of.phase,
        found.cause,
        found.certainty,
        found.why,
        _shown(values),
        evidence(of, text),
        tuple(Remedy(one.name, one.title, one.why, _how(one.how, of)) for one in remedies),
        settings=told,
    )


def _shown(values: dict[str, Any]) -> dict[str, Any]:
    """The values under the names that are promised."""
    shown = {name: value for name, value in values.items() if name != "processes"}
    if "processes" in values:
        shown["other_processes"] = values["processes"]
    return shown


def _how(how: Any, of: Situation) -> str:
    """The words of the log's framework, with the figures that the message gives."""
    words = how.get(of.framework) or how["any"]
    length = of.fields.get("est_max_len") or _length_that_fits(of.fields) or "8192"
    return str(words).replace("{est_max_len}", str(length))


def _length_that_fits(values: dict[str, Any]) -> int | None:
    """The KV cache is proportional to the length, but for what slides; rounded down to whole blocks of 16."""
    asked, needed, has = (values.get(name) for name in ("max_model_len", "kv_needed_bytes", "kv_available_bytes"))
    if "kv_cache_tokens" in values:
        return int(values["kv_cache_tokens"])
    if not asked or not needed or not has or has <= 0:
        return None
    return int(asked * has / needed) // 16 * 16 or None


def evidence(of: Situation, text: Passage) -> tuple[str, ...]:
    """The lines that the diagnosis rests on: the frame or line that tells the phase, the message, what has its figures."""
    from advisor.triage.clues import telling

    frame = telling(of.phase, text.before[-FRAME_LINES:])
    own = [line for line in text.after[:20] if line.text and (line is text.after[0] or _tells(line, of))]
    chosen = [*([frame] if frame else []), *own]
    return tuple(shown for line in chosen[:MOST_EVIDENCE] if (shown := presentable(line.text)))


def _tells(line: Line, of: Situation) -> bool:
    low = joined([line]).lower()
    return of.message.is_in(low) or any(
        compiled(pattern.written).search(low) for patterns in of.message.fields.values() for pattern in patterns[:1]
    )


def presentable(text: str) -> str:
    """A line of a log that can go anywhere: no control characters, and no longer than a paragraph."""
    plain = ANSI.sub("", text).replace("\t", " ").strip()
    plain = "".join(sign if sign.isprintable() else "\ufffd" for sign in plain)
    return plain if len(plain) <= LONGEST_SHOWN else plain[: LONGEST_SHOWN - 1] + "…"
