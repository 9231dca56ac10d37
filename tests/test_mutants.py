"""The tests of rtl/ can fail: each block is broken in three ways or more, and for each there is a test that must see it.

``pytest --mutants tests/test_mutants.py`` runs them, each on a copy of the package, in minutes.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COPIED = (".src", "flows", "model", "placement", "rtl", "sim", "tests", "examples", "pyproject.toml", "README.md")
BOUND_S = 600
WAYS = 3

LINK, TRAINING, PACER, TOP, LANES, PRBS, TESTER = (
    f"tests/rtl/test_{name}.py" for name in ("link", "training", "pacer", "top", "lanes", "prbs", "ber_tester")
)
LEDGER, REGISTER, CLIENT, CROSSING, SWITCH, CHIPLET, DECODER, PORT = (
    f"tests/rtl/test_{name}.py"
    for name in ("ledger", "register", "client", "crossing", "switch", "chiplet", "bus_decoder", "client_port")
)
TUNER = "tests/rtl/test_tuner.py"
CIRCUIT, STEERING, ADD_DROP = (f"tests/rtl/test_{name}.py" for name in ("circuit_controller", "steering", "add_drop"))
SOAK = "tests/sim/native/test_soak.py::test_no_packet_is_glued_truncated_or_headless_between_two_chiplets"
SUBLAYER, CODED = "tests/rtl/test_fec_sublayer.py", "tests/test_agreement_fec.py"
CODEC, TRANSCODER = (f"tests/rtl/fec/test_{name}.py" for name in ("reed_solomon", "transcoder"))
MARKS = f"{CODEC}::test_a_mark_within_a_codeword_gives_it_up_and_begins_another"

# File of rtl/: (what is wrong, text, the text of the broken one, the test that sees it)
MUTANTS = {
    "tuner": [
        (
            "takes no notice of rings further down",
            "sweep.falls.eq(behind & ",
            "sweep.falls.eq(0 & behind & ",
            f"{TUNER}::test_a_ring_that_comes_later_leaves_the_lines_of_rings_further_down",
        ),
        (
            "remembers rings through a reset",
            "Mux((known & early_here).any(), read.data, 0)",
            "read.data",
            f"{TUNER}::test_a_reset_leaves_nothing_of_what_was_kept",
        ),
        (
            "parks on a line",
            "(sample.power >= spec.threshold // 2)",
            "(sample.power >= spec.threshold * 2)",
            f"{TUNER}::test_a_parked_ring_cools_and_steps_aside_from_light",
        ),
    ],
    "ring_lock": [
        (
            "moves away from the light",
            "error.eq(self.ring.plus - self.power)",
            "error.eq(self.power - self.ring.plus)",
            TUNER,
        ),
        (
            "never gives up",
            "gone.eq(ring.dark == CONFIRM_PERIODS - 1)",
            "gone.eq(0)",
            f"{TUNER}::test_a_ring_whose_line_dies_is_alarm_at_once_and_fails_when_it_finds_no_other",
        ),
        ("compares a half with itself", "following.plus.eq(power)", "following.plus.eq(0)", TUNER),
    ],
    "ring_sweep": [
        (
            "takes a line that is taken",
            "m.If(self.peak & ~self.taken)",
            "m.If(self.peak)",
            f"{TUNER}::test_a_ring_that_comes_later_leaves_the_lines_of_rings_further_down",
        ),
        ("believes the heater has no lag", "place.eq(heat)", "place.eq(self.code)", TUNER),
        (
            "sweeps for ever",
            "m.d.comb += self.fails.eq(1)",
            "m.d.comb += self.fails.eq(0)",
            f"{TUNER}::test_a_ring_whose_line_dies_is_alarm_at_once_and_fails_when_it_finds_no_other",
        ),
    ],
    "pacer": [
        ("never waits for the SerDes", "self.ready & (owed", "(owed", PACER),
        ("makes up for nothing", "owed < MAX_LATE_BEATS * cycles", "owed < cycles - beats", PACER),
        ("is too slow by a beat in a round", "owed >= cycles - beats", "owed > cycles - beats", PACER),
    ],
    "transmitter": [
        (
            "tries are never forgotten",
            "m.If(buffer.progress | self.sets):\n            m.d.sync += tries",
            "m.If(self.sets):\n            m.d.sync += tries",
            f"{LINK}::test_replays_that_help_never_make_the_link_train_again",
        ),
        ("never says its sequence after a jump", "explicit_turn | (sends & jumped)", "explicit_turn", LINK),
        (
            "has no timeout",
            "timed_out.eq(to_timeout[-1] & ~self.sets)",
            "timed_out.eq(0)",
            f"{LINK}::test_a_last_flit_that_is_lost_with_every_answer_comes_back_after_the_timeout",
        ),
        ("replays the payload of the next flit", "Mux(again, buffer.head.payload", "Mux(0, buffer.head.payload", LINK),
    ],
    "receiver": [
        ("accepts repeated flits", "Mux(was_received, is_next, is_expected)", "1", LINK),
        ("never asks again", "(self.local.wanting | missing) & ~cleared", "0", LINK),
        (
            "never gives up",
            "self.trouble.eq(bad_run == BAD_FRAMES_TO_RETRAIN)",
            "self.trouble.eq(0)",
            f"{LINK}::test_wrong_frames_in_a_row_train_the_line_again",
        ),
        (
            "believes what it cannot be sure of",
            "sure.eq(header.implicit.all() | ~header.implicit.any())",
            "sure.eq(1)",
            "tests/rtl/test_reach.py",
        ),
        ("heeds no request", "is_nak.eq((header.code == NAK) | self.resume)", "is_nak.eq(self.resume)", LINK),
    ],
    "replay": [
        ("replays from the end", "place.eq(first), self", "place.eq(end), self", LINK),
        ("numbers a replay wrongly", "self.sequence.eq(following(oldest)), f", "self.sequence.eq(oldest), f", LINK),
        (
            "frees what was not acknowledged",
            "m.d.sync += [ahead.eq(distance(oldest, ",
            "m.d.sync += [ahead.eq(1 + distance(oldest, ",
            LINK,
        ),
    ],
    "frame": [
        (
            "counts sequences modulo 256",
            "0, sequence + 1)",
            "sequence + 1, sequence + 1)",
            f"{LINK}::test_sequences_are_counted_modulo_255",
        ),
        ("measures distances modulo 256", "Mux(ahead[-1], last + ~first, ahead)", "ahead", LINK),
        ("has no room for a request", '"answer": 1, "wanting": 1', '"answer": 1, "wanting": 0', LINK),
    ],
    "crc": [
        (
            "covers half of the bits",
            "reduce(xor, (other for bit, other in enumerate(others) if row >> bit & 1), 0)",
            "reduce(xor, (other for bit, other in enumerate(others) if row >> bit & 1 and bit), 0)",
            LINK,
        ),
        ("forgets what it is XORed with", "^ self.crc.xorout\n            for", "^ 0\n            for", LINK),
        (
            "forgets the implicit sequence",
            "(change >> row & 1) << bit",
            "0 << bit",
            LINK,
        ),
    ],
    "scrambler": [
        (
            "has another nearer tap",
            "NEAR = SCRAMBLER_BITS - SCRAMBLER_TAPS[0]",
            "NEAR = SCRAMBLER_BITS - SCRAMBLER_TAPS[0] + 1",
            LINK,
        ),
        ("does not scramble", "part ^ line[done + NEAR :][: len(part)] ^ line[done:][: len(part)]", "part", LINK),
        (
            "descrambles with one tap",
            "block ^ line[NEAR:][: len(block)] ^ line[: len(block)]",
            "block ^ line[NEAR:][: len(block)]",
            LINK,
        ),
    ],
    "link": [
        (
            "tells another sequence than it received",
            "training.local.expected.eq(receiver.local.received)",
            "training.local.expected.eq(0)",
            LINK,
        ),
        ("counts no wrong frames", "self.crc_errors.eq(self.crc_errors + bad)", "self.crc_errors.eq(0)", LINK),
        (
            "is deaf to its receiver's trouble",
            "transmitter.trouble | receiver.trouble",
            "transmitter.trouble",
            f"{LINK}::test_wrong_frames_in_a_row_train_the_line_again",
        ),
        ("does not listen to the SerDes", "transmitter.ready.eq(self.tx_ready)", "transmitter.ready.eq(1)", PACER),
    ],
    "channel": [
        ("loses a write in the cycle of a read", "m.If(writes & ~reads)", "m.If(writes)", LINK),
        (
            "gives two grants",
            "Mux(pending.any(), lowest(pending), lowest(requests))",
            "Mux(pending.any(), pending, lowest(requests))",
            SWITCH,
        ),
        ("does not count a leak", "(~empty | self.flit)) | self.leak)", "(~empty | self.flit)))", LEDGER),
        ("takes a held flit for a leak", "m.If(self.held | self.flit", "m.If(self.flit", LEDGER),
        ("leaks in the cycle of a credit", "quiet_cycles[-1] & ~self.credit & ~empty", "quiet_cycles[-1] & ~empty", LEDGER),
    ],
    "register": [
        (
            "forgets an event in the cycle of the write",
            "event & ~cleared | self.inputs[field.name]",
            "(event | self.inputs[field.name]) & ~cleared",
            REGISTER,
        ),
        ("writes without strobes", "value & kept | written", "written", REGISTER),
        (
            "misses a count in the cycle of the clear",
            "Mux(self.controls.clear_counters, 0, count) + self.inputs[field.name]",
            "Mux(self.controls.clear_counters, 0, count + self.inputs[field.name])",
            REGISTER,
        ),
        ("forgets the carry of a long count", "Mux(cleared, 0, count) + carried", "Mux(cleared, 0, count)", REGISTER),
        ("shows the high half of another cycle", "m.If(~frozen):", "m.If(1):", REGISTER),
    ],
    "register_map": [
        ("has pages of two bytes a word", "WORD_BYTES = WORD_BITS // 8", "WORD_BYTES = WORD_BITS // 16", REGISTER),
        ("lets a reset be of any width", "0 <= self.reset < 1 << self.bits, f", "True, f", REGISTER),
        ("lets a count be of any width", 'self.kind not in ("count", "high") or self.bits == WORD_BITS', "True", REGISTER),
    ],
    "client": [
        ("sends bytes outside keep", "enabled_bytes(word.data, keep)", "word.data", CLIENT),
        ("takes the address of the last word", "with m.If(opens):", "with m.If(1):", CLIENT),
        ("never gives up on a source", "cuts.eq((cuts & ~step) | (", "cuts.eq(0 & (", CLIENT),
        ("does not mark what it cuts", "(self.cut & ~flush) | cuts", "self.cut & ~flush", CLIENT),
        ("sends the rest of what it cut", "rest.eq(Mux(ends, cuts, drops))", "rest.eq(Mux(ends, 0, drops))", CLIENT),
        ("spends credits for nothing", "spent = step & begins & ~drops", "spent = step & begins", CLIENT),
        ("waits for credits of no channel", "Mux(opens, word.user >= self.spec.virtual_channels, rest)", "rest", CLIENT),
        ("spends no credits", "wanted & spent.replicate(len(wanted))", "0", CLIENT),
        ("loses what spills", "spills & ~flush)]", "0)]", CLIENT),
    ],
    "crossing": [
        ("writes when full", "i.valid & running & ~dropping & ~full", "i.valid & running & ~dropping", CROSSING),
        ("keeps the rest of a cut packet", "dropping.eq(inside)]", "dropping.eq(0)]", CROSSING),
        ("does not end a cut packet", "o.valid.eq(read | (stopped & inside))", "o.valid.eq(read)", CROSSING),
        ("is not in Gray code", "return binary ^ (binary >> 1)", "return binary", CROSSING),
    ],
    "switch": [
        ("mixes packets", "held.eq(~winner.last)", "held.eq(0)", SWITCH),
        (
            "lets a blocked channel hold up others",
            "queue.valid[v] & (wanted & self.open[v]).any()",
            "queue.valid[v]",
            SWITCH,
        ),
        ("grants without credits", "m.If(credits_.left[v])", "m.If(1)", SWITCH),
    ],
    "chiplet": [
        (
            "renames no flit",
            "table.word_select(old, len(old))",
            "old",
            f"{CHIPLET}::test_two_hops_round_a_ring_of_chiplets_all_arrive_behind_the_dateline",
        ),
        (
            "gives credits of a renamed channel to another",
            "input_.credit[new]",
            "input_.credit[v]",
            f"{CHIPLET}::test_two_hops_round_a_ring_of_chiplets_all_arrive_behind_the_dateline",
        ),
        (
            "renames on the wrong line",
            "self.renames.get(port)",
            "self.renames.get(1 - port)",
            f"{CHIPLET}::test_two_hops_round_a_ring_of_chiplets_all_arrive_behind_the_dateline",
        ),
        ("gives all clients one address", "self.address + port, len", "self.address, len", CHIPLET),
        ("counts no errors", '"events", *LINK_COUNTS):', '"events"):', CHIPLET),
        ("lets everything pass", "self.address + port, len(self.routes))", "self.address + port)", CHIPLET),
        (
            "lines of one port",
            "wiring.connect(m, link.tx, wiring.flipped(self.tx[port]))",
            "wiring.connect(m, link.tx, wiring.flipped(self.tx[port - 1]))",
            CHIPLET,
        ),
    ],
    "line": [
        (
            "has training sets among its frames",
            "self.load.eq(may_load & ~self.sets)",
            "self.load.eq(may_load)",
            LINK,
        ),
        ("compares no CRC", "crc.field(shares) ^ word[-CRC_BITS:]", "0", LINK),
        ("begins a frame anywhere", "m.If(~self.frames | (", "m.If((", LINK),
    ],
    "bonding": [
        (
            "sends the first words on all lanes",
            "place.eq(Mux(sent.is_set, rank, place + self.width))",
            "place.eq(rank)",
            LANES,
        ),
        (
            "collects the first words alone",
            "following.eq(Mux(moves, place + self.width, rank))",
            "following.eq(rank)",
            LANES,
        ),
        ("ends long sets with a sync header", "Cat(first, more)", "Cat(first, Const(1, 2))", LANES),
        ("gives words before their beat ends", "(is_full | ends))", "1)", LANES),
        ("forgets the words before", "Mux(wraps & (first <= place), *beats)", "beats[1]", LANES),
    ],
    "prbs": [
        ("counts while it is not locked", "Mux(count_valid & self.locked, count, 0)", "count", PRBS),
        ("follows the line for ever", "seeds_left.eq(seeds_left - seeding)", "seeds_left.eq(seeds_left)", PRBS),
        ("never says that its lock is lost", "self.lost.eq(1)", "self.lost.eq(0)", PRBS),
    ],
    "ber_tester": [
        ("clears no counts", "counter.clear.eq(controls.ber_clear)", "counter.clear.eq(0)", TESTER),
        ("counts no blocks", "counter.step.eq(checker.checked)", "counter.step.eq(0)", TESTER),
        ("counts no errors", "counter.errors.eq(checker.errors)", "counter.errors.eq(0)", TESTER),
    ],
    "training": [
        ("believes an end that echoes nothing", "told.echoes & (told.other", "(told.other", TRAINING),
        (
            "never hears of a reset",
            "self.flush.eq(must_flush | renewed | lapses)",
            "self.flush.eq(renewed | lapses)",
            TRAINING,
        ),
        ("never lapses", "patience[-1] & ~agreed", "0 & ~agreed", TRAINING),
        ("lapses alone", "unsynced.eq(lapses)", "unsynced.eq(0)", TRAINING),
        ("lapses in short darkness", "m.If(self.active | flushed):", "m.If(flushed):", TRAINING),
        ("talks to an end that was built differently", "word != config_code(self.spec)", "0", TRAINING),
        ("never asks for frames", "shown.step.eq(2)", "shown.step.eq(1)", TRAINING),
    ],
    "training_set": [
        ("says nothing of the CRC", "list(CRCS).index(spec.crc)", "0", TRAINING),
        ("says no sequence", "words[Phase.EXPECTED] = local.expected", "words[Phase.EXPECTED] = Const(0, 16)", TRAINING),
        ("has no pattern", "MAGIC = 0b10110", "MAGIC = 0b00000", TRAINING),
    ],
    "lane": [
        ("locks at once", "LOCK_BLOCKS = 64", "LOCK_BLOCKS = 16", TRAINING),
        ("never slips", "self.slip.eq(1), wait", "self.slip.eq(0), wait", TRAINING),
        ("drops its lock for one bad header", "too_bad.eq(~self.locked | (", "too_bad.eq(1 | (", TRAINING),
    ],
    "aligner": [
        ("hears no set", "self.heard.set_valid.eq(valid & is_set)", "self.heard.set_valid.eq(0)", TRAINING),
        ("delays no lane", "delay.blocks.eq(deskew.blocks[n])", "delay.blocks.eq(0)", TRAINING),
        (
            "drops the locks of lanes that bring codewords",
            "lane.freeze.eq(self.freeze[n])",
            "lane.freeze.eq(0)",
            f"{CODED}::test_locks_hold_while_units_of_the_other_end_are_still_on_a_fibre",
        ),
    ],
    "roll_call": [
        ("lets two lanes answer to one number", "lowest(here & self.good)", "(here & self.good)", LANES),
        ("gives all lanes the first rank", "self.ranks[n].eq(rank)", "self.ranks[n].eq(0)", LANES),
        (
            "waits no longer after a flap",
            "flaps.eq(flaps + (",
            "flaps.eq(0 & (",
            f"{LANES}::test_each_flap_doubles_the_hold_off",
        ),
    ],
    "fec/sublayer": [
        ("goes on with its sequence at sets", "m.d.sync += sequence.restart()", "m.d.sync += sequence.step()", SUBLAYER),
        ("trusts what it could not correct", "self.bad.eq(findings.o)", "self.bad.eq(0)", SUBLAYER),
        ("counts no symbols", "self.corrected.eq(sum(counted))", "self.corrected.eq(0)", SUBLAYER),
        ("counts a codeword that it gave up", "each.last & ~each.uncorrectable &", "each.last &", SUBLAYER),
        ("is late for ever after few lanes", "Mux(cuts, owed + due - valid, 0)", "0", SUBLAYER),
        ("keeps units that were cut off", "units.clear.eq(cutting)", "units.clear.eq(0)", SUBLAYER),
    ],
    "fec/beat": [
        ("ends a beat early", "since(self.beats - 1, at_end)", "since(max(self.beats - 2, 0), at_end)", CODEC),
        ("takes no notice of a mark", "Mux(self.first, second >= number,", "Mux(0, second >= number,", MARKS),
        (
            "puts one codeword behind the other",
            "for at in symbols for beat in beats)",
            "for beat in beats for at in symbols)",
            f"{CODEC}::test_interleaved_codewords_alternate_on_the_line",
        ),
    ],
    "fec/encoder": [
        ("forgets the symbols before", "Const(0, len(before)), before)", "Const(0, len(before)), 0)", CODEC),
        ("goes on with the codeword before", "m.If(~counter.begins)", "m.If(1)", CODEC),
        (
            "moves on in a gap",
            "m.If(self.i.valid):\n            m.d.sync += [\n                self.o.first",
            "m.If(1):\n            m.d.sync += [\n                self.o.first",
            f"{CODEC}::test_gaps_change_no_symbol_and_leave_codewords_whole",
        ),
    ],
    "fec/decoder": [
        (
            "believes a locator without its roots",
            "& (found == errors)",
            "",
            f"{CODEC}::test_what_is_near_no_codeword_is_uncorrectable_and_else_the_nearest_one_comes_out",
        ),
        (
            "corrects what it should only detect",
            "search.errors & corrects.replicate(len(search.errors))",
            "search.errors",
            f"{CODEC}::test_modes_detect_and_bypass_change_no_symbol",
        ),
        ("counts on from the codeword before", "Mux(search.first, 0, before)", "before", CODEC),
    ],
    "fec/delay": [
        ("keeps what was given up", "write.eq(Mux(self.i.first, begin, following))", "write.eq(following)", MARKS),
        ("moves on unasked", "read.eq(read + self.fetch)", "read.eq(read + 1)", CODEC),
        ("writes over the last beat", "begin.eq(write + 1)", "begin.eq(write)", CODEC),
    ],
    "fec/field": [
        ("reduces no product", "linear(m, whole[bits:], lambda high: reduced(field, high << bits), bits)", "0", CODEC),
        ("gives the inverse a clock early", "m.d.sync += self.inverse.eq", "m.d.comb += self.inverse.eq", CODEC),
        ("takes an element for its inverse", "self.field.inverse(element) for", "element for", CODEC),
    ],
    "fec/key_equation": [
        ("never takes a longer register", "(state.discrepancy != 0) &", "0 &", CODEC),
        ("takes it an iteration late", "state.errors * 2 <= iteration", "state.errors * 2 < iteration", CODEC),
        ("lets symbols turn into the next iteration", "Mux(ends, 0, turned)", "turned", CODEC),
    ],
    "fec/regroup": [
        ("names the step that comes", "(step + self.lag) % steps", "step", SUBLAYER),
        (
            "moves on without a beat",
            "m.If(self.valid):\n            m.d.sync += [late",
            "m.If(1):\n            m.d.sync += [late",
            SUBLAYER,
        ),
        ("has a 0 for every constant", "Const(found[0], 1)", "Const(0, 1)", SUBLAYER),
    ],
    "fec/search": [
        ("finds errors behind the end", "(even == odd) & exists", "even == odd", CODEC),
        ("looks a symbol too early", "1 - beats * self.p", "-beats * self.p", CODEC),
        ("scales the errors", "range(lowest, lowest + code.t)", "range(lowest + 1, lowest + 1 + code.t)", CODEC),
    ],
    "fec/shape": [
        ("begins groups with a 0", "                    return 1", "                    return 0", SUBLAYER),
        ("takes the header for a word's bit", "(64 * TRANSCODED_WORDS) + 1)", "(64 * TRANSCODED_WORDS))", SUBLAYER),
        ("swaps bits of units", "lambda at: divmod(at, self.symbols", "lambda at: divmod(at ^ 1, self.symbols", SUBLAYER),
    ],
    "fec/syndrome": [
        ("counts what is behind the end", "m.If(counter.ends)", "m.If(0)", CODEC),
        ("adds to the codeword before", "Mux(first, 0, moved)", "moved", CODEC),
        ("is done with every beat", "self.done.eq(valid & last)", "self.done.eq(valid)", CODEC),
    ],
    "fec/transcoder": [
        ("takes any type", " & _is_type(block[2:10])", "", TRANSCODER),
        ("repeats the first nibble", "Array(_SECOND)[nibble]", "nibble", TRANSCODER),
        ("believes a nibble of no type", " | (nibble == 0)", "", TRANSCODER),
    ],
    "deskew": [
        ("delays the late lane", "ahead.eq(latest - looked)", "ahead.eq(looked - latest)", TRAINING),
        ("takes the first lane for the latest", "later.eq(ahead[-1] | ~found)", "later.eq(~found)", TRAINING),
        ("forgets a lane that moved", "moved[n].eq(lag != lags[n])", "moved[n].eq(0)", TRAINING),
    ],
    "circuit_controller": [
        (
            "turns while flits are under way",
            "m.d.sync += done.eq((self.drained | ~waited).all())",
            "m.d.sync += done.eq(1)",
            CIRCUIT,
        ),
        ("disturbs ports that stay", "moves.eq(Cat(moves[1:], differs))", "moves.eq(Cat(moves[1:], 1))", CIRCUIT),
        (
            "waits for a dead mirror for ever",
            "m.If(ready | expired):\n                    settled",
            "m.If(ready):\n                    settled",
            CIRCUIT,
        ),
        ("goes back to nothing", "hold.eq(self.hold & ~(moves & self.enable)), ends", "ends", CIRCUIT),
        ("counts two parts as one", '"lock": Phase.LOCK', '"lock": Phase.SWITCH', CIRCUIT),
    ],
    "add_drop": [
        ("adds what passes", "wrong.eq(collides | (", "wrong.eq((", ADD_DROP),
        ("sends light past that nobody takes off", "lit.eq(~absorbs & ", "lit.eq(", ADD_DROP),
        ("drops and lets pass", "self.comes & ~drops & lit", "self.comes & lit", ADD_DROP),
        ("believes a neighbour dead at once", "(doubt == self.confirm_cycles - 1)", "1", ADD_DROP),
    ],
    "claims": [
        ("grants what clashes", "(claim.wavelength == asked.wavelength) & (", "0 & (", STEERING),
        ("forgets what is granted", "self.kept[n].eq(self.next[n])", "self.kept[n].segments.eq(0)", STEERING),
        ("compares the wavelength alone", "(claim.segments & asked.segments).any()", "claim.segments.any()", STEERING),
    ],
    "steering": [
        ("tunes rings that hold their line", "answers & ~self.locked.any()):", "answers):", STEERING),
        ("never goes back", "(self._goal == Goal.NEW) & had_line", "0", STEERING),
        ("gives its new line back", "self.adopt.eq(~restored)", "self.adopt.eq(restored)", STEERING),
        ("moves without a drain", "answers & (self.drained | ~self.lit)", "answers", STEERING),
    ],
    "bus_decoder": [
        ("answers for every page", "one_hot_mux(chosen, responses) | (", "one_hot_mux(chosen, responses) & (", DECODER),
        ("writes to all pages", "owed[1] & chosen[n]", "owed[1]", DECODER),
        ("reads from all pages", "page.arvalid.eq(owed & chosen[n])", "page.arvalid.eq(owed)", DECODER),
    ],
    "client_port": [
        ("merges without credits", "fifo.r_rdy & credits_.left[v]", "fifo.r_rdy", PORT),
        ("gives a lane the flits of all", "(self.received.flit.virtual_channel == v)", "1", PORT),
        (
            "sends all on one channel",
            "virtual_channel.eq(one_hot_mux(turn.grant, range(",
            "length_bytes.eq(len(range(",
            PORT,
        ),
        ("says nothing of the channel", 'field.eq(v if name == "user" else', 'field.eq(0 if name == "user" else', PORT),
    ],
    "link_register": [
        ("hides its retrainings", "inputs.retrainings.eq(events.retraining)", "inputs.retrainings.eq(0)", TOP),
        ("is up before it is", "inputs.up.eq(status.active)", "inputs.up.eq(1)", TOP),
        ("counts replays for errors", "inputs.crc_errors.eq(events.bad)", "inputs.crc_errors.eq(events.replay)", TOP),
        ("never says that it has fewer lanes", "inputs.lanes_reduced.eq(", "inputs.lanes_reduced.eq(0 & ", LANES),
        ("counts no cut packets", "inputs.packets_cut.eq(self.stalled)", "inputs.packets_cut.eq(0)", TOP),
    ],
    "top": [
        ("glues what a reset of a client cut", "cut[n].eq(inwards.cut)", "cut[n].eq(0)", SOAK),
        ("has the interrupt of all ports", "self.irq.eq(Cat(interrupts).any())", "self.irq.eq(Cat(interrupts).all())", TOP),
        ("ignores its registers", "chiplet.enable[port].eq(registers.enable)", "chiplet.enable[port].eq(1)", TOP),
    ],
}
CASES = [(f"{block}.py", *case) for block, cases in MUTANTS.items() for case in cases]


def occurrences(file, text):
    return (ROOT / "rtl" / file).read_text().count(text)


@pytest.mark.parametrize("block", MUTANTS)
def test_every_block_is_broken_in_three_ways_that_its_source_still_has(block):
    assert len(MUTANTS[block]) >= WAYS
    for what, text, broken, tests in MUTANTS[block]:
        assert occurrences(f"{block}.py", text) == 1, what
        assert text != broken
        for test in tests.split():
            file, _, name = test.partition("::")
            assert not name or f"def {name}(" in (ROOT / file).read_text(), test


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of all that tests need, whose modules are found before those of the work tree."""
    folder = tmp_path_factory.mktemp("package")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder)
    return folder


def verdict(package, tests):
    """Runs tests of the copy until one fails, slow ones as well."""
    environment = {**os.environ, "PYTHONPATH": str(package / ".src"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-m", "slow or not slow", *tests.split()]
    return subprocess.run(
        command, cwd=package, env=environment, capture_output=True, text=True, timeout=BOUND_S, check=False
    )


def pytest_generate_tests(metafunc):
    if metafunc.function is test_a_broken_block_is_seen:
        cases = CASES if metafunc.config.getoption("--mutants") else []
        names = [f"{file}: {what}" for file, what, *_ in cases]
        metafunc.parametrize(("file", "text", "broken", "tests"), [(file, *rest) for file, _, *rest in cases], ids=names)


def test_a_broken_block_is_seen(file, text, broken, tests, package):
    path, right = package / "rtl" / file, (ROOT / "rtl" / file).read_text()
    path.write_text(right.replace(text, broken))
    try:
        done = verdict(package, tests)
    finally:
        path.write_text(right)
    assert done.returncode == 1, done.stdout[-2000:]
    assert " failed" in done.stdout
    assert str(ROOT / "rtl") not in done.stdout
