"""A matching pairs inputs with outputs that they have flits for, by iSLIP [McKeown, IEEE/ACM ToN 7(2), 1999].

The words: an output *grants* one of the inputs that request it; an input *accepts* one of the outputs that grant to it; each
asks in turn, from the one after its *last* partner on. The turn moves on only where a grant of the first iteration was
accepted: so outputs of full queues come to ask different inputs first, and all are matched.
"""

from amaranth import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from lightfabric.rtl.channel import above_of, in_turn


class Matching(wiring.Component):
    """Matches each input with at most one output, and each output that is not ``open_to_all`` with at most one input.

    Combinational, with the turns in registers. Each of ``iterations`` matches inputs and outputs that the ones before it left.
    An input that requests an output which stays free for all cycles gets it within as many cycles as there are inputs times
    outputs.

    Members
    -------
    requests : In(outputs).array(inputs)
    open_to_all : In(outputs), these outputs grant to all inputs at once
    accepts : Out(outputs).array(inputs), one-hot or zero
    """

    def __init__(self, inputs: int, outputs: int, iterations: int = 1):
        self.inputs, self.outputs, self.iterations = inputs, outputs, iterations
        super().__init__(
            {
                "requests": In(outputs).array(inputs),
                "open_to_all": In(outputs),
                "accepts": Out(outputs).array(inputs),
            }
        )

    def elaborate(self, platform):
        m = Module()
        grants_from = [Signal(self.inputs, name=f"grants_from_{o}") for o in range(self.outputs)]
        accepts_from = [Signal(self.outputs, name=f"accepts_from_{i}") for i in range(self.inputs)]
        requests, matched = list(self.requests), [0] * self.inputs
        for iteration in range(self.iterations):
            accepts = self._iterate(m, iteration, requests, grants_from, accepts_from)
            if iteration == 0:
                self._move_on(m, accepts, grants_from, accepts_from)
            matched = [before | now for before, now in zip(matched, accepts, strict=True)]
            if iteration + 1 < self.iterations:
                requests = self._left(m, iteration, requests, matched)
        m.d.comb += [to.eq(found) for to, found in zip(self.accepts, matched, strict=True)]
        return m

    def _iterate(self, m, iteration, requests, grants_from, accepts_from):
        """Lets outputs grant and inputs accept once; returns what each input accepts."""
        grants = []
        for o, turn in enumerate(grants_from):
            wanted, grant = (Signal(self.inputs, name=f"{name}_{o}_{iteration}") for name in ("wanted", "grant"))
            m.d.comb += [
                wanted.eq(Cat(request[o] for request in requests)),
                grant.eq(in_turn(wanted, turn) | (wanted & self.open_to_all[o].replicate(self.inputs))),
            ]
            grants.append(grant)
        accepts = []
        for i, turn in enumerate(accepts_from):
            granted, accept = (Signal(self.outputs, name=f"{name}_{i}_{iteration}") for name in ("granted", "accept"))
            m.d.comb += [granted.eq(Cat(grant[i] for grant in grants)), accept.eq(in_turn(granted, turn))]
            accepts.append(accept)
        return accepts

    def _move_on(self, m, accepts, grants_from, accepts_from):
        for i, accept in enumerate(accepts):
            with m.If(accept.any()):
                m.d.sync += accepts_from[i].eq(above_of(accept))
        for o, turn in enumerate(grants_from):
            accepted = Signal(self.inputs, name=f"accepted_{o}")
            m.d.comb += accepted.eq(Cat(accept[o] for accept in accepts))
            with m.If(accepted.any() & ~self.open_to_all[o]):
                m.d.sync += turn.eq(above_of(accepted))

    def _left(self, m, iteration, requests, matched):
        """Leaves the requests of inputs that are not matched for outputs that are not."""
        taken = Signal(self.outputs, name=f"taken_{iteration}")
        m.d.comb += taken.eq(Cat(Cat(found[o] for found in matched).any() for o in range(self.outputs)) & ~self.open_to_all)
        return [
            request & ~taken & (~found.any()).replicate(self.outputs)
            for request, found in zip(requests, matched, strict=True)
        ]
