"""The obvious twin of the fluid model: exact fractions, every rate computed again at every event."""

from fractions import Fraction

import numpy as np

from lightfabric.model.task import Kind, TaskGraph


def graph_of(devices, tasks, groups=()):
    """Task graph from ``(kind, device, work, peer, successors, operations)``, the last two of which may be left out."""
    rows = [(*row, *((), 1)[len(row) - 4 :]) for row in tasks]
    kind, device, work, peer, successors, operations = zip(*rows, strict=True) if rows else [()] * 6
    return TaskGraph(
        devices, np.array(kind, np.int8), np.array(device, np.int32), np.array(work, np.int64), np.array(peer, np.int32),
        np.array(operations, np.int32),
        np.cumsum([0, *map(len, successors)]).astype(np.int64), np.array([s for row in successors for s in row], np.int32),
        np.cumsum([0, *map(len, groups)]).astype(np.int64), np.array([m for row in groups for m in row], np.int32),
    )  # fmt: skip


def max_min(flows, capacity):
    """Rate of each flow, given the links it uses, those it uses more often listed more often."""
    rates = {}
    while len(rates) < len(flows):
        share = {}
        for link, total in enumerate(capacity):
            rising = sum(links.count(link) for flow, links in flows.items() if flow not in rates)
            left = total - sum(links.count(link) * rates[flow] for flow, links in flows.items() if flow in rates)
            if rising:
                share[link] = left / rising
        level = min(share.values())
        full = {link for link in share if share[link] == level}
        rates.update({flow: level for flow, links in flows.items() if flow not in rates and full & set(links)})
    return rates


class _Run:
    def __init__(self, graph, network, message_latency_ps):
        self.graph, self.network, self.message_latency_ps = graph, network, message_latency_ps
        self.waiting = [int(np.sum(graph.successors == task)) for task in range(len(graph))]
        self.now = Fraction(0)
        self.ready_at, self.start, self.finish = {}, {}, {}
        self.ending, self.left, self.links = {}, {}, {}

    def make_ready(self):
        for task in [t for t in range(len(self.graph)) if self.waiting[t] == 0 and t not in self.ready_at]:
            self.ready_at[task] = self.now
            if self.graph.kind[task] != Kind.COMPUTE:
                self.start[task] = self.now
                self.links[task] = _links(self.graph, self.network, task)
                if self.links[task]:
                    self.left[task] = _bytes(self.graph, task)
                else:
                    self.ending[task] = self.now + _empty_ps(self.graph, task, self.message_latency_ps)

    def start_devices(self):
        for device in range(self.graph.devices):
            mine = [t for t in self.ready_at if self.graph.kind[t] == Kind.COMPUTE and self.graph.device[t] == device]
            queue = sorted((self.ready_at[t], t) for t in mine if t not in self.start)
            if queue and not any(t in self.ending for t in mine):
                first = queue[0][1]
                self.start[first] = self.now
                self.ending[first] = self.now + int(self.graph.work[first])

    def finish_tasks(self):
        done = [task for task, time in self.ending.items() if time == self.now]
        for task in done:
            self.finish[task] = self.ending.pop(task)
            for successor in self.graph.successors[slice(*self.graph.successor_start[task : task + 2])]:
                self.waiting[successor] -= 1
        return bool(done)

    def move(self):
        capacity = [Fraction(float(rate)) / 10**12 for rate in self.network.bytes_per_s]
        rates = max_min({task: self.links[task] for task in self.left}, capacity)
        until = min([*self.ending.values(), *(self.now + self.left[task] / rates[task] for task in self.left)])
        for task in list(self.left):
            self.left[task] -= (until - self.now) * rates[task]
            if self.left[task] == 0:
                del self.left[task]
                self.ending[task] = until + _latency_ps(self.graph, self.network, task, self.message_latency_ps)
        self.now = until


def run(graph, network, message_latency_ps=0):
    """Start and finish of every task in picoseconds, as fractions."""
    state = _Run(graph, network, message_latency_ps)
    while len(state.finish) < len(graph):
        state.make_ready()
        state.start_devices()
        if not state.finish_tasks():
            state.move()
    return [state.start[t] for t in range(len(graph))], [state.finish[t] for t in range(len(graph))]


def _edges(graph, task):
    if graph.work[task] == 0 or graph.kind[task] == Kind.BARRIER:
        return []
    if graph.kind[task] == Kind.TRANSFER:
        return [(graph.device[task], graph.peer[task])] if graph.device[task] != graph.peer[task] else []
    ring = graph.group(graph.peer[task]).tolist()
    return list(zip(ring, ring[1:] + ring[:1], strict=True)) if len(ring) > 1 else []


def _links(graph, network, task):
    return [link for edge in _edges(graph, task) for link in network.route(*map(int, edge)).tolist()]


def _bytes(graph, task):
    edges = len(_edges(graph, task))
    whole = Fraction(int(graph.work[task]))
    return whole * 2 * (edges - 1) / edges if graph.kind[task] == Kind.ALL_REDUCE else whole


def _empty_ps(graph, task, message_latency_ps):
    message = graph.kind[task] == Kind.TRANSFER and graph.device[task] != graph.peer[task]
    return int(graph.operations[task]) * message_latency_ps if message else 0


def _latency_ps(graph, network, task, message_latency_ps):
    edges, operations = _edges(graph, task), int(graph.operations[task])
    routes = [network.route(*map(int, edge)).tolist() for edge in edges]
    late_ps = [sum(int(network.latency_ps[link]) for link in route) + message_latency_ps for route in routes]
    if graph.kind[task] == Kind.TRANSFER:
        return operations * late_ps[0]
    every = [link for route in routes for link in route]
    chunk = Fraction(int(graph.work[task])) / operations / len(edges)
    alone_ps = [max(chunk * every.count(k) / Fraction(float(network.bytes_per_s[k])) * 10**12 for k in r) for r in routes]
    lost_ps = [late + own - max(alone_ps) for late, own in zip(late_ps, alone_ps, strict=True)]
    twice = 2 * sum(lost_ps) - min(a + b for a, b in zip(lost_ps, lost_ps[1:] + lost_ps[:1], strict=True))
    waits = max(late for late, own in zip(late_ps, alone_ps, strict=True) if own == max(alone_ps))
    return operations * round(max(twice, waits))
