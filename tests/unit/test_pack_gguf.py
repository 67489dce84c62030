"""Reading GGUF files: every type, every architecture, tokenizers, and what is refused with which flag."""

from pathlib import Path

import numpy as np
import pytest

from nis_edge.cli import main
from nis_edge.errors import PackFormatError
from nis_edge.pack import i2s_order
from nis_edge.pack.checkpoint import Choices
from nis_edge.pack.ggml_blocks import I2S_ORDERS, i2s_matrix
from nis_edge.pack.gguf_checkpoint import read_gguf_checkpoint
from nis_edge.pack.reader import open_package
from nis_edge.pack.ternary import unpack_ternary
from nis_edge.pack.writer import write_package
from tests.support.gguf_files import U32, GgufFile, byte_level_keys, encode, gguf_of, random_model
from tests.support.tiny_models import tiny_tokenizer_json

MATRIX_TYPES = ("F32", "F16", "BF16", "TQ1_0", "TQ2_0", "I2_S")


def pack(path, target, **options):
    checkpoint = read_gguf_checkpoint(path, **options)
    try:
        write_package(target, checkpoint.manifest, checkpoint.tensors)
    finally:
        checkpoint.close()
    return checkpoint


def refused(tmp_path, file: GgufFile | bytes, match: str, **choices) -> str:
    path = tmp_path / "bad.gguf"
    path.write_bytes(file if isinstance(file, bytes) else file.to_bytes())
    with pytest.raises(PackFormatError, match=match) as caught:
        pack(path, tmp_path / "bad.nis", choices=Choices(**choices))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 900
    assert not (tmp_path / "bad.nis").exists()
    return str(caught.value)


def assert_holds(package, model):
    for name, codes in model.codes.items():
        matrix = package.matrix(name)
        assert np.array_equal(unpack_ternary(matrix.packed, matrix.rows, matrix.columns), codes), name
        assert matrix.scale == model.scales[name], name
    for name, values in model.real.items():
        assert np.array_equal(package.float32(name), values), name


@pytest.mark.parametrize("kind", MATRIX_TYPES)
def test_every_type_gives_the_codes_and_scales_it_holds(tmp_path, kind):
    model = random_model(3)
    if kind == "BF16":  # eight bits of mantissa
        model = type(model)(model.codes, dict.fromkeys(model.scales, 0.125), model.real)
    path = gguf_of(model, kind).write(tmp_path / "a.gguf")
    choices = Choices(i2s_order="x86") if kind == "I2_S" else Choices()
    made = pack(path, tmp_path / "a.nis", choices=choices)
    assert made.storage == kind
    with open_package(tmp_path / "a.nis", check_content=True) as package:
        assert_holds(package, model)
        shape = package.manifest.architecture
        assert (shape.heads, shape.kv_heads, shape.head_dim, shape.context) == (4, 2, 64, 512)
        assert (shape.activation, shape.sub_norms, shape.tied_head) == ("relu2", True, True)
        assert package.manifest.quantisation.embed == "F16"
        assert package.manifest.lineage["architecture"] == "bitnet-b1.58"


@pytest.mark.parametrize("order", ["x86", "arm", "x86-rows"])
def test_the_order_of_i2s_codes_is_the_one_that_was_said(tmp_path, order):
    model = random_model(4)
    path = gguf_of(model, "I2_S", order=order).write(tmp_path / "a.gguf")
    pack(path, tmp_path / "a.nis", choices=Choices(i2s_order=order))
    with open_package(tmp_path / "a.nis") as package:
        assert_holds(package, model)


def test_random_i2s_codes_show_no_order_and_are_refused_with_the_flag(tmp_path):
    message = refused(tmp_path, gguf_of(random_model(5), "I2_S"), "--i2s-order x86")
    assert "standard deviations" in message


