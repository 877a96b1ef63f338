"""
Traces and metrics by OpenTelemetry, for the extra ``otel``.

::

    from asyncnotify.ext.opentelemetry import instrument

    undo = instrument(listener)  # or a Notifier, a Log, and their blocking forms

``instrument()`` needs the API of OpenTelemetry alone; what is recorded goes where the program's SDK
sends it. ``opentelemetry-instrument`` finds ``asyncnotify.ext.opentelemetry.instrumentor`` by an
entry point. The module's path is its API, with the names in ``__all__``.
"""

try:
    import opentelemetry.metrics  # noqa: F401  # pyright: ignore[reportUnusedImport] # its absence is told here
except ImportError as _error:
    _text = (
        "asyncnotify.ext.opentelemetry needs the API of OpenTelemetry: pip install"
        " 'asyncnotify-pg[otel]'"
    )
    raise ImportError(_text) from _error

from asyncnotify.ext.opentelemetry._instrument import Instrumented, instrument
from asyncnotify.ext.opentelemetry._logs import observe_logs
from asyncnotify.ext.opentelemetry._operations import current_traceparent

__all__ = ["Instrumented", "current_traceparent", "instrument", "observe_logs"]

for _function in (current_traceparent, instrument, observe_logs):
    _function.__module__ = __name__  # the name in tracebacks and docs
