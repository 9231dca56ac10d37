"""Chakra execution traces (github.com/mlcommons/chakra, ``et_def.proto``): a task graph as one protobuf stream per rank.

A stream is a ``GlobalMetadata`` and then ``Node`` messages, each after its length as a varint. Communicator groups are
beside it, names and members, or in it, as PyTorch records them. Attributes that Chakra does not know keep what it cannot
say: ``duration_ps`` the picoseconds of a computation, ``operations`` how many operations a communication stands for.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from lightfabric.model.spec import AcceleratorSpec
from lightfabric.model.task import Kind, TaskGraph
from lightfabric.placement.collective.choice import Choose
from lightfabric.placement.format import process_group
from lightfabric.placement.graph.assembly import MAX_OPERATIONS, Assembly
from lightfabric.placement.graph.by_rank import Rank, ranks
from lightfabric.placement.graph.collective import Collective

MAX_PS = 1 << 60
"""Longest computation that is believed: 13 days."""
MAX_BYTES = 1 << 60
"""Largest message that is believed: 1 EiB."""
_AMOUNTS = {"num_ops": 1 << 80, "tensor_size": MAX_BYTES}
"""Amounts of work of a node, and the most that is believed."""
MAX_NODE_BYTES = 1 << 20
"""Largest node that is parsed: it bounds the memory that the parts of one take."""


class NodeType(IntEnum):
    """Types of nodes; what is INVALID only hands on what it waits for."""

    INVALID = 0
    METADATA = 1
    MEM_LOAD = 2
    MEM_STORE = 3
    COMP = 4
    SEND = 5
    RECV = 6
    COLLECTIVE = 7


_CPU = 1
"""Lane of a rank on which its CPU works beside its GPU."""
_PACKAGE = "lightfabric.chakra"
_FIELDS = {
    "Attribute": (
        ("name", 1, "string"), ("double_val", 3, "double"), ("float_val", 5, "float"), ("int32_val", 7, "int32"),
        ("int64_val", 9, "int64"), ("uint32_val", 11, "uint32"), ("uint64_val", 13, "uint64"), ("sint32_val", 15, "sint32"),
        ("sint64_val", 17, "sint64"), ("fixed32_val", 19, "fixed32"), ("fixed64_val", 21, "fixed64"),
        ("bool_val", 27, "bool"), ("bool_list", 28, "BoolList"), ("string_val", 29, "string"),
    ),
    "BoolList": (("values", 1, "*bool"),),
    # Of metadata, where schemas differ and whole input files are kept, no more is parsed than that it is a message.
    "GlobalMetadata": (("version", 1, "bytes"),),
    "IOInfo": (("values", 1, "string"),),
    "Node": (
        ("id", 1, "uint64"), ("name", 2, "string"), ("type", 3, "int32"), ("ctrl_deps", 4, "*uint64"),
        ("data_deps", 5, "*uint64"), ("duration_micros", 7, "?uint64"), ("inputs", 8, "bytes"), ("attr", 10, "*Attribute"),
    ),
}  # fmt: skip
"""The part of the schema that is used: name, number and type, ``*`` if repeated, ``?`` if it is told whether it is there.

