"""What a job with an encoder in it means: its head, its two lengths, and what is refused."""

from __future__ import annotations

from advisor.errors import RequestError
from advisor.memory import sound
from advisor.model import Audio, Head, Model
from advisor.workload import Workload

OBJECTIVES: dict[Head, str] = {
    "masked-lm": "a masked-LM head, with logits of every token",
    "sequence": "a classification head of {labels} labels a sequence",
    "tokens": "a head of {labels} labels a token",
}


def with_objective(model: Model, task: str) -> Model:
    """The model as it is trained: an encoder that has no head gets one."""
    ends = model.ends
    assert ends
    if task == "infer" or model.is_encoder_decoder:
        return model
    assumed = ends.head in ("none", "pooler")
    if assumed:
        ends = ends._replace(head="sequence")
    why = "assumed, since `architectures` in its config names no class with a head" if assumed else "as its config says"
    note = f"{model.name} is trained with {OBJECTIVES[ends.head].format(labels=ends.labels)}: {why}."
    return model._replace(ends=ends, notes=(*model.notes, note))


def _audio(model: Model) -> Audio | None:
    return model.ends.audio if model.ends else None


def seconds(audio: Audio) -> float:
    """A frame is 160 samples of 16,000 a second (transformers 5.23 feature_extraction_whisper.py, hop_length)."""
    return sound.FRAMES * audio.positions * 160 / 16_000


def _lengths(w: Workload) -> str:
    """How many tokens go where."""
    if not w.source:
        return ""
    if audio := _audio(w.model):
        writes = "writes" if w.task == "infer" else "is taught"
        return (
            f"The encoder reads {seconds(audio):g} s of sound for each sequence, padded to {audio.positions:,} positions as the model"
            f" fixes them, and the decoder {writes} {w.length:,} tokens (seq)."
        )
    does = "reads" if w.task == "infer" else "sees"
    other = "writes" if w.task == "infer" else "is taught"
    how = "--prompt" if w.prompt < w.seq else "seq, for want of a shorter --prompt"
    return f"The encoder {does} {w.prompt:,} tokens ({how}), and the decoder {other} {w.length:,}."


def settled(w: Workload) -> Workload:
    """The job with what only an encoder needs decided, and said."""
    if w.asked.loss is None:
        w = w._replace(loss="plain")
    _refuse(w)
    lengths = _lengths(w)
    return w._replace(notes=(*w.notes, lengths)) if lengths else w


def _refuse(w: Workload) -> None:
    """Raises RequestError for what is not worked out for encoders. They are small: one copy stands on each GPU."""
    name = w.model.name
    if w.engine.serving or w.engine.ggml:
        raise RequestError(
            f"engine: what {w.engine.name} does with an encoder such as {name}'s is not known here; take transformers"
        )
    for degree in ("tp", "pp", "cp"):
        if getattr(w, degree) > 1:
            raise RequestError(f"{degree}: {name} has an encoder, and is not divided over GPUs here; every GPU holds all of it")
    if w.task == "infer" and w.gpus > 1:
        raise RequestError(f"gpus: {name} has an encoder, and its layers are not dealt out over GPUs here; run a copy on each")
    if w.task == "infer" and w.offload:
        raise RequestError(f"offload: {name} has an encoder, whose layers and caches are not moved to the host here")
    if not w.model.is_encoder_decoder and w.asked.kv_precision not in (None, w.precision.removesuffix("-mixed")):
        raise RequestError(f"kv-precision: {name} generates nothing, and has no KV cache")
    if w.loss == "chunked" and w.task == "train":
        raise RequestError(f"loss: chunked losses are for decoders; {name} takes --loss plain")
    if w.checkpointing == "selective":
        raise RequestError(f"checkpointing: selective is not worked out for {name}; full is")
    if (audio := _audio(w.model)) and w.prompt < w.seq:
        raise RequestError(
            f"prompt: {name} reads {seconds(audio):g} s of sound, whatever is written; the decoder's tokens are --seq"
        )
    if not w.model.is_encoder_decoder and w.prompt < w.seq:
        raise RequestError(f"prompt: {name} generates nothing; the length of its input is --seq")
