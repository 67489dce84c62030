"""GGUF files against the libraries of others: the `gguf` package writes and reads the same blocks, and transformers
computes the same logits from the same model in its own format."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from nis_edge.pack import ggml_blocks
from nis_edge.pack.checkpoint import Choices
from nis_edge.pack.gguf_checkpoint import read_gguf_checkpoint
from nis_edge.pack.writer import write_package
from tests.parity import agreement
from tests.support.gguf_files import IDS, RandomModel, encode, gguf_of, random_model

pytestmark = pytest.mark.oracle

TRANSFORMERS_NAMES = {
    "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj", "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm", "attn_sub_norm": "self_attn.attn_sub_norm",
    "ffn_sub_norm": "mlp.ffn_sub_norm",
}  # fmt: skip

SHAPES = {
    "bitnet-4of2-tied": ("bitnet-b1.58", {"hidden": 256, "ffn": 512, "heads": 4, "kv_heads": 2}),
    "bitnet-3of1-untied": ("bitnet-b1.58", {"hidden": 768, "ffn": 256, "heads": 3, "kv_heads": 1, "tied": False}),
    "llama-8of2-untied": ("llama", {"hidden": 256, "ffn": 512, "heads": 8, "kv_heads": 2, "tied": False}),
    "llama-2of2-tied": ("llama", {"hidden": 256, "ffn": 256, "heads": 2, "kv_heads": 2}),
}


@pytest.fixture(scope="module")
def gguf():
    return pytest.importorskip("gguf", reason="the gguf package is missing: the train extra brings it")


@pytest.fixture(scope="module")
def oracle():
    for module in ("torch", "transformers", "accelerate"):
        pytest.importorskip(module, reason=f"{module} is missing: the live oracle needs the train extra")
    from tests.parity import oracle

    return oracle


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def truth(oracle, request, tmp_path_factory):
    """A random model, its architecture, and what transformers computes from it."""
    architecture, shape = SHAPES[request.param]
    model = random_model(11, layers=2, vocab=200, sub_norms=architecture != "llama", **shape)
    folder = write_folder(tmp_path_factory.mktemp("gguf") / "checkpoint", model, architecture, shape)
    tokens = np.random.default_rng(12).integers(0, 200, 24).tolist()
    return model, architecture, shape, folder, tokens, oracle.logits(oracle.load(folder), tokens)


def write_folder(folder: Path, model: RandomModel, architecture: str, shape: dict) -> Path:
    """The model as transformers reads it: packed autobitlinear, as microsoft/bitnet-b1.58-2B-4T is published."""
    kind = "llama" if architecture == "llama" else "bitnet"
    config = {
        "architectures": ["LlamaForCausalLM" if kind == "llama" else "BitNetForCausalLM"],
        "model_type": kind,
        "hidden_act": "silu" if kind == "llama" else "relu2",
        "hidden_size": shape["hidden"],
        "intermediate_size": shape["ffn"],
        "num_hidden_layers": 2,
        "num_attention_heads": shape["heads"],
        "num_key_value_heads": shape["kv_heads"],
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "tie_word_embeddings": shape.get("tied", True),
        "vocab_size": 200,
        "quantization_config": {
            "quant_method": "bitnet",
            "linear_class": "autobitlinear",
            "quantization_mode": "offline",
            "modules_to_not_convert": ["lm_head"],
        },
    }
    tensors = {}
    fixed = {"embed": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
    for name, values in model.real.items():
        tensors[f"{fixed[name] if name in fixed else transformers_name(name)}.weight"] = values
    for name, codes in model.codes.items():
        quarters = (codes + 1).astype(np.uint8).reshape(4, -1, codes.shape[1])
        packed = quarters[0] | quarters[1] << 2 | quarters[2] << 4 | quarters[3] << 6
        tensors[f"{transformers_name(name)}.weight"] = packed
        tensors[f"{transformers_name(name)}.weight_scale"] = np.array([model.scales[name]], np.float32)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def transformers_name(name: str) -> str:
    _, layer, part = name.split(".")
    return f"model.layers.{layer}.{TRANSFORMERS_NAMES[part]}"


def packed_gguf(tmp_path: Path, model: RandomModel, kind: str, architecture: str, shape: dict) -> Path:
    """The same model through a GGUF file and our packer."""
    heads = {"heads": shape["heads"], "kv_heads": shape["kv_heads"]}
    file = gguf_of(model, kind, architecture=architecture, embed="F32", **heads).write(tmp_path / "a.gguf")
    source = read_gguf_checkpoint(file, choices=Choices(i2s_order="x86" if kind == "I2_S" else None))
    try:
        write_package(tmp_path / "a.nis", source.manifest, source.tensors)
    finally:
        source.close()
    return tmp_path / "a.nis"


@pytest.mark.parametrize("kind", ["F32", "F16", "TQ1_0", "TQ2_0", "I2_S"])
def test_logits_from_every_type_are_those_of_transformers(truth, tmp_path, kind):
    model, architecture, shape, _, tokens, logits = truth
    compute = agreement.native(packed_gguf(tmp_path, model, kind, architecture, shape))
    agreement.assert_agree(compute(tokens), logits)


def test_folder_and_gguf_file_of_one_model_hold_the_same_tensors(truth, tmp_path):
    from nis_edge.pack.reader import open_package

    model, architecture, shape, folder, _, _ = truth
    theirs = packed_gguf(tmp_path, model, "TQ2_0", architecture, shape)
    with open_package(agreement.pack(folder, tmp_path / "b.nis")) as a, open_package(theirs) as b:
        assert dict(a.hashes) == dict(b.hashes)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "TQ1_0", "TQ2_0"])
def test_the_gguf_package_encodes_the_same_bytes(gguf, kind):
    """The writer of the fast tests is right, by the library that llama.cpp's converters use."""
    random = np.random.default_rng(13)
    values = (random.integers(-1, 2, (6, 512)) * np.float16(0.125)).astype(np.float32)
    theirs = gguf.quants.quantize(values, gguf.GGMLQuantizationType(IDS[kind]))
    assert theirs.tobytes() == encode(values, kind)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K", "Q6_K", "TQ1_0", "TQ2_0"])