What else a file holds is skipped.
"""


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
            if (plain := kind.lstrip("*?")) in _FIELDS:
                added.type, added.type_name = types.TYPE_MESSAGE, f".{_PACKAGE}.{plain}"
            else:
                added.type = types.Type.Value(f"TYPE_{plain.upper()}")
            if field.endswith(("_val", "_list")):
                added.oneof_index = 0
            if kind[0] == "?":
                # In proto3 a field whose presence counts is the only one of a choice that is not shown.
                added.proto3_optional, added.oneof_index = True, len(described.oneof_decl)
                described.oneof_decl.add(name=f"_{field}")
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
        messages = (_message("GlobalMetadata")(version=b"0.0.4"), *_nodes(graph, rank, here))
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
            reduces = {"comm_type": int(Collective.ALL_REDUCE), "pg_name": str(peer)}
            attributes = {"is_cpu_op": False, **reduces, **_size(graph, task)}
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


def read(
    streams: Iterable[bytes],
    members: Mapping[str, Sequence[int]],
    *,
    algorithm: str | Choose = "ring",
    accelerator: AcceleratorSpec | None = None,
) -> TaskGraph:
    """Task graph of the streams of rank 0, 1, ...; ``members`` are the communicator groups by name.

    A send and a receive of equal ends and tag are one TRANSFER, in their order; the k-th collectives of a group at all its
    members are one, which starts when all have come to it, and ``algorithm`` is one of ``graph.collective.ALGORITHMS`` or
    chooses one for each. A group without members, or without a name, is of all ranks, and so is group 0 if nothing else is
    said of it; groups may also be in the streams, see ``process_group``. What waits for a send waits until its bytes have
    arrived. A receive that waits is a BARRIER of that and the TRANSFER, which starts when it is sent. A caller
    (``ctrl_deps``) that a converter left out is not waited for. Tasks are in the order of the ids of their nodes, then of
    ranks; what ``write`` wrote comes back as it was.

    Computations and memory accesses are COMPUTE. One without duration takes as long as ``num_ops`` at the half-precision
    peak of the accelerator or ``tensor_size`` bytes at its memory, whichever is longer. Operators of the CPU, among them
    launches of communication, run on a device of their own, one for each rank that has some; theirs without a duration took
    less than the microsecond in which traces count. Metadata and invalid nodes are a BARRIER.

    ValueError, one line that names rank, node and field, if the streams are not as they must be: ends without their other
    end, sizes that differ, work of neither known duration nor known amount. Memory in proportion to the streams, and to the
    messages of the collectives, which are limited.
    """
    reader = _Reader(Assembly(list(members), list(members.values()), algorithm), accelerator)
    rank = -1
    for rank, stream in enumerate(streams):
        reader.read(rank, stream)
    return reader.assembly.graph(rank + 1)


def _parsed(name: str, data: bytes, where: str) -> Any:
    try:
        return _message(name).FromString(data)
    except DecodeError:
        raise ValueError(f"{where} must be a protobuf {name}, not something else") from None


def _messages(stream: bytes, where: str) -> Iterator[bytes]:
    at, started = 0, False
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
        # The first message is the metadata, of which no parts are kept.
        if size > MAX_NODE_BYTES and started:
            raise ValueError(f"{where}: length must be at most {MAX_NODE_BYTES}, not {size}")
        started = True
        yield stream[at : at + size]
        at += size


@dataclass(frozen=True)
class _Node:
    """A node of a stream with its attributes by name, and with ``where`` it stands for messages."""

    where: str
    rank: int
    message: Any
    attributes: dict[str, object]

    @classmethod
    def parsed(cls, where: str, rank: int, data: bytes) -> "_Node":
        message = _parsed("Node", data, where)
        return cls(where, rank, message, {attribute.name: _value(attribute) for attribute in message.attr})

    @property
    def waits(self) -> list[int]:
        return [*self.message.data_deps, *self.callers]

    @property
    def callers(self) -> set[int]:
        callers = self.message.ctrl_deps
        return set(callers).difference(self.message.data_deps) if callers else set()

    @property
    def on_cpu(self) -> bool:
        return bool(self.attributes.get("is_cpu_op"))

    def has(self, name: str) -> bool:
        return name in self.attributes

    def number(self, name: str, most: int, default: int | None = None) -> int:
        value = self.attributes.get(name, default)
        # Amounts of work are doubles in some traces.
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise self.wrong(name, f"from 0 to {most}", repr(value) if self.has(name) else "left out")
        return value

    def size(self) -> tuple[int, int]:
        return self.number("comm_size", MAX_BYTES), max(1, self.number("operations", MAX_OPERATIONS, 1))

    def wrong(self, name: str, must_be: str, value: object) -> ValueError:
        return ValueError(f"{self.where}.{name} must be {must_be}, not {value}")


@dataclass(frozen=True)
class _Reader:
    """Hands the nodes of all ranks to the assembly."""

    assembly: Assembly
    accelerator: AcceleratorSpec | None

    def read(self, rank: int, stream: bytes) -> None:
        # Collectives may come before the node that tells their groups.
        if process_group.MARK.encode() in stream:
            for node in self._nodes(rank, stream):
                self._read_groups(node)
        for node in self._nodes(rank, stream):
            self._read_node(node)

    def _nodes(self, rank: int, stream: bytes) -> Iterator[_Node]:
        if not stream:
            raise ValueError(f"rank {rank}: metadata must come first, not the end of the stream")
        content = _messages(stream, f"rank {rank}")
        _parsed("GlobalMetadata", next(content), f"rank {rank}: metadata")
        for number, data in enumerate(content):
            yield _Node.parsed(f"rank {rank}: node {number}", rank, data)

    def _read_groups(self, node: _Node) -> None:
        if node.message.type == NodeType.METADATA and process_group.MARK in node.message.name:
            where = f"{node.where}.inputs"
            for name, members in process_group.read(where, _parsed("IOInfo", node.message.inputs, where).values):
                self.assembly.add_group(where, name, members)

    def _read_node(self, node: _Node) -> None:
        kind = node.message.type
        self.assembly.callers.update((node.where, caller) for caller in node.callers)
        # What a CPU does to start a communication is none: the communication is a node of the GPU, with its type or size.
        launches = node.on_cpu and not node.has("comm_type" if kind == NodeType.COLLECTIVE else "comm_size")
        if kind in (NodeType.SEND, NodeType.RECV) and not launches:
            self._read_end(node, sent=kind == NodeType.SEND)
        elif kind == NodeType.COLLECTIVE and not launches:
            self._read_collective(node)
        elif kind in (NodeType.METADATA, NodeType.INVALID):
            self._add(node, Kind.BARRIER, 0)
        elif 0 <= kind <= max(NodeType):
            self._add(node, Kind.COMPUTE, self._work_ps(node))
        else:
            raise node.wrong("type", f"from 0 to {max(NodeType)}", kind)

    def _add(self, node: _Node, kind: Kind, work: int) -> None:
        lane = _CPU if node.on_cpu else 0
        self.assembly.add_alone(node.where, node.rank, node.message.id, node.waits, kind, work, lane=lane)

    def _read_end(self, node: _Node, *, sent: bool) -> None:
        rank, most = node.rank, 1 << 30
        # PyTorch's converter does not tell the other end, but in a group of two there is only one.
        other = self.assembly.other(str(node.attributes.get("pg_name", "")), rank)
        source, destination = (rank, other) if sent else (other, rank)
        ends = node.number("comm_src", most, source), node.number("comm_dst", most, destination)
        if ends[not sent] != rank:
            raise node.wrong("comm_src" if sent else "comm_dst", str(rank), ends[not sent])
        key = *ends, node.number("comm_tag", (1 << 63) - 1, 0)
        self.assembly.add_end(node.where, rank, node.message.id, node.waits, key, node.size(), sent=sent)

    def _read_collective(self, node: _Node) -> None:
        kind = Collective(node.number("comm_type", max(Collective)))
        # A barrier moves nothing, whatever size a trace says it has.
        size = (0, 1) if kind == Collective.BARRIER else node.size()
        group = str(node.attributes.get("pg_name", ""))
        if not group and node.attributes.get("involved_dim") is False:
            raise node.wrong("involved_dim", "true in all dimensions where no pg_name tells the group", "false in some")
        self.assembly.add_collective(node.where, node.rank, node.message.id, node.waits, group, kind, size)

    def _work_ps(self, node: _Node) -> int:
        """How long a computation or a memory access takes."""
        micros = node.message.duration_micros or node.number("runtime", 1 << 63, 0)
        # A duration that is too long is cut to one above the most, so that it fits an integer and is still refused.
        believed = min(micros * 1_000_000, MAX_PS + 1)
        if micros or node.has("duration_ps"):
            return node.number("duration_ps", MAX_PS, believed)
        amounts = {name: node.number(name, most) for name, most in _AMOUNTS.items() if node.has(name)}
        # A profiler's nodes, which have a thread, and a CPU's lose what is below a microsecond, and zeros are not written.
        told = node.message.HasField("duration_micros") or any(map(node.has, ("runtime", "tid", *amounts)))
        if not any(amounts.values()) and (told or node.on_cpu):
            return 0
        if not amounts:
            raise node.wrong("duration_micros", "given, or num_ops or tensor_size", "left out")
        if node.on_cpu or self.accelerator is None:
            instead = "" if node.on_cpu else f", or --accelerator for its {' and '.join(amounts)}"
            raise node.wrong("duration_micros", f"given{instead}", "left out")
        return self._roofline_ps(node, amounts, self.accelerator)

    def _roofline_ps(self, node: _Node, amounts: dict[str, int], accelerator: AcceleratorSpec) -> int:
        """Bound of the accelerator [Williams, Waterman and Patterson, "Roofline", CACM 2009]."""
        if node.message.type != NodeType.COMP and "tensor_size" not in amounts:
            raise node.wrong("tensor_size", "given for a memory access", "left out")
        computes_s = amounts.get("num_ops", 0) / accelerator.peak_flops("fp16")
        moves_s = amounts.get("tensor_size", 0) / (accelerator.memory_gbytes_per_s * 1e9)
        work_ps = round(max(computes_s, moves_s) * 1e12)
        if work_ps > MAX_PS:
            raise node.wrong("num_ops", f"work of at most {MAX_PS} ps", f"{work_ps} ps")
        return work_ps


def _value(attribute: Any) -> object:
    which = attribute.WhichOneof("value")
    # Of the only lists that matter, those of dimensions, it matters whether they have all.
    if which == "bool_list":
        return all(attribute.bool_list.values)
    return getattr(attribute, which) if which else None
