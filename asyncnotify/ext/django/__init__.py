"""
Django: its database settings, its transactions, its commands and its async views.

::

    INSTALLED_APPS = [..., "asyncnotify.ext.django"]

``connect_arguments()`` says where Django's database is, as every class of asyncnotify takes it.
``notify()``, ``notify_on_commit()`` and ``append()`` use Django's own connection. Handlers that the
modules ``notifications`` of the installed apps register by ``on()`` are run by
``python manage.py asyncnotify_listen``. ``get_listener()`` and ``get_log()`` return those of a
process, for async views under ASGI. The module's path is its API, with the names in ``__all__``.
"""

try:
    import django as _django
except ImportError as _error:
    _msg = "asyncnotify.ext.django needs Django: pip install 'asyncnotify-pg[django]'"
    raise ImportError(_msg) from _error

from asyncnotify.ext.django._databases import connect_arguments
from asyncnotify.ext.django._handlers import on
from asyncnotify.ext.django._lifespan import Lifespan
from asyncnotify.ext.django._listeners import close_listeners, get_listener, get_log
from asyncnotify.ext.django._sending import anotify, append, notify, notify_on_commit
from asyncnotify.ext.django._views import health

__all__ = [
    "Lifespan",
    "anotify",
    "append",
    "close_listeners",
    "connect_arguments",
    "get_listener",
    "get_log",
    "health",
    "notify",
    "notify_on_commit",
    "on",
]

for _public in map(globals().__getitem__, __all__):
    _public.__module__ = __name__  # the name in tracebacks, pickles and docs

del _django
