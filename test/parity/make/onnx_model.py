"""Makes test/parity/formats/onnx/*: a model as the onnx package writes it, and what the package lists of it.

    python test/parity/make/onnx_model.py    (onnx, numpy)

`inline.onnx` holds its tensors itself, in every field that can hold numbers; `external.onnx` has those that are raw
bytes in `external.data`. One operator has graphs within it, whose tensors are not the graph's own.
"""
import collections
import json
import os

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "formats", "onnx")
os.makedirs(FOLDER, exist_ok=True)
NAMES = {
    1: "F32", 2: "U8", 3: "I8", 4: "U16", 5: "I16", 6: "I32", 7: "I64", 8: "STRING", 9: "BOOL", 10: "F16", 11: "F64",
    12: "U32", 13: "U64", 14: "C64", 15: "C128", 16: "BF16", 17: "F8_E4M3", 22: "I4",
}

raw = {
    "f32": numpy.ones((3, 4), numpy.float32), "f64": numpy.ones((2,), numpy.float64),
    "i64": numpy.arange(5, dtype=numpy.int64), "i32": numpy.ones((2, 2), numpy.int32),
    "f16": numpy.ones((4,), numpy.float16), "bool": numpy.array([True, False]), "u8": numpy.ones((3,), numpy.uint8),
    "scalar": numpy.array(3, numpy.float32),
}
typed = {
    "floats": (TensorProto.FLOAT, [2, 3], [1, 2, 3, 4, 5, 6]), "halves": (TensorProto.BFLOAT16, [2], [1.0, 2.0]),
    "longs": (TensorProto.INT64, [3], [-1, 2**40, 3]), "unsigned": (TensorProto.UINT64, [2], [2**63, 3]),
    "doubles": (TensorProto.DOUBLE, [2], [1, 2]), "complex": (TensorProto.COMPLEX64, [2], [1 + 2j, 2]),
    "wide": (TensorProto.COMPLEX128, [2], [1 + 2j, 2]), "texts": (TensorProto.STRING, [2], [b"ab", b"cde"]),
    "quarters": (TensorProto.INT4, [3], [1, -2, 3]), "eighths": (TensorProto.FLOAT8E4M3FN, [3], [1, 2, 3]),
    "negative": (TensorProto.INT32, [3], [-1, -2, -3]), "empty": (TensorProto.FLOAT, [0, 3], []),
}
initializers = [numpy_helper.from_array(array, name) for name, array in raw.items()]
initializers += [helper.make_tensor(name, *said) for name, said in typed.items()]
info = helper.make_tensor_value_info
then = helper.make_graph(
    [helper.make_node("Add", ["x", "f32"], ["t"]),
     helper.make_node("Constant", [], ["k"], value=helper.make_tensor("k", TensorProto.FLOAT, [1], [1.0]))],
    "then", [], [info("t", TensorProto.FLOAT, None)])
other = helper.make_graph(
    [helper.make_node("Mul", ["x", "f32"], ["e"])], "else", [], [info("e", TensorProto.FLOAT, None)],
    [numpy_helper.from_array(numpy.ones(2, numpy.float32), "inner")])
graph = helper.make_graph(
    [helper.make_node("Add", ["x", "f32"], ["y"]), helper.make_node("Add", ["y", "f32"], ["z"]),
     helper.make_node("If", ["condition"], ["w"], then_branch=then, else_branch=other),
     helper.make_node("Gelu", ["z"], ["v"], domain="com.microsoft")],
    "graph",
    [info("x", TensorProto.FLOAT, ["batch", 4, None]), info("condition", TensorProto.BOOL, []),
     helper.make_tensor_sequence_value_info("several", TensorProto.FLOAT, None)],
    [info("w", TensorProto.FLOAT, None), info("v", TensorProto.FLOAT16, [3, 4])], initializers)
model = helper.make_model(
    graph, producer_name="maker", producer_version="1.2",
    opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)])
helper.set_model_props(model, {"author": "me", "note": "ä€"})
onnx.save(model, os.path.join(FOLDER, "inline.onnx"))
onnx.save(model, os.path.join(FOLDER, "external.onnx"), save_as_external_data=True, all_tensors_to_one_file=True,
          location="external.data", size_threshold=0)


def ports(values):
    listed = []
    for value in values:
        kind = value.type.WhichOneof("value")
        if kind != "tensor_type":
            listed.append({"name": value.name, "type": kind.removesuffix("_type")})
            continue
        tensor = value.type.tensor_type
        sizes = [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim]
        listed.append({"name": value.name, "type": NAMES[tensor.elem_type],
                       **({"sizes": sizes} if tensor.HasField("shape") else {})})
    return listed


def count(graph, counts):
    for node in graph.node:
        counts[(node.domain + "." if node.domain else "") + node.op_type] += 1
        for attribute in node.attribute:
            if attribute.HasField("g"):
                count(attribute.g, counts)
    return counts


def tensors(graph):
    listed = []
    for tensor in graph.initializer:
        said = {entry.key: entry.value for entry in tensor.external_data}
        beside = {"beside": {"file": said["location"], "offset": int(said.get("offset", 0))}} if said else {}
        listed.append({"name": tensor.name, "type": NAMES[tensor.data_type], "sizes": list(tensor.dims), **beside})
    return listed


listed = {"onnx": onnx.__version__}
for name in ["inline", "external"]:
    read = onnx.load(os.path.join(FOLDER, name + ".onnx"), load_external_data=False)
    listed[name] = {
        "irVersion": read.ir_version, "producer": f"{read.producer_name} {read.producer_version}",
        "opsets": {opset.domain or "ai.onnx": opset.version for opset in read.opset_import},
        "metadata": {entry.key: entry.value for entry in read.metadata_props},
        "inputs": ports(read.graph.input), "outputs": ports(read.graph.output),
        "operators": count(read.graph, collections.Counter()), "tensors": tensors(read.graph),
    }
with open(os.path.join(FOLDER, "listed.json"), "w", encoding="utf-8") as file:
    json.dump(listed, file, ensure_ascii=False, indent=1)
