"""Reading Hugging Face checkpoints: every storage, shards, and what is refused. Written with numpy, no torch needed.

What transformers computes with such checkpoints is compared in tests/parity.
"""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from nis_edge.cli import main
from nis_edge.errors import PackFormatError
from nis_edge.pack.huggingface import read_checkpoint, unpack_rows
from nis_edge.pack.reader import open_package
from nis_edge.pack.ternary import quantise_absmean, unpack_ternary
from nis_edge.pack.writer import write_package
from tests.support.tiny_models import tiny_tokenizer_json

CONFIG = {
    "architectures": ["BitNetForCausalLM"],
    "model_type": "bitnet",
    "attention_bias": False,
    "bos_token_id": 1,
    "eos_token_id": [2, 3],
    "pad_token_id": None,
    "hidden_act": "relu2",
    "hidden_size": 24,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-05,
    "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"},
    "tie_word_embeddings": True,
    "vocab_size": 320,
}
MATRICES = {
    "self_attn.q_proj": (24, 24),
    "self_attn.k_proj": (8, 24),
    "self_attn.v_proj": (8, 24),
    "self_attn.o_proj": (24, 24),
    "mlp.gate_proj": (40, 24),
    "mlp.up_proj": (40, 24),
    "mlp.down_proj": (24, 40),
}
OURS = dict(zip(MATRICES, ("q", "k", "v", "o", "gate", "up", "down"), strict=True))


def quantisation(linear_class: str, mode: str) -> dict:
    return {"quant_method": "bitnet", "linear_class": linear_class, "quantization_mode": mode, "use_rms_norm": False}


