"""What is sent together, in which order, and what each caller is told."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio

from asyncnotify._errors import (
    ConfigurationError,
    ConnectError,
    ConnectionLostError,
    NotifyTimeoutError,
)
from tests.unit.fake_publishing import ANSWER_TIME, TIMEOUT, FakePublishingServer, outcomes, turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

REFUSAL = asyncpg.ProgramLimitExceededError("too many notifications in the NOTIFY queue")
LONG = "p" * 7_990


@pytest_asyncio.fixture
async def server() -> AsyncIterator[FakePublishingServer]:
    """Whose publisher has ended, and whose callers have all been told, when the test is over."""
    made = FakePublishingServer()
    yield made
    await made.end()


# -- together or alone ----------------------------------------------------------------------------


async def test_a_call_that_is_alone_goes_out_at_once(server: FakePublishingServer) -> None:
    """It is one statement, sent in the caller's own turn, and nothing is waited for."""
    await server.start_with_session()
    loop = asyncio.get_running_loop()
    began = loop.time()
    for n in range(3):
        call = server.call(str(n))
        await asyncio.sleep(0)
        assert len(server.statements) == n + 1
        await call
    assert loop.time() - began == pytest.approx(3 * ANSWER_TIME)
    assert (server.payloads, server.single_statements) == (["0", "1", "2"], 3)


async def test_calls_that_come_in_the_meantime_go_out_together(
    server: FakePublishingServer,
) -> None:
    """While one statement is in flight others gather, in order, for the next."""
    await server.start_with_session()
    await outcomes(server.call_each(map(str, range(31))))
    assert server.sizes == [1, 30]
    assert server.payloads == [str(n) for n in range(31)]


async def test_the_first_calls_go_out_together_once_connected(server: FakePublishingServer) -> None:
    """What comes while the connection is being made is one statement."""
    server.open_time = 3
    server.begin()
    await outcomes(server.call_each(map(str, range(20))))
    assert server.sizes == [20]
    assert len(server.sessions) == 1


async def test_a_statement_holds_a_thousand_at_most(server: FakePublishingServer) -> None:
    """Many calls go out in few statements, none larger, each call in its place."""
    await server.start_with_session()
    assert await outcomes(server.call_each(map(str, range(5_000)))) == [None] * 5_000
    assert server.payloads == [str(n) for n in range(5_000)]
    assert max(server.sizes) == 1_000
    assert len(server.sizes) < 20


async def test_a_statement_holds_a_million_characters_and_one_payload_at_most(
    server: FakePublishingServer,
) -> None:
    """Large payloads are sent fewer at a time."""
    await server.start_with_session()
    payloads = [f"{n:04}{LONG}" for n in range(600)]
    await outcomes(server.call_each(payloads))
    assert server.payloads == payloads
    assert max(server.sizes) == 126


async def test_many_callers_take_turns(server: FakePublishingServer) -> None:
    """Of a hundred callers who send all the time, one half is at it while the other is sent."""
    await server.start_with_session()

    async def send(name: int) -> None:
        for n in range(10):
            await server.call(f"{name} {n}")

    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(send(name) for name in range(100)))
    assert len(server.committed) == 1_000
    assert asyncio.get_running_loop().time() - began < 25 * ANSWER_TIME
    for name in range(100):
        mine = [p for p in server.payloads if p.startswith(f"{name} ")]
        assert mine == [f"{name} {n}" for n in range(10)]


async def test_equal_ones_never_share_a_statement(server: FakePublishingServer) -> None:
    """PostgreSQL would fold them; the same payload on another channel is another matter."""
    await server.start_with_session()
    server.call("first")
    for channel, payload in [("a", "x"), ("b", "x"), ("a", "y"), ("a", "x"), ("b", "x")]:
        server.call(payload, channel)
    await outcomes(server.calls)
    assert server.statements[1:] == [
        [("a", "x"), ("b", "x"), ("a", "y")],
        [("a", "x"), ("b", "x")],
    ]