def test_the_gguf_package_decodes_the_same_numbers(gguf, kind):
    """Random bytes, so every bit of a block counts; the halves that are scales are kept finite."""
    block = ggml_blocks.TYPES[IDS[kind]]
    raw = np.random.default_rng(14).integers(0, 256, (300, block.block_bytes)).astype(np.uint8)
    for place in {"Q8_0": [0], "Q4_K": [0, 2], "Q6_K": [208], "TQ1_0": [52], "TQ2_0": [64]}[kind]:
        raw[:, place : place + 2] = np.random.default_rng(15).uniform(-1, 1, (300, 1)).astype("<f2").view(np.uint8)
    theirs = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType(IDS[kind])).reshape(-1)
    if kind.startswith("TQ"):
        codes, scales = ggml_blocks.ternary_blocks(kind, raw.reshape(-1))
        ours = (scales[:, None] * codes).reshape(-1)
    else:
        ours = ggml_blocks.real_rows(kind, raw.reshape(-1))
    assert np.array_equal(ours, theirs)


def test_files_of_the_gguf_packages_own_writer_are_read(gguf, tmp_path):
    model = random_model(16, sub_norms=False, tied=False)
    ours = gguf_of(model, "TQ2_0", architecture="llama")
    writer = gguf.GGUFWriter(str(tmp_path / "a.gguf"), "llama")
    writer.add_block_count(1)
    writer.add_context_length(512)
    writer.add_embedding_length(256)
    writer.add_feed_forward_length(256)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(64)
    for name, (shape, kind, raw) in ours.tensors.items():
        number = gguf.GGMLQuantizationType(IDS[kind])
        data = np.frombuffer(raw, np.uint8).reshape(gguf.quant_shape_to_byte_shape(shape, number))
        writer.add_tensor(name, data, raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    ours.write(tmp_path / "b.gguf")
    packages = []
    for name in ("a", "b"):
        source = read_gguf_checkpoint(tmp_path / f"{name}.gguf", model_id="m")
        write_package(tmp_path / f"{name}.nis", source.manifest, source.tensors)
        packages.append(source.manifest.architecture)
        source.close()
    assert packages[0] == packages[1]
