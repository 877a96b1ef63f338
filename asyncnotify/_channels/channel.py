"""Channel: the name of a channel, and how its payloads are coded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, final, overload

from asyncnotify._arguments import check_context, check_flag
from asyncnotify._channels.coders import Coder, RefusedError, coder_for, name_of
from asyncnotify._channels.envelope import TEXT_LIMIT, Layer, carrying, parted, signing, wrapping
from asyncnotify._channels.functions import Text, coder_of
from asyncnotify._channels.hidden import secret_in
from asyncnotify._channels.names import PAYLOAD_LIMIT, check_channel, check_payload
from asyncnotify._errors import (
    ChannelDirectionError,
    PayloadDecodeError,
    PayloadError,
    PayloadTooLargeError,
)
from asyncnotify._interrupts import is_interrupt
from asyncnotify._model import Reread

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")


@final
class Channel(Generic[T]):
    """
    The name of a channel, and how its payloads are coded. Usable wherever a name is.

    ``Channel("orders")`` sends payloads as they are. ``Channel("orders", Order)`` sends JSON:
    plain ``dict``, ``list``, ``int``, ``float``, ``bool``, ``None`` and ``object`` (any JSON) are
    coded by the standard library, pydantic's models and dataclasses by pydantic, every other
    type by msgspec if that is installed and supports the type, else by pydantic.

    A Channel is immutable, and may be shared between event loops and threads.

    Args:
        name: The name of the channel, 1 to 63 bytes.
        kind: The type of the payloads.
        encode: Turns a payload into text, as str or as bytes in UTF-8. Instead of ``kind``.
            Without it, nothing can be sent on the channel.
        decode: Turns text into a payload. It is called with bytes if the annotation of its
            parameter is ``bytes``, otherwise with a str. Instead of ``kind``. Without it, and
            with ``encode``, nothing can be received on the channel. Neither function may be async,
            and both should be quick: they are called from the event loop. It returns a ``Reread``
            for a payload that says "read again": the notification is then replaced by a Gap with
            reason ``REREAD``.
        unique: Add a random token of 10 bytes to each payload, so that equal payloads in one
            transaction differ: the server delivers equal ones once.
        compress: Compress a payload that becomes shorter by it. Its text may then have up to
            262,144 bytes.
        keys: Sign payloads with the first of these keys, of 16 bytes or more, and refuse payloads
            that none of the keys has signed. A signature takes 43 bytes.
        context: Called for each payload that is sent; its result, a text of at most 200 characters
            or None, is sent with the payload, and available as ``Notification.context``. Use it
            for the traceparent of a trace, which takes 58 bytes. It is not signed. Receivers need
            the argument too, with any function, before senders use it.

    Raises:
        ChannelNameError: The name is not valid for a channel.
        ImportError: The type needs a library that is not installed.
        TypeError: No library supports the type; a function cannot be called as it would be, or says
            that it returns or takes something else; or two arguments exclude each other.
        ValueError: A key is too short, or ``keys`` is empty.
    """

    __slots__ = (
        "__weakref__",
        "_carries",
        "_coder",
        "_decoder",
        "_form",
        "_layers",
        "_missing",
        "_name",
        "_text_limit",
    )

    @overload
    def __init__(
        self: Channel[str],
        name: str,
        *,
        unique: bool = False,
        compress: bool = False,
        keys: Iterable[bytes] | None = None,
        context: Callable[[], str | None] | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        *,
        encode: Callable[[T], Text] | None = None,
        decode: Callable[[str], T | Reread],
        unique: bool = False,
        compress: bool = False,
        keys: Iterable[bytes] | None = None,
        context: Callable[[], str | None] | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        *,
        encode: Callable[[T], Text] | None = None,
        decode: Callable[[bytes], T | Reread],
        unique: bool = False,
        compress: bool = False,
        keys: Iterable[bytes] | None = None,
        context: Callable[[], str | None] | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        *,
        encode: Callable[[T], Text],
        decode: None = None,
        unique: bool = False,
        compress: bool = False,
        keys: Iterable[bytes] | None = None,
        context: Callable[[], str | None] | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: Channel[None],
        name: str,
        kind: None,
        *,
        unique: bool = False,
        compress: bool = False,
        keys: Iterable[bytes] | None = None,
        context: Callable[[], str | None] | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        kind: type[T],
        *,
        unique: bool = False,
        compress: bool = False,
        keys: Iterable[bytes] | None = None,
        context: Callable[[], str | None] | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        kind: object,  # no class to a type checker, such as a union: the user annotates T
        *,
        unique: bool = False,
        compress: bool = False,
        keys: Iterable[bytes] | None = None,
        context: Callable[[], str | None] | None = None,
    ) -> None: ...
    def __init__(
        self,
        name: str,
        kind: object = str,
        *,
        # coding
        encode: Callable[[Any], Text] | None = None,
        decode: Callable[[str], Any] | Callable[[bytes], Any] | None = None,
        # layers
        unique: bool = False,
        compress: bool = False,
        keys: Iterable[bytes] | None = None,
        context: Callable[[], str | None] | None = None,
    ) -> None:
        check_flag("unique", unique)
        check_flag("compress", compress)
        self._name = check_channel(name)
        own = _own_coder(kind, encode, decode)
        self._coder = own or coder_for(kind)
        self._missing = _missing_direction(own)
        layers: list[Layer] = []
        if unique or compress:
            layers.append(wrapping(unique=unique, compress=compress))
        if keys is not None:
            layers.append(signing(self._name, keys))
        if context is not None:
            check_context(context)
            layers.append(carrying(self._name, context))
        self._carries = context is not None
        self._layers = tuple(layers)
        self._decoder = _in_turn([*(layer.open for layer in layers[::-1]), self._coder.decode])
        self._text_limit = TEXT_LIMIT if compress else PAYLOAD_LIMIT
        traits = {"unique": unique, "compressed": compress, "signed": keys is not None}
        traits["with context"] = self._carries
        of = "own coding" if own else name_of(kind)
        only = f" without {self._missing}" if self._missing else ""
        self._form = ", ".join([of + only, *(trait for trait, has_it in traits.items() if has_it)])

    def __repr__(self) -> str:
        return f"<Channel {self._name!r}: {self._form}>"

    def __str__(self) -> str:
        return self._name

    @property
    def name(self) -> str:
        """The name of the channel on the server."""
        return self._name

    def encode(self, payload: T) -> str:
        """
        Return the text to be sent for a payload.

        A text that a library has encoded is decoded again, so that nothing is sent that this
        channel could not read.

        Raises:
            PayloadError: The payload is of another type, or cannot be encoded; ``__cause__`` is
                what the encoder raised.
            PayloadTooLargeError: The text is too long for the server, or to be compressed.
            ChannelDirectionError: The channel was made without ``encode``.
        """
        check_direction(self, "encode")
        text = self._check_text(self._coded(payload))
        for layer in self._layers:
            text = layer.seal(text)
        return check_payload(self._name, text)

    def decode(self, payload: str) -> T:
        """
        Return the payload that was sent as this text.

        Raises:
            PayloadDecodeError: The text cannot be decoded, and ``__cause__`` is what the decoder
                raised; or the text says "read again", and there is no payload.
            ChannelDirectionError: The channel was made without ``decode``.
        """
        check_direction(self, "decode")
        _check_is_text(self._name, payload)
        if self._decoder is None:
            return cast("T", payload)
        try:
            decoded = self._decoder(payload)
        except BaseException as error:  # also a plain function's CancelledError
            if is_interrupt(error):
                raise
            failure = undecodable(self._name, error)
            raise failure from failure.__cause__
        if isinstance(decoded, Reread):
            raise _reread(self._name, decoded)
        return cast("T", decoded)

    def _coded(self, payload: T) -> object:
        if self._coder.encode is None:
            return payload
        try:
            return self._coder.encode(payload)
        except BaseException as error:  # also a plain function's CancelledError
            if is_interrupt(error):
                raise
            reason = secret_in(payload) if _refuses_type(error) else None
            reason = reason or _reason(error, "cannot be encoded")
            raise PayloadError(self._name, reason) from _cause(error)

    def _check_text(self, text: object) -> str:
        """Return the text if it can be sent, or can be once it is compressed."""
        try:
            return check_payload(self._name, text)
        except PayloadTooLargeError as error:
            if error.size > self._text_limit:
                raise PayloadTooLargeError(self._name, error.size, self._text_limit) from None
            return str.__str__(cast("str", text))  # the value of a str enumeration, not its name


def _refuses_type(error: BaseException) -> bool:
    """Return whether an encoder may have refused a value because of its type."""
    # pydantic before 2.9 refuses its own secrets where a field may hold anything
    return isinstance(error, TypeError) or type(error).__name__ == "PydanticSerializationError"


class RereadError(PayloadDecodeError):
    """
    What ``decode()`` raises for a text that says "read again".

    Attributes:
        count: How many changes the sender left out; None if it does not say.
    """

    count: int | None = None


def _reread(name: str, said: Reread) -> RereadError:
    error = RereadError(name, 'says "read again": there is no payload')
    error.count = said.count
    return error


def encoded_up_to(channel: Channel[T], payload: T, limit: int) -> str:
    """
    Return the text for a payload, where no NOTIFY has to hold it.

    Raises:
        PayloadError: As of ``encode()``.
        PayloadTooLargeError: The text has over ``limit`` bytes, or is too long to be compressed.
    """
    text = channel._coded(payload)  # noqa: SLF001 - not for users # pyright: ignore[reportPrivateUsage]
    compressed = channel._text_limit  # noqa: SLF001 - not for users # pyright: ignore[reportPrivateUsage]
    text = check_payload(channel.name, text, limit if compressed == PAYLOAD_LIMIT else compressed)
    for layer in channel._layers:  # noqa: SLF001 - not for users # pyright: ignore[reportPrivateUsage]
        text = layer.seal(text)
    return check_payload(channel.name, text, limit)


def bare_decoder(channel: Channel[T]) -> Callable[[str], T | Reread] | None:
    """
    Return the bare function from text to payload; None if the payload is the text.

    It raises whatever the coding raises: hand that to ``undecodable()``.

    Raises:
        ChannelDirectionError: The channel was made without ``decode``.
    """
    check_direction(channel, "decode")
    return channel._decoder  # noqa: SLF001 - not for users # pyright: ignore[reportPrivateUsage]


def context_reader(channel: Channel[Any]) -> Callable[[str], str] | None:
    """Return the function from text to the context it was sent with; None without ``context``."""
    carries = channel._carries  # noqa: SLF001 - not for users # pyright: ignore[reportPrivateUsage]
    return (lambda text: parted(text)[0]) if carries else None


def undecodable(name: str, error: BaseException) -> PayloadDecodeError:
    """Return the error for what a bare decoder has raised, with its cause, to be raised or not."""
    failure = PayloadDecodeError(name, _reason(error, "cannot be decoded"))
    failure.__cause__ = _cause(error)
    return failure


def check_direction(channel: Channel[Any], direction: Literal["encode", "decode"]) -> None:
    """Raise ChannelDirectionError if the channel was made without the function that is needed."""
    if channel._missing == direction:  # noqa: SLF001 - not for users # pyright: ignore[reportPrivateUsage]
        raise ChannelDirectionError(channel.name, direction)


def _own_coder(kind: object, encode: object, decode: object) -> Coder | None:
    """Return the coder of the caller's own functions; None if neither is given."""
    if encode is None and decode is None:
        return None
    if kind is not str:
        message = "encode and decode replace the type: give a type, or functions"
        raise TypeError(message)
    return coder_of(encode, decode)


def _missing_direction(own: Coder | None) -> str | None:
    if own is None:
        return None
    return "encode" if own.encode is None else "decode" if own.decode is None else None


def _check_is_text(name: str, payload: object) -> None:
    if not isinstance(payload, str):
        raise PayloadDecodeError(name, f"is of type {type(payload).__name__}, not str")


def _in_turn(steps: Sequence[Callable[[str], Any] | None]) -> Callable[[str], Any] | None:
    """Return one function that takes the steps that are not None, in order; None if all are."""
    given = [step for step in steps if step is not None]
    match given:
        case []:
            return None
        case [only]:
            return only
        case [first, second]:
            return lambda text: second(first(text))
        case [first, second, third]:
            return lambda text: third(second(first(text)))
        case _:
            first, second, third, fourth = given
            return lambda text: fourth(third(second(first(text))))


def _reason(error: BaseException, what: str) -> str:
    return error.reason if isinstance(error, RefusedError) else f"{what}: {type(error).__name__}"


def _cause(error: BaseException) -> BaseException | None:
    return error.__cause__ if isinstance(error, RefusedError) else error