async def test_equal_ones_keep_no_one_else_waiting(server: FakePublishingServer) -> None:
    """Of 1,000 equal ones each round takes one, beside all the others that wait."""
    await server.start_with_session()
    server.answer_time = 0.001
    server.call_each(["first", *["equal"] * 1_000, *map(str, range(50))])
    await asyncio.sleep(2.5 * server.answer_time)
    late = server.call("late")
    await asyncio.sleep(server.answer_time)
    server.call("later")
    await late
    assert len(server.statements) <= 6
    assert await outcomes(server.calls) == [None] * 1_053
    assert server.payloads.count("equal") == 1_000
    assert all(len(set(pairs)) == len(pairs) for pairs in server.statements)
    others = [payload for payload in server.payloads if payload != "equal"]
    assert others == ["first", *map(str, range(50)), "late", "later"]


async def test_many_pairs_of_which_each_repeats_take_turns(server: FakePublishingServer) -> None:
    """However many there are, each arrives as often as it was sent, and in few rounds."""
    await server.start_with_session(queue=5_000)
    server.answer_time = 0.001
    payloads = [str(n) for n in range(1_500) for _ in range(4)]
    assert await outcomes(server.call_each(payloads)) == [None] * 6_000
    assert Counter(server.payloads) == Counter(payloads)
    assert all(len(set(pairs)) == len(pairs) <= 1_000 for pairs in server.statements)
    assert len(server.statements) < 40


async def test_many_at_once_and_single_calls_take_turns(server: FakePublishingServer) -> None:
    """Neither starves: after each batch of calls one transaction of many is sent."""
    publisher = await server.start_with_session()
    server.answer_time = 0.01
    calls = server.call_each(f"one {n}" for n in range(200))
    many = [publisher.publish_all(["c"], [f"many {n}"]) for n in range(5)]
    assert await outcomes([*calls, *many]) == [None] * 205
    places = [n for n, pairs in enumerate(server.statements) if pairs[0][1].startswith("many")]
    assert [server.statements[n] for n in places] == [[("c", f"many {n}")] for n in range(5)]
    gaps = [after - before for before, after in pairwise(places)]
    assert max(gaps) <= 2
    singles = [payload for payload in server.payloads if payload.startswith("one")]
    assert singles == [f"one {n}" for n in range(200)]


async def test_many_that_are_cancelled_before_their_turn_are_not_sent(
    server: FakePublishingServer,
) -> None:
    """A transaction that waits for others is withdrawn as a whole, and holds nobody up."""
    publisher = await server.start_with_session()
    first = server.call("first")
    await asyncio.sleep(0)
    many = asyncio.ensure_future(publisher.publish_all(["c", "c"], ["2", "3"]))
    await asyncio.sleep(ANSWER_TIME / 2)
    many.cancel()
    last = server.call("last")
    assert await outcomes([first, last]) == [None, None]
    await asyncio.sleep(10 * ANSWER_TIME)
    assert server.payloads == ["first", "last"]


# -- room in the queue ----------------------------------------------------------------------------


async def test_calls_beyond_the_queue_wait_and_are_served_in_order(
    server: FakePublishingServer,
) -> None:
    """With room for three, a hundred calls all arrive, in their order."""
    await server.start_with_session(queue=3)
    server.answer_time = 0.01
    assert await outcomes(server.call_each(map(str, range(100)))) == [None] * 100
    assert server.payloads == [str(n) for n in range(100)]
    assert max(server.sizes) == 3


async def test_cancelled_calls_are_not_sent_and_take_no_place(server: FakePublishingServer) -> None:
    """Who gives up before being sent leaves the statement to the others."""
    await server.start_with_session(queue=4)
    calls = server.call_each(map(str, range(21)))
    await turns()
    for call in calls[1::2]:
        call.cancel()
    await outcomes(calls)
    assert server.payloads == [str(n) for n in range(0, 21, 2)]
    assert [call.cancelled() for call in calls] == [n % 2 == 1 for n in range(21)]


async def test_a_statement_whose_callers_have_all_given_up_is_not_sent(
    server: FakePublishingServer,
) -> None:
    """Nothing goes out for nobody."""
    await server.start_with_session()
    first, *others = server.call_each(map(str, range(5)))
    await turns()
    for call in others:
        call.cancel()
    await first
    await turns()
    await server.call("next")
    assert server.payloads == ["0", "next"]


