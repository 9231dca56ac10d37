"""A training goes through states, each of which may take so long before it has failed."""

from amaranth.lib import enum

from lightfabric.model.spec import ChipletSpec

TIME_BITS = 32
"""Times of a training are counted in so many bits."""


class State(enum.Enum, shape=4):
    """Names the states of a training in their order; trouble leads back to LOCK, a last failure to DOWN.

    LOCK and ALIGN wait for the lanes, EXCHANGE for the parameters of the other end, CONFIRM until that has those of this
    end, START for the cycle of sets before the first frame; frames flow in ACTIVE.
    """

    RESET = 0
    LOCK = 1
    ALIGN = 2
    EXCHANGE = 3
    CONFIRM = 4
    START = 5
    ACTIVE = 6
    DOWN = 7


class Bounds:
    """Tells how many beats of the line each state may take, and why so many.

    A lane at a wrong bit sees a bad header after 2 blocks on average and then waits 8: 66 slips take about 660 blocks, and
    64 good headers lock. ``lock`` leaves room for two rounds, for a good place may be passed over because of a bit error.
    """

    lock = 2048
    down = 2048
    room = 2048
    """It has room for a fibre far beyond ``reach_m``, and for 128 cycles of sets; a bit error in 1000 loses one in 5."""
    stable_slots = 2048
    """Trouble in the first slots of service is a failure of these lanes: more than three replay timeouts, and so many."""

    def __init__(self, spec: ChipletSpec):
        self.align = self.confirm = self.start = spec.round_trip_flits * spec.beats_per_flit + self.room
        """The other end hears the sets and sends its own."""
        self.exchange = self.down + 3 * (self.lock + self.align)
        """The other end may be down, or lock only at the third attempt, on half of its lanes."""
        self.stable = max(self.stable_slots, 4 * spec.timeout_slots) * spec.beats_per_flit

    def of_states(self) -> list[tuple[State, int]]:
        """Lists the bound of each state that has one."""
        # ACTIVE may last for ever: its bound tells early trouble, a failure, from late trouble.
        names = ("lock", "align", "exchange", "confirm", "start", "down")
        return [(State.ACTIVE, self.stable), *((State[name.upper()], getattr(self, name)) for name in names)]
