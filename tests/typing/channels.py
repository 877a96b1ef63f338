"""What users see of the types of channels. Checked by mypy and pyright, never run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, assert_type

import msgspec
import pydantic

from asyncnotify import Batches, Channel, Gap, Listener, Notification, Notifier, Reread, Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


@dataclass
class Order:
    """A payload."""

    id: int


@dataclass
class User:
    """Another payload."""

    name: str


class Model(pydantic.BaseModel):
    """A payload of pydantic's."""

    id: int


listener = Listener("postgresql://db/app")
notifier = Notifier("postgresql://db/app")


# -- making one -----------------------------------------------------------------------------------


def read_user(text: str) -> User:
    """Return a user."""
    return User(text)


def write_user(user: User) -> str:
    """Return a user as text."""
    return user.name


def bytes_of_user(user: User) -> bytes:
    """Return a user as UTF-8."""
    return user.name.encode()


def user_of_bytes(data: bytes) -> User:
    """Return a user."""
    return User(data.decode())


def user_or_reread(text: str) -> User | Reread:
    """Return a user, or that the text says "read again"."""
    return User(text) if text else Reread()


def user_or_reread_of_bytes(data: bytes) -> User | Reread | None:
    """Return a user or none, or that the bytes say "read again"."""
    return User(data.decode()) if data else Reread(3)


def any_to_bytes(thing: Any, /, default: Callable[[Any], Any] | None = None) -> bytes:
    """Return JSON."""
    return repr(thing).encode() if default is None else b""


def any_of_text(data: bytes | bytearray | memoryview | str, /) -> Any:
    """Return what JSON holds."""
    return data


names = Channel("names")
orders = Channel("orders", Order)
rows = Channel("rows", dict[str, int])
ticks = Channel("ticks", None)
users = Channel("users", encode=write_user, decode=read_user)
users_in_bytes = Channel("users", encode=bytes_of_user, decode=user_of_bytes, unique=True)
users_to_send = Channel("users", encode=bytes_of_user)
users_to_receive = Channel("users", decode=read_user)
users_to_receive_in_bytes = Channel("users", decode=user_of_bytes, keys=[b"0123456789abcdef"])
users_or_reread = Channel("users", decode=user_or_reread)
users_both_ways = Channel("users", encode=write_user, decode=user_or_reread, unique=True)
users_or_none = Channel("users", decode=user_or_reread_of_bytes)
lengths_or_reread = Channel("lengths", decode=lambda text: len(text) if text else Reread())
lengths = Channel("lengths", encode=str, decode=lambda text: 2 * len(text))
numbers: Channel[int] = Channel("numbers", encode=lambda number: str(number + 1))
json = Channel[dict[str, int]]("json", encode=any_to_bytes, decode=any_of_text)
anything = Channel("json", encode=any_to_bytes, decode=any_of_text)
structs: Channel[User] = Channel(
    "structs", encode=msgspec.json.encode, decode=msgspec.json.Decoder(User).decode
)
models = Channel("models", encode=Model.model_dump_json, decode=Model.model_validate_json)
sealed = Channel("sealed", Order, unique=True, compress=True, keys=[b"0123456789abcdef"])
union: Channel[Order | User] = Channel("union", Order | User)
optional: Channel[Order | None] = Channel("optional", Order | None)

assert_type(names, Channel[str])
assert_type(orders, Channel[Order])
assert_type(rows, Channel[dict[str, int]])
assert_type(ticks, Channel[None])
assert_type(users, Channel[User])
assert_type(users_in_bytes, Channel[User])
assert_type(users_to_send, Channel[User])
assert_type(users_to_receive, Channel[User])
assert_type(users_to_receive_in_bytes, Channel[User])
assert_type(users_or_reread, Channel[User])
assert_type(users_both_ways, Channel[User])
assert_type(users_or_none, Channel[User | None])
assert_type(lengths_or_reread, Channel[int])
assert_type(users_or_reread.decode(""), User)
assert_type(Reread(3).count, int | None)
Reread("3")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
assert_type(numbers.decode("1"), int)
assert_type(json, Channel[dict[str, int]])
assert_type(anything, Channel[Any])
assert_type(structs.decode(""), User)
assert_type(models, Channel[Model])
assert_type(sealed, Channel[Order])
assert_type(orders.name, str)
assert_type(orders.encode(Order(1)), str)
assert_type(orders.decode("{}"), Order)
assert_type(union.decode("{}"), Order | User)
assert_type(names.decode(""), str)
orders.encode(User("x"))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
Channel("users", encode=len)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
Channel("users", decode=write_user)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue,reportArgumentType]
Channel("users", encode=write_user, decode=len)  # type: ignore[misc] # pyright: ignore[reportCallIssue,reportArgumentType]
Channel("users", Order, encode=write_user, decode=read_user)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue]
Channel(b"orders")  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]


