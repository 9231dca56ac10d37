"""Chakra execution traces (github.com/mlcommons/chakra, ``et_def.proto``): a task graph as one protobuf stream per rank.

A stream is a ``GlobalMetadata`` and then ``Node`` messages, each after its length as a varint. Communicator groups are
beside it: names and members. Attributes that Chakra does not know keep what it cannot say: ``duration_ps`` the picoseconds
of a computation, ``operations`` how many operations a communication stands for.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from lightfabric.model.task import Kind, TaskGraph
from lightfabric.placement.graph.assembly import Assembly
from lightfabric.placement.graph.by_rank import Rank, ranks

MAX_PS = 1 << 60
"""Longest computation that is believed: 13 days."""
MAX_BYTES = 1 << 60
"""Largest message that is believed: 1 EiB."""
MAX_OPERATIONS = 1 << 30
MAX_NODE_BYTES = 1 << 20
"""Largest message that is parsed: it bounds the memory that the parts of one take."""


class NodeType(IntEnum):
    """Types of nodes that have a meaning here."""

    METADATA = 1
    MEM_LOAD = 2
    MEM_STORE = 3
    COMP = 4
    SEND = 5
    RECV = 6
    COLLECTIVE = 7


_ALL_REDUCE = 0
_PACKAGE = "lightfabric.chakra"
_FIELDS = {
    "Attribute": (
        ("name", 1, "string"), ("double_val", 3, "double"), ("float_val", 5, "float"), ("int32_val", 7, "int32"),
        ("int64_val", 9, "int64"), ("uint32_val", 11, "uint32"), ("uint64_val", 13, "uint64"), ("sint32_val", 15, "sint32"),
        ("sint64_val", 17, "sint64"), ("fixed32_val", 19, "fixed32"), ("fixed64_val", 21, "fixed64"),
        ("bool_val", 27, "bool"), ("string_val", 29, "string"),
    ),
    "GlobalMetadata": (("version", 1, "string"), ("attr", 2, "*Attribute")),
    "Node": (
        ("id", 1, "uint64"), ("name", 2, "string"), ("type", 3, "int32"), ("ctrl_deps", 4, "*uint64"),
        ("data_deps", 5, "*uint64"), ("duration_micros", 7, "uint64"), ("attr", 10, "*Attribute"),
    ),
}  # fmt: skip
"""The part of the schema that is used: name, number and type, ``*`` if repeated. What else a file holds is skipped."""


@cache
def _message(name: str) -> Any:
    """Class of a message of ``_FIELDS``; the values of an attribute are one of many."""
    file = descriptor_pb2.FileDescriptorProto(name="lightfabric/chakra.proto", package=_PACKAGE, syntax="proto3")
    types = descriptor_pb2.FieldDescriptorProto
    for message, fields in _FIELDS.items():
        described = file.message_type.add(name=message)
        if message == "Attribute":
            described.oneof_decl.add(name="value")
        for field, number, kind in fields:
            added = described.field.add(name=field, number=number)
            added.label = types.LABEL_REPEATED if kind[0] == "*" else types.LABEL_OPTIONAL
            if kind == "*Attribute":
                added.type, added.type_name = types.TYPE_MESSAGE, f".{_PACKAGE}.Attribute"
            else:
                added.type = types.Type.Value(f"TYPE_{kind.lstrip('*').upper()}")
            if field.endswith("_val"):
                added.oneof_index = 0
    # The pool is not the default one, where another copy of the schema in the process would clash with this one.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


def groups(graph: TaskGraph) -> dict[str, list[int]]:
    """Name and members of every communicator group: the content of the JSON file."""
    return {str(index): graph.group(index).tolist() for index in range(len(graph.member_start) - 1)}


def write(graph: TaskGraph) -> Iterator[bytes]:
    """The stream of each rank in turn. Task t has node 2 t; where a TRANSFER arrives it is node 2 t + 1.

    Raises ValueError if tasks wait for each other that meet at no rank, see ``graph.by_rank.ranks``.
    """
    for rank, here in enumerate(ranks(graph)):
        messages = (_message("GlobalMetadata")(version="0.0.4"), *_nodes(graph, rank, here))
        yield b"".join(part for message in messages for part in _delimited(message.SerializeToString(deterministic=True)))


def _delimited(content: bytes) -> tuple[bytes, bytes]:
    left, prefix = len(content), bytearray()
    # A varint has seven bits to a byte, the lowest first, and the top bit says that more follow.
    while left > 127:
        prefix.append(left & 127 | 128)
        left >>= 7
    return bytes([*prefix, left]), content


def _nodes(graph: TaskGraph, rank: int, here: Rank) -> Iterator[Any]:
    waits: dict[int, list[int]] = {}
    for after, before in here.waits.tolist():
        # What waits for a message where it arrives waits for its receive, which is another node than its send.
        arrives = graph.kind[before] == Kind.TRANSFER and graph.peer[before] == rank
        waits.setdefault(after, []).append(2 * before + arrives)
    for task in here.tasks.tolist():
        kind, sent_from, peer = Kind(graph.kind[task]), int(graph.device[task]), int(graph.peer[task])
        if kind == Kind.TRANSFER:
            if sent_from == rank:
                yield _node(2 * task, NodeType.SEND, waits.get(task, ()), _ends(graph, task))
            if peer == rank:
                yield _node(2 * task + 1, NodeType.RECV, (), _ends(graph, task))
        elif kind == Kind.COMPUTE:
            work = int(graph.work[task])
            node = _node(2 * task, NodeType.COMP, waits.get(task, ()), {"is_cpu_op": False, "duration_ps": work})
            # Chakra has whole microseconds only, and the attribute keeps the picoseconds.
            node.duration_micros = round(work / 1e6)
            yield node
        else:
            attributes = {"is_cpu_op": False, "comm_type": _ALL_REDUCE, "pg_name": str(peer), **_size(graph, task)}
            yield _node(2 * task, NodeType.COLLECTIVE, waits.get(task, ()), attributes)


def _ends(graph: TaskGraph, task: int) -> dict[str, int | bool | str]:
    # Chakra's tags are signed 32-bit numbers; messages whose tags are equal for that are told apart by their order.
    ends = {"comm_src": int(graph.device[task]), "comm_dst": int(graph.peer[task]), "comm_tag": task & 0x7FFFFFFF}
    return {"is_cpu_op": False, **ends, **_size(graph, task)}


def _size(graph: TaskGraph, task: int) -> dict[str, int]:
    return {"comm_size": int(graph.work[task]), "operations": int(graph.operations[task])}


_INT32 = ("comm_src", "comm_dst", "comm_tag")


def _node(identity: int, kind: NodeType, waits: Sequence[int], attributes: Mapping[str, int | bool | str]) -> Any:
    node = _message("Node")(id=identity, name=f"{kind.name.lower()}_{identity}", type=kind, data_deps=waits)
    for name, value in attributes.items():
        added = node.attr.add(name=name)
        # In Python a bool is an int too, so it has to be asked for first.
        if isinstance(value, bool):
            added.bool_val = value
        elif isinstance(value, str):
            added.string_val = value
        elif name in _INT32:
            added.int32_val = value
        else:
            added.int64_val = value
    return node


def read(streams: Iterable[bytes], members: Mapping[str, Sequence[int]]) -> TaskGraph:
    """Task graph of the streams of rank 0, 1, ...; ``members`` are the communicator groups by name.

    A send and a receive of equal ends and tag are one TRANSFER, in their order; the k-th all-reduces of a group at all its
    members are one ALL_REDUCE. What waits for a send waits until its bytes have arrived. A receive that waits is a BARRIER
    of that and the TRANSFER, which starts when it is sent. Memory accesses are COMPUTE, metadata is a BARRIER. Tasks are
    in the order of the ids of their nodes, then of ranks; what ``write`` wrote comes back as it was.

    ValueError, one line that names rank, node and field, if the streams are not as they must be: with other collectives,
    ends without their other end, or sizes that differ. Memory in proportion to the streams.
    """
    assembly = Assembly(list(members), list(members.values()))
    rank = -1
    for rank, stream in enumerate(streams):
        _read_rank(assembly, rank, stream)
    return assembly.graph(rank + 1)


def _read_rank(assembly: Assembly, rank: int, stream: bytes) -> None:
    content = _messages(stream, f"rank {rank}")
    _parsed("GlobalMetadata", next(content, b""), f"rank {rank}: metadata")
    for number, data in enumerate(content):
        where = f"rank {rank}: node {number}"
        node = _parsed("Node", data, where)
        _read_node(assembly, rank, node, where)


def _parsed(name: str, data: bytes, where: str) -> Any:
    try:
        return _message(name).FromString(data)
    except DecodeError:
        raise ValueError(f"{where} must be a protobuf {name}, not something else") from None


def _messages(stream: bytes, where: str) -> Iterator[bytes]:
    at = 0
    while at < len(stream):
        size = shift = 0
        while True:
            if at >= len(stream) or shift > 28:
                raise ValueError(f"{where}: length must be a varint below 2^35 inside {len(stream)} bytes, not at byte {at}")
            byte, at = stream[at], at + 1
            size, shift = size | (byte & 127) << shift, shift + 7
            if byte < 128:
                break
        if size > len(stream) - at:
            raise ValueError(f"{where}: length must be at most the {len(stream) - at} bytes that follow, not {size}")
        if size > MAX_NODE_BYTES:
            raise ValueError(f"{where}: length must be at most {MAX_NODE_BYTES}, not {size}")
        yield stream[at : at + size]
        at += size


def _read_node(assembly: Assembly, rank: int, node: Any, where: str) -> None:
    attributes = {attribute.name: _value(attribute) for attribute in node.attr}
    waits = [*node.data_deps, *node.ctrl_deps]

    def number(name: str, most: int, default: int | None = None) -> int:
        value = attributes.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise ValueError(f"{where}.{name} must be from 0 to {most}, not {value!r}")
        return value

    kind = node.type
    if kind in (NodeType.SEND, NodeType.RECV):
        sent = kind == NodeType.SEND
        ends = number("comm_src", 1 << 30, rank if sent else None), number("comm_dst", 1 << 30, None if sent else rank)
        if ends[not sent] != rank:
            raise ValueError(f"{where}.{'comm_src' if sent else 'comm_dst'} must be {rank}, not {ends[not sent]}")
        key = *ends, number("comm_tag", (1 << 63) - 1, 0)
        size = number("comm_size", MAX_BYTES), max(1, number("operations", MAX_OPERATIONS, 1))
        assembly.add_end(where, rank, node.id, waits, key, size, sent=sent)
    elif kind == NodeType.COLLECTIVE:
        if number("comm_type", 1 << 30) != _ALL_REDUCE:
            raise ValueError(f"{where}.comm_type must be 0, ALL_REDUCE, not {attributes['comm_type']}")
        size = number("comm_size", MAX_BYTES), max(1, number("operations", MAX_OPERATIONS, 1))
        assembly.add_reduce(where, rank, node.id, waits, str(attributes.get("pg_name", "")), size)
    elif kind in (NodeType.COMP, NodeType.MEM_LOAD, NodeType.MEM_STORE):
        # A duration that is too long is cut to one above the most, so that it fits an integer and is still refused.
        believed = min(node.duration_micros * 1_000_000, MAX_PS + 1)
        work = number("duration_ps", MAX_PS, believed)
        assembly.add_alone(where, rank, node.id, waits, Kind.COMPUTE, work)
    elif kind == NodeType.METADATA:
        assembly.add_alone(where, rank, node.id, waits, Kind.BARRIER, 0)
    else:
        raise ValueError(f"{where}.type must be from 1 to {max(NodeType)}, not {kind}")


def _value(attribute: Any) -> object:
    which = attribute.WhichOneof("value")
    return getattr(attribute, which) if which else None