def pack_rows(codes: np.ndarray) -> np.ndarray:
    """Transformers' packing, row by row."""
    quarter = codes.shape[0] // 4
    packed = np.zeros((quarter, codes.shape[1]), dtype=np.uint8)
    for row in range(codes.shape[0]):
        packed[row % quarter] |= ((codes[row] + 1) << (2 * (row // quarter))).astype(np.uint8)
    return packed


@pytest.fixture
def checkpoint(tmp_path):
    """Writes a checkpoint folder and returns it with the codes and the real weight of code 1 that it means."""

    def write(storage: str = "master", *, config: dict | None = None, change=None, shards: int = 1, said: bool = True):
        folder = tmp_path / "checkpoint"
        folder.mkdir(exist_ok=True)
        random = np.random.default_rng(0)
        tensors = {
            "model.embed_tokens.weight": random.standard_normal((320, 24)).astype(np.float32),
            "model.norm.weight": random.uniform(0.5, 1.5, 24).astype(np.float16),
        }
        meant = {}
        for layer in range(2):
            prefix = f"model.layers.{layer}."
            tensors[f"{prefix}input_layernorm.weight"] = np.ones(24, np.float32)
            tensors[f"{prefix}post_attention_layernorm.weight"] = np.ones(24, np.float32)
            tensors[f"{prefix}self_attn.attn_sub_norm.weight"] = np.ones(24, np.float32)
            tensors[f"{prefix}mlp.ffn_sub_norm.weight"] = np.ones(40, np.float32)
            for name, shape in MATRICES.items():
                codes = random.integers(-1, 2, shape)
                real = np.float32(random.uniform(0.01, 0.1))
                key = f"{prefix}{name}.weight"
                if storage == "master":
                    tensors[key] = random.standard_normal(shape).astype(np.float32)
                    codes, real = quantise_absmean(tensors[key])
                elif storage == "autobitlinear-real":
                    tensors[key] = codes.astype(np.float32)
                    tensors[f"{key}_scale"] = np.array([real])
                else:
                    tensors[key] = pack_rows(codes)
                    tensors[f"{key}_scale"] = np.array([real if storage == "autobitlinear" else 1 / real], np.float32)
                meant[f"trunk.{layer}.{OURS[name]}"] = (codes, real)
        fields = dict(CONFIG)
        if said:
            fields["quantization_config"] = quantisation(
                "bitlinear" if storage == "bitlinear" else "autobitlinear",
                "online" if storage == "master" else "offline",
            )
        fields.update(config or {})
        (folder / "config.json").write_text(
            json.dumps({key: value for key, value in fields.items() if value != "drop"})
        )
        if change is not None:
            change(tensors)
        names = sorted(tensors)
        if shards == 1:
            save_file(tensors, folder / "model.safetensors")
        else:
            files = [f"model-{part + 1:05}-of-{shards:05}.safetensors" for part in range(shards)]
            for part, file in enumerate(files):
                save_file({name: tensors[name] for name in names[part::shards]}, folder / file)
            weight_map = {name: files[position % shards] for position, name in enumerate(names)}
            (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
        return folder, meant

    return write


def pack(folder, path, **options):
    checkpoint = read_checkpoint(folder, **options)
    try:
        return write_package(path, checkpoint.manifest, checkpoint.tensors)
    finally:
        checkpoint.close()


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("storage", ["master", "bitlinear", "autobitlinear", "autobitlinear-real"])
def test_every_storage_gives_the_codes_and_scales_that_it_means(tmp_path, checkpoint, storage, shards):
    folder, meant = checkpoint(storage, shards=shards)
    pack(folder, tmp_path / "a.nis")
    with open_package(tmp_path / "a.nis") as package:
        for name, (codes, real) in meant.items():
            matrix = package.matrix(name)
            assert np.array_equal(unpack_ternary(matrix.packed, matrix.rows, matrix.columns), codes), name
            assert matrix.scale == pytest.approx(float(real), rel=2e-7)
        architecture = package.manifest.architecture
        assert (architecture.heads, architecture.kv_heads, architecture.head_dim) == (3, 1, 8)
        assert architecture.rope_theta == 500_000.0
        assert architecture.sub_norms and architecture.tied_head
        assert package.specs["norm"].dtype == "F32"


def test_unpacking_is_the_reverse_of_transformers_packing():
    codes = np.random.default_rng(2).integers(-1, 2, (20, 7))
    assert np.array_equal(unpack_rows(pack_rows(codes)), codes)


def test_the_same_checkpoint_packs_to_the_same_bytes_and_names_its_files(tmp_path, checkpoint):
    folder, _ = checkpoint()
    first = pack(folder, tmp_path / "a.nis")
    assert pack(folder, tmp_path / "b.nis") == first
    with open_package(tmp_path / "a.nis") as package:
        assert package.manifest.model.id == "checkpoint"
        assert set(package.manifest.lineage["files_sha256"]) == {"model.safetensors"}
        assert str(tmp_path) not in json.dumps(package.manifest.lineage)


def test_the_tokenizer_and_its_specials_come_along(tmp_path, checkpoint):
    folder, _ = checkpoint()
    (folder / "tokenizer.json").write_bytes(tiny_tokenizer_json())
    pack(folder, tmp_path / "a.nis")
    with open_package(tmp_path / "a.nis") as package:
        assert package.tensors["tokenizer"].tobytes() == tiny_tokenizer_json()
        assert package.manifest.tokenizer.specials == {"bos": 1, "eos": 2}


def test_a_tokenizer_for_another_vocabulary_is_refused(tmp_path, checkpoint):
    folder, _ = checkpoint()
    (folder / "tokenizer.json").write_text('{"model":{"vocab":{"a":0,"b":320}}}')
    with pytest.raises(PackFormatError, match="token id 320, but the model has a vocabulary of 320"):
        pack(folder, tmp_path / "a.nis")


def test_untied_heads_and_old_rope_fields_are_read(tmp_path, checkpoint):
    def untie(tensors):
        tensors["lm_head.weight"] = np.full((320, 24), 2.0, np.float16)
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)

    old = {"tie_word_embeddings": False, "rope_parameters": "drop", "rope_theta": 10000, "rope_scaling": None}
    folder, _ = checkpoint(config=old, change=untie)
    pack(folder, tmp_path / "a.nis")
    with open_package(tmp_path / "a.nis") as package:
        assert package.manifest.quantisation.head == "F16"
        assert package.manifest.architecture.rope_theta == 10_000.0
        assert (package.tensors["head"] == 2).all()


def test_a_stored_head_beside_a_tied_one_must_be_the_embedding(tmp_path, checkpoint):
    folder, _ = checkpoint(change=lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].copy()}))
    pack(folder, tmp_path / "a.nis")
    folder, _ = checkpoint(change=lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"] * 2}))
    with pytest.raises(PackFormatError, match="differs from the embedding"):
        pack(folder, tmp_path / "a.nis")


@pytest.mark.parametrize(
    ("storage", "flag"), [("master", "--weights master"), ("bitlinear", "--weights bitlinear if weight_scale divides")]
)
def test_an_undecided_storage_is_refused_naming_the_flag_that_decides(checkpoint, storage, flag):
    folder, _ = checkpoint(storage, said=False)
    with pytest.raises(PackFormatError, match=flag):
        read_checkpoint(folder)
    read_checkpoint(folder, storage=storage).close()


def test_a_flag_may_not_contradict_the_checkpoint(checkpoint):
    folder, _ = checkpoint("bitlinear")
    with pytest.raises(PackFormatError, match="says the weights are bitlinear, not autobitlinear"):
        read_checkpoint(folder, storage="autobitlinear")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architectures": ["MistralForCausalLM"], "model_type": "mistral"}, "accepted is"),
        ({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}, "ffn_sub_norm.weight and 3 more are no part"),
        ({"model_type": "llama"}, "accepted is"),
        ({"model_type": ["llama"]}, "accepted is"),
        ({"architectures": "x" * 10_000}, "accepted is"),
        ({"attention_bias": True}, "no biases"),
        ({"hidden_act": "gelu"}, "relu2 or silu"),
        ({"hidden_size": 25}, "do not make hidden_size"),
        ({"hidden_size": 48}, "demands"),
        ({"hidden_size": "24"}, "a number above 0"),
        ({"hidden_size": True}, "a number above 0"),
        ({"hidden_size": 24.0}, "an integer"),
        ({"num_hidden_layers": 3}, "lacks tensor"),
        ({"num_hidden_layers": 1}, "no part of the graph"),
        ({"num_hidden_layers": 10**9}, "layers must be"),
        ({"num_hidden_layers": 10**300}, "a number above 0"),
        ({"num_attention_heads": 0}, "a number above 0"),
        ({"num_key_value_heads": 2}, "multiple of kv_heads"),
        ({"rms_norm_eps": -1}, "a number above 0"),
        ({"vocab_size": 321}, "demands"),
        ({"tie_word_embeddings": "drop"}, "lacks tie_word_embeddings"),
        ({"tie_word_embeddings": False}, "lacks tensor lm_head.weight"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4, "rope_theta": 1e4}}, "scaling"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": "x"}}, "a number above 0"),
        ({"rope_parameters": [1]}, "no object"),
        ({"quantization_config": {"quant_method": "gptq"}}, "not of the method bitnet"),
        ({"quantization_config": {**quantisation("autobitlinear", "online"), "use_rms_norm": True}}, "use_rms_norm"),
        (
            {"quantization_config": {**quantisation("autobitlinear", "online"), "modules_to_not_convert": ["mlp"]}},
            "only lm_head",
        ),
        ({"quantization_config": {"quant_method": "bitnet"}}, "linear_class"),
        ({"quantization_config": quantisation("autobitlinear", "sometimes")}, "linear_class"),
        ({"quantization_config": quantisation("bitlinear", "offline")}, "lacks tensor .*weight_scale"),
    ],
)
def test_a_config_the_package_cannot_express_is_refused(tmp_path, checkpoint, config, message):
    folder, _ = checkpoint(config=config)
    with pytest.raises(PackFormatError, match=message) as caught:
        pack(folder, tmp_path / "a.nis")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 800
    assert not (tmp_path / "a.nis").exists()


