"""Collectives as rounds of messages: who knows what in the end, how many bytes each member moves, in how many rounds."""

import pytest

from lightfabric.placement.graph.collective import ALGORITHMS, Collective, rounds

ROOTED = {Collective.BROADCAST, Collective.SCATTER}
"""What the root has comes to all; what reduces or gathers brings all to the root; the others bring all to all."""
TO_ROOT = {Collective.REDUCE, Collective.GATHER}
S = 5040


def steps(found):
    """Rounds as lists; a message of several operations goes on for as many, as on a ring."""
    listed = [list(messages) for messages in found]
    return [messages for messages in listed for _ in range(messages[0].operations)], listed


def reached(collective, algorithm, members):
    """Whose data each member may have in the end."""
    known = [{place} for place in range(members)]
    for messages in steps(rounds(collective, algorithm, members, S))[0]:
        before = [set(each) for each in known]
        for message in messages:
            known[message.destination] |= before[message.source]
    return known


@pytest.mark.parametrize("members", [2, 3, 4, 5, 6, 7, 8, 16])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("collective", list(Collective))
def test_everyone_gets_what_the_collective_promises(collective, algorithm, members):
    if algorithm == "halving-doubling" and members & (members - 1):
        with pytest.raises(ValueError, match=rf"^must have a power of two of members for halving-doubling, not {members}$"):
            rounds(collective, algorithm, members, S)
        return
    known, everyone = reached(collective, algorithm, members), set(range(members))
    if collective in ROOTED:
        assert all(0 in each for each in known)
    elif collective in TO_ROOT:
        assert known[0] == everyone
    else:
        assert all(each == everyone for each in known)


@pytest.mark.parametrize("members", [2, 3, 4, 5, 7, 8])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("collective", list(Collective))
def test_everyone_moves_at_least_the_bytes_of_the_lower_bound(collective, algorithm, members):
    """The bytes that a member must get from others, or give to them: Chan et al., "Collective communication", 2007."""
    if algorithm == "halving-doubling" and members & (members - 1):
        return
    listed = steps(rounds(collective, algorithm, members, S))[1]
    received, sent = [0] * members, [0] * members
    for message in (message for messages in listed for message in messages):
        sent[message.source] += message.size
        received[message.destination] += message.size
    rest = S * (members - 1) // members
    if collective == Collective.BARRIER:
        assert sent == received == [0] * members
    elif collective == Collective.BROADCAST:
        assert min(received[1:]) >= S
    elif collective == Collective.REDUCE:
        assert min(sent[1:]) >= rest
    elif collective == Collective.SCATTER:
        assert sent[0] == rest
        assert min(received[1:]) >= S // members
    elif collective == Collective.GATHER:
        assert received[0] == rest
        assert min(sent[1:]) >= S // members
    elif collective in (Collective.REDUCE_SCATTER, Collective.REDUCE_SCATTER_BLOCK):
        assert min(sent) >= rest
        assert min(received) >= S // members
    else:
        assert min(received) >= rest
        assert sum(received) >= members * rest * (2 if collective == Collective.ALL_REDUCE and algorithm != "tree" else 1)


@pytest.mark.parametrize("members", [5, 6, 7])
def test_a_binomial_tree_sends_each_subtree_what_is_its_own(members):
    found = [list(messages) for messages in rounds(Collective.SCATTER, "tree", members, 210)]
    part = 210 // members
    held = {0: set(range(members))}
    for messages, stride in zip(found, (4, 2, 1), strict=True):
        for message in messages:
            held[message.destination] = {place for place in held[message.source] if place >= message.source + stride}
            held[message.source] -= held[message.destination]
            assert message.size == part * len(held[message.destination])
    assert held == {place: {place} for place in range(members)}


def test_parts_that_are_no_whole_bytes_are_rounded_up():
    """The largest part decides when a round is over."""
    assert {message.size for message in rounds(Collective.ALL_TO_ALL, "ring", 3, 10)[0]} == {4}
    assert {message.size for message in rounds(Collective.ALL_GATHER, "ring", 3, 10)[0]} == {7}


def test_one_member_and_no_bytes_need_no_message():
    for collective in Collective:
        assert rounds(collective, "ring", 1, S) == []
        assert (rounds(collective, "tree", 4, 0) == []) == (collective != Collective.BARRIER)
