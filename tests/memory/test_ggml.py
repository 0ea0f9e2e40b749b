"""llama.cpp's mixtures: bits per weight, file sizes and tensor counts as llama.cpp itself prints them."""

from collections import Counter

import pytest

from advisor.memory import ggml
from advisor.memory.parameters import layer_weights, outer_weights, parameter_count
from advisor.memory.sharding import Rank
from advisor.memory.weights import Storing, _place, ggml_bytes, ggml_sum
from advisor.references import find_model

# llama.cpp tools/quantize/README.md, Llama-3.1-8B
BITS_PER_WEIGHT = {
    "iq2_xxs": 2.3824, "iq2_m": 2.9294, "iq3_xxs": 3.2548, "iq3_m": 3.7628, "iq4_xs": 4.4597, "iq4_nl": 4.6818, "q2_k": 3.1593,
    "q3_k_s": 3.6429, "q3_k_l": 4.2979, "q4_k_s": 4.6672, "q4_k_m": 4.8944, "q5_k_s": 5.5704, "q5_k_m": 5.7036, "q6_k": 6.5633,
    "q8_0": 8.5008,
}  # fmt: skip


def file_bytes(name: str, quantization: str) -> int:
    """All tensors of the file: what is on the card, and an embedding that is not."""
    model = find_model(name)
    how = Storing(quantization, 2, blocks=False, ggml=True)
    held = ggml_sum(Rank(model), how).bytes
    return held if model.tied else held + ggml_bytes(outer_weights(model)[0], how, _place(model, model.layers[-1], 0))


@pytest.mark.parametrize(("quantization", "bits"), BITS_PER_WEIGHT.items())
def test_bits_per_weight_of_llama(quantization: str, bits: float) -> None:
    """Each mixture of Llama-3.1-8B has the published bits per weight to the fourth digit."""
    model = "llama-3.1-8b"
    assert 8 * file_bytes(model, quantization) / parameter_count(find_model(model)) == pytest.approx(bits, abs=1e-4)


@pytest.mark.parametrize(
    ("model", "quantization", "gib"),
    [
        ("llama-3.1-70b", "q3_k_m", 31.91),  # ollama issue 10553, print_info: file size
        ("qwen2.5-14b", "q4_k_m", 8.37),  # Jeffser/Alpaca issue 572, llm_load_print_meta: model size
    ],
)
def test_file_sizes_in_logs(model: str, quantization: str, gib: float) -> None:
    """Files of other models are as large as llama.cpp says when it loads them."""
    assert round(file_bytes(model, quantization) / 2**30, 2) == gib


def test_tensors_of_each_type() -> None:
    """Llama-3.1-70B in Q3_K_M: 321 tensors q3_K, 155 q4_K, 85 q5_K and one q6_K (ollama issue 10553)."""
    model, mixture = find_model("llama-3.1-70b"), ggml.MIXTURES["q3_k_m"]
    kinds = Counter[str]()
    for index, layer in enumerate(model.layers):
        for weight in layer_weights(layer, model.hidden):
            if weight.kind == "linear":
                kinds[ggml.type_of(ggml.PARTS.get(weight.name, ""), mixture, _place(model, layer, index))] += 1
    for weight in outer_weights(model):
        if weight.kind in ("embedding", "head"):
            kinds[ggml.type_of(ggml.PARTS[weight.name], mixture, _place(model, model.layers[0], 0))] += 1
    assert kinds == {"q3_k": 321, "q4_k": 155, "q5_k": 85, "q6_k": 1}


def test_the_embedding_stays_on_the_cpu() -> None:
    """Pythia-2.8B in f16: 5,049.71 MiB on the card, 245.62 MiB of embedding on the CPU, vectors in fp32 (ggml-ci, build 4823)."""
    model = find_model("pythia-2.8b")
    assert round(ggml_sum(Rank(model), Storing("none", 2, blocks=False, ggml=True)).bytes / 2**20, 2) == 5049.71


def test_a_tied_embedding_is_on_the_card_as_the_head() -> None:
    """Llama-3.2-1B: every matrix is on the card, the embedding in the head's type, q6_k."""
    model = find_model("llama-3.2-1b")
    layers = sum(w.rows * w.cols for layer in model.layers for w in layer_weights(layer, model.hidden) if w.kind == "linear")
    vectors = parameter_count(model) - layers - model.vocab * model.hidden
    held = ggml_sum(Rank(model), Storing("q5_k_s", 2, blocks=False, ggml=True)).bytes
    assert held == layers // 256 * 176 + model.vocab * model.hidden // 256 * 210 + 4 * vectors


def test_eight_experts_get_better_attention() -> None:
    """Mixtral: keys and values are q8_0, 64 of them in a file, whatever the mixture (ollama pull request 5469)."""
    model = find_model("mixtral-8x7b")
    place = _place(model, model.layers[0], 0)
    assert [ggml.type_of(part, ggml.MIXTURES["q4_k_m"], place) for part in ("key", "value", "output")] == [
        "q8_0",
        "q8_0",
        "q5_k",
    ]


def test_gpt_oss_in_mxfp4() -> None:
    """gpt-oss-20b: experts in MXFP4, all other matrices q8_0: 12.1 GB, the size of the file that llama.cpp's makers publish."""
    assert file_bytes("gpt-oss-20b", "mxfp4") / 1e9 == pytest.approx(12.1, abs=0.02)


def test_rows_that_are_no_whole_blocks() -> None:
    """Of 896 columns a q4_k matrix becomes q5_0, whose blocks are 32 wide; of 900 it stays f16."""
    assert ggml.size("q4_k", 10, 896) == 10 * 896 // 32 * 22
    assert ggml.size("q4_k", 10, 900) == 10 * 900 * 2
