"""An encoder of sentences small enough to be made in a test: the sum of its pieces' vectors, at unit length."""

from __future__ import annotations

import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nis_edge.monitor.sentences import MARKS, EncoderBytes

VOCABULARY = ("[PAD]", "[UNK]", *MARKS, "the", "pump", "valve", "not", "open", "##ed", "cl", "##s")


def tiny_tokenizer(**fields: object) -> bytes:
    model = {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": {piece: number for number, piece in enumerate(VOCABULARY)},
    }
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": None,
        "decoder": None,
        "model": model,
    }
    return json.dumps({**whole, **fields}).encode()


def tiny_graph(width: int = 2, *, inputs: tuple[str, str] = ("ids", "mask"), unit: bool = True) -> bytes:
    table = np.random.default_rng(5).normal(size=(len(VOCABULARY), width)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", inputs[0]], ["pieces"]),
        helper.make_node("Cast", [inputs[1]], ["kept"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["kept", "last"], ["column"]),
        helper.make_node("Mul", ["pieces", "column"], ["seen"]),
        helper.make_node("ReduceSum", ["seen", "first"], ["sum"], keepdims=0),
        helper.make_node("LpNormalization" if unit else "Identity", ["sum"], ["vectors"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["texts", "pieces"]) for name in inputs],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["texts", width])],
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(np.array([2], dtype=np.int64), "last"),
            numpy_helper.from_array(np.array([1], dtype=np.int64), "first"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    raw: bytes = model.SerializeToString()
    return raw


def tiny_encoder(width: int = 2, pieces: int = 8) -> EncoderBytes:
    return EncoderBytes(
        graph=tiny_graph(width),
        tokenizer=tiny_tokenizer(),
        width=width,
        pieces=pieces,
        licence="Apache-2.0",
        origin="a test",
    )