@pytest.mark.parametrize("queue", [1, 3, 40])
async def test_calls_beyond_the_queue_survive_a_loss(
    server: FakePublishingServer, queue: int
) -> None:
    """When all that was in the queue is lost in flight, those that wait for room are served."""
    await server.start_with_session(queue=queue)
    calls = server.call_each(map(str, range(1 + 4 * queue)))
    await asyncio.sleep(1.5 * ANSWER_TIME)
    server.sessions[0].terminate()
    found = await outcomes(calls)
    lost = [n for n, error in enumerate(found) if isinstance(error, ConnectionLostError)]
    assert lost
    assert set(found) - {found[n] for n in lost} == {None}
    assert server.payloads == [str(n) for n in range(1 + 4 * queue) if n not in lost]


# -- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 20])
async def test_a_refusal_concerns_its_own_call(server: FakePublishingServer, count: int) -> None:
    """The others of the statement are sent again one by one, in order, on the same session."""
    server.refused["bad"] = REFUSAL
    await server.start_with_session()
    calls = server.call_each(["first", *map(str, range(count - 1)), "bad", "last"])
    assert await outcomes(calls) == [None] * count + [REFUSAL, None]
    assert server.payloads == ["first", *map(str, range(count - 1)), "last"]
    assert len(server.sessions) == 1


async def test_what_was_not_sent_again_is_not_in_doubt(server: FakePublishingServer) -> None:
    """The connection is lost after a refusal: in doubt is what was in flight, and no other."""
    server.refused["bad"] = REFUSAL
    await server.start_with_session()
    calls = server.call_each(["alone", "bad", "a", "b", "c"])
    await asyncio.sleep(3.5 * ANSWER_TIME)  # alone, all four, bad
    server.sessions[0].terminate()
    found = await outcomes(calls)
    assert found[:2] == [None, REFUSAL]
    assert isinstance(found[2], ConnectionLostError)
    assert [type(error) for error in found[3:]] == [ConnectError, ConnectError]
    assert "not sent" in str(found[3])
    assert server.payloads == ["alone"]


async def test_a_refusal_of_many_concerns_them_all(server: FakePublishingServer) -> None:
    """One transaction is refused as one; single calls beside it are not."""
    server.refused["bad"] = REFUSAL
    publisher = await server.start_with_session()
    calls = server.call_each("ab")
    many = publisher.publish_all(["c", "c"], ["good", "bad"])
    assert await outcomes([*calls, many]) == [None, None, REFUSAL]
    assert server.payloads == ["a", "b"]
    assert len(server.sessions) == 1


async def test_each_caller_gets_an_error_of_its_own(server: FakePublishingServer) -> None:
    """What is lost in flight is in doubt; what waited is sent on the next connection."""
    await server.start_with_session()
    calls = server.call_each(map(str, range(10)))
    await asyncio.sleep(1.5 * ANSWER_TIME)
    late = server.call_each(["late"])
    await turns()
    server.sessions[0].terminate()
    found = await outcomes([*calls, *late])
    assert (found[0], found[-1]) == (None, None)
    lost = [error for error in found if isinstance(error, ConnectionLostError)]
    assert len({id(error) for error in lost}) == 9
    assert "may or may not have been sent" in str(lost[0])
    assert server.payloads == ["0", "late"]
    assert len(server.sessions) == 2


async def test_a_lone_call_that_is_lost_leaves_the_others_to_the_next_session(
    server: FakePublishingServer,
) -> None:
    """Those that gathered meanwhile were not in flight, and are sent."""
    publisher = await server.start_with_session()
    calls = server.call_each("abc")
    await asyncio.sleep(ANSWER_TIME / 2)
    many = publisher.publish_all(["c"], ["many"])
    server.sessions[0].terminate()
    found = await outcomes([*calls, many])
    assert isinstance(found[0], ConnectionLostError)
    assert found[1:] == [None] * 3
    assert server.payloads == ["b", "c", "many"]
    assert len(server.sessions) == 2


