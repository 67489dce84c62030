"""The manifest's rules one by one, and the one list of tensors."""

import msgspec
import pytest

from nis_edge import limits
from nis_edge.errors import PackFormatError
from nis_edge.pack import layout
from nis_edge.pack.container import parse_json
from nis_edge.pack.layout import Calibration, Golden, ModelIdentity, TaskHead, TokenizerInfo
from tests.support.tiny_models import tiny_manifest

HASH = "0" * 64


def manifest_with(**fields):
    return msgspec.structs.replace(tiny_manifest(), **fields)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (manifest_with(format=2), "format is 2"),
        (manifest_with(model=ModelIdentity("", "1")), "model.id"),
        (manifest_with(model=ModelIdentity("a", "1\n")), "model.version"),
        (tiny_manifest(hidden=0), "architecture.hidden must be"),
        (tiny_manifest(ffn=2**24 + 1), "architecture.ffn must be"),
        (tiny_manifest(vocab=-1), "architecture.vocab must be"),
        (tiny_manifest(heads=2**20, kv_heads=1, head_dim=32), "heads times head_dim"),
        (tiny_manifest(heads=4, kv_heads=3), "multiple of kv_heads"),
        (tiny_manifest(head_dim=15), "head_dim must be even"),
        (tiny_manifest(layers=0), "architecture.layers must be"),
        (tiny_manifest(layers=1024), "together have more than 1024 layers"),
        (tiny_manifest(context=0), "architecture.context must be"),
        (tiny_manifest(context=limits.PACK_CONTEXT_MAX + 1), "architecture.context must be"),
        (tiny_manifest(rope_theta=0.0), "architecture.rope_theta"),
        (tiny_manifest(rope_theta=float("nan")), "architecture.rope_theta"),
        (tiny_manifest(norm_eps=float("inf")), "architecture.norm_eps"),
        (manifest_with(quantisation=layout.Quantisation(head="F32")), "quantisation.head must be null"),
        (
            msgspec.structs.replace(tiny_manifest(tied_head=False), quantisation=layout.Quantisation()),
            "quantisation.head must be null",
        ),
        (tiny_manifest(task_heads={"A": TaskHead(0, ("a",))}), "task head's name"),
        (tiny_manifest(task_heads={"a": TaskHead(-1, ("a",))}), "task head a: layers"),
        (tiny_manifest(task_heads={"a": TaskHead(0, ())}), "task head a: 1 to"),
        (tiny_manifest(task_heads={"a": TaskHead(0, ("b", "b"))}), "task head a: 1 to"),
        (tiny_manifest(task_heads={"a": TaskHead(0, ("b c",))}), "an output's name"),
        (manifest_with(labels=("a", "a")), "labels: at most"),
        (manifest_with(labels=("1a",)), "labels must be"),
        (manifest_with(tokenizer=TokenizerInfo("none", {"bos": 320})), "outside the vocabulary of 320"),
        (manifest_with(calibration=Calibration(thresholds={"a": -0.1})), "thresholds must be probabilities"),
        (manifest_with(calibration=Calibration(thresholds={"a": float("nan")})), "thresholds must be probabilities"),
        (manifest_with(calibration=Calibration(temperature={"a": -1.0})), "temperature must be"),
        (manifest_with(licence="x" * 129), "licence"),
        (manifest_with(golden=(Golden((0,), HASH),) * 65), "golden: at most 64"),
        (manifest_with(golden=(Golden((), HASH),)), "1 to 128 tokens"),
        (manifest_with(golden=(Golden((0,) * 129, HASH),)), "1 to 128 tokens"),
        (manifest_with(golden=(Golden((320,), HASH),)), "outside the vocabulary"),
        (manifest_with(golden=(Golden((0,), HASH, {"x": HASH}),)), "names a task head"),
        (manifest_with(golden=(Golden((0,), HASH[1:]),)), "SHA-256 is 64"),
    ],
)
def test_each_rule_of_the_manifest_is_kept(manifest, message):
    with pytest.raises(PackFormatError, match=message):
        layout.check_manifest(manifest, "here")


def test_a_sound_manifest_passes_and_survives_its_own_json():
    manifest = manifest_with(
        calibration=Calibration({"looping": 0.5}, {"looping": 1.25}, {"method": "Platt", "samples": 12}),
        golden=(Golden((1, 2), HASH, {"consciousness": HASH}),),
        lineage={"data": [{"sha256": HASH}], "loss": 0.1},
    )
    layout.check_manifest(manifest, "here")
    text = layout.encode_manifest(manifest)
    assert layout.decode_manifest(parse_json(text.encode(), "here"), "here") == manifest
    assert layout.encode_manifest(manifest) == text


def test_tensors_stand_in_execution_order_the_small_ones_first():
    names = [spec.name for spec in layout.tensor_table(tiny_manifest(layers=11, tied_head=False))]
    assert names[:4] == ["trunk.0.attn_norm", "trunk.0.attn_sub_norm", "trunk.0.ffn_norm", "trunk.0.ffn_sub_norm"]
    assert names.index("trunk.2.q") < names.index("trunk.10.q") < names.index("head")
    assert names.index("heads.consciousness.bias") < names.index("embed") < names.index("trunk.0.q")
    assert names[-2:] == ["heads.consciousness.0.down", "tokenizer"]
    assert len(set(names)) == len(names)


def test_padding_follows_every_tensor_that_needs_it_but_the_last():
    sizes = [("a", 64), ("b", 4), ("c", 65), ("d", 128), ("e", 1)]
    assert layout.with_padding(sizes) == ["a", "b", "pad.00001", "c", "pad.00002", "d", "e"]
    assert layout.with_padding([]) == []