@pytest.mark.parametrize("order", ["x86", "arm", "x86-rows"])
def test_a_model_that_uses_its_channels_unevenly_shows_its_order(tmp_path, order):
    """Channels with a large norm are read with more non-zero codes, as in trained models."""
    random = np.random.default_rng(6)
    model = random_model(6, hidden=512)
    loudness = random.uniform(0.3, 0.9, 512)
    codes = {}
    for name, values in model.codes.items():
        keep = random.uniform(size=values.shape) < (loudness if values.shape[1] == 512 else 0.6)
        codes[name] = np.where(keep, random.choice([-1, 1], values.shape), 0).astype(np.int8)
    real = {**model.real, "trunk.0.attn_norm": loudness.astype(np.float32)}
    model = type(model)(codes, model.scales, real)
    path = gguf_of(model, "I2_S", order=order).write(tmp_path / "a.gguf")
    made = pack(path, tmp_path / "a.nis")
    assert f"in the order {order}:" in made.notes[0]
    with open_package(tmp_path / "a.nis") as package:
        assert_holds(package, model)


class NanoChannels:
    """The shipped model, trained by this project, as if its matrices stood in a GGUF file of the given order.

    Its widths are no multiple of a block, so each matrix is cut to whole ones.
    """

    def __init__(self, package, true_order):
        self.package, self.true_order = package, true_order
        self.layers = package.manifest.architecture.layers

    def codes(self, layer, part, order):
        matrix = self.package.matrix(f"trunk.{layer}.{part}")
        codes = unpack_ternary(matrix.packed, matrix.rows, matrix.columns)
        codes = codes[: codes.shape[0] // 4 * 4, : codes.shape[1] // 128 * 128]
        raw = np.frombuffer(encode(codes.astype(np.float32), "I2_S", order=self.true_order), np.uint8)
        return i2s_matrix(raw, codes.shape, order)

    def norm(self, layer, part):
        values = self.package.float32(f"trunk.{layer}.{part}")
        return values[: values.size // 128 * 128]

    def embedding(self, rows):
        return self.package.float32("embed", slice(0, rows))[:, :128]


@pytest.mark.parametrize("order", I2S_ORDERS)
def test_a_trained_model_shows_its_order(order):
    """18 standard deviations in the right order, at most 4.4 in a wrong one."""
    path = Path(__file__).parents[2] / "models" / "nis-nano" / "nis-nano.nis"
    with open_package(path, check_content=False) as package:
        found, evidence = i2s_order.tested_order(NanoChannels(package, order))
    assert found == order, evidence


def test_a_tensor_beyond_the_memory_is_one_clear_error(tmp_path, monkeypatch, capsys):
    def exhausted(*_):
        raise MemoryError

    monkeypatch.setattr("nis_edge.pack.ggml_blocks.ternary_blocks", exhausted)
    path = gguf_of(random_model(23), "TQ2_0").write(tmp_path / "a.gguf")
    assert main(["pack", str(path), "-o", str(tmp_path / "a.nis")]) == 1
    assert "does not fit this machine's memory" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.gguf"]


def test_a_scale_that_divides_is_turned_round_only_on_demand(tmp_path):
    model = random_model(7)
    path = gguf_of(model, "I2_S").write(tmp_path / "a.gguf")
    pack(path, tmp_path / "a.nis", choices=Choices(i2s_order="x86", scale="divide"))
    with open_package(tmp_path / "a.nis") as package:
        for name, scale in model.scales.items():
            assert package.matrix(name).scale == np.float32(1 / np.float32(scale))


def test_llama_files_have_their_pairs_separated_and_no_sub_norms(tmp_path):
    model = random_model(8, sub_norms=False, tied=False)
    path = gguf_of(model, "TQ2_0", architecture="llama").write(tmp_path / "a.gguf")
    pack(path, tmp_path / "a.nis")
    with open_package(tmp_path / "a.nis") as package:
        assert_holds(package, model)
        shape = package.manifest.architecture
        assert (shape.activation, shape.sub_norms, shape.tied_head) == ("silu", False, False)


def test_the_architecture_bitnet_needs_the_activation_said(tmp_path):
    file = gguf_of(random_model(9), "TQ2_0", architecture="bitnet")
    refused(tmp_path, file, "--activation relu2")
    path = file.write(tmp_path / "a.gguf")
    for activation in ("relu2", "silu"):
        pack(path, tmp_path / "a.nis", choices=Choices(activation=activation))
        with open_package(tmp_path / "a.nis") as package:
            assert package.manifest.architecture.activation == activation
    refused(tmp_path, gguf_of(random_model(9), "TQ2_0"), "means the activation relu2", activation="silu")


def test_a_head_that_repeats_the_embedding_is_tied(tmp_path):
    model = random_model(10)
    file = gguf_of(model, "TQ2_0")
    file.add("output.weight", model.real["embed"], "F16")
    pack(file.write(tmp_path / "a.gguf"), tmp_path / "a.nis")
    with open_package(tmp_path / "a.nis") as package:
        assert package.manifest.architecture.tied_head


def test_blocks_with_unequal_scales_are_refused_by_name(tmp_path):
    file = gguf_of(random_model(11), "TQ2_0")
    shape, kind, raw = file.tensors["blk.0.ffn_up.weight"]
    file.tensors["blk.0.ffn_up.weight"] = (shape, kind, raw[:64] + np.float16(0.5).tobytes() + raw[66:])
    assert "blk.0.ffn_up.weight" in refused(tmp_path, file, "2 different block scales, from")


@pytest.mark.parametrize("kind", ["TQ1_0", "TQ2_0"])
def test_an_empty_block_has_no_say_in_the_scale(tmp_path, kind):
    model = random_model(12)
    model.codes["trunk.0.up"][3] = 0
    pack(gguf_of(model, kind).write(tmp_path / "a.gguf"), tmp_path / "a.nis")
    with open_package(tmp_path / "a.nis") as package:
        assert_holds(package, model)


@pytest.mark.parametrize("kind", ["TQ2_0", "I2_S"])
def test_a_code_3_is_refused(tmp_path, kind):
    file = gguf_of(random_model(13), kind)
    shape, name, raw = file.tensors["blk.0.attn_q.weight"]
    file.tensors["blk.0.attn_q.weight"] = (shape, name, b"\xff" + raw[1:])
    refused(tmp_path, file, "the code 3", **({"i2s_order": "x86"} if kind == "I2_S" else {}))


def test_real_weights_need_a_word_to_be_made_ternary(tmp_path):
    file = gguf_of(random_model(14), "F16")
    weights = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)
    file.add("blk.0.ffn_up.weight", weights, "F16")
    refused(tmp_path, file, "--weights master")
    pack(file.write(tmp_path / "a.gguf"), tmp_path / "a.nis", choices=Choices(storage="master"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["blk.0.ffn_up.weight", "blk.0.attn_norm.weight", "token_embd.weight"])
def test_nan_in_the_weights_is_one_clear_error(tmp_path, name, value):
    file = gguf_of(random_model(15), "F32", embed="F32")
    shape, kind, raw = file.tensors[name]
    file.tensors[name] = (shape, kind, np.float32(value).tobytes() + raw[4:])
    refused(tmp_path, file, "NaN or infinity")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"general.architecture": "gemma"}, "the architecture is 'gemma'"),
        ({"general.architecture": U32(1)}, "general.architecture is no text"),
        ({"general.alignment": U32(3)}, "general.alignment"),
        ({"bitnet-b1.58.block_count": U32(0)}, "above 0"),
        ({"bitnet-b1.58.block_count": U32(2)}, "lacks tensor blk.1"),
        ({"bitnet-b1.58.block_count": U32(2**32 - 1)}, "layers must be"),
        ({"bitnet-b1.58.embedding_length": U32(128)}, "rope.dimension_count"),
        ({"bitnet-b1.58.feed_forward_length": U32(128)}, "the metadata demands"),
        ({"bitnet-b1.58.embedding_length": "256"}, "one number above 0"),
        ({"bitnet-b1.58.embedding_length": np.array([256] * 2, dtype="<u4")}, "is a list"),
        ({"bitnet-b1.58.attention.head_count": U32(3)}, "dimension|multiple|head"),
        ({"bitnet-b1.58.attention.head_count_kv": U32(3)}, "multiple of kv_heads"),
        ({"bitnet-b1.58.rope.dimension_count": U32(32)}, "rope.dimension_count"),
        ({"bitnet-b1.58.rope.scaling.type": "yarn"}, "are scaled"),
        ({"bitnet-b1.58.rope.scaling.factor": 4.0}, "are scaled"),
        ({"bitnet-b1.58.rope.freq_base": -1.0}, "above 0"),
        ({"bitnet-b1.58.expert_count": U32(8)}, "mixture of experts"),
        ({"bitnet-b1.58.attention.sliding_window": U32(128)}, "sliding window"),
        ({"bitnet-b1.58.context_length": U32(2**31)}, "context must be"),
        ({"split.count": U32(2)}, "llama-gguf-split --merge"),
    ],
)
def test_metadata_the_package_cannot_express_is_refused(tmp_path, change, message):
    file = gguf_of(random_model(16), "TQ2_0")
    file.keys.update(change)
    refused(tmp_path, file, message)