# -- handlers -------------------------------------------------------------------------------------


async def on_order(n: Notification[Order]) -> None:
    """Handle one, asynchronously."""
    assert_type(n.payload, Order)
    assert_type(n.payload.id, int)


def on_order_too(n: Notification[Order]) -> int:
    """Handle one, and return what nobody reads."""
    return n.payload.id


async def on_user(n: Notification[User]) -> None:
    """Handle another, asynchronously."""


def on_user_too(n: Notification[User]) -> None:
    """Handle another."""


def on_text(n: Notification[str]) -> None:
    """Handle one of a plain channel."""


def on_either(n: Notification[Order | User]) -> None:
    """Handle one or the other."""


def on_anything(n: Notification[Any]) -> None:
    """Handle whatever comes."""


def on_object(n: Notification[object]) -> None:
    """Handle whatever comes, without looking."""


class Cache:
    """An application's object whose methods are handlers."""

    async def on_order(self, n: Notification[Order]) -> None:
        """Handle one."""

    def __call__(self, n: Notification[Order]) -> None:
        """Handle one."""


async def listening() -> None:
    """Listen with handlers of the payload, and with those of another."""
    await listener.listen(orders, on_order)
    await listener.listen(orders, on_order_too, latest=True)
    await listener.listen(orders, on_either)  # it takes more than will come
    await listener.listen(orders, on_anything)
    await listener.listen(orders, on_object)
    await listener.listen(orders, print)
    await listener.listen(orders, Cache().on_order)
    await listener.listen(orders, Cache())
    await listener.listen(orders, lambda n: n.payload.id)
    await listener.listen(union, on_either)
    await listener.listen(names, on_text)
    await listener.listen("names", on_text)
    await listener.listen(users, on_user, concurrency=3)
    await listener.listen(orders, on_user)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue,reportArgumentType]
    await listener.listen(orders, on_user_too)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue,reportArgumentType]
    await listener.listen(orders, on_text)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue,reportArgumentType]
    await listener.listen(union, on_order)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue,reportArgumentType]
    await listener.listen("orders", on_order)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue,reportArgumentType]
    await listener.listen(names, on_order)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue,reportArgumentType]


@listener.on(orders)
async def decorated(n: Notification[Order]) -> None:
    """Stay what it was."""


@listener.on(orders, concurrency=2)
def decorated_too(n: Notification[Order]) -> int:
    """Stay what it was."""
    return n.payload.id


@listener.on(orders)
def of_any_payload(n: Notification[Any]) -> None:
    """Stay what it was."""


@listener.on(orders)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
async def of_another_payload(n: Notification[User]) -> None:
    """Be no handler of orders."""


@listener.on(orders)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
def of_text(n: Notification[str]) -> None:
    """Be no handler of orders."""


@listener.on("orders")  # type: ignore[type-var] # pyright: ignore[reportArgumentType,reportUntypedFunctionDecorator]
def of_a_payload_though_plain(n: Notification[Order]) -> None:
    """Be no handler of text."""


async def decorators() -> None:
    """Call what was decorated, as if it were not."""
    notification = Notification("orders", Order(1), 7)
    assert_type(await decorated(notification), None)
    assert_type(decorated_too(notification), int)
    decorated_too(Notification("orders", "1", 7))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    decorated_too()  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


def registered(handler: Callable[[Notification[Order]], Coroutine[Any, Any, None]]) -> None:
    """Register a function that is at hand."""
    listener.on(orders)(handler)