@pytest.mark.parametrize("way", ["alone", "together", "many"])
async def test_an_error_that_is_no_refusal_costs_the_session(
    server: FakePublishingServer, way: str
) -> None:
    """The driver is confused, though its connection looks well: the next call has another."""
    server.refused["odd"] = asyncpg.InternalClientError("got result for unknown protocol state")
    publisher = await server.start_with_session()
    sent: list[asyncio.Future[None]] = []
    if way == "many":
        sent.append(publisher.publish_all(["c"], ["odd"]))
    else:
        sent.extend(server.call_each(["odd"] if way == "alone" else ["first", "odd", "other"]))
    *_, error = await outcomes(sent)
    assert isinstance(error, ConnectionLostError)
    assert isinstance(error.__cause__, asyncpg.InternalClientError)
    await server.call("next")
    assert server.payloads[-1] == "next"
    assert server.terminated == server.sessions[:1]
    assert len(server.sessions) == 2


async def test_a_driver_that_cancels_itself_is_a_lost_connection(
    server: FakePublishingServer,
) -> None:
    """Nobody cancelled the caller: it learns that the connection failed."""
    server.refused["odd"] = asyncio.CancelledError()
    await server.start_with_session()
    call = server.call("odd")
    with pytest.raises(ConnectionLostError):
        await call
    await server.call("next")
    assert len(server.sessions) == 2


async def test_a_session_lost_while_it_rests_is_replaced(server: FakePublishingServer) -> None:
    """No caller gets an error: nothing was in flight."""
    await server.start_with_session()
    for n in range(3):
        server.sessions[-1].terminate()
        await server.call(str(n))
    assert server.payloads == ["0", "1", "2"]
    assert len(server.sessions) == 4
    assert server.terminated == server.sessions[:3]


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (ConnectionRefusedError("refused"), ConnectError),
        (asyncpg.TooManyConnectionsError("full"), ConnectError),
        (ValueError("nonsense"), ConfigurationError),
    ],
)
async def test_without_a_connection_all_that_waits_fails(
    server: FakePublishingServer, cause: Exception, kind: type[ConnectError]
) -> None:
    """Nothing of it was sent; the next call tries anew."""
    server.open_errors = [cause]
    publisher = server.begin(queue=2)
    calls = server.call_each(map(str, range(5)))
    many = publisher.publish_all(["c"], ["many"])
    found = await outcomes([*calls, many])
    assert {type(error) for error in found} == {kind}
    assert {getattr(error, "__cause__", None) for error in found} == {cause}
    await server.call("next")
    assert server.payloads == ["next"]


async def test_an_error_of_ours_in_place_of_a_connection_is_told_as_it_is(
    server: FakePublishingServer,
) -> None:
    """It says already what is wrong, and keeps its kind."""
    server.open_errors = [ConfigurationError("connect= returned a str")]
    server.begin()
    with pytest.raises(ConfigurationError, match=r"^connect= returned a str$"):
        await server.call("1")


async def test_what_waits_before_the_dial_fails_is_not_mixed_with_what_comes_after(
    server: FakePublishingServer,
) -> None:
    """A call that comes when the dial has failed gets a dial of its own."""
    server.open_time = 2
    server.open_errors = [ConnectionRefusedError("refused")]
    server.begin()
    early = server.call("early")
    with pytest.raises(ConnectError):
        await early
    await server.call("late")
    assert server.payloads == ["late"]


# -- deadlines ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3], ids=["alone", "together"])
async def test_a_statement_without_an_answer_is_overdue(
    server: FakePublishingServer, count: int
) -> None:
    """The session is dropped at the deadline, and the next call has another one."""
    publisher = await server.start_with_session()
    server.answer_time = 1_000.0
    calls = server.call_each(map(str, range(count)))
    began = asyncio.get_running_loop().time()
    found = await outcomes(calls)
    assert {type(error) for error in found} == {ConnectionLostError}
    rounds = 2 if count > 1 else 1  # the first is alone
    assert asyncio.get_running_loop().time() - began == pytest.approx(rounds * TIMEOUT, rel=0.05)
    many = publisher.publish_all(["c"], ["many"])
    [error] = await outcomes([many])
    assert isinstance(error, ConnectionLostError)
    server.answer_time = ANSWER_TIME
    await server.call("next")
    assert server.payloads == ["next"]