def test_tensors_of_another_graph_are_refused(tmp_path):
    file = gguf_of(random_model(17), "TQ2_0")
    file.add("blk.0.attn_q.bias", np.zeros(256, np.float32))
    refused(tmp_path, file, "attn_q.bias and 0 more are no part")
    file = gguf_of(random_model(17), "TQ2_0")
    del file.tensors["output_norm.weight"]
    refused(tmp_path, file, "lacks tensor output_norm.weight")
    file = gguf_of(random_model(17), "TQ2_0")
    file.add("rope_freqs.weight", np.full(32, 8, np.float32))
    refused(tmp_path, file, "rope_freqs.weight")


def test_flags_that_do_not_fit_the_file_are_refused(tmp_path):
    file = gguf_of(random_model(18), "TQ2_0")
    refused(tmp_path, file, "--i2s-order is for", i2s_order="x86")
    refused(tmp_path, file, "--scale is for", scale="divide")
    refused(tmp_path, file, "is for Hugging Face folders", storage="bitlinear")


def test_truncation_anywhere_is_refused(tmp_path):
    raw = gguf_of(random_model(19), "TQ2_0").to_bytes()
    header = raw.index(b"token_embd.weight")
    for length in [*range(8, header, 41), *range(header, len(raw) - 32, 20_011), len(raw) - 40]:
        refused(tmp_path, raw[:length], "truncated|outside|ends inside|GGUF")


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, b"GGML", "no GGUF file"),
        (4, (1).to_bytes(4, "little"), "version 1"),
        (4, (3).to_bytes(4, "big"), "big-endian"),
        (8, (2**63).to_bytes(8, "little"), "tensors, above the bound"),
        (16, (2**40).to_bytes(8, "little"), "keys, above the bound"),
        (24, (2**60).to_bytes(8, "little"), "a text of"),
    ],
)
def test_a_header_that_lies_is_refused_before_anything_is_allocated(tmp_path, place, value, message):
    raw = gguf_of(random_model(20), "TQ2_0").to_bytes()
    refused(tmp_path, raw[:place] + value + raw[place + len(value) :], message)