# -- streams --------------------------------------------------------------------------------------


async def streaming() -> None:
    """Iterate over one channel and several, with gaps and without."""
    assert_type(listener.stream(orders), Stream[Notification[Order]])
    assert_type(listener.stream(names), Stream[Notification[str]])
    assert_type(listener.stream(union), Stream[Notification[Order | User]])
    assert_type(listener.stream(orders, sealed), Stream[Notification[Order]])
    assert_type(listener.stream(orders, gaps=True), Stream[Notification[Order] | Gap])
    assert_type(listener.stream(orders, sealed, gaps=True), Stream[Notification[Order] | Gap])
    assert_type(listener.stream(orders, users), Stream[Notification[Any]])
    assert_type(listener.stream(orders, "names"), Stream[Notification[Any]])
    assert_type(listener.stream("names", orders, gaps=True), Stream[Notification[Any] | Gap])
    async for n in listener.stream(orders, buffer=1, overflow="fail", latest=True):
        assert_type(n, Notification[Order])
        assert_type(n.payload, Order)
        assert_type(n.payload.id, int)
    async for item in listener.stream(orders, gaps=True):
        match item:
            case Gap():  # first: mypy makes Any of the payload of what is matched by Notification()
                assert_type(item, Gap)
            case _:
                assert_type(item.payload, Order)
    async with listener.stream(users, on_error=on_error) as stream:
        assert_type(stream, Stream[Notification[User]])
        assert_type((await anext(stream)).payload, User)
    listener.stream(orders, on_error=on_text)  # type: ignore[arg-type] # pyright: ignore[reportCallIssue,reportArgumentType]
    listener.stream(5)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue,reportArgumentType]


def on_error(error: BaseException, item: Notification[Any] | Gap) -> None:
    """See what could not be decoded."""


async def batching() -> None:
    """Iterate over lists."""
    assert_type(listener.stream("names").batches(), Batches[Notification[str]])
    assert_type(listener.stream(orders).batches(limit=10), Batches[Notification[Order]])
    async for batch in listener.stream(orders).batches():
        assert_type(batch, list[Notification[Order]])
        assert_type([n.payload.id for n in batch], list[int])
    async for items in listener.stream(orders, gaps=True).batches(100):
        assert_type(items, list[Notification[Order] | Gap])
    listener.stream(orders).batches("10")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


# -- publishing -----------------------------------------------------------------------------------


async def notifying() -> None:
    """Send what the channel takes, and what it does not."""
    await listener.notify(orders, Order(1))
    await listener.notify(names, "x")
    await listener.notify(ticks, None)
    await listener.notify(union, User("x"))
    await listener.notify(optional, None)
    await listener.notify("orders", "x")
    await listener.notify("orders")
    await listener.notify(orders, 5)  # type: ignore[misc] # pyright: ignore[reportCallIssue,reportArgumentType]
    await listener.notify(orders, "x")  # type: ignore[misc] # pyright: ignore[reportCallIssue,reportArgumentType]
    await listener.notify(orders, None)  # type: ignore[misc] # pyright: ignore[reportCallIssue,reportArgumentType]
    await listener.notify(orders)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]
    await listener.notify("orders", Order(1))  # type: ignore[call-overload] # pyright: ignore[reportCallIssue,reportArgumentType]
    await listener.unlisten(orders)


async def publishing(transaction: object) -> None:
    """Send with a notifier: one, within a transaction, many."""
    await notifier.notify(orders, Order(1))
    await notifier.notify(orders, Order(1), connection=transaction)
    await notifier.notify(users, User("x"), retry=True)
    await notifier.notify("orders")
    await notifier.notify(orders, 5)  # type: ignore[misc] # pyright: ignore[reportCallIssue,reportArgumentType]
    await notifier.notify(orders)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]
    assert_type(await notifier.notify_many([("orders", "1"), ("orders", "2")]), int)
    assert_type(await notifier.notify_many([(orders, Order(1)), (users, User("x"))]), int)
    await notifier.notify_many((orders, Order(n)) for n in range(10))
    await notifier.notify_many([orders])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
