"""What a model is trained for, beside the next token: how many sequences go through, and which other models are there.

After TRL 1.16 (trainer/dpo_trainer.py, kto_trainer.py, reward_trainer.py, grpo_trainer.py; experimental/orpo and cpo).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from advisor.errors import RequestError

if TYPE_CHECKING:
    from advisor.engines import Engine
    from advisor.model import Model

# The chosen and the rejected sequence go through the model together (DataCollatorForPreference).
PAIRED = ("dpo", "orpo", "simpo", "reward")
# The log-probabilities of the model as it was at first are needed as well.
REFERRED = ("dpo", "kto")
# TRL computes these over all logits (experimental/orpo/orpo_trainer.py, experimental/cpo/cpo_trainer.py).
WHOLE_LOGITS = ("orpo", "simpo")

REFUSED = {
    "ppo": "it holds a policy, a reference, a value and a reward model, and a job names one; estimate each by itself",
    "rloo": "its reference and its generation are not estimated; --objective grpo is the nearest",
    "online-dpo": "its judge or reward model is not in the job; --objective dpo is its training step",
    "distillation": "the teacher is not in the job; estimate it with --infer and add its memory",
}

NOTES = {
    "dpo": "A batch counts pairs: both sequences of a pair have {seq:,} tokens and go through together.",
    "kto": "The reference and the KL estimate are further passes without gradients.",
    "orpo": "A batch counts pairs: both sequences of a pair have {seq:,} tokens and go through together. There is no reference model.",
    "simpo": "A batch counts pairs: both sequences of a pair have {seq:,} tokens and go through together. There is no reference model.",
    "reward": "A batch counts pairs of {seq:,} tokens each, and a head of one number stands in place of the language model's.",
    "grpo": "GRPO: sequences are prompt and completion, beta is 0 (no reference model), and transformers generates on this card all"
    " sequences of a step; a vLLM server elsewhere saves the decode phase, and vLLM on the same card is not estimated.",
}


def check(objective: str, engine: Engine, model: Model, estimator: str) -> None:
    """Refuses what is not estimated, and what the engine does not train."""
    if objective != "lm" and model.ends:
        raise RequestError(f"objective: {objective} is for decoders; {model.name} is trained as its config says")
    if objective in REFUSED:
        raise RequestError(f"objective: {objective} is not estimated: {REFUSED[objective]}")
    if objective != "lm" and estimator != "detailed":
        raise RequestError(f"objective: the memory guide knows the next token only; {objective} takes --estimator detailed")
    if objective != "lm" and objective not in engine.objectives:
        raise RequestError(f"objective: {engine.name} does not train {objective}, or not as it is estimated; take --engine trl")


def note(objective: str, method: str, seq: int) -> str:
    """What is counted, in a sentence or two."""
    text = NOTES[objective].format(seq=seq)
    if objective in REFERRED:
        full = "a second copy of the weights is the reference; precompute_ref_log_probs saves it"
        text += f" With full training {full}." if method == "full" else " The reference is the model with its adapters off."
    return text


def scored(model: Model) -> Model:
    """The model as a reward model: without its head, with one of a single number (AutoModelForSequenceClassification)."""
    stored = model.stored and tuple(x for x in model.stored if not x.name.endswith("lm_head.weight"))
    return model._replace(scored=True, tied=False, head_bias=False, logit_softcap=False, logits_fp32=False, stored=stored)