Q = "model.layers.1.self_attn.q_proj.weight"


def _set(name, value):
    return lambda tensors: tensors.__setitem__(name, value)


@pytest.mark.parametrize(
    ("storage", "change", "message"),
    [
        ("master", lambda t: t.pop(Q), f"lacks tensor {Q}"),
        (
            "master",
            _set("model.layers.1.self_attn.q_proj.bias", np.zeros(24, np.float32)),
            "no part of the graph",
        ),
        ("master", _set("model.evil\nname", np.zeros(1, np.float32)), r"'model.evil\\nname'"),
        ("master", _set("model.layers.7.mlp.up_proj.weight", np.zeros(1, np.float32)), "no part of the graph"),
        ("master", _set(f"{Q}_scale", np.ones(1, np.float32)), "no part of the graph"),
        ("master", _set(Q, np.zeros((6, 24), np.uint8)), "is packed"),
        ("master", _set(Q, np.full((24, 24), np.nan, np.float32)), "NaN"),
        ("master", _set(Q, np.zeros((24, 24), np.int32)), "I32"),
        ("master", _set(Q, np.zeros((24, 25), np.float32)), "demands"),
        ("master", _set("model.embed_tokens.weight", np.zeros((320, 24), np.int8)), "I8"),
        ("master", _set("model.embed_tokens.weight", np.full((320, 24), np.inf, np.float32)), "NaN or infinity"),
        ("master", _set("model.norm.weight", np.full(24, np.inf, np.float32)), "NaN or infinity"),
        ("bitlinear", lambda t: t.pop(f"{Q}_scale"), "lacks tensor"),
        ("bitlinear", _set(f"{Q}_scale", np.array([np.nan], np.float32)), "above zero"),
        ("bitlinear", _set(f"{Q}_scale", np.array([0], np.float32)), "above zero"),
        ("bitlinear", _set(f"{Q}_scale", np.array([-1], np.float32)), "above zero"),
        ("bitlinear", _set(f"{Q}_scale", np.ones(24, np.float32)), "one scale per matrix"),
        ("bitlinear", _set(Q, np.full((6, 24), 0xFF, np.uint8)), "code 3"),
        ("bitlinear", _set(Q, np.zeros((24, 24), np.float32)), "bitlinear stores packed"),
        ("bitlinear", _set(Q, np.zeros((24, 24), np.uint8)), "demands"),
        ("autobitlinear-real", _set(Q, np.full((24, 24), 0.5, np.float32)), "other than -1, 0 and 1"),
        ("autobitlinear-real", _set(Q, np.full((24, 24), np.nan, np.float32)), "other than -1, 0 and 1"),
        ("autobitlinear-real", _set(Q, np.full((24, 24), 300.0, np.float32)), "other than -1, 0 and 1"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused(tmp_path, checkpoint, storage, change, message):
    folder, _ = checkpoint(storage, change=change)
    with pytest.raises(PackFormatError, match=message):
        pack(folder, tmp_path / "a.nis")
    assert not (tmp_path / "a.nis").exists()


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/etc/passwd", "a/b.safetensors", ".hidden.safetensors", "model.bin", ""]
)
def test_an_index_may_not_lead_out_of_its_folder(checkpoint, name):
    folder, _ = checkpoint(shards=2)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(PackFormatError, match="no plain safetensors file name"):
        read_checkpoint(folder)


@pytest.mark.parametrize("weight_map", [None, {}, [], {"a": "missing.safetensors"}])
def test_a_broken_index_is_refused(checkpoint, weight_map):
    folder, _ = checkpoint(shards=2)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(PackFormatError):
        read_checkpoint(folder)


def test_a_tensor_in_two_shards_is_refused(checkpoint):
    folder, _ = checkpoint(shards=2)
    save_file({"model.norm.weight": np.ones(24, np.float32)}, folder / "model-00001-of-00002.safetensors")
    save_file({"model.norm.weight": np.ones(24, np.float32)}, folder / "model-00002-of-00002.safetensors")
    with pytest.raises(PackFormatError, match="stands in"):
        read_checkpoint(folder)


def test_a_truncated_checkpoint_is_refused(tmp_path, checkpoint):
    folder, _ = checkpoint()
    data = (folder / "model.safetensors").read_bytes()
    for length in (0, 4, 100, len(data) // 2, len(data) - 1):
        (folder / "model.safetensors").write_bytes(data[:length])
        with pytest.raises(PackFormatError, match=r"model\.safetensors"):
            read_checkpoint(folder)


def test_a_folder_with_another_kind_of_weights_says_what_is_accepted(checkpoint):
    folder, _ = checkpoint()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(PackFormatError, match=r"pytorch_model\.bin is no safetensors file.*accepted is"):
        read_checkpoint(folder)


@pytest.mark.parametrize("what", ["file", "missing", "empty-folder"])
def test_the_command_refuses_other_input_in_one_line(tmp_path, capsys, what):
    source = tmp_path / "source"
    if what == "file":
        source.write_bytes(b"GGUF" + bytes(100))
    elif what == "empty-folder":
        source.mkdir()
    assert main(["pack", str(source), "-o", str(tmp_path / "a.nis")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"nis-edge: {source}")
    expected = "little-endian versions 2 and 3 are read" if what == "file" else "a folder in Hugging Face layout"
    assert expected in error
    assert error.count("\n") == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ([] if what == "missing" else ["source"])


def test_the_commands_pack_inspect_and_verify_agree(tmp_path, checkpoint, capsys):
    folder, _ = checkpoint("bitlinear")
    path = tmp_path / "a.nis"
    options = ["--id", "small", "--licence", "MIT", "--no-golden", "--json"]
    assert main(["pack", str(folder), "-o", str(path), *options]) == 0
    packed = json.loads(capsys.readouterr().out)
    assert packed["weights"] == "bitlinear"
    assert packed["tokenizer"] == "none"
    assert packed["size_bytes"] == path.stat().st_size
    assert main(["inspect", str(path), "--json"]) == 0
    inspected = json.loads(capsys.readouterr().out)
    assert inspected["sha256"] == packed["sha256"]
    assert inspected["manifest"]["model"] == {"id": "small", "version": "1"}
    assert inspected["manifest"]["licence"] == "MIT"
    assert all(tensor["offset"] % 64 == 0 for tensor in inspected["tensors"])
    assert main(["verify", str(path), "--json"]) == 0
    verified = json.loads(capsys.readouterr().out)
    assert verified["sha256"] == packed["sha256"]
    assert verified["self_tests_run"] == 0
    assert verified["tensors_checked"] == len(inspected["tensors"])
    assert main(["inspect", str(path)]) == 0
    table = capsys.readouterr().out
    assert "trunk.1.down" in table and "24 x 40" in table
    assert main(["verify", str(path)]) == 0
    assert "not run, the package brings none" in capsys.readouterr().out


def test_verify_names_the_damaged_tensor(tmp_path, checkpoint, capsys):
    folder, _ = checkpoint()
    pack(folder, tmp_path / "a.nis")
    data = bytearray((tmp_path / "a.nis").read_bytes())
    data[-1] ^= 1
    (tmp_path / "a.nis").write_bytes(data)
    assert main(["verify", str(tmp_path / "a.nis")]) == 2
    assert "trunk.1.down does not match its SHA-256" in capsys.readouterr().err