# --- words ------------------------------------------------------------------------------------------------------------

TEXTS = ("The agent reads  the sensor.", "Battery 11.4 V\n\n  ok", "naïve — 汉字 🙂", " a", "I'll DON'T 12345 x9")


def with_tokenizer(pre: str | None = "gpt-2") -> GgufFile:
    file = gguf_of(random_model(21, vocab=320), "TQ2_0")
    file.keys.update(byte_level_keys(tiny_tokenizer_json(), pre))
    return file


def packed_tokenizer(tmp_path, file, **choices):
    from nis_edge.engine.tokenizer import Tokenizer

    pack(file.write(tmp_path / "a.gguf"), tmp_path / "a.nis", choices=Choices(**choices))
    with open_package(tmp_path / "a.nis") as package:
        info = package.manifest.tokenizer
        return Tokenizer.from_bytes(package.tensors["tokenizer"].tobytes(), info.specials), package.manifest


def test_a_byte_level_tokenizer_gives_the_ids_of_the_one_it_was_made_from(tmp_path):
    from tokenizers import Tokenizer

    ours, manifest = packed_tokenizer(tmp_path, with_tokenizer())
    theirs = Tokenizer.from_buffer(tiny_tokenizer_json())
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids
        assert ours.decode(ours.encode(text)) == text
    assert (ours.special("bos"), ours.special("eos")) == (1, 2)
    assert manifest.generation.stop == (2,)


def test_the_llama_pattern_cuts_numbers_in_threes_and_takes_whole_tokens(tmp_path):
    ours, _ = packed_tokenizer(tmp_path, with_tokenizer("llama-bpe"))
    for text in TEXTS:
        assert ours.decode(ours.encode(text)) == text