async def test_time_in_the_queue_counts(server: FakePublishingServer) -> None:
    """Calls that wait too long, for a round, for room or as many at once, were not sent."""
    publisher = await server.start_with_session(queue=4)
    server.answer_time = 0.9 * TIMEOUT
    loop, calls = asyncio.get_running_loop(), server.call_each(["first", *"eeeee", "beyond"])
    began = loop.time()
    await turns()
    many = [publisher.publish_all(["c"], [f"many {n}"]) for n in range(2)]
    found = await outcomes([*calls, *many])
    assert found[:2] == [None, None]  # the second is sent when the first has been answered
    late = [error for error in found if error is not None]
    assert {type(error) for error in late} == {NotifyTimeoutError}
    assert "not sent" in str(late[0])
    assert len({id(error) for error in late}) == len(late)
    assert loop.time() - began < 4 * TIMEOUT
    assert len(server.payloads) == len(found) - len(late)
    assert len(server.sessions) == 1


async def test_a_call_that_waits_is_told_soon_after_its_time(server: FakePublishingServer) -> None:
    """It fails while the statement before it is still in flight: after its time, a quarter more."""
    publisher = await server.start_with_session()
    server.answer_time = 0.8 * TIMEOUT
    loop = asyncio.get_running_loop()
    server.call_each(["e", "e"])
    for _ in range(3):
        publisher.publish_all(["c"], ["many"])
    await asyncio.sleep(TIMEOUT / 10)
    began, last = loop.time(), publisher.publish_all(["c"], ["last"])
    [error] = await outcomes([last])
    assert isinstance(error, NotifyTimeoutError)
    assert TIMEOUT <= loop.time() - began <= 1.3 * TIMEOUT


async def test_time_without_a_connection_has_a_deadline_of_its_own(
    server: FakePublishingServer,
) -> None:
    """However long it takes to connect, what waits for that is sent then."""
    server.open_time = 10 * TIMEOUT
    server.begin()
    assert await outcomes(server.call_each("abc")) == [None] * 3


async def test_a_session_that_rests_is_not_overdue(server: FakePublishingServer) -> None:
    """Whatever it was used for last, having nothing to do is no fault."""
    publisher = await server.start_with_session()
    await server.call("alone")
    await asyncio.sleep(10 * TIMEOUT)
    await outcomes(server.call_each("abc"))
    await asyncio.sleep(10 * TIMEOUT)
    await publisher.publish_all(["c"], ["many"])
    await asyncio.sleep(10 * TIMEOUT)
    await server.call("next")
    assert len(server.sessions) == 1


async def test_slow_answers_in_time_are_no_alarm(server: FakePublishingServer) -> None:
    """A server that always takes nearly as long as it may loses nothing, for an hour."""
    await server.start_with_session()
    server.answer_time = TIMEOUT - 0.01
    for n in range(700):
        await server.call(str(n))
    assert len(server.sessions) == 1


# -- what was certainly not sent ------------------------------------------------------------------

UNSENT = asyncpg.InterfaceError("connection is closed")


async def test_what_was_not_sent_is_sent_on_a_new_connection(server: FakePublishingServer) -> None:
    """Alone, together and in bulk: each once, in order."""
    publisher = await server.start_with_session()
    for count in (1, 3):
        server.goodbyes = [UNSENT]
        assert await outcomes(server.call_each("123"[:count])) == [None] * count
    server.goodbyes = [UNSENT]
    await publisher.publish_all(("c", "c"), ("4", "5"))
    assert server.payloads == ["1", "1", "2", "3", "4", "5"]
    assert len(server.sessions) == 4


@pytest.mark.parametrize("count", [1, 3])
async def test_it_is_not_tried_for_ever(server: FakePublishingServer, count: int) -> None:
    """Connections that end one after another before anything is sent: ConnectError, with why."""
    publisher = await server.start_with_session()
    server.goodbyes = [UNSENT] * 10
    calls = [asyncio.ensure_future(publisher.publish_all(("c",), ("x",)))] if count == 1 else []
    calls += [server.call(str(n)) for n in range(count)]
    for error in await outcomes(calls):
        assert isinstance(error, ConnectError)
        assert str(error).startswith("not sent: ")
        assert error.__cause__ is UNSENT
    server.goodbyes.clear()
    assert await outcomes([server.call("y")]) == [None]