@pytest.mark.parametrize("pre", [None, "default"])
def test_a_file_that_does_not_name_its_pre_tokenizer_needs_the_flag(tmp_path, pre):
    refused(tmp_path, with_tokenizer(pre), "--tokenizer-pre llama-bpe|names the pre-tokenizer") if pre is None else None
    ours, _ = packed_tokenizer(tmp_path, with_tokenizer(pre), pre="llama-bpe")
    assert ours.decode(ours.encode(TEXTS[0])) == TEXTS[0]


def test_an_unknown_pre_tokenizer_is_refused_by_name_or_left_out(tmp_path):
    refused(tmp_path, with_tokenizer("deepseek-v3"), "names the pre-tokenizer 'deepseek-v3'.*--no-tokenizer")
    path = with_tokenizer("deepseek-v3").write(tmp_path / "a.gguf")
    pack(path, tmp_path / "a.nis", choices=Choices(without_tokenizer=True))
    with open_package(tmp_path / "a.nis") as package:
        assert package.manifest.tokenizer.kind == "none"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model", "bert", "of the kind 'bert'"),
        ("tokens", ["a"] * 320, "the same text"),
        ("tokens", [f"t{n}" for n in range(321)], "321 tokens, but the embedding 320 rows"),
        ("tokens", "abc", "no list of texts"),
        ("token_type", np.array([1, 2], dtype="<i4"), "one integer per token"),
        ("merges", ["nonsense"], "does not join two tokens"),
        ("merges", np.array([1], dtype="<i4"), "no list of texts"),
    ],
)
def test_a_tokenizer_that_disagrees_with_the_vocabulary_or_itself_is_refused(tmp_path, key, value, message):
    file = with_tokenizer()
    file.keys[f"tokenizer.ggml.{key}"] = value
    refused(tmp_path, file, message)


def test_a_sentencepiece_vocabulary_is_joined_best_score_first(tmp_path):
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256))]
    words = ["▁", "a", "b", "c", "ab", "bc", "▁a", "abc", "▁abc"]
    scores = [0.0] * len(pieces) + [-8.0, -7.0, -6.0, -5.0, -2.0, -1.0, -3.0, -4.0, -9.0]
    kinds = [2, 3, 3] + [6] * 256 + [1] * len(words)
    file = gguf_of(random_model(22, vocab=320), "TQ2_0")
    file.keys |= {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": pieces + words,
        "tokenizer.ggml.scores": np.array(scores, dtype="<f4"),
        "tokenizer.ggml.token_type": np.array(kinds, dtype="<i4"),
        "tokenizer.ggml.bos_token_id": U32(1),
    }
    ours, _ = packed_tokenizer(tmp_path, file)
    names = pieces + words
    assert [names[token] for token in ours.encode("abc")] == ["▁abc"]
    # bc (-1) goes before ab (-2), so "aab" joins ab only where no better piece takes the b.
    assert [names[token] for token in ours.encode("abab")] == ["▁", "ab", "ab"]
    assert [names[token] for token in ours.encode("é")] == ["▁", "<0xC3>", "<0xA9>"]
    assert ours.decode(ours.encode("abc é  x")) == "abc é  x"


def test_the_chat_template_and_the_sampling_travel_along(tmp_path):
    file = with_tokenizer()
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    file.keys |= {"tokenizer.chat_template": template, "general.sampling.temp": 0.5, "general.sampling.top_k": U32(40)}
    _, manifest = packed_tokenizer(tmp_path, file)
    assert manifest.tokenizer.chat_template == template
    assert (manifest.generation.temperature, manifest.generation.top_k, manifest.generation.top_p) == (0.5, 40, None)


def test_the_command_packs_a_gguf_file_and_tests_it_with_the_engine(tmp_path, capsys):
    file = with_tokenizer().write(tmp_path / "a.gguf")
    assert main(["pack", str(file), "-o", str(tmp_path / "a.nis")]) == 0
    assert main(["verify", str(tmp_path / "a.nis")]) == 0
    assert "1 of 1 passed" in capsys.readouterr().out
    first = (tmp_path / "a.nis").read_bytes()
    assert main(["pack", str(file), "-o", str(tmp_path / "b.nis")]) == 0
    assert (tmp_path / "b.nis").read_bytes() == first


def test_flags_of_gguf_files_are_refused_for_folders(tmp_path, capsys):
    assert main(["pack", str(tmp_path), "--scale", "divide", "-o", str(tmp_path / "a.nis")]) == 2
    assert "--scale is for GGUF files" in capsys.readouterr().err
